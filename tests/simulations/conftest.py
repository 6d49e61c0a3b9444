"""A small federation as a user has it: a plan, and a file of notes."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from client.notes.source import NotesSource
from common.plan import StudyPlan, plan_to_toml

Fednotes = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def plan_file(tmp_path: Path, make_plan: Callable[..., StudyPlan]) -> Callable[..., Path]:
    """Write a small plan: `plan_file(federation={"rounds": 3})`."""

    def write(name: str = "plan.toml", **sections: dict) -> Path:
        path = tmp_path / name
        path.write_text(plan_to_toml(make_plan(**sections)), encoding="utf-8")
        return path

    return write


@pytest.fixture
def notes_file(source: NotesSource) -> str:
    return source.source


def last_weights(run: Path) -> dict:
    """Every tensor that a run ends with: the shared ones, the strategy's, and the newest heads of each site."""
    newest = max((run / "checkpoints").glob("round-*"))
    files = [newest / "shared.safetensors", newest / "strategy.safetensors"]
    files += [
        max((site / "heads").rglob("*.safetensors")) for site in (run / "sites").iterdir() if (site / "heads").exists()
    ]
    return {f"{file.parent.parent.name}/{name}": value for file in files for name, value in load_file(file).items()}
