"""`fednotes evaluate`: an encoder on notes of every kind, and what is said where it cannot be."""

import csv
import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from typer.testing import CliRunner

import fednotes as command_line
from client.site import SITE_FILE, open_site
from common.encoder import load_encoder, load_tokenizer, tensors_digest
from common.errors import FednotesError
from common.plan import StudyPlan, plan_to_toml
from common.results import EvaluationResult

Fednotes = Callable[..., subprocess.CompletedProcess[str]]
SECRET = "Zygomorphic-4711"
KINDS = {"heart": ("chest", "pain", "blood"), "knee": ("left", "right", "weeks"), "skin": ("noted", "history", "days")}


def rows(count: int = 240) -> list[dict[str, Any]]:
    """Notes whose kind some of their words tell: every fifth a test note, every seventh a dev note."""
    kinds, rng = sorted(KINDS), random.Random(1)
    others = ["".join(rng.choices("abcdefghijklmnop", k=5)) for _ in range(400)]
    return [
        {
            "id": f"n{place}",
            "text": " ".join((*KINDS[kinds[place % 3]] * 2, SECRET, *rng.choices(others, k=10))),
            "patient": f"p{place}",
            "category": f"ward {place % 2}",
            "label": kinds[place % 3],
            "half": str(place % 2),
            "constant": "yes",
            "unique": f"case {place}",
            "split": "test" if place % 5 == 0 else "dev" if place % 7 == 0 else "train",
        }
        for place in range(count)
    ]


def write(path: Path, notes: list[dict[str, Any]], leave: tuple[str, ...] = ()) -> Path:
    kept = [{name: value for name, value in note.items() if name not in leave} for note in notes]
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(kept[0]))
            writer.writeheader()
            writer.writerows(kept)
    else:
        path.write_text("".join(json.dumps(note) + "\n" for note in kept), encoding="utf-8")
    return path


@pytest.fixture
def run(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """The command in this process: returns click's result, and lets a foreseen failure through."""
    monkeypatch.setenv("FEDNOTES_CACHE", environment["FEDNOTES_CACHE"])
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: object) -> Any:
        return CliRunner().invoke(command_line.app, [str(part) for part in arguments], catch_exceptions=False)

    return invoke


@pytest.fixture
def judged(run: Callable[..., Any], bases: dict[str, str]) -> Callable[..., EvaluationResult]:
    """Evaluate the tiny BERT quickly, and read the JSON."""

    def evaluate(notes: Path, *arguments: object) -> EvaluationResult:
        done = run("evaluate", bases["bert"], "--notes", notes, "--json", *arguments)
        assert done.exit_code == 0, done.stderr
        return EvaluationResult.model_validate_json(done.stdout)

    return evaluate


def test_the_command_prints_tables_and_writes_what_it_found(
    fednotes: Fednotes, bases: dict[str, str], tmp_path: Path
) -> None:
    notes = write(tmp_path / "notes.csv", rows())
    done = fednotes(
        *("evaluate", bases["bert"], "--notes", notes, "--against", bases["roberta"]),
        *("--task", "half=half", "--shots", "8", "--out", "found/here"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and SECRET not in done.stdout
    result = EvaluationResult.model_validate_json((tmp_path / "found" / "here" / "evaluation.json").read_text())
    assert {(score.task, score.model, score.mode) for score in result.scores} == {
        (task, model, "frozen") for task in ("label", "half") for model in ("model", "against", "tf-idf", "majority")
    }
    assert {(one.task, one.against) for one in result.comparisons} == {
        (task, model) for task in ("label", "half") for model in ("against", "tf-idf", "majority")
    }
    for score in result.scores:
        assert score.n_test == 48 == sum(score.support.values()) and score.n_train == 164
        assert [point.shots for point in score.few_shot] == ([] if score.model == "majority" else [8])
    assert [(of.task, of.model) for of in result.space] == [
        (t, m) for m in ("model", "against") for t in ("label", "half")
    ]
    assert all(of.space.notes == 48 and (of.space.cka_base is None) == (of.model == "against") for of in result.space)
    body = load_encoder(bases["bert"]).shared("encoder")
    assert result.encoder.digest == tensors_digest(body.items())
    assert result.encoder.parameters == sum(tensor.numel() for tensor in body.values())
    assert result.against and result.against.name == bases["roberta"]
    assert (result.train, result.dev, result.test, result.set_aside) == (164, 28, 48, 0)
    for words in ("label: 3 classes", "half: 2 classes", "TF-IDF", "most frequent class", "8 a class", "n = 48"):
        assert words in done.stdout, words
    assert done.stdout.count("against") == 6 and "effective rank" in done.stdout and "evaluation.json" in done.stdout


def test_json_is_the_result_and_nothing_else(fednotes: Fednotes, bases: dict[str, str], tmp_path: Path) -> None:
    notes = write(tmp_path / "notes.jsonl", rows())
    done = fednotes("evaluate", bases["distilbert"], "--notes", notes, "--json", "--shots", "none")
    assert done.returncode == 0 and done.stderr == ""
    result = EvaluationResult.model_validate(json.loads(done.stdout))
    assert result.against is None and not result.not_scored and SECRET not in done.stdout
    words = next(score for score in result.scores if score.model == "tf-idf")
    assert words.macro_f1.value == 1.0 and words.few_shot == []


def test_the_same_again_gives_the_same(judged: Callable[..., EvaluationResult], tmp_path: Path) -> None:
    notes = write(tmp_path / "notes.jsonl", rows(), leave=("split",))
    flags = ("--mode", "frozen", "--mode", "lora", "--shots", "4")
    one, two = judged(notes, *flags), judged(notes, *flags)
    assert one.scores == two.scores and one.comparisons == two.comparisons and one.space == two.space
    assert {(score.model, score.mode) for score in one.scores} == {
        ("majority", "frozen"),
        ("tf-idf", "frozen"),
        ("model", "frozen"),
        ("model", "lora"),
    }
    assert {(of.against, of.mode) for of in one.comparisons} == {
        (against, mode) for against in ("tf-idf", "majority") for mode in ("frozen", "lora")
    }
    other = judged(notes, "--shots", "4", "--seed", "1")
    assert other.notes_digest != one.notes_digest and other.seed == 1


def test_quiet_prints_nothing(run: Callable[..., Any], bases: dict[str, str], tmp_path: Path) -> None:
    notes = write(tmp_path / "notes.jsonl", rows())
    done = run("evaluate", bases["bert"], "--notes", notes, "--quiet", "--out", tmp_path, "--shots", "none")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "evaluation.json").exists() and [p for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []


def test_a_site_brings_its_tasks_its_split_and_its_rows(
    judged: Callable[..., EvaluationResult], tmp_path: Path, bases: dict[str, str]
) -> None:
    write(tmp_path / "notes.jsonl", rows(), leave=("split",))
    tasks = [
        {"name": "half", "label": "half", "metric": "accuracy"},
        {"name": "short", "label": "label", "text": "half"},
    ]
    config = {"name": "Leeds", "split_key": "ab" * 16, "cache": "own", "notes": {"source": "notes.jsonl"}}
    site = tmp_path / SITE_FILE
    site.write_text(tomli_w.dumps(config | {"tasks": tasks}))
    result = judged(site, "--shots", "none", "--task", "constant=constant")
    assert (tmp_path / "own").is_dir() and result.site == "Leeds"
    assert {score.task for score in result.scores} == {"label", "half", "short"}
    assert {score.metric for score in result.scores if score.task == "half"} == {"accuracy"}
    short = next(score for score in result.scores if (score.task, score.model) == ("short", "model"))
    label = next(score for score in result.scores if (score.task, score.model) == ("label", "model"))
    assert short.support == label.support and short.macro_f1.value < label.macro_f1.value
    reasons = {missing.task: missing.reason for missing in result.not_scored}
    assert set(reasons) == {"constant", "short"} and "same class" in reasons["constant"]
    assert reasons["short"].startswith("tf-idf: No word")  # its text is a single digit
    store = open_site(tmp_path).notes(load_tokenizer(bases["bert"]))
    assert result.notes_digest == store.digest and result.test == len(store.split_indices("test"))


def test_a_plan_gives_what_the_flags_do_not(
    judged: Callable[..., EvaluationResult], make_plan: Callable[..., StudyPlan], tmp_path: Path
) -> None:
    notes = write(tmp_path / "notes.jsonl", rows(), leave=("split",))
    plan = make_plan(
        encoder={"max_length": 20, "long_notes": "windows"}, evaluation={"shots": [4], "tasks": ["label", "mortality"]}
    )
    (tmp_path / "plan.toml").write_text(plan_to_toml(plan))
    result = judged(notes, "--plan", "plan.toml")
    assert (result.max_length, result.long_notes, result.precision, result.seed) == (20, "windows", "float32", 3)
    assert {point.shots for score in result.scores for point in score.few_shot} == {4}
    assert [(missing.task, missing.reason) for missing in result.not_scored] == [
        ("mortality", "The site has no task of this name.")
    ]
    flags = ("--max-length", "16", "--long-notes", "cut", "--seed", "0", "--shots", "none")
    said = judged(notes, "--plan", "plan.toml", *flags)
    assert (said.max_length, said.long_notes, said.seed) == (16, "cut", 0)
    assert said.notes_digest != result.notes_digest


def test_a_plan_of_tasks_that_a_site_lacks_leaves_the_embedding_space(
    judged: Callable[..., EvaluationResult], make_plan: Callable[..., StudyPlan], tmp_path: Path
) -> None:
    notes = write(tmp_path / "notes.jsonl", rows())
    (tmp_path / "plan.toml").write_text(plan_to_toml(make_plan(evaluation={"tasks": ["mortality"]})))
    result = judged(notes, "--plan", "plan.toml")
    assert result.scores == [] and [missing.task for missing in result.not_scored] == ["mortality"]
    assert [(of.task, of.space.notes) for of in result.space] == [("label", 48)]


def test_categories_alone_give_what_can_be_had(judged: Callable[..., EvaluationResult], tmp_path: Path) -> None:
    result = judged(write(tmp_path / "notes.jsonl", rows(), leave=("label",)))
    assert result.scores == [] and result.comparisons == []
    assert [missing.reason for missing in result.not_scored] == ["None of its train notes has a label."]
    (only,) = result.space
    assert only.space.silhouette_category is not None and only.space.silhouette_label is None


@pytest.mark.parametrize(("column", "reason"), [("constant", "All of its labelled"), ("unique", "Fewer than 2 of its")])
def test_labels_that_cannot_be_scored_are_a_sentence(
    run: Callable[..., Any], bases: dict[str, str], tmp_path: Path, column: str, reason: str
) -> None:
    notes = write(tmp_path / "notes.csv", rows(), leave=("category",))
    done = run("evaluate", bases["bert"], "--notes", notes, "--label-column", column)
    assert done.exit_code == 0 and f"label was not scored. {reason}" in done.stdout
    assert "Embedding space" in done.stdout


def test_a_huge_note_is_read(judged: Callable[..., EvaluationResult], tmp_path: Path) -> None:
    notes = rows()
    notes[0]["text"] = "chest pain " * 90_000
    result = judged(write(tmp_path / "notes.jsonl", notes), "--shots", "none", "--long-notes", "windows")
    assert result.space[0].space.notes == 48


def site_file(folder: Path) -> Path:
    write(folder / "notes.jsonl", rows())
    config = {"name": "A", "split_key": "ab" * 16, "cache": "c", "notes": {"source": "notes.jsonl"}}
    tasks = [{"name": "half", "label": "half"}]
    (folder / SITE_FILE).write_text(tomli_w.dumps(config | {"tasks": tasks}))
    return folder / SITE_FILE


BAD: dict[str, tuple[Callable[[Path], object], list[str], str, str]] = {
    "no file": (lambda tmp: tmp / "none.csv", [], "notes-missing", "none.csv"),
    "empty file": (lambda tmp: write(tmp / "a.jsonl", []), [], "notes-empty", "a.jsonl"),
    "column": (lambda tmp: write(tmp / "a.csv", rows()), ["--text-column", "body"], "notes-column", "'body'"),
    "column of a task": (lambda tmp: write(tmp / "a.csv", rows()), ["--task", "x=harm"], "notes-column", "'unique'"),
    "no labels": (
        lambda tmp: write(tmp / "a.jsonl", rows(), leave=("label", "category")),
        [],
        "no-labels",
        "neither labels nor categories",
    ),
    "note of 5 MB": (
        lambda tmp: write(tmp / "a.jsonl", [{"text": "word " * 1_000_000, "label": "x"}]),
        [],
        "notes-broken-row",
        "too long",
    ),
    "task without column": (lambda tmp: write(tmp / "a.csv", rows()), ["--task", "half"], "usage", "NAME=COLUMN"),
    "task of no name": (lambda tmp: write(tmp / "a.csv", rows()), ["--task", "Half x=half"], "usage", "NAME=COLUMN"),
    "two tasks of a name": (
        lambda tmp: write(tmp / "a.csv", rows()),
        ["--task", "x=half", "--task", "x=label"],
        "usage",
        "x",
    ),
    "shots": (lambda tmp: write(tmp / "a.csv", rows()), ["--shots", "16,many"], "usage", "16,many"),
    "no shots": (lambda tmp: write(tmp / "a.csv", rows()), ["--shots", "0"], "usage", "--shots 0"),
    "longer than it reads": (lambda tmp: write(tmp / "a.csv", rows()), ["--max-length", "65"], "usage", "at most 64"),
    "another encoder": (lambda tmp: write(tmp / "a.csv", rows()), ["--against", "./none"], "base-unknown", "./none"),
    "plan": (lambda tmp: write(tmp / "a.csv", rows()), ["--plan", "none.toml"], "plan-unreadable", "none.toml"),
    "columns of a site": (site_file, ["--label-column", "half"], "usage", "--label-column"),
    "query of a site": (site_file, ["--query", "SELECT 1"], "usage", "--query"),
    "task of a site": (site_file, ["--task", "half=label"], "usage", "half"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_before_anything_is_done(
    case: str, run: Callable[..., Any], bases: dict[str, str], tmp_path: Path
) -> None:
    make, flags, code, words = BAD[case]
    notes = make(tmp_path)
    with pytest.raises(FednotesError) as caught:
        run("evaluate", bases["bert"], "--notes", notes, "--out", "out", *flags)
    error = caught.value
    assert (error.code, error.exit_code) == (code, 2) and words in error.message and error.next_step
    assert SECRET not in str(error) and not (tmp_path / "out").exists()


def test_a_result_is_never_overwritten(run: Callable[..., Any], bases: dict[str, str], tmp_path: Path) -> None:
    notes = write(tmp_path / "notes.jsonl", rows())
    (tmp_path / "evaluation.json").write_text("old")
    with pytest.raises(FednotesError) as caught:
        run("evaluate", bases["bert"], "--notes", notes, "--out", tmp_path)
    assert caught.value.code == "out-exists" and (tmp_path / "evaluation.json").read_text() == "old"


def test_a_refusal_is_two_lines_or_json(fednotes: Fednotes, bases: dict[str, str], tmp_path: Path) -> None:
    notes = write(tmp_path / "notes.jsonl", rows(), leave=("label", "category"))
    done = fednotes("evaluate", bases["bert"], "--notes", notes, "--json")
    assert done.returncode == 2 and json.loads(done.stdout)["error"]["code"] == "no-labels" and done.stderr == ""
