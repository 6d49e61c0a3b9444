"""A small federation as a user has it: a plan, a file of notes, and the `fednotes` command in its own process."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from client.notes.source import NotesSource
from common.plan import StudyPlan, plan_to_toml

Fednotes = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """No hub and one thread, so that tests are quick; a cache that tests share."""
    cache = tmp_path_factory.mktemp("user-cache")
    return os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "FEDNOTES_CACHE": str(cache), "COLUMNS": "120"}


@pytest.fixture
def command() -> list[str]:
    return [sys.executable, "-m", "fednotes"]


@pytest.fixture
def fednotes(environment: dict[str, str], command: list[str], tmp_path: Path) -> Fednotes:
    """Run the command in an empty folder; returns what it printed and its exit code."""

    def run(*arguments: object, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        line = [*command, *map(str, arguments)]
        return subprocess.run(line, env=environment, cwd=cwd, capture_output=True, text=True, timeout=200, check=False)

    return run


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
    files += [max((site / "heads").glob("*")) for site in (run / "sites").iterdir() if (site / "heads").exists()]
    return {f"{file.parent.parent.name}/{name}": value for file in files for name, value in load_file(file).items()}
