"""Rounds that take a while: a study that is stopped while all hospitals train, and goes on as if it had not been.

Run by `make servers`."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil
from conftest import approve, same_study, simulated_study
from real_federation import Finished, RealFederation, gone, wait_for

from client.notes.source import NotesSource
from common.plan import StudyPlan


def test_stop_ends_training_at_every_site_and_a_resumed_study_is_the_unbroken_one(
    federation: RealFederation, study_plan: Callable[..., StudyPlan], hospital_notes: NotesSource, tmp_path: Path
) -> None:
    plan = study_plan(
        "long",
        objective={"kind": "declutr", "min_span": 4, "max_span": 12, "anchors": 1},
        training={"steps_per_round": 400},
        federation={"rounds": 2, "strategy": "fedadam", "server_learning_rate": 0.01, "wire": "delta-float16"},
    )
    approve(federation, plan)

    def training() -> list[psutil.Process]:
        """The workers, where all are in the middle of round 2."""
        status = [site.status() for site in federation.sites.values()]
        if any(one.round != 2 or one.message != "train" or not one.step or one.step > 300 for one in status):
            return []
        return [worker for site in federation.sites.values() if (worker := site.worker())]

    with federation.running(plan) as (process, study):
        workers = wait_for(training, 240, "not all sites train in round 2")
        assert len(workers) == 3
        asked = time.monotonic()
        federation.command("server", "stop", study.path)
        wait_for(lambda: all(gone(worker) for worker in workers), 60, "sites go on")
        assert time.monotonic() - asked < 20.0  # the command itself takes some seconds on a busy machine
        assert "study-stopped" in federation.ended(process, code=4)
    assert study.rounds_done() == 1
    output = federation.command("server", "resume", study.path)
    same_study(Finished(study, output), simulated_study(plan, hospital_notes, tmp_path / "run", tmp_path / "cache"))
