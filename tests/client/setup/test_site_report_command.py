"""`fednotes site report` and `leave`: what a site gained, and how it goes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message

from client.alone import train_alone
from client.approval import approvals, record
from client.ledger import Ledger
from client.received import RECEIVED, held, last_received
from client.site import Site, open_site
from common import messages, wire
from common.encoder import load_tokenizer
from common.errors import FednotesError
from common.messages import Tensors
from common.plan import StudyPlan, load_plan
from common.supervisor import running
from server.base import base_tensors

Run = Callable[..., str]
MakeSite = Callable[..., Path]
MakePlan = Callable[..., StudyPlan]
Ask = Callable[..., Message]
EVALUATION = {"evaluation": {"held_out_notes": 8, "shots": [], "tasks": []}}
OTHER = "fedcba9876543210" * 2


def tensors(reply: Message) -> Tensors:
    assert not reply.has_error(), reply.error
    return {name: value.copy() for name, value in messages.unpacked(reply.content.array_records["arrays"]).items()}


def moved(plan: StudyPlan, by: float) -> Tensors:
    return {name: value + np.float32(by) for name, value in base_tensors(plan).items()}


def approve(folder: Path, *plans: StudyPlan) -> None:
    for plan in plans:
        record(open_site(folder), plan, "approved", "Ola")


def equal(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("kind", ["mlm", "note-category"])
def test_alone_is_a_federation_of_one(
    ask: Ask, real_site: MakeSite, make_plan: MakePlan, tmp_path: Path, kind: str
) -> None:
    """The same weights as a coordinator with this one site would end with, a round after the other."""
    plan = make_plan(objective={"kind": kind}, federation={"rounds": 3, "share": "encoder"})
    folder = real_site()
    approve(folder, plan)
    arrays = base_tensors(plan)
    for number in (1, 2, 3):
        arrays = tensors(ask(folder, "train", plan, number, arrays))
    site = open_site(folder)
    own = site.notes(load_tokenizer(plan.encoder.base))
    done: list[tuple[int, int]] = []
    found = train_alone(plan, site.name, own, tmp_path / "alone", lambda *round: done.append(round))
    assert equal(found, arrays) and done == [(1, 3), (2, 3), (3, 3)]
    again = train_alone(plan, site.name, own, tmp_path / "alone", lambda *round: done.append(round))
    assert equal(again, found) and len(done) == 3  # it is kept


def test_alone_goes_on_where_it_was_interrupted(real_site: MakeSite, make_plan: MakePlan, tmp_path: Path) -> None:
    plan, site = make_plan(federation={"rounds": 3}), open_site(real_site())
    own = site.notes(load_tokenizer(plan.encoder.base))

    def stop(done: int, rounds: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_alone(plan, site.name, own, tmp_path / "one", stop)
    done: list[int] = []
    resumed = train_alone(plan, site.name, own, tmp_path / "one", lambda number, _: done.append(number))
    assert done == [3] and equal(resumed, train_alone(plan, site.name, own, tmp_path / "two", lambda *_: None))


def test_what_was_received_last_is_kept_and_old_runs_go(ask: Ask, real_site: MakeSite, make_plan: MakePlan) -> None:
    plan, other, folder = make_plan(), make_plan(federation={"rounds": 5}), real_site()
    approve(folder, plan, other)
    with pytest.raises(FednotesError) as caught:
        last_received(folder, None)
    assert caught.value.code == "nothing-received"
    ask(folder, "evaluate", plan, 0)
    with pytest.raises(FednotesError):
        last_received(folder, None)  # the base is none of what came of training
    ask(folder, "evaluate", plan, 1, moved(plan, 0.01))
    ask(folder, "evaluate", plan, 2, moved(plan, 0.02))
    came = last_received(folder, None)
    assert (came.round, came.plan) == (2, plan) and equal(came.tensors, moved(plan, 0.02))
    ask(folder, "evaluate", other, 1, moved(plan, 0.03), run=OTHER)
    assert last_received(folder, None).plan == other and last_received(folder, plan).run == came.run
    past = time.time() - 100
    os.utime(folder / RECEIVED / f"{came.run}.safetensors", (past, past))
    ask(folder, "evaluate", other, 1, run="ab" * 16)
    assert {file.stem for file in (folder / RECEIVED).iterdir()} == {OTHER, "ab" * 16}
    (folder / RECEIVED / f"{'ab' * 16}.safetensors").write_bytes(b"cut")
    assert last_received(folder, None).run == OTHER


def test_what_was_received_need_not_be_sent_again(ask: Ask, real_site: MakeSite, make_plan: MakePlan) -> None:
    plan, folder = make_plan(), real_site()
    approve(folder, plan)
    ask(folder, "evaluate", plan, 0, start := moved(plan, 0.01))
    (file,) = (folder / RECEIVED).iterdir()
    assert equal(held(folder, file.stem, wire.digest(start)), start)
    for run, digest in ((OTHER, wire.digest(start)), (file.stem, wire.digest(moved(plan, 0.02)))):
        with pytest.raises(FednotesError) as caught:
            held(folder, run, digest)
        assert caught.value.code == "weights-missing"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1  # a disk that lies
    file.write_bytes(content)
    with pytest.raises(FednotesError):
        held(folder, file.stem, wire.digest(start))


def test_a_withheld_loss_withholds_nothing_from_the_site(ask: Ask, real_site: MakeSite, make_plan: MakePlan) -> None:
    plan = make_plan(privacy={"epsilon": 8.0, "delta": 1e-3}, federation={"rounds": 3, "share": "encoder"})
    folder = real_site()
    approve(folder, plan)
    assert ask(folder, "evaluate", plan, 1, moved(plan, 0.01)).error.reason == "withheld"
    assert equal(last_received(folder, plan).tensors, moved(plan, 0.01))


def test_a_virtual_site_keeps_nothing(ask: Ask, sites: dict[str, Path], make_plan: MakePlan) -> None:
    plan = make_plan()
    assert not ask(sites["northgate"], "evaluate", plan, 1).has_error()
    assert not (sites["northgate"] / RECEIVED).exists()


@pytest.mark.parametrize("private", [False, True])
def test_the_report_has_all_five_with_n_and_intervals(
    site_command: Run, ask: Ask, real_site: MakeSite, plan_file: Callable[..., Path], private: bool
) -> None:
    sections: dict = {"privacy": {"epsilon": 8.0, "delta": 1e-3}} if private else {}
    file = plan_file(federation={"rounds": 2, "share": "encoder"}, **EVALUATION, **sections)
    plan, folder = load_plan(file), real_site()
    approve(folder, plan)
    with pytest.raises(FednotesError) as caught:
        site_command("report", folder)
    assert caught.value.code == "nothing-received"
    update = tensors(ask(folder, "train", plan))
    ask(folder, "evaluate", plan, 1, update)
    charges = len(Ledger(folder).entries())
    printed = site_command("report", folder, "--plan", file)
    made = json.loads((folder / "report.json").read_text())
    assert [score["model"] for score in made["scores"]] == ["majority", "tf-idf", "base", "local-only", "federated"]
    for score in made["scores"]:
        assert (
            score["n_test"] > 0 and score["macro_f1"]["low"] <= score["macro_f1"]["value"] <= score["macro_f1"]["high"]
        )
    assert {one["against"] for one in made["comparisons"]} == {"local-only", "base", "tf-idf"}
    assert (made["round"], made["rounds"], made["alone_without_noise"]) == (1, 2, private)
    assert "federated, frozen, against local-only" in printed and ("without noise" in printed) == private
    assert len(Ledger(folder).entries()) == charges == int(private)  # the report spends nothing
    again = json.loads(site_command("report", folder, "--json"))
    assert again["scores"] == made["scores"]


def test_another_study_s_scores_are_not_taken_for_this_one_s(
    site_command: Run, ask: Ask, real_site: MakeSite, plan_file: Callable[..., Path]
) -> None:
    """TF-IDF and the base are the same in both, what is asked of them is not."""
    folder = real_site()
    for shots in (16, 20):
        evaluation = {"held_out_notes": 8, "shots": [shots]}
        plan = load_plan(file := plan_file(f"{shots}.toml", federation={"rounds": 1}, evaluation=evaluation))
        approve(folder, plan)
        ask(folder, "evaluate", plan, 1, moved(plan, 0.01))
        made = json.loads(site_command("report", folder, "--plan", file, "--json"))
        found = {few["shots"] for score in made["scores"] if score["model"] == "tf-idf" for few in score["few_shot"]}
        assert found == {shots}


def test_leaving_takes_all_that_was_made_of_the_notes_and_keeps_the_accounts(
    site_command: Run, ask: Ask, real_site: MakeSite, make_plan: MakePlan
) -> None:
    plan = make_plan(privacy={"epsilon": 8.0, "delta": 1e-3}, federation={"rounds": 3, "share": "encoder"})
    folder = real_site()
    approve(folder, plan)
    ask(folder, "query", plan)
    tensors(ask(folder, "train", plan))
    ask(folder, "evaluate", plan, 1)
    notes = Path(open_site(folder).config.notes.source)
    own = folder / "our-own-file.txt"
    own.write_text("not ours to remove")
    assert {"cache", "heads", "outbox", "received", "site.key"} <= {path.name for path in folder.iterdir()}
    assert "Nothing was done" in site_command("leave", folder, exit_code=130, text="n\n")
    assert (folder / "site.key").exists()
    printed = site_command("leave", folder, text="y\n")
    assert "remove-site" in printed and "ledger.jsonl" in printed
    left = {path.name for path in folder.iterdir()}
    assert not {"cache", "heads", "outbox", "received", "site.key"} & left
    assert {"site.toml", "ledger.jsonl", "secret.key", "receipts", "approvals.jsonl", own.name} <= left
    assert notes.exists() and len(Ledger(folder).entries()) == 1
    assert [one.decision for one in approvals(open_site(folder))] == ["approved"]  # by the key's public half
    assert ask(folder, "train", plan).has_error()
    site_command("leave", folder, "--yes")  # once more does no harm


SUPERVISED = """
import sys
from pathlib import Path
from common.supervisor import Child, supervise
folder = Path(sys.argv[1])
supervise([Child("node", ["sleep", "100"], {}, folder / "logs" / "node.log", 1.0)], folder, print)
"""


def test_leaving_stops_the_node_first(site_command: Run, real_site: MakeSite) -> None:
    folder = real_site()
    (folder / "logs").mkdir()
    with subprocess.Popen([sys.executable, "-c", SUPERVISED, str(folder)]) as supervisor:
        try:
            for _ in range(200):
                if running(folder) is not None and (folder / "processes.json").exists():
                    break
                time.sleep(0.05)
            assert running(folder) == supervisor.pid
            assert "Stopping the node" in site_command("leave", folder, "--yes")
            assert supervisor.wait(10) is not None and running(folder) is None
        finally:
            supervisor.kill()
    assert not {"logs", "site.key", "processes.json"} & {path.name for path in folder.iterdir()}


def test_a_disk_that_refuses_costs_the_report_and_not_the_round(
    ask: Ask, real_site: MakeSite, make_plan: MakePlan
) -> None:
    plan, folder = make_plan(), real_site()
    approve(folder, plan)
    (folder / RECEIVED).write_text("a file in the way")
    assert not ask(folder, "evaluate", plan, 1).has_error()


def test_a_cache_elsewhere_is_left(site_command: Run, real_site: MakeSite, tmp_path: Path) -> None:
    folder = real_site()
    shared = tmp_path / "shared-cache"
    shared.mkdir()
    file = folder / "site.toml"
    file.write_text(file.read_text().replace('cache = "cache"', f'cache = "{shared}"'))
    assert "remove it yourself" in site_command("leave", folder, "--yes") and shared.exists()
    assert isinstance(open_site(folder), Site)
