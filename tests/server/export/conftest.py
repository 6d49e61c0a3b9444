"""Runs as they stand on disk when they have ended: a plan, a checkpoint, and results."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_summary import example_summary

from common.plan import StudyPlan, plan_to_toml
from common.results import Summary
from server.base import base_tensors
from server.checkpoint import State, save_checkpoint
from server.record.place import create
from server.run_folder import PLAN_FILE, RunFolder


@pytest.fixture
def make_run(tmp_path: Path, make_plan: Callable[..., StudyPlan]) -> Callable[..., RunFolder]:
    """Write a run: `make_run(status="stopped")` changes the summary, `plan={...}` sections of the plan."""

    def make(plan: dict[str, Any] | None = None, name: str = "run", **changes: Any) -> RunFolder:
        made, run = make_plan(**(plan or {})), RunFolder(tmp_path / name)
        run.path.mkdir()
        create(run.path, made, "inprocess", None)
        (run.path / PLAN_FILE).write_text(plan_to_toml(made), encoding="utf-8")
        rng = np.random.default_rng(9)
        trained = {k: v + rng.normal(0, 0.02, v.shape).astype(np.float32) for k, v in base_tensors(made).items()}
        state = State(plan_hash=made.hash(), run="0" * 32, round=2, rounds=[], sites=[], left_out_sites={})
        save_checkpoint(run.checkpoints, state, trained, {})
        given = {"plan_hash": made.hash(), "base": made.encoder.base} | changes
        run.write_summary(Summary.model_validate(example_summary().model_copy(update=given).model_dump()))
        return run

    return make


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let a package be missing."""
    return lambda name: monkeypatch.setitem(sys.modules, name, None)
