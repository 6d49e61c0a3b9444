"""Rounds of a tiny study for as many minutes as MINUTES says (ten, if nothing): what grows that should not?"""

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from surviving_federation import SITES, Federation, StudyUnderWay, free_port, wait_for

from common.plan import StudyPlan
from server.checkpoint import load_checkpoint

MINUTES = float(os.environ.get("MINUTES", "10"))
ROLES = ["coordinator", "superlink", "superexec", "serverapp", "gateway"]
ROLES += [f"{role} of {site}" for site in SITES for role in ("supervisor", "node", "worker")]
MOST_GROWTH = 64.0  # MiB that a process may grow by after its first minute


@dataclass(frozen=True)
class Look:
    """`memory`: role -> MiB that are its own; `files`: role -> open files; `disk`: name -> MiB."""

    rounds: int
    at: float
    memory: dict[str, float]
    files: dict[str, int]
    disk: dict[str, float]


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    one = Federation(tmp_path, port=free_port(), flower_port=free_port())
    with one.stopped():
        one.set_up()
        one.start()
        yield one


def test_nothing_grows(federation: Federation, make_study_plan: Callable[..., StudyPlan]) -> None:
    plan = make_study_plan("soak", rounds=100_000, steps=2)
    study = StudyUnderWay(federation, plan)
    try:
        study.wait_for_round(1)
        end = time.monotonic() + 60 * MINUTES
        time.sleep(min(60.0, 20 * MINUTES))  # caches fill, connections open
        looks = [_look(federation, study)]
        pids = {role: federation.pid(role) for role in ROLES}
        while time.monotonic() < end:
            time.sleep(min(60.0, max(1.0, end - time.monotonic())))
            looks.append(_look(federation, study))
        _print(looks, study)
        assert {role: federation.pid(role) for role in ROLES} == pids, "a process has died"
        grown = {role: looks[-1].memory[role] - looks[0].memory[role] for role in ROLES}
        assert {role: mib for role, mib in grown.items() if mib > MOST_GROWTH} == {}
        federation.run("server", "stop", study.path)
        wait_for(lambda: study.process.poll() is not None, 60, "the end of `server run`")
        assert study.process.returncode == 4
    finally:
        study.give_up()


def _look(federation: Federation, study: StudyUnderWay) -> Look:
    kept = load_checkpoint(study.path / "checkpoints", study.plan.hash())
    assert kept is not None
    memory, files = {}, {}
    for role in ROLES:
        process = psutil.Process(federation.pid(role))
        memory[role] = process.memory_full_info().uss / 2**20
        files[role] = process.num_fds()
    state = federation.server.state
    places = {"superlink.db": state, "superlink.db-wal": state, "record.sqlite": study.path}
    disk = {name: (folder / name).stat().st_size / 2**20 for name, folder in places.items() if (folder / name).exists()}
    disk["state.json"] = (
        study.path / "checkpoints" / f"round-{kept[0].round:04d}" / "state.json"
    ).stat().st_size / 2**20
    disk["receipts of alpha"] = (
        sum(f.stat().st_size for f in (federation.sites["alpha"] / "receipts").iterdir()) / 2**20
    )
    return Look(kept[0].round, time.monotonic(), memory, files, disk)


def _size(folder: Path) -> int:
    """Bytes in a folder, of which files come and go."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


def _print(looks: list[Look], study: StudyUnderWay) -> None:
    first, last = looks[0], looks[-1]
    kept = load_checkpoint(study.path / "checkpoints", study.plan.hash())
    assert kept is not None
    seconds = [one.seconds for one in kept[0].rounds]
    early, late = (statistics.median(part) for part in (seconds[first.rounds : first.rounds + 50], seconds[-50:]))
    print(
        f"\n{last.rounds} rounds; the last {(last.at - first.at) / 60:.1f} minutes: {last.rounds - first.rounds} rounds"
    )
    print(f"seconds a round: {early:.2f} at the start, {late:.2f} at the end (medians of 50)")
    print(f"{'process':24}{'MiB at start':>14}{'at end':>10}{'most':>10}{'files':>12}")
    for role in ROLES:
        most = max(look.memory[role] for look in looks)
        files = f"{first.files[role]} -> {last.files[role]}"
        print(f"{role:24}{first.memory[role]:14.1f}{last.memory[role]:10.1f}{most:10.1f}{files:>12}")
    for name, size in last.disk.items():
        print(f"{name:24}{first.disk.get(name, 0.0):14.2f}{size:10.2f}")
