"""The node and its worker against a real SuperLink: every message is answered, whatever is killed."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fleet import Link, NodeProcess, Run, alive, wait_for
from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode

from client.node.session import STATE
from common import messages
from common.encoder import load_encoder
from common.plan import StudyPlan
from server.rounds import Rounds

RUN = "0" * 32
StartNode = Callable[[Path], NodeProcess]
MakePlan = Callable[..., StudyPlan]
NodeSite = Callable[..., Path]


def base_tensors(plan: StudyPlan) -> dict[str, np.ndarray]:
    return load_encoder(plan.encoder.base, plan.study.seed).shared_arrays(plan.federation.share)


def train_message(plan: StudyPlan, node: int) -> Message:
    config = messages.request_config(plan, RUN)
    config["server-round"] = 1
    record = messages.packed(base_tensors(plan))
    return Message(RecordDict({messages.ARRAYS: record, messages.CONFIG: config}), node, "train", group_id="1")


def query(plan: StudyPlan, node: int) -> Message:
    return Message(messages.query_content(plan, RUN), node, "query")


def ask(run: Run, message: Message, seconds: float = 60.0) -> Message:
    return run.reply(run.push_messages([message])[0], seconds)


def code(reply: Message) -> str:
    """That of an error; nothing but it may have left the site."""
    assert reply.error.code == messages.SITE_ERROR
    return str(reply.error.reason)


def trains(node: NodeProcess) -> int:
    """Wait until local training is under way; the pid of the worker."""
    wait_for(lambda: node.status and node.status.state == "working" and node.status.step, 60)
    pid = node.worker()
    assert pid is not None
    return pid


@pytest.fixture
def long_plan(make_plan: MakePlan) -> StudyPlan:
    """A round that lasts for many minutes."""
    return make_plan(training={"steps_per_round": 100_000})


def test_the_node_is_light(node: NodeProcess) -> None:
    assert "torch" not in Path(f"/proc/{node.process.pid}/maps").read_text()


def test_a_site_is_asked_trains_and_its_worker_stays_warm(link: Link, node: NodeProcess, make_plan: MakePlan) -> None:
    plan = make_plan()
    with link.run() as run:
        number = node.number
        facts = messages.read_facts(ask(run, query(plan, number)))
        assert facts.name == node.folder.name
        first = node.worker()
        reply = ask(run, train_message(plan, number))
        assert not reply.has_error() and reply.content.metric_records[messages.METRICS]["steps"] == 2
        status = wait_for(lambda: node.status if node.status and node.status.state == "waiting" else None)
        assert status.served >= 2 and status.connected_since
    with link.run() as run:  # another run, the same worker
        assert not ask(run, query(plan, number)).has_error()
        assert node.worker() == first is not None


def test_a_bundle_with_code_is_refused(link: Link, node: NodeProcess, make_plan: MakePlan) -> None:
    with link.run(files={"client/app.py": b"raise SystemExit"}) as run:
        assert code(ask(run, query(make_plan(), node.number))) == "bundle-has-code"
    with link.run(component="client.other:app") as run:
        assert code(ask(run, query(make_plan(), node.number))) == "bundle-not-ours"


def test_what_a_handler_cannot_read_is_an_error_without_words(link: Link, node: NodeProcess) -> None:
    with link.run() as run:
        for kind in ("train", "query.unknown"):
            assert code(ask(run, Message(RecordDict(), node.number, kind))) == "internal-error"


def test_a_run_that_is_stopped_stops_at_the_site_too(
    link: Link, node: NodeProcess, make_plan: MakePlan, long_plan: StudyPlan
) -> None:
    with link.run() as run:
        run.push_messages([train_message(long_plan, node.number)])
        worker = trains(node)
        link.stop(run.number)
        wait_for(lambda: not alive(worker), 10)
        wait_for(lambda: node.status and node.status.state == "waiting")
    with link.run() as run:  # and the site serves the next one
        assert not ask(run, query(make_plan(), node.number)).has_error()


def test_a_worker_that_dies_is_answered_for_at_once(link: Link, node: NodeProcess, long_plan: StudyPlan) -> None:
    with link.run() as run:
        name = run.push_messages([train_message(long_plan, node.number)])[0]
        worker = trains(node)
        os.kill(worker, signal.SIGKILL)
        assert code(run.reply(name, 10)) == "worker-died"
    assert node.status is not None and node.status.error is not None and "SIGKILL" in node.status.error.message


def test_a_node_that_is_killed_comes_back_at_once_and_answers_for_what_it_had(
    link: Link, node: NodeProcess, make_plan: MakePlan, long_plan: StudyPlan
) -> None:
    number = node.number
    with link.run() as run:
        name = run.push_messages([train_message(long_plan, number)])[0]
        worker = trains(node)  # a new one, in place of that which died
        node.process.kill()
        node.process.wait()
        wait_for(lambda: not alive(worker), 5)
        node.start()
        # The coordinator may have seen it away for a moment, and have answered for it.
        reply = run.reply(name, 15)
        assert reply.error.code == ErrorCode.NODE_UNAVAILABLE or code(reply) == "node-restarted"
        assert list(run.get_node_ids()) == [number]


def test_a_message_that_a_killed_node_had_not_written_down_is_not_waited_for(
    link: Link, node: NodeProcess, long_plan: StudyPlan
) -> None:
    """The coordinator has handed it out, and does so once: without more it would wait for it until its time is over."""
    with link.run() as run:
        name = run.push_messages([train_message(long_plan, node.number)])[0]
        worker = trains(node)
        node.process.kill()
        node.process.wait()
        wait_for(lambda: not alive(worker), 5)
        (node.folder / STATE / "claimed").unlink()
        node.start()
        assert run.reply(name, 20).error.code == ErrorCode.NODE_UNAVAILABLE


def test_a_reply_arrives_though_the_coordinator_was_killed_meanwhile(
    link: Link, node: NodeProcess, make_plan: MakePlan
) -> None:
    with link.run() as run:
        plan = make_plan(training={"steps_per_round": 600})
        name = run.push_messages([train_message(plan, node.number)])[0]
        worker = trains(node)
        os.kill(worker, signal.SIGSTOP)
        link.kill()
        try:
            os.kill(worker, signal.SIGCONT)  # it ends its round while nobody listens
            wait_for(lambda: node.status and node.status.state == "sending")
            time.sleep(1)
        finally:
            link.start()
        reply = run.reply(name)
        assert reply.content.metric_records[messages.METRICS]["steps"] == 600


def test_a_message_that_takes_too_long_is_given_up(
    link: Link, node_site: NodeSite, start_node: StartNode, make_plan: MakePlan
) -> None:
    slow = start_node(node_site(1, max_hours_per_message=5 / 3600))
    slow.online()
    with link.run() as run:
        started = time.monotonic()
        name = run.push_messages([query(make_plan(), slow.number)])[0]
        hung = wait_for(slow.worker)
        os.kill(hung, signal.SIGSTOP)  # not even a signal that it could handle ends it now
        assert code(run.reply(name, 20)) == "took-too-long"
        assert 5 < time.monotonic() - started < 15
        assert not alive(hung)


def test_a_whole_study_over_two_sites_and_an_orderly_end(
    link: Link, node: NodeProcess, node_site: NodeSite, start_node: StartNode, make_plan: MakePlan, tmp_path: Path
) -> None:
    other = start_node(node_site(1))
    other.online()
    plan = make_plan()
    with link.run() as run:
        wait_for(lambda: len(run.get_node_ids()) == 2)
        done = Rounds(run, plan, tmp_path / "checkpoints", lambda: base_tensors(plan), lambda event: None).run()
        worker = other.worker()
        assert other.end() == 0
        assert list(run.get_node_ids()) == [node.number]  # the other one has signed off
    assert done.round == 2
    assert [[site.state for site in one.sites] for one in done.rounds[1:]] == [["returned"] * 2] * 2
    assert worker is not None and not alive(worker)
    assert other.status is not None and other.status.state == "stopped"
