"""A private study from the command line: what is spent, what is said, and a kill in between."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from opacus.accountants import PRVAccountant

from client.ledger import Ledger
from tests.simulations.conftest import Fednotes

PRIVACY = {"epsilon": 6.0, "delta": 1e-3}
SMALL = {"federation": {"rounds": 2}, "privacy": PRIVACY, "training": {"trainable": "no-embeddings"}}


def check_spending(run: Path, rounds: int) -> None:
    """Each site's epsilon is an independent computation from its ledger, and never above the plan's."""
    summary = json.loads((run / "summary.json").read_text())
    last = {site["site"]: site["privacy"] for site in summary["rounds"][-1]["sites"]}
    folders = {json.loads((run / "simulation.json").read_text())["site_folders"][name]: name for name in last}
    assert len(folders) == len(summary["sites"])
    for folder, name in folders.items():
        entries = Ledger(run / folder).entries()
        assert [entry.round for entry in entries] == list(range(1, rounds + 1))
        account = PRVAccountant()
        account.history = [(entry.noise_multiplier, entry.sample_rate, entry.steps) for entry in entries]
        independent = account.get_epsilon(PRIVACY["delta"])
        assert last[name]["epsilon"] == pytest.approx(independent, rel=1e-4)
        assert 0.9 * PRIVACY["epsilon"] < last[name]["epsilon"] <= PRIVACY["epsilon"]


@pytest.mark.parametrize(
    ("objective", "more"),
    [
        ({"kind": "mlm"}, []),
        ({"kind": "declutr", "min_span": 4, "max_span": 14}, []),
        ({"kind": "declutr", "min_span": 4, "max_span": 14}, ["groups"]),
        ({"kind": "note-category", "loss": "prototypes", "categories": ["nursing", "progress", "letter"]}, []),
    ],
)
def test_every_site_spends_what_its_ledger_says_and_never_more_than_planned(
    fednotes: Fednotes, plan_file: Callable[..., Path], notes_file: str, tmp_path: Path, objective: dict, more: list
) -> None:
    privacy = PRIVACY | ({"negatives": "groups"} if more else {})
    plan, run = plan_file(**SMALL | {"objective": objective, "privacy": privacy}), tmp_path / "run"
    done = fednotes("simulate", plan, "--notes", notes_file, "--split-by", "site", "--out", run)
    assert done.returncode == 0, done.stderr
    check_spending(run, 2)
    report = (run / "report.html").read_text()
    card = (run / "model" / "README.md").read_text()
    for screen in (done.stderr, report, (run / "summary.json").read_text(), card):
        assert "ifferential privacy for each patient: epsilon at most 6 at delta 0.001" in screen
        assert "no differential privacy" not in screen
    again = fednotes("site", "ledger", run / "sites" / "northgate", "--json")
    assert again.returncode == 0 and json.loads(again.stdout)["entries"][-1]["round"] == 2


def test_killed_anywhere_and_resumed_it_spends_no_less_than_it_used_and_no_more_than_planned(
    fednotes: Fednotes,
    command: list[str],
    environment: dict[str, str],
    plan_file: Callable[..., Path],
    notes_file: str,
    tmp_path: Path,
) -> None:
    plan = plan_file(**SMALL | {"federation": {"rounds": 3}})
    run = tmp_path / "run"
    line = [*command, "simulate", str(plan), "--notes", notes_file, "--split-by", "site", "--quiet", "--out", str(run)]
    killed = 0
    for pattern in ("*/*/ledger.jsonl", "*/*/outbox/*-000001.*", "checkpoints/round-0001", "*/*/outbox/.*-000003.*"):
        process = subprocess.Popen(line, env=environment, cwd=tmp_path, start_new_session=True)
        deadline = time.monotonic() + 120
        while process.poll() is None and not any(run.glob(pattern)) and time.monotonic() < deadline:
            time.sleep(0.001)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
        line = [*command, "simulate", "--resume", str(run), "--quiet"]
    assert killed >= 3
    end = fednotes("simulate", "--resume", run, "--quiet")
    assert end.returncode == 0, end.stderr
    check_spending(run, 3)


@pytest.mark.slow
def test_the_flower_engine_keeps_the_same_ledgers(
    fednotes: Fednotes, plan_file: Callable[..., Path], notes_file: str, tmp_path: Path
) -> None:
    plan, run = plan_file(**SMALL), tmp_path / "run"
    done = fednotes("simulate", plan, "--notes", notes_file, "--split-by", "site", "--engine", "flower", "--out", run)
    assert done.returncode == 0, done.stderr
    check_spending(run, 2)


@pytest.mark.parametrize("trainable", ["biases", "lora"])
def test_the_model_of_few_weights_is_a_whole_model(
    fednotes: Fednotes, plan_file: Callable[..., Path], notes_file: str, tmp_path: Path, trainable: str
) -> None:
    """Without privacy, too: what learned is merged into the base, and loads by itself."""
    from common.encoder import load_encoder

    plan, run = plan_file(training={"trainable": trainable, "lora_rank": 2, "learning_rate": 0.01}), tmp_path / "run"
    done = fednotes("simulate", plan, "--notes", notes_file, "--split-by", "site", "--out", run, "--quiet")
    assert done.returncode == 0, done.stderr
    trained, base = load_encoder(str(run / "model")).tensors(), load_encoder(_base(plan)).tensors()
    assert trained.keys() == base.keys()
    moved = {name for name in base if not base[name].equal(trained[name])}
    query = {name for name in base if name.endswith(("query.weight", "value.weight"))}
    if trainable == "lora":
        assert moved == query
    else:
        assert moved and all(base[name].ndim == 1 for name in moved)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["shared_parameters"] < summary["parameters"] / 4


def _base(plan: Path) -> str:
    from common.plan import load_plan

    return load_plan(plan).encoder.base
