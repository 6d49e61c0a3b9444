"""What `fednotes status` says of a run, read from its folder alone."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from scripted_sites import NAMES, Scripted, killed, refuse

from common.errors import InputError, StudyError
from common.plan import StudyPlan
from common.results import NO_DP
from server.events import Event
from server.record.place import opened
from server.record.recorder import Recorder
from server.study.folder import Study, new_study
from server.study.status import status


def recorded(study: Study) -> Scripted:
    """Rounds whose events go to the study's record."""
    return Scripted(study.plan, study.checkpoints, record=Recorder(*opened(study.path)))


@pytest.fixture
def study(tmp_path: Path, make_plan: Callable[..., StudyPlan]) -> Study:
    return new_study(make_plan(federation={"rounds": 3}), tmp_path / "runs", tmp_path / "coordinator")


@pytest.fixture
def rounds(study: Study) -> Scripted:
    return recorded(study)


def test_before_anything_happened(study: Study) -> None:
    with study.locked():
        now = status(study.path)
    assert (now.state, now.round, now.planned_rounds, now.sites) == ("waiting", 0, 3, [])
    assert now.verdict == "Waiting for the sites."
    assert now.privacy == NO_DP and status(study.path).state == "interrupted"


def test_while_it_runs_and_after_it_was_killed(study: Study, rounds: Scripted) -> None:
    rounds.answers = {("northgate", "train", 1): refuse("out-of-memory"), ("eastholme", "train", 3): killed}
    with study.locked():
        with pytest.raises(KeyboardInterrupt):
            rounds.run()
        now = status(study.path)
    assert (now.state, now.round, now.over) == ("running", 2, False)
    assert now.verdict.startswith("Round 3 of 3, ") and "waiting for eastholme (usually " in now.verdict
    by_name = {site.site: site for site in now.sites}
    assert [by_name[name].rounds for name in NAMES] == [2, 2, 1]
    assert [by_name[name].state for name in NAMES] == ["training"] * 3
    assert by_name["northgate"].held_out == [2.0, 2.0]
    after = status(study.path)
    assert after.state == "interrupted" and "resume" in after.message


def test_how_it_ended(study: Study, rounds: Scripted) -> None:
    rounds.run()
    recorder = Recorder(*opened(study.path))
    recorder.stop(StudyError("round-failed", "Round 2 had 1 good replies.", "Mend the sites."))
    now = status(study.path)
    assert (now.state, now.message, now.over) == ("stopped", "Round 2 had 1 good replies. Mend the sites.", True)
    assert now.verdict == "Stopped after round 3 of 3." and now.incidents[-1].code == "round-failed"
    recorder(Event("began", 3))
    assert status(study.path).state == "interrupted"


def test_what_a_study_has_spent(tmp_path: Path, make_plan: Callable[..., StudyPlan]) -> None:
    plan = make_plan(federation={"rounds": 2}, privacy={"epsilon": 3.0, "negatives": "groups"})
    study = new_study(plan, tmp_path, tmp_path)
    recorded(study).run()
    now = status(study.path)
    assert [site.epsilon for site in now.sites] == [0.5] * 3 and now.privacy.startswith("differential privacy for each")


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        status(tmp_path)
    assert caught.value.code == "no-run"


def test_the_command(study: Study, rounds: Scripted, fednotes: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    rounds.answers = {("northgate", "train", None): refuse("plan-not-approved")}
    rounds.run()
    said = json.loads(fednotes("status", str(study.path), "--json").stdout)
    assert said["round"] == 3 and [site["state"] for site in said["sites"]] == ["returned", "returned", "out"]
    page = fednotes("status", str(study.path)).stdout
    assert (
        NO_DP in page
        and "after round 3 of 3" in page
        and "has not approved the plan" in page
        and "interrupted" in page
        and "northgate" in page
    )
    nothing = fednotes("status", str(study.path / "nothing"))
    assert nothing.returncode == 2 and "error (no-run)" in nothing.stderr
