"""Who works on a study: one that carries it, one that waits for its turn, and those that only ask."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from common.plan import StudyPlan
from server.run_folder import RunFolder
from server.study.folder import Study, new_study
from server.study.status import status

HOLD = """
import sys, time
from pathlib import Path
from server.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def study(tmp_path: Path, make_plan: Callable[..., StudyPlan]) -> Study:
    return new_study(make_plan(), tmp_path / "runs", tmp_path / "coordinator")


def test_a_study_that_is_carried_is_not_interrupted(study: Study) -> None:
    """Between two Flower runs no ServerApp holds it."""
    with study.carried(lambda: None) as waited:
        assert not waited and not study.busy() and status(study.path).state == "waiting"
    assert status(study.path).state == "interrupted"


def test_the_second_to_carry_it_waits_for_the_first(study: Study) -> None:
    order: list[str] = []
    looked = threading.Event()

    def meanwhile() -> None:
        order.append("looks on")
        looked.set()

    def second() -> None:
        with study.carried(meanwhile) as waited:
            order.append(f"carries, {waited}")

    thread = threading.Thread(target=second)
    with study.carried(lambda: None):
        thread.start()
        assert looked.wait(10)
        order.append("first ends")
    thread.join(10)
    assert order[0] == "looks on" and order[-2:] == ["first ends", "carries, True"]


def test_whoever_asks_is_in_nobodys_way(study: Study) -> None:
    """`fednotes status --watch` asks at every moment, also when a ServerApp takes the study."""
    over, wrong = threading.Event(), []

    def ask() -> None:
        while not over.wait(0.005):
            if RunFolder(study.path).busy():
                wrong.append("somebody holds it")

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for one in askers:
        one.start()
    time.sleep(0.5)
    over.set()
    for one in askers:
        one.join()
    assert wrong == []  # three that ask are not taken for one that holds it
    over.clear()
    askers = [threading.Thread(target=ask) for _ in range(2)]
    for one in askers:
        one.start()
    try:
        for _ in range(20):
            with study.locked():
                pass
    finally:
        over.set()
        for one in askers:
            one.join()


def test_who_holds_a_study_and_hangs_is_killed(study: Study) -> None:
    words = [sys.executable, "-c", HOLD, str(study.path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        assert study.busy()
        study.kill_holder()
        assert process.wait(10) == -9
    assert not study.busy()
    study.kill_holder()  # its number may be another's by now: nobody is killed
