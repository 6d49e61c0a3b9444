"""Kill anything, in short: one study, and a fault in each of its rounds. `make chaos` has the rest."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import both, carry_out, cut, kill
from forwarder import Forwarder
from surviving_federation import SITES, Federation, StudyUnderWay, Truth, free_port, weights_of

from client.app import app as client_app
from common.plan import StudyPlan
from server.base import base_tensors
from server.rounds import Rounds
from simulations.engines import InProcessGrid

ROUNDS = 4


class Cable(Forwarder):
    site = "charlie"


@pytest.fixture(scope="module")
def cable() -> Iterator[Cable]:
    one = Cable(free_port())
    yield one
    one.close()


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, cable: Cable) -> Iterator[Federation]:
    """Three sites that are online; one of them by the cable."""
    one = Federation(tmp_path_factory.mktemp("federation"), port=cable.target, flower_port=free_port())
    with one.stopped():
        one.set_up({cable.site: f"localhost:{cable.port}"})
        one.start()
        yield one


def test_a_study_survives_a_fault_in_each_round(
    federation: Federation, cable: Cable, make_study_plan: Callable[..., StudyPlan], tmp_path: Path
) -> None:
    plan = make_study_plan("short-chaos", rounds=ROUNDS, steps=50)
    study = StudyUnderWay(federation, plan)
    truth = Truth(study)
    faults = [
        both(kill("worker of alpha"), kill("serverapp")),
        both(kill("gateway"), cut(cable, 5)),
        both(kill("superlink"), kill("run", resumes=1)),
    ]
    try:
        carry_out(federation, study, faults, random.Random(5), usual=2.0)
    finally:
        truth.end()
        study.give_up()
    assert study.summary.status == "finished"
    assert [one.number for one in study.summary.rounds] == list(range(ROUNDS + 1))
    assert not truth.lies, truth.lies
    # On one machine a study over servers comes to the weights of a simulated one, bit for bit.
    grid = InProcessGrid([federation.sites[name] for name in SITES], client_app)
    Rounds(grid, plan, tmp_path, lambda: base_tensors(plan), lambda _: None).run()
    assert study.weights() == weights_of(tmp_path, plan)
    assert truth.seen[-1] == "finished"
