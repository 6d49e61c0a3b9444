"""Studies over real servers: a coordinator and three hospitals as processes, TLS, keys, and every byte looked at.

All studies of this file are of one federation, in which words are planted that must never leave a hospital
(conftest.py); the last tests search all that left.
"""

import json
import math
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from conftest import COLUMNS, FIRST, SECOND, SECRETS, SITES, STUDY, THIRD, approve, planted, same_study, simulated_study
from name_spy import OURS
from needles import Find, needles, search
from opacus.accountants import PRVAccountant, RDPAccountant
from real_federation import DATABASE, TRAFFIC, Finished, RealFederation, events, gone, happened, here, wait_for
from spoken import spoken

from client.notes.source import NotesSource
from common.encoder import load_tokenizer
from common.messages import SITE_ERROR
from common.plan import StudyPlan
from common.results import NO_DP, Metric, SiteFacts, Summary, Verdict
from common.scores import KEPT, REASONS
from common.supervisor import PROCESSES
from server.run_folder import RunFolder

MakePlan = Callable[..., StudyPlan]
Simulate = Callable[[StudyPlan], Finished]
CATEGORIES = {"kind": "note-category", "weight": 1.0}  # its head stays at the hospital, and holds its categories

LEAKED = "source that vanished"
# An interpreter that starts with this is a hospital's whose errors leave with their texts.
LEAK = """
import sys
from flwr.app import Error, Message
import common.messages as messages
def error_reply(code, message):
    return Message(Error(messages.SITE_ERROR, f"{code}: {sys.exc_info()[1]}"), reply_to=message)
messages.error_reply = error_reply
"""


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory, hospital_notes: NotesSource) -> Simulate:
    cache = tmp_path_factory.mktemp("simulated-cache")
    return lambda plan: simulated_study(plan, hospital_notes, tmp_path_factory.mktemp("simulated") / "run", cache)


@pytest.fixture(scope="module")
def plain_plan(study_plan: MakePlan) -> StudyPlan:
    evaluation = {"embedding_space": True, "release_scores": True, "tasks": ["label"]}
    return study_plan(STUDY, objective=CATEGORIES, federation={"rounds": 3}, evaluation=evaluation)


@pytest.fixture(scope="module")
def plain(federation: RealFederation, plain_plan: StudyPlan) -> Finished:
    approve(federation, plain_plan)
    return federation.run(plain_plan)


@pytest.fixture(scope="module")
def private(federation: RealFederation, study_plan: MakePlan) -> Finished:
    privacy = {"noise_multiplier": 1.0, "delta": 1e-3, "accountant": "prv"}
    plan = study_plan("private", privacy=privacy, release={"canaries": 8})
    approve(federation, plan)
    return federation.run(plan)


@pytest.fixture(scope="module")
def plain_there(plain_plan: StudyPlan, simulated: Simulate) -> Finished:
    return simulated(plain_plan)


def test_a_study_over_real_servers_is_the_simulated_one_bit_for_bit(plain: Finished, plain_there: Finished) -> None:
    same_study(plain, plain_there)


def test_a_private_study_spends_what_the_simulated_one_does_by_opacus_accountant(
    federation: RealFederation, private: Finished, simulated: Simulate
) -> None:
    """Noise is drawn from a secret of each site, so that weights differ; all else is the same."""
    there = simulated(private.study.plan)
    assert {k: v.shape for k, v in private.weights.items()} == {k: v.shape for k, v in there.weights.items()}
    assert all(np.isfinite(value).all() for value in private.weights.values())
    assert any((value != there.weights[name]).any() for name, value in private.weights.items())
    for one, other in zip(private.state.rounds, there.state.rounds, strict=True):
        spent_here, spent_there = (
            [site.privacy and site.privacy.model_dump(exclude={"ledger"}) for site in round_.sites]
            for round_ in (one, other)
        )
        assert spent_here == spent_there
        assert not one.held_out  # no epsilon covers it, so it stays
    for place, name in enumerate(SITES):
        told = json.loads(here("site", "ledger", federation.sites[name].folder, "--json"))
        exact, bound = PRVAccountant(), RDPAccountant()
        for entry, done in zip(told["entries"], private.state.rounds[1:], strict=True):
            for accountant in (exact, bound):
                accountant.history.append((entry["noise_multiplier"], entry["sample_rate"], entry["steps"]))
            spent = done.sites[place].privacy
            assert spent is not None and spent.epsilon == entry["epsilon_study"]
            assert spent.ledger == entry["hash"]
            assert 0 < spent.epsilon <= bound.get_epsilon(1e-3)
            assert spent.epsilon == pytest.approx(exact.get_epsilon(1e-3), rel=0.02)
        assert [one["round"] for one in told["entries"]] == [1, 2]


def test_each_hospital_is_asked_what_the_encoder_knows_by_heart(
    federation: RealFederation, private: Finished, tmp_path: Path
) -> None:
    found = private.summary.memorisation
    assert [one.site for one in found] == sorted(SITES)
    for one in found:
        assert one.canaries is not None and one.canaries.planted == one.canaries.controls == 4, one
        assert one.identifiers is None and not one.veto  # no epsilon covers more than canaries
        left = json.loads(here("site", "receipts", federation.sites[one.site].folder, "--json"))
        assert [receipt["kind"] for receipt in left].count("memorisation") == 1
    federation.command("export", private.path, "--to", tmp_path / "out")
    known = json.loads((tmp_path / "out" / "governance.json").read_text())
    assert [one["site"] for one in known["ledger"]] == sorted(SITES)
    for one in known["ledger"]:
        told = json.loads(here("site", "ledger", federation.sites[one["site"]].folder, "--json"))
        assert one["digest"] in [entry["hash"] for entry in told["entries"]]


def test_scores_reach_the_coordinator_from_the_hospital_that_releases_them(
    federation: RealFederation, plain: Finished, plain_there: Finished
) -> None:
    """They are the simulation's, with three digits and no class; the others keep theirs, and that is no fault."""
    summary, there = plain.summary, {(one.site, one.model): one for one in plain_there.summary.scores}
    assert [one.model for one in summary.scores] == ["federated", "base", "local-only", "tf-idf"]
    for one in summary.scores:
        assert (one.site, one.task, one.support) == (FIRST, "label", {}) and one.n_test >= 20
        if one.model != "local-only":  # of which that simulation made none
            same = there[FIRST, one.model]
            assert (one.n_train, one.n_test) == (same.n_train, same.n_test)
            assert one.macro_f1.value == round(same.macro_f1.value, 3)
    assert {one.against for one in summary.comparisons} == {"base", "local-only", "tf-idf"}
    assert [(one.site, one.task, one.reason) for one in summary.not_scored] == [(s, "label", KEPT) for s in SITES[1:]]
    told = federation.status(plain.study)
    assert not told["incidents"], told["incidents"]
    phases = [one["text"] for one in events(plain.study) if one["kind"] == "phase"]
    assert phases == [
        f"waiting for scores: {count} of 3 sites {'has' if count == 1 else 'have'} answered" for count in range(4)
    ]
    left = {name: json.loads(here("site", "receipts", federation.sites[name].folder, "--json")) for name in SITES}
    sent = [one for one in left[FIRST] if one["kind"] == "scores"]
    assert len(sent) == 1 and sent[0]["values"]["task/label/n_test"]["value"] == summary.scores[0].n_test
    assert not [one for name in SITES[1:] for one in left[name] if one["kind"] == "scores"]
    report, card = (plain.path / "report.html").read_text(), (plain.path / "model" / "README.md").read_text()
    said = {
        "compared": "did federation help?" in report,
        "kept": KEPT in report,
        "support": "stay at the site" in report,
        "card": "Task label" in card,
        "kept, in the card": KEPT in card,
    }
    assert all(said.values()), said


def test_what_comes_out_says_what_it_is_and_loads(federation: RealFederation, plain: Finished) -> None:
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoTokenizer

    summary = Summary.model_validate_json((plain.path / "summary.json").read_text())
    assert (summary.engine, summary.privacy, summary.status) == ("servers", NO_DP, "finished")
    assert [site.name for site in summary.sites] == sorted(SITES)
    report, card = (plain.path / "report.html").read_text(), (plain.path / "model" / "README.md").read_text()
    said = {
        "real servers": "real servers" in report,
        "report": NO_DP in report,
        "card": "No differential privacy" in card,
    }
    assert all(said.values()), said  # not the texts: pytest would compare megabytes
    assert NO_DP in plain.output
    found = federation.status(plain.study)
    assert (found["state"], found["round"], found["planned_rounds"]) == ("finished", 3, 3)
    assert [site["rounds"] for site in found["sites"]] == [3, 3, 3]

    folder = str(plain.path / "model")
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    words = "The patient was seen in the emergency department."
    last = model(**tokenizer(words, return_tensors="pt")).last_hidden_state
    mean = last[0].mean(0).detach().numpy()
    by_sentence = SentenceTransformer(folder, device="cpu").encode(words)
    np.testing.assert_allclose(mean, by_sentence, atol=1e-5)
    trained = dict(model.named_parameters())["encoder.layer.0.attention.self.query.weight"].detach().numpy()
    shared = [value for name, value in plain.weights.items() if name.endswith("layer.0.attention.self.query.weight")]
    np.testing.assert_array_equal(trained, shared[0])


class Watched:
    """A command on a terminal."""

    def __init__(self, words: list[str], environment: dict[str, str]) -> None:
        ours, theirs = pty.openpty()
        there = environment | {"TERM": "xterm", "LINES": "40", "COLUMNS": "120"}
        self.process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=there)
        os.close(theirs)
        self._terminal = ours
        self.shown = ""

    def read_until(self, words: str, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while words not in self.shown:
            assert time.monotonic() < end, f"{words!r} is never shown:\n{self.shown}"
            try:
                self.shown += os.read(self._terminal, 65536).decode(errors="replace")
            except OSError:  # the other end is closed
                assert words in self.shown, self.shown

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)


@dataclass
class Resumed:
    finished: Finished
    shown: str
    worker_ended: float  # seconds after `server stop` had returned
    states: list[str]


@pytest.fixture(scope="module")
def resumed(federation: RealFederation, study_plan: MakePlan) -> Resumed:
    """A study in float16, looked on from a terminal: left alone by Ctrl-C, stopped in the middle of round 2 by the
    coordinator, and resumed."""
    plan = study_plan("half", objective=CATEGORIES, federation={"wire": "float16"})
    approve(federation, plan)
    with federation.running(plan) as (process, study):
        watch = [sys.executable, "-m", "fednotes", "status", str(study.path), "--watch"]
        watched = Watched(watch, federation.environment)
        try:
            wait_for(happened(study, "round-ended", 1), words="round 1")
            worker = federation.sites[SECOND].worker()
            assert worker is not None
            worker.suspend()  # so that round 2 takes as long as it has to
            wait_for(happened(study, "round-started", 2), words="round 2")
            process.send_signal(signal.SIGINT)
            assert "The study goes on" in federation.ended(process, code=130)
            states = [federation.status(study)["state"]]
            assert "fednotes server resume" in federation.command("server", "stop", study.path)
            stopped = time.monotonic()
            wait_for(lambda: gone(worker), words="the worker goes on")
            ended = time.monotonic() - stopped
            assert study.rounds_done() == 1
            states.append(federation.status(study)["state"])
            watched.read_until("Stopped after round 1 of")
            watched.process.wait(30)  # a study that was stopped has ended, until it is resumed
            output = federation.command("server", "resume", study.path)
        finally:
            watched.end()
    again = Watched(watch, federation.environment)
    again.read_until("finished")
    again.end()
    return Resumed(Finished(study, output), watched.shown + again.shown, ended, states)


def test_ctrl_c_leaves_a_study_going_stop_ends_it_at_the_sites_and_resumed_it_is_as_if_never_stopped(
    plain: Finished, resumed: Resumed, simulated: Simulate
) -> None:
    assert resumed.states[0] == "running" and resumed.states[1] == "stopped"
    assert resumed.worker_ended < 10.0
    finished = resumed.finished
    assert len(finished.study.record.flower_runs) == 2
    assert finished.summary.status == "finished"
    same_study(finished, simulated(finished.study.plan))
    whole, half = (run.state.rounds[1].sites[0].bytes_down for run in (plain, finished))
    assert half * 2 == whole


def test_a_terminal_shows_a_study_until_it_ends(resumed: Resumed) -> None:
    assert "Round 1 of 2" in resumed.shown and "Round 2 of 2" in resumed.shown and NO_DP in resumed.shown
    assert "running" in resumed.shown and all(name in resumed.shown for name in SITES)


@pytest.fixture(scope="module")
def ragged(federation: RealFederation, study_plan: MakePlan, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A study in which much goes wrong. The first hospital is there from the start; the second has not approved the
    plan, and does so in round 2; the third, whose errors leave with their texts, comes in round 2. After round 3 the
    second misses a column, and the third its notes; after round 4 the second names a database that cannot be read; and
    after round 5 the first meets a failure that nobody foresaw. In the end all is as it was."""
    plan = study_plan("ragged", federation={"rounds": 6, "sites": [], "min_sites": 1})
    first, second, third = (federation.sites[name] for name in SITES)
    before = {site: site.file.read_text() for site in (first, second, third)}
    third.stop()
    approve(federation, plan, FIRST, THIRD)
    spy = tmp_path_factory.mktemp("spy")
    (spy / "sitecustomize.py").write_text(LEAK)
    with federation.running(plan) as (process, study):
        wait_for(happened(study, "round-ended", 1), words="round 1")
        worker = first.worker()
        assert worker is not None
        worker.suspend()
        wait_for(happened(study, "round-started", 2), words="round 2")
        third.start(PYTHONPATH=os.pathsep.join(filter(None, (str(spy), os.environ.get("PYTHONPATH")))))
        third.online()
        approve(federation, plan, SECOND)
        worker.resume()
        wait_for(happened(study, "round-ended", 3), 120, words="round 3")
        second.edit(f'^text = "{COLUMNS["text"]}"$', f'text = "{SECRETS["column that is missing"]}"')
        third.edit(r'^source = ".*"$', f'source = "/nowhere/{SECRETS[LEAKED]}.csv"')
        wait_for(happened(study, "round-ended", 4), words="round 4")
        password = SECRETS["password of a database"]
        second.edit(r'^source = ".*"$', f'source = "mysql://clerk:{password}@127.0.0.1/notes"')
        wait_for(happened(study, "round-ended", 5), words="round 5")
        first.edit(r"^min_notes = 20$", f'min_notes = 20\nrows = "{SECRETS["file that nobody foresaw"]}.npy"')
        done = Finished(study, federation.ended(process, code=4))
    for site, text in before.items():
        site.write(text)
    third.stop()
    third.start()
    third.online()
    return done


def test_sites_come_late_and_fail_and_the_study_goes_on_with_the_others(ragged: Finished) -> None:
    returned = [{one.site for one in done.sites if one.state == "returned"} for done in ragged.state.rounds[1:]]
    assert returned[:3] == [{FIRST}, {FIRST}, set(SITES)]
    assert returned[4] == {FIRST} and len(returned) == 5
    reasons = {one.site: one.reason for one in ragged.state.rounds[5].sites}
    assert reasons[SECOND] == "the site reports driver-missing"
    assert reasons[THIRD] == f"it failed (Flower error {SITE_ERROR})"  # what it says is no code, and so not repeated
    log = events(RunFolder(ragged.path))
    assert {(one["site"], one["text"]) for one in log if one["kind"] == "left-out" and not one["round"]} == {
        (SECOND, "the site reports plan-not-approved")
    }
    joined = {(one["site"], one["round"]) for one in log if one["kind"] == "joined"}
    assert joined >= {(FIRST, 0), (SECOND, 3), (THIRD, 3)} and not {(SECOND, 0), (THIRD, 0)} & joined
    assert "the site reports notes-column" in {one["text"] for one in log}
    assert "round-failed" in ragged.output and f"{FIRST}: the site reports internal-error" in ragged.output
    summary = ragged.summary
    assert summary.status == "stopped" and "internal-error" in summary.message


@pytest.fixture(scope="module")
def escaped(
    federation: RealFederation, plain: Finished, private: Finished, resumed: Resumed, ragged: Finished
) -> dict[str, bytes]:
    """All that left the hospitals in all these studies, and all that lies at the coordinator."""
    return federation.escaped()


def test_the_search_finds_what_has_to_leave(escaped: dict[str, bytes], plain: Finished) -> None:
    """It reads everything: the study's name and the sites' are where they must be."""
    wanted = needles({"study": STUDY, "site": FIRST})
    found = {(one.haystack, one.place) for one in search(escaped, wanted) if one.form == "text"}
    assert {("up", "site"), ("bodies up", "site"), ("down", "study"), ("bodies down", "study")} <= found
    kept = ("database, as it was", "database, values")
    assert {(name, place) for name in kept for place in ("study", "site")} <= found
    run = f"runs/{plain.path.name}/summary.json"
    assert {(run, "study"), (run, "site"), ("what commands printed", "site"), ("names of files", "study")} <= found
    assert {"logs/superlink.log", "logs/superexec.log", "logs/gateway.log"} <= escaped.keys()


def test_the_search_finds_a_leak(escaped: dict[str, bytes]) -> None:
    """The third hospital's errors leave with their texts: they are seen on the way, and in the database."""
    found = search(escaped, needles({"leak": SECRETS[LEAKED]}))
    assert Find("up", "leak", "text") in found and Find("bodies up", "leak", "text") in found
    assert Find("database, as it was", "leak", "text") in found
    # The coordinator writes down codes and nothing else, so that even such a site's words go no further.
    assert not [one for one in found if one.haystack not in TRAFFIC and not one.haystack.startswith(DATABASE)]


def test_nothing_leaks(federation: RealFederation, escaped: dict[str, bytes], bases: dict[str, str]) -> None:
    assert not search(escaped, planted(federation, load_tokenizer(bases["bert"]), but=LEAKED))


def test_sites_say_nothing_but_what_is_listed(federation: RealFederation, escaped: dict[str, bytes]) -> None:
    """Every message that left, opened: its records and their keys are known, and the only words are the site's name, a
    unit of privacy, digests of its ledger and its approval with its time, and codes."""
    messages = spoken(federation.proxy.exchanges())
    names: dict[int, str] = {}
    kinds = {"facts": 0, "train": 0, "evaluate": 0, "scores": 0, "code": 0, "leak": 0}
    numbers = re.compile(r"(part|space|privacy)-[a-z_-]+")
    for message in messages:
        site = message.metadata.src_node_id
        if message.has_error():
            assert message.error.code == SITE_ERROR
            kinds["code" if re.fullmatch("[a-z]+(-[a-z]+)+", message.error.reason or "") else "leak"] += 1
            continue
        content = message.content
        config, metrics = dict(content.config_records), dict(content.metric_records)
        if "config" in config:
            assert set(content) == {"config"}
            if any("/" in name for name in config["config"]):  # scores: figures of the plan's task, and words of a list
                assert names[site] == FIRST
                assert all(name.split("/")[1] == "label" for name in config["config"])
                words = {one for one in config["config"].values() if not isinstance(one, (int, float))}
                assert words <= {*get_args(Verdict), *get_args(Metric), *REASONS}
                kinds["scores"] += 1
                continue
            if "name" not in config["config"]:  # the memorisation check: figures, and a code where the site vetoes
                figures = {name: one for name, one in config["config"].items() if name != "veto"}
                assert all(re.fullmatch("(canaries|identifiers)-[a-z_-]+", name) for name in figures)
                assert all(isinstance(one, (int, float)) for one in figures.values())
                assert re.fullmatch("([a-z]+(-[a-z]+)+)?", str(config["config"].get("veto", "")))
                continue
            facts = SiteFacts.model_validate(dict(config["config"]))
            names[site] = facts.name
            said = {name: one for name, one in config["config"].items() if isinstance(one, str)}
            assert set(said) == {"name", "approved_by", "approved_at", "approval"} and said["approved_by"] == ""
            datetime.fromisoformat(str(said["approved_at"]))
            assert re.fullmatch("[0-9a-f]{64}", str(said["approval"]))
            kinds["facts"] += 1
            continue
        assert set(config) == {"details"} and set(metrics) == {"metrics"}
        assert set(metrics["metrics"]) <= {"num-examples", "loss", "steps", "tokens", "seconds"}
        details = config["details"]
        assert all(numbers.fullmatch(name) for name in details)
        words = {name: value for name, value in details.items() if not isinstance(value, (int, float))}
        ledger = words.pop("privacy-ledger", None)  # the digest of the site's newest entry, and nothing of it
        assert words in ({}, {"privacy-unit": "patient"}) and bool(ledger) == bool(words)
        assert ledger is None or re.fullmatch("[0-9a-f]{64}", str(ledger))
        kinds["train" if content.array_records else "evaluate"] += 1
        for record in content.array_records.values():
            ((layout, array),) = record.items()
            sizes = [math.prod(shape) for _, shape in json.loads(layout)]
            assert array.dtype in ("float32", "float16") and array.shape == (sum(sizes),)
            assert len(array.data) < array.numpy().nbytes + 200
    assert sorted(names.values()) == sorted(SITES)
    assert kinds["facts"] >= 12 and kinds["train"] >= 20 and kinds["evaluate"] >= 20 and kinds["code"] >= 8, kinds
    assert kinds["leak"] and kinds["scores"] == 1, kinds


def test_no_name_is_looked_up_but_the_coordinators(federation: RealFederation, escaped: dict[str, bytes]) -> None:
    """By no process of any of these studies, at the coordinator or at a site."""
    found = federation.names.names()
    assert set(found) <= OURS
    nodes = {
        json.loads((site.folder / PROCESSES).read_text())["children"]["node"]["pid"]
        for site in federation.sites.values()
    }
    assert nodes <= found["localhost"]  # whoever connects was seen
    worker = federation.sites[FIRST].worker()
    assert worker is not None and worker.environ()["HF_HUB_OFFLINE"] == "1"  # nor would a hub's name be, in a plan


def test_a_site_sees_what_it_gained(federation: RealFederation, resumed: Resumed) -> None:
    """`fednotes site report`: on the hospital's own task, and for its eyes alone."""
    folder, plan = federation.sites[FIRST].folder, federation.write(resumed.finished.study.plan)
    found = json.loads(here("site", "report", folder, "--plan", plan, "--json"))
    assert (found["site"], found["round"], found["study"]) == (FIRST, 2, "half")
    assert {"federated", "local-only", "base"} <= {one["model"] for one in found["scores"]}
    assert SECRETS["name of a task"] in {one["task"] for one in found["scores"]}
    assert SECRETS["label"] in found["scores"][0]["support"]
