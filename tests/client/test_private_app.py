"""The site's handlers in a private study, called as Flower calls them: what they charge, send, refuse and keep."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from opacus.accountants import PRVAccountant

import client.app
import client.private_round
from client import outbox
from client.ledger import LEDGER_FILE, SECRET_FILE, Ledger
from client.notes.source import NotesSource
from client.private_round import Terms
from client.receipt import receipts
from common import messages
from common.errors import FednotesError
from common.messages import Tensors
from common.plan import StudyPlan, plan_to_toml
from common.privacy import epsilon_of
from server.base import base_tensors

RUN, OTHER = "0123456789abcdef" * 2, "fedcba9876543210" * 2
Ask = Callable[..., Message]
MakePlan = Callable[..., StudyPlan]


@pytest.fixture
def ask(make_message: Callable[..., Message], site_context: Callable[[Path], Context]) -> Ask:
    def send(
        folder: Path, kind: str, plan: StudyPlan, number: int = 1, arrays: Tensors | None = None, run: str = RUN
    ) -> Message:
        if kind == "query":
            content = messages.query_content(plan, run)
        else:
            config = messages.request_config(plan, run)
            config["server-round"] = number
            sent = base_tensors(plan) if arrays is None else arrays
            content = RecordDict({"arrays": messages.packed(sent), "config": config})
        return client.app.app(make_message(content, kind), site_context(folder))

    return send


@pytest.fixture
def private(make_plan: MakePlan) -> MakePlan:
    def make(**sections: Any) -> StudyPlan:
        given = {"privacy": {"epsilon": 8.0, "delta": 1e-3}, "federation": {"rounds": 3, "share": "encoder"}}
        return make_plan(**{name: given.get(name, {}) | sections.get(name, {}) for name in given | sections})

    return make


def tensors(reply: Message) -> Tensors:
    assert not reply.has_error(), reply.error
    return {name: value.copy() for name, value in messages.unpacked(reply.content.array_records["arrays"]).items()}


def code(reply: Message) -> str:
    assert reply.has_error() and not reply.has_content()
    return str(reply.error.reason)


def read(reply: Message, plan: StudyPlan) -> messages.TrainReply:
    expected = {name: value.shape for name, value in base_tensors(plan).items()}
    return messages.read_train_reply(reply, expected, 10_000, plan)[0]


def equal(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def set_policy(folder: Path, **policy: Any) -> None:
    path = folder / "site.toml"
    lines = path.read_text().splitlines()
    at = lines.index("[policy]") + 1
    kept = [line for line in lines[at:] if line.partition(" = ")[0] not in policy]
    lines[at:] = [f"{name} = {json.dumps(value)}" for name, value in policy.items()] + kept
    path.write_text("\n".join(lines))


def test_a_round_is_charged_and_sends_no_more_than_the_promise_covers(
    ask: Ask, sites: dict[str, Path], private: MakePlan
) -> None:
    plan, folder = private(), sites["northgate"]
    facts = messages.read_facts(ask(folder, "query", plan))
    assert facts.units and (facts.train, facts.dev, facts.test, facts.tokens, facts.whole) == (0, 0, 0, 0, 0)
    epsilons = []
    arrays = base_tensors(plan)
    for number in (1, 2, 3):
        message = ask(folder, "train", plan, number, arrays)
        arrays = tensors(message)
        reply = read(message, plan)
        assert (reply.notes, reply.tokens, reply.seconds, reply.parts, reply.steps) == (1, 0, 0.0, {}, 2)
        assert reply.privacy and reply.privacy.units == facts.units
        epsilons.append(reply.privacy.epsilon)
    entries = Ledger(folder).entries()
    assert [entry.round for entry in entries] == [1, 2, 3]
    account = PRVAccountant()
    account.history = [(e.noise_multiplier, e.sample_rate, e.steps) for e in entries]
    assert epsilons[-1] == pytest.approx(account.get_epsilon(1e-3), rel=1e-4)
    assert epsilons == sorted(epsilons) and 7.5 < epsilons[-1] <= 8.0


def test_a_request_that_comes_again_is_answered_by_the_very_same_update(
    ask: Ask, sites: dict[str, Path], private: MakePlan
) -> None:
    plan, folder = private(), sites["northgate"]
    first = ask(folder, "train", plan)
    again = ask(folder, "train", plan)
    assert equal(tensors(first), tensors(again)) and read(first, plan) == read(again, plan)
    assert len(Ledger(folder).entries()) == 1
    other = tensors(ask(folder, "train", plan, run=OTHER))
    assert not equal(other, tensors(first)) and len(Ledger(folder).entries()) == 2


def test_a_round_that_a_crash_interrupted_is_done_again_with_the_same_noise_and_no_second_charge(
    ask: Ask, sites: dict[str, Path], private: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, folder = private(), sites["northgate"]

    def crash(*_: object) -> None:
        raise OSError("the power went")

    with monkeypatch.context() as broken:
        found: list[Tensors] = []
        broken.setattr(outbox, "keep", lambda folder, run, number, update, reply: (found.append(update), crash()))
        assert code(ask(folder, "train", plan)) == "internal-error"
    assert len(Ledger(folder).entries()) == 1
    assert equal(tensors(ask(folder, "train", plan)), found[0])
    assert len(Ledger(folder).entries()) == 1


KILLED = """
import os, signal, sys
import client.private_round
from pathlib import Path
sys.path.insert(0, {tests!r})
train = client.private_round.train_privately
def killed(*args, **kwargs):
    kwargs["on_step"] = lambda done, steps: os.kill(os.getpid(), signal.SIGKILL)
    return train(*args, **kwargs)
client.private_round.train_privately = killed
import client.app
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from common import messages
from common.errors import FednotesError
from common.plan import load_plan
from server.base import base_tensors
TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 0, 1, 0
plan = load_plan(Path({plan!r}))
config = messages.request_config(plan, {run!r})
config["server-round"] = 1
content = RecordDict({{"arrays": messages.packed(base_tensors(plan)), "config": config}})
client.app.app(Message(content, 2, "train"), Context(0, 2, {{"site-folder": {folder!r}}}, RecordDict(), {{}}))
"""


def test_killed_in_the_middle_of_a_step_it_has_spent_what_it_planned_and_no_more(
    ask: Ask, sites: dict[str, Path], private: MakePlan, tmp_path: Path
) -> None:
    plan, folder = private(), sites["northgate"]
    file = tmp_path / "plan.toml"
    file.write_text(plan_to_toml(plan))
    script = KILLED.format(tests=str(Path(__file__).parent), plan=str(file), run=RUN, folder=str(folder))
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, env=os.environ, capture_output=True, check=False)
    assert done.returncode == -9, done.stderr
    assert len(Ledger(folder).entries()) == 1 and not receipts(folder)
    arrays = base_tensors(plan)
    for number in (1, 2, 3):
        arrays = tensors(ask(folder, "train", plan, number, arrays))
    assert len(Ledger(folder).entries()) == 3 and Ledger(folder).spent(RUN) <= 8.0


def test_a_round_with_other_weights_a_past_round_and_another_delta_are_refused(
    ask: Ask, sites: dict[str, Path], private: MakePlan
) -> None:
    plan, folder = private(), sites["northgate"]
    start = base_tensors(plan)
    arrays = tensors(ask(folder, "train", plan, 1, start))
    moved = {name: value + np.float32(1e-3) for name, value in start.items()}
    assert code(ask(folder, "train", plan, 1, moved)) == "round-changed"
    ask(folder, "train", plan, 3, arrays)
    assert code(ask(folder, "train", plan, 2, arrays)) == "round-replayed"
    other = private(privacy={"delta": 1e-4})
    assert code(ask(folder, "train", other, run=OTHER)) == "delta-changed"


def test_no_more_is_spent_than_the_plan_has_rounds_for_whatever_rounds_are_asked_for(
    ask: Ask, sites: dict[str, Path], private: MakePlan
) -> None:
    """Also where the plan gives the noise, and epsilon only follows."""
    plan, folder = private(privacy={"epsilon": None, "noise_multiplier": 1.0}), sites["northgate"]
    arrays = base_tensors(plan)
    for number in (1, 2, 3):
        assert not ask(folder, "train", plan, number, arrays).has_error()
    assert code(ask(folder, "train", plan, 7, arrays)) == "round-beyond-plan"
    (planned,) = {(e.noise_multiplier, e.sample_rate, 6) for e in Ledger(folder).entries()}
    assert plan.privacy and Ledger(folder).spent(RUN) == epsilon_of([planned], 1e-3, plan.privacy.accountant)


def test_the_same_request_twice_at_once_gets_one_answer(
    ask: Ask, sites: dict[str, Path], private: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes of a site that work it out at once might round differently, under the same noise."""
    plan, folder = private(), sites["northgate"]
    train, started = client.private_round.train_privately, []

    def at_once(*given: Any, **more: Any) -> Any:
        with (folder / "private-round.lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # another process would wait here
        started.append(given)
        return train(*given, **more)

    monkeypatch.setattr(client.private_round, "train_privately", at_once)
    assert equal(tensors(ask(folder, "train", plan)), tensors(ask(folder, "train", plan)))
    assert len(started) == 1


def test_an_update_that_left_and_is_lost_is_not_computed_again(
    ask: Ask, sites: dict[str, Path], private: MakePlan
) -> None:
    plan, folder = private(), sites["northgate"]
    tensors(ask(folder, "train", plan))
    for file in (folder / outbox.OUTBOX).iterdir():
        file.unlink()
    assert code(ask(folder, "train", plan)) == "round-replayed"


def test_a_ledger_whose_end_was_cut_off_stops_private_training(
    ask: Ask, sites: dict[str, Path], private: MakePlan
) -> None:
    plan, folder = private(), sites["northgate"]
    arrays = tensors(ask(folder, "train", plan))
    tensors(ask(folder, "train", plan, 2, arrays))
    ledger = folder / LEDGER_FILE
    ledger.write_text(ledger.read_text().splitlines(keepends=True)[0])
    assert code(ask(folder, "train", plan, 3, arrays)) == "ledger-damaged"


def test_the_policy_can_only_be_stricter(
    ask: Ask, sites: dict[str, Path], private: MakePlan, make_plan: MakePlan
) -> None:
    folder = sites["northgate"]
    set_policy(folder, require_privacy=True, unit="patient", max_epsilon=5.0)
    for kind in ("query", "train"):
        assert code(ask(folder, kind, make_plan())) == "privacy-required"
        assert code(ask(folder, kind, private(privacy={"unit": "note", "epsilon": 2.0}))) == "unit-beyond-policy"
        assert code(ask(folder, kind, private())) == "epsilon-beyond-policy"
        by_noise = {"privacy": {"epsilon": None, "noise_multiplier": 0.2}}
        assert code(ask(folder, kind, private(**by_noise))) == "epsilon-beyond-policy"
    set_policy(folder, require_privacy=True, unit="patient", max_epsilon=5.0, exact_clipping=True)
    for kind in ("query", "train"):
        assert code(ask(folder, kind, private(privacy={"epsilon": 4.0}))) == "clipping-beyond-policy"
    assert not (folder / LEDGER_FILE).exists()
    assert not ask(folder, "train", private(privacy={"epsilon": 4.0, "engine": "loop"})).has_error()


def test_a_delta_above_one_over_the_units_is_refused(private: MakePlan) -> None:
    plan = private()
    assert plan.privacy
    assert Terms.of(plan, plan.privacy, 1000).units == 1000
    with pytest.raises(FednotesError, match="units") as refused:
        Terms.of(plan, plan.privacy, 1001)
    assert refused.value.code == "delta-too-large"


def test_all_studies_share_the_cap_of_the_site(ask: Ask, sites: dict[str, Path], private: MakePlan) -> None:
    plan, folder = private(privacy={"epsilon": 4.0}, federation={"rounds": 1, "share": "encoder"}), sites["northgate"]
    set_policy(folder, max_epsilon=4.2)
    assert not ask(folder, "train", plan).has_error()
    assert code(ask(folder, "train", plan, run=OTHER)) == "budget-spent"
    assert Ledger(folder).total() <= 4.2


def test_held_out_losses_and_counts_leave_only_where_the_policy_releases_them(
    ask: Ask, sites: dict[str, Path], private: MakePlan
) -> None:
    plan, folder = private(), sites["northgate"]
    assert code(ask(folder, "evaluate", plan, 0)) == "withheld"
    set_policy(folder, release_uncovered=True)
    assert messages.read_evaluate_reply(ask(folder, "evaluate", plan, 0), "mlm").notes > 0
    facts = messages.read_facts(ask(folder, "query", plan))
    assert facts.train > 0 and facts.units and facts.units <= facts.train


def test_declutr_without_public_text_is_refused_before_round_1(
    ask: Ask, sites: dict[str, Path], private: MakePlan, make_site: Callable[..., Path], source: NotesSource
) -> None:
    spans = {"kind": "declutr", "min_span": 4, "max_span": 14}
    plan = private(objective=spans)
    assert code(ask(sites["northgate"], "query", plan)) == "no-public-text"
    assert not ask(sites["northgate"], "query", private(objective=spans, privacy={"negatives": "groups"})).has_error()
    folder = make_site("with text", np.arange(150), public=source)
    assert not ask(folder, "query", plan).has_error()
    reply = ask(folder, "train", plan)
    assert read(reply, plan).privacy is not None


def test_receipts_have_all_that_left_and_which_of_it_has_noise(
    ask: Ask, sites: dict[str, Path], private: MakePlan
) -> None:
    plan, folder = private(), sites["northgate"]
    ask(folder, "query", plan)
    message = ask(folder, "train", plan)
    reply, update = read(message, plan), tensors(message)
    first, second = receipts(folder)
    assert (first.kind, second.kind) == ("describe", "train")
    assert second.bytes == sum(value.nbytes for value in update.values()) and len(second.tensors) == len(update)
    squares = sum(np.square(value.astype(float)).sum() for value in update.values())
    assert second.norm == pytest.approx(np.sqrt(squares), rel=1e-5)
    assert second.noise and second.ledger == Ledger(folder).entries()[0].hash
    assert {name for name, value in second.values.items() if value.noised} == {"loss"}
    sent = set(message.content.metric_records["metrics"]) | set(message.content.config_records["details"])
    named = {"weight" if name == "num-examples" else name.removeprefix("privacy-") for name in sent}
    assert named <= set(second.values) and second.values["loss"].value == reply.loss


def test_the_secret_stays_and_is_private(ask: Ask, sites: dict[str, Path], private: MakePlan) -> None:
    plan, folder = private(), sites["northgate"]
    message = ask(folder, "train", plan)
    secret = folder / SECRET_FILE
    assert secret.stat().st_mode & 0o777 == 0o600
    key, nonce = secret.read_bytes(), Ledger(folder).entries()[0].nonce
    said = repr(message.content.config_records) + repr(message.content.metric_records)
    assert key.hex() not in said and nonce not in said
    for file in (folder / "receipts").iterdir():
        assert nonce.encode() not in file.read_bytes() and key not in file.read_bytes()


def test_two_sites_with_equal_notes_make_different_noise(
    ask: Ask, make_site: Callable[..., Path], private: MakePlan
) -> None:
    plan = private()
    one, two = (make_site("twin", np.arange(120), folder=name) for name in ("one", "two"))
    assert not equal(tensors(ask(one, "train", plan)), tensors(ask(two, "train", plan)))


@pytest.mark.parametrize("trainable", ["no-embeddings", "biases", "lora"])
def test_only_what_learns_travels(ask: Ask, sites: dict[str, Path], private: MakePlan, trainable: str) -> None:
    plan = private(training={"trainable": trainable})
    update = tensors(ask(sites["northgate"], "train", plan))
    start = base_tensors(plan)
    assert update.keys() == start.keys() and not any("embeddings.weight" in name for name in update)
    moved = {name for name in update if not np.array_equal(update[name], start[name])}
    assert moved == set(update)
