"""Both engines run the same apps to the same weights."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from client.app import app as client_app
from common.plan import StudyPlan, plan_to_toml
from server.app import app as server_app
from server.checkpoint import State, load_checkpoint
from server.run_folder import CHECKPOINTS, PLAN_FILE
from simulations.engines import run_flower, run_inprocess

Run = Callable[..., tuple[State, dict[str, np.ndarray]]]


@pytest.fixture
def run(tmp_path: Path, sites: dict[str, Path]) -> Run:
    """Run a plan on an engine over fresh copies of the sites; returns the record and the shared tensors."""

    def start(
        engine: Callable[..., None], plan: StudyPlan, only: int | None = None
    ) -> tuple[State, dict[str, np.ndarray]]:
        folder = tmp_path / f"{engine.__name__}-{plan.hash()[:8]}"
        folders = [Path(shutil.copytree(site, folder / "sites" / name)) for name, site in list(sites.items())[:only]]
        (folder / PLAN_FILE).write_text(plan_to_toml(plan), encoding="utf-8")
        engine(server_app, client_app, folder, folders)
        kept = load_checkpoint(folder / CHECKPOINTS, plan.hash())
        assert kept is not None
        return kept[0], kept[1]

    return start


def test_the_engines_agree(run: Run, make_plan: Callable[..., StudyPlan]) -> None:
    plan = make_plan(federation={"rounds": 2, "share": "encoder", "strategy": "fedavgm"})
    ours, weights = run(run_inprocess, plan)
    theirs, their_weights = run(run_flower, plan)
    assert weights.keys() == their_weights.keys()
    for name, value in weights.items():
        np.testing.assert_allclose(value, their_weights[name], atol=1e-5, err_msg=name)
    assert [s.site for s in ours.rounds[1].sites] == [s.site for s in theirs.rounds[1].sites]
    for mine, other in zip(ours.rounds, theirs.rounds, strict=True):
        for site, held_out in mine.held_out.items():
            assert held_out.loss == pytest.approx(other.held_out[site].loss, abs=1e-4)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    run: Run, make_plan: Callable[..., StudyPlan]
) -> None:
    plan = make_plan()
    again = make_plan(federation={"rounds": 2, "round_timeout": 99.0})  # another hash, the same mathematics
    other = make_plan(study={"name": "test", "seed": 4})
    first, second, third = (run(run_inprocess, p)[1] for p in (plan, again, other))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert any(not np.array_equal(first[name], third[name]) for name in first)


def test_one_site_alone_is_a_federation(run: Run, make_plan: Callable[..., StudyPlan]) -> None:
    state, _ = run(run_inprocess, make_plan(), only=1)
    assert state.round == 2
    assert [len(r.sites) for r in state.rounds] == [0, 1, 1]
