"""`fednotes notes inspect`: the figures are right, the output is parseable, and no note is in it."""

import json
from pathlib import Path
from typing import Any

import pytest
from notes_helpers import SECRET, change, prepared, words, write_csv, write_jsonl
from typer.testing import CliRunner, Result

from client.notes.cli import app
from client.notes.inspect import inspect
from common.errors import FednotesError, InputError

ROWS: list[dict[str, Any]] = [
    {"id": number, "ward": "A&E [red]" if number % 4 else "ICU", "body": f"{SECRET} {words(number, 30 + number)}"}
    for number in range(100)
]
ROWS += [
    {"id": 100, "ward": None, "body": ""},
    {"id": 101, "ward": None, "body": f"{SECRET} is short"},
    {"id": 102, "ward": None, "body": ROWS[50]["body"]},
    {"id": 103, "ward": None, "body": change(ROWS[90]["body"], 1)},
]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.mark.usefixtures("bert")
def test_json_holds_the_figures(tmp_path: Path, cache: Path) -> None:
    path = write_csv(tmp_path / "notes.csv", ROWS)
    with path.open("a") as stream:
        stream.write(f"104,too,many,{SECRET}\n")
    plan = tmp_path / "plan.toml"
    objective = '[objective]\nkind = "declutr"\nmin_span = 40\nmax_span = 60\n'
    plan.write_text('[study]\nname = "x"\n[encoder]\nmax_length = 64\n' + objective)
    options = ("--text-column", "body", "--category-column", "ward", "--skip-bad", "1", "--plan", plan)
    result = run(path, *options, "--cache", cache, "--json")
    assert result.exit_code == 0, result.output
    assert SECRET not in result.output
    found = json.loads(result.stdout)
    intake = found["intake"]
    assert (intake["notes"], intake["empty"], intake["too_short"], intake["set_aside"]) == (104, 1, 1, 2)
    assert (intake["exact_duplicates"], intake["near_duplicates"]) == (1, 1)
    assert intake["skipped"] == [[106, "has 4 fields where the header has 3"]]
    assert sum(intake["splits"].values()) == 102
    assert found["categories"] == {"A&E [red]": 75, "ICU": 25}
    assert found["words"]["quantiles"]["least"] == 31 and found["words"]["quantiles"]["most"] == 130
    assert found["words"]["total"] == sum(len(row["body"].split()) for row in ROWS) - 3
    assert found["max_length"] == 64 and found["truncated_notes"] > 90 and 0.5 < found["truncated_share"] < 1
    use = found["use"]
    assert use["objective"] == "declutr" and min(use["whole"], use["shortened"], use["too_short"]) > 0
    assert use["whole"] + use["shortened"] + use["too_short"] == intake["splits"]["train"]


@pytest.mark.usefixtures("bert")
def test_tables_show_the_same(tmp_path: Path, cache: Path) -> None:
    path = write_jsonl(tmp_path / "notes.jsonl", ROWS)
    path.write_text(path.read_text() + f"{SECRET}\n" * 40)
    result = run(path, "--text-column", "body", "--category-column", "ward", "--skip-bad", "40", "--cache", cache)
    assert result.exit_code == 0, result.output
    assert SECRET not in result.output
    for part in (
        "near duplicates",
        "too short",
        "A&E [red]",
        "At 256 tokens",
        "median",
        "not valid JSON",
        "and 10 more",
    ):
        assert part in result.output, part


def test_truncation_counts_the_room_between_the_special_tokens(tmp_path: Path, cache: Path) -> None:
    rows = [{"text": words(number, count)} for number, count in enumerate((10, 18, 19, 30))]
    found = inspect(prepared(write_jsonl(tmp_path / "notes.jsonl", rows), cache), max_length=20)
    assert found.truncated_notes == 2
    assert found.truncated_share == pytest.approx((1 + 12) / 77)
    assert found.tokens.total == found.words.total == 77
    assert found.tokens.quantiles["median"] == 18.5 and found.tokens.mean == 19.25


def test_notes_that_are_all_set_aside_can_be_inspected(tmp_path: Path, cache: Path) -> None:
    found = inspect(prepared(write_jsonl(tmp_path / "notes.jsonl", [{"text": ""}]), cache), max_length=512)
    assert found.tokens.total == found.truncated_notes == 0 and found.truncated_share == 0


@pytest.mark.usefixtures("bert")
def test_errors_pass_through_to_the_command_that_prints_them(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text(f'{{"text": "{SECRET}"\n')
    for arguments in ((path,), ("sqlite:///x.db",), (path, "--query", "SELECT 1"), (tmp_path / "none.csv",)):
        error = run(*arguments, "--cache", cache).exception
        assert isinstance(error, InputError | FednotesError) and SECRET not in str(error)


def test_help_has_examples() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "fednotes notes inspect notes.csv" in result.output and "--skip-bad" in result.output


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    import subprocess
    import sys

    code = "import sys, client.notes.cli, client.notes.store; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
