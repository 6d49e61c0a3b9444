"""The table: every cell of a tiny one, kept as it is made, resumed after a kill, and refused where it is wrong."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from common.errors import InputError
from common.plan import StudyPlan, load_plan
from common.results import POOLED, TOGETHER
from common.table import Table
from simulations.cli import STUDIES
from simulations.synthetic_notes import write_jsonl
from simulations.table.plan import is_table, load_table
from tests.simulations.conftest import Fednotes

ARMS: list[dict[str, Any]] = [
    {"name": "mlm", "objective": {"kind": "mlm"}},
    {
        "name": "declutr",
        "start": "mlm",
        "objective": {"kind": "declutr", "min_span": 2, "max_span": 8},
        "federation": {"rounds": 1},
    },
]


@pytest.fixture
def table_file(tmp_path: Path, make_plan: Callable[..., StudyPlan]) -> Callable[..., Path]:
    """Write a small table; `arms` and `table` replace its own."""

    def write(arms: list[dict[str, Any]] = ARMS, table: dict[str, Any] | None = None, **sections: Any) -> Path:
        plan = make_plan(evaluation={"shots": [4], "held_out_notes": 8}, **sections)
        raw = plan.model_dump(mode="json", exclude_none=True)
        del raw["objective"]
        raw |= {"arms": arms, "table": {"seeds": [1], "pooled_class_notes": 8} | (table or {})}
        path = tmp_path / "table.toml"
        path.write_text(tomli_w.dumps(raw), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def enough_notes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Notes of two hospitals, so many that each has a task that can be scored."""
    path = tmp_path_factory.mktemp("table") / "notes.jsonl"
    write_jsonl(path, notes=900, hospitals=2)
    return str(path)


def read(run: Path) -> Table:
    return Table.model_validate_json((run / "table.json").read_text("utf-8"))


def test_every_cell_is_trained_scored_and_compared(
    table_file: Callable[..., Path], fednotes: Fednotes, enough_notes: str, tmp_path: Path
) -> None:
    done = fednotes("compare", table_file(), "--notes", enough_notes, "--split-by", "site", "--out", "run")
    assert done.returncode == 0, done.stderr
    table = read(tmp_path / "run")
    rows = {(c.arm, c.setting, c.seed) for c in table.cells}
    trained = {(a["name"], s, 1) for a in ARMS for s in ("local-only", "federated", "centralised")}
    assert rows == trained | {(name, "as it is", 3) for name in ("majority", "tf-idf", "base")}
    assert table.status == "finished" and table.planned == len(table.cells)
    for cell in table.cells:
        places = {score.site for score in cell.scores}
        assert TOGETHER in places
        assert (POOLED in places) == (cell.setting != "local-only")
        assert (cell.consumed.tokens > 0) == (cell.setting != "as it is")
    # Centralised and local-only training read about as much as the federation does: the same steps of the same batches.
    for arm in ("mlm", "declutr"):
        steps = {c.setting: c.consumed.steps for c in table.cells if c.arm == arm}
        assert len(set(steps.values())) == 1
    assert {d.against_arm for d in table.differences if d.arm == "declutr"} == {"base", "tf-idf", "declutr", "mlm"}
    federated = [c for c in table.cells if c.setting == "federated" and c.arm == "mlm"]
    assert all(
        s.space.cka_local is not None for c in federated for s in c.space if s.site != POOLED and s.space.notes > 2
    )
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    assert not list((tmp_path / "run").rglob("checkpoints"))  # what only training needed is gone
    assert "labels a class" in done.stderr


@pytest.mark.slow
def test_a_killed_table_goes_on_with_the_next_cell(
    table_file: Callable[..., Path],
    command: list[str],
    environment: dict[str, str],
    fednotes: Fednotes,
    enough_notes: str,
    tmp_path: Path,
) -> None:
    path = table_file(table={"settings": ["federated"]})
    whole = fednotes("compare", path, "--notes", enough_notes, "--split-by", "site", "--out", "whole", "--quiet")
    assert whole.returncode == 0, whole.stderr
    line = [*command, "compare", str(path), "--notes", enough_notes, "--split-by", "site", "--out", "run", "--quiet"]
    process = subprocess.Popen(line, env=environment, cwd=tmp_path)
    cells = tmp_path / "run" / "cells"
    deadline = time.monotonic() + 120
    while not (cells / "mlm" / "federated" / "seed-1" / "cell.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = {f: f.stat().st_mtime_ns for f in cells.rglob("cell.json")}
    assert kept and len(kept) < 5
    done = fednotes("compare", "--resume", "run", "--json")
    assert done.returncode == 0, done.stderr
    assert all(file.stat().st_mtime_ns == when for file, when in kept.items())

    def scores(text: str) -> list:
        return [(c["arm"], c["setting"], c["scores"]) for c in json.loads(text)["cells"]]

    assert scores(done.stdout) == scores((tmp_path / "whole" / "table.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arms": [ARMS[1]]}, "starts from mlm, which is no arm above it"),
        ({"arms": [ARMS[0], ARMS[0]]}, "two arms are called mlm"),
        ({"arms": []}, "arms"),
        ({"arms": [{"name": "x", "objective": {"kind": "declutr", "anchor": 2}}]}, "did you mean anchors"),
        ({"arms": [{"name": "Not a name", "objective": {"kind": "mlm"}}]}, "arms.0.name"),
        ({"table": {"seeds": []}}, "table.seeds"),
        ({"table": {"settings": ["alone"]}}, "table.settings"),
        ({"table": {"colour": 1}}, "table.colour"),
    ],
)
def test_what_is_wrong_in_a_table_is_named(table_file: Callable[..., Path], change: dict[str, Any], words: str) -> None:
    path = table_file(**change)
    assert is_table(path)
    with pytest.raises(InputError) as caught:
        load_table(path)
    assert words in str(caught.value)


def test_a_table_is_for_compare(table_file: Callable[..., Path], fednotes: Fednotes) -> None:
    done = fednotes("simulate", table_file())
    assert done.returncode == 2
    assert "fednotes compare" in done.stderr


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_studies_that_ship_are_valid(path: Path) -> None:
    study = load_table(path).common if is_table(path) else load_plan(path)
    assert study.study.name == path.stem


def test_the_table_of_the_paper_and_the_best_plan_ship() -> None:
    assert is_table(STUDIES / "paper.toml")
    assert not is_table(STUDIES / "best.toml")
