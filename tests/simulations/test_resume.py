"""A run that is killed (SIGKILL) at any instant goes on, and ends with the weights of the unbroken run."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.simulations.conftest import Fednotes, last_weights

PLAN = {
    "study": {"name": "killed", "seed": 5},
    "federation": {"rounds": 4, "strategy": "fedadam", "share": "encoder"},
}

# When to kill: as soon as such a file exists in the run's folder.
INSTANTS = {
    "at the start": "simulation.json",
    "before the first round ends": "checkpoints/round-0000",
    "while a checkpoint is written": "checkpoints/.round-0002.*",
    "while heads are newer than the checkpoint": "sites/*/heads/*/heads-000003.safetensors",
    "between rounds": "checkpoints/round-0003",
    "while all notes are trained on in one place": "baselines/centralised/checkpoints/round-0001",
    "while scores are made": "scores/base/*.json",
    "while a site trains alone": "baselines/local-only-*/checkpoints/round-0001",
    "while the model is written": ".model.*",
}


def _losses(run: Path) -> list:
    summary = json.loads((run / "summary.json").read_text())
    return [[r["held_out"], [(s["site"], s["loss"], s["tokens"]) for s in r["sites"]]] for r in summary["rounds"]]


@pytest.mark.slow
def test_killed_at_many_instants_it_ends_with_the_same_weights(
    fednotes: Fednotes,
    command: list[str],
    environment: dict[str, str],
    plan_file: Callable[..., Path],
    notes_file: str,
    tmp_path: Path,
) -> None:
    plan = plan_file(**PLAN)
    arguments = ["compare", str(plan), "--notes", notes_file, "--split-by", "site", "--quiet"]
    whole = tmp_path / "whole"
    done = fednotes(*arguments, "--out", whole)
    assert done.returncode == 0, done.stderr

    broken, killed_at = tmp_path / "broken", []
    line = [*command, *arguments, "--out", str(broken)]
    for instant, pattern in INSTANTS.items():
        process = subprocess.Popen(line, env=environment, cwd=tmp_path, start_new_session=True)
        deadline = time.monotonic() + 120
        while process.poll() is None and not any(broken.glob(pattern)) and time.monotonic() < deadline:
            time.sleep(0.001)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed_at.append(instant)
        process.wait()
        line = [*command, "compare", "--resume", str(broken), "--quiet"]
    # Some files come and go within a millisecond; the rest must have been hit, or this test shows nothing.
    assert len(killed_at) >= 6, killed_at

    end = fednotes("compare", "--resume", broken, "--json")
    assert end.returncode == 0, end.stderr
    expected, found = last_weights(whole), last_weights(broken)
    assert expected.keys() == found.keys()
    assert any("heads" in str(path) for path in (broken / "sites").rglob("*"))
    for name, value in expected.items():
        assert np.array_equal(value, found[name]), name
    assert _losses(whole) == _losses(broken)
    one, two = (json.loads((run / "summary.json").read_text()) for run in (whole, broken))
    assert one["scores"] == two["scores"]
    assert one["comparisons"] == two["comparisons"]
    assert not list(broken.rglob("*.tmp"))


def test_a_finished_run_is_left_as_it_is(
    fednotes: Fednotes, plan_file: Callable[..., Path], notes_file: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = fednotes("simulate", plan_file(), "--notes", notes_file, "--sites", 2, "--out", run, "--quiet")
    assert done.returncode == 0, done.stderr
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    again = fednotes("simulate", "--resume", run)
    assert again.returncode == 0
    assert {
        path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != ".lock"
    } == before
    assert "report.html" in again.stderr


def test_notes_that_changed_are_not_resumed(
    fednotes: Fednotes, plan_file: Callable[..., Path], notes_file: str, tmp_path: Path
) -> None:
    notes = tmp_path / "mine.jsonl"
    lines = Path(notes_file).read_text().splitlines()
    notes.write_text("\n".join(lines))
    run = tmp_path / "run"
    assert fednotes("simulate", plan_file(), "--notes", notes, "--sites", 2, "--out", run, "--quiet").returncode == 0
    (run / "report.html").unlink()
    notes.write_text("\n".join(lines[1:]))
    end = fednotes("simulate", "--resume", run)
    assert end.returncode == 2
    assert "notes-changed" in end.stderr


def test_two_at_once_do_not_share_a_run(
    command: list[str],
    environment: dict[str, str],
    fednotes: Fednotes,
    plan_file: Callable[..., Path],
    notes_file: str,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    line = [*command, "simulate", str(plan_file(federation={"rounds": 500})), "--notes", notes_file, "--out", str(run)]
    process = subprocess.Popen([*line, "--quiet"], env=environment, cwd=tmp_path)
    try:
        while process.poll() is None and not (run / "checkpoints" / "round-0001").exists():
            time.sleep(0.01)
        second = fednotes("simulate", "--resume", run)
        assert second.returncode == 2
        assert "run-busy" in second.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    finally:
        process.kill()
    assert any((run / "checkpoints").glob("round-*"))
