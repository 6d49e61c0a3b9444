"""Tasks and policy of `site.toml`: columns of the source beside the notes, in the notes' own order and split."""

import csv
import pickle
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from client.evaluation.task import TaskData, task_data
from client.notes.store import NoteStore
from client.site import SITE_FILE, Site, open_site
from client.tasks import OpenTask, open_task, task_names
from common.encoder import load_tokenizer
from common.errors import InputError
from common.results import NotScored
from simulations.partition import write_site

GRADES = ("mild", "moderate", "severe")
SPLITS = ("train", "dev", "test")


def rows(texts: list[str]) -> list[dict[str, Any]]:
    """300 notes of 100 patients, and columns that tasks can be made of."""
    return [
        {
            "text": text,
            "patient": f"p{place // 3}",
            "ward": f"ward {place % 4}",
            "severity": GRADES[place % 3] if place % 5 else "",
            "constant": "yes",
            "unique": f"case {place}",
            "blank": "",
            "impression": f"impression {place} " + " ".join(text.split()[-6:]),
        }
        for place, text in enumerate(texts)
    ]


@pytest.fixture
def table(texts: list[str]) -> list[dict[str, Any]]:
    return rows(texts)


@pytest.fixture
def make(tmp_path: Path, prepared_cache: Path, table: list[dict[str, Any]]) -> Callable[..., Site]:
    """A site with tasks: `make([{"name": …, "label": …}])`; `notes` changes its `[notes]`."""

    def write(tasks: list[dict[str, str]], notes: dict[str, Any] | None = None, **settings: Any) -> Site:
        with (tmp_path / "notes.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
        config = {"name": "Leeds", "split_key": "ab" * 16, "cache": str(prepared_cache), "tasks": tasks, **settings}
        config["notes"] = {"source": "notes.csv", "columns": {"label": "ward"}} | (notes or {})
        (tmp_path / SITE_FILE).write_text(tomli_w.dumps(config))
        return open_site(tmp_path)

    return write


@pytest.fixture
def opened(bases: dict[str, str]) -> Callable[[Site, str], tuple[NoteStore, OpenTask | NotScored]]:
    def run(site: Site, name: str) -> tuple[NoteStore, OpenTask | NotScored]:
        tokenizer = load_tokenizer(bases["bert"])
        own = site.notes(tokenizer)
        return own, open_task(site, name, own, tokenizer)

    return run


Opened = Callable[[Site, str], tuple[NoteStore, OpenTask | NotScored]]
SEVERITY = {"name": "severity", "label": "severity"}
SHORT = {"name": "short", "label": "severity", "text": "impression", "metric": "accuracy"}


def test_a_task_has_labels_of_its_own_in_the_notes_own_order_and_split(
    make: Callable[..., Site], opened: Opened, table: list[dict[str, Any]]
) -> None:
    own, task = opened(make([SEVERITY]), "severity")
    assert isinstance(task, OpenTask) and task.own_text and task.task.metric == "macro-f1"
    assert task.notes.column("label").tolist() == [row["severity"] or None for row in table]
    assert own.column("label").tolist() == [row["ward"] for row in table]
    for split in SPLITS:
        assert task.notes.split_indices(split).tolist() == own.split_indices(split).tolist()
    assert task.notes.texts([0, 299]) == own.texts([0, 299]) and task.notes.tokens(5).tolist() == own.tokens(5).tolist()


def test_a_text_of_its_own_leaves_the_split_as_it_was(
    make: Callable[..., Site], opened: Opened, table: list[dict[str, Any]]
) -> None:
    """Read by itself, the other text would be split by its own copies and without the notes that are set aside."""
    table[7]["text"] = table[8]["text"] = "short"
    table[9]["impression"] = "n/a"
    own, task = opened(make([SHORT]), "short")
    assert isinstance(task, OpenTask) and not task.own_text and task.task.metric == "accuracy"
    assert task.notes.texts(range(300)) == [row["impression"] for row in table]
    assert task.notes.column("label").tolist() == [row["severity"] or None for row in table]
    assert task.notes.column("split").tolist() == own.column("split").tolist()
    assert own.column("split")[7] == "set-aside" != own.column("split")[9]
    for split in (*SPLITS, "set-aside"):
        assert task.notes.split_indices(split).tolist() == own.split_indices(split).tolist()
    again = pickle.loads(pickle.dumps(task.notes.view([3, 9])))  # noqa: S301  (as it goes to another process)
    assert again.column("split").tolist() == own.column("split")[[3, 9]].tolist()
    assert again.column("label").tolist() == task.notes.column("label")[[3, 9]].tolist()
    assert again.text(1) == "n/a"


@pytest.mark.parametrize("declared", [SEVERITY, SHORT])
def test_a_virtual_hospital_has_its_own_rows(
    make: Callable[..., Site], opened: Opened, table: list[dict[str, Any]], tmp_path: Path, declared: dict[str, str]
) -> None:
    site = make([declared])
    mine = np.arange(1, 300, 7)
    folder = write_site(tmp_path / "virtual", site.config, mine)
    own, task = opened(open_site(folder), declared["name"])
    assert isinstance(task, OpenTask) and own.rows.tolist() == mine.tolist()
    assert task.notes.column("label").tolist() == [table[row]["severity"] or None for row in mine]
    assert task.notes.texts([4]) == [table[mine[4]][declared.get("text", "text")]]
    assert task.notes.split_indices("test").tolist() == own.split_indices("test").tolist()


def test_a_row_that_is_broken_under_the_task_alone_has_no_label(
    make: Callable[..., Site], opened: Opened, table: list[dict[str, Any]]
) -> None:
    table[4]["impression"] = "long " * 200_001
    own, task = opened(make([SHORT], notes={"skip_bad": 1}), "short")
    assert isinstance(task, OpenTask) and len(own) == len(task.notes) == 300
    assert task.notes.column("label")[4] is None and task.notes.column("split")[4] == "set-aside"
    assert task.notes.texts([3, 5]) == [table[3]["impression"], table[5]["impression"]]


def test_label_is_a_task_where_the_notes_have_labels(
    make: Callable[..., Site], opened: Opened, bases: dict[str, str]
) -> None:
    site = make([SEVERITY])
    own, task = opened(site, "label")
    assert task_names(site, own) == ["label", "severity"]
    assert isinstance(task, OpenTask) and task.notes is own and task.task.label == "ward"
    bare = make([SEVERITY], notes={"columns": {}})
    assert task_names(bare, bare.notes(load_tokenizer(bases["bert"]))) == ["severity"]
    declared = make([{"name": "label", "label": "severity"}])
    own, task = opened(declared, "label")
    assert task_names(declared, own) == ["label"]
    assert isinstance(task, OpenTask) and set(task.notes.column("label")) == {*GRADES, None}


def test_a_task_that_a_site_lacks_is_a_sentence(make: Callable[..., Site], opened: Opened) -> None:
    _, task = opened(make([SEVERITY]), "mortality")
    assert task == NotScored(site="Leeds", task="mortality", reason="The site has no task of this name.")


@pytest.mark.parametrize("declared", [{"label": "severty"}, {"label": "severity", "text": "impresion"}])
def test_an_unknown_column_is_named_with_those_that_there_are(
    make: Callable[..., Site], opened: Opened, declared: dict[str, str]
) -> None:
    with pytest.raises(InputError) as caught:
        opened(make([{"name": "grade"} | declared]), "grade")
    assert caught.value.code == "notes-column" and '"grade"' in caught.value.next_step
    assert repr(declared.get("text", declared["label"])) in caught.value.message
    assert "'severity'" in caught.value.message and "'impression'" in caught.value.message


@pytest.mark.parametrize(
    ("column", "reason"),
    [("constant", "same class"), ("blank", "has a label"), ("unique", "Fewer than 2 of its classes")],
)
def test_labels_that_cannot_be_scored_are_a_sentence(
    make: Callable[..., Site], opened: Opened, column: str, reason: str
) -> None:
    _, task = opened(make([{"name": "odd", "label": column}]), "odd")
    assert isinstance(task, OpenTask)
    labels = task.notes.column("label")
    data = task_data("Leeds", "odd", *(labels[task.notes.split_indices(split)] for split in ("train", "test")))
    assert isinstance(data, NotScored) and reason in data.reason
    assert not isinstance(data, TaskData)


def test_a_query_that_shuffles_its_rows_is_refused(make: Callable[..., Site], opened: Opened, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "notes.db") as database:
        database.execute("CREATE TABLE note (body TEXT, patient TEXT, ward TEXT, grade TEXT)")
        database.executemany(
            "INSERT INTO note VALUES (?, ?, ?, ?)",
            [(f"note {i} of some words {i * 7919}", f"p{i}", f"w{i % 2}", "ab"[i % 2]) for i in range(60)],
        )
    columns = {"text": "body", "label": "ward"}
    notes = {"source": f"sqlite:///{tmp_path / 'notes.db'}", "columns": columns}
    task = {"name": "grade", "label": "grade"}
    _, ordered = opened(make([task], notes=notes | {"query": "SELECT * FROM note ORDER BY patient"}), "grade")
    assert isinstance(ordered, OpenTask) and set(ordered.notes.column("label")) == {"a", "b"}
    with pytest.raises(InputError) as caught:
        opened(make([task], notes=notes | {"query": "SELECT * FROM note ORDER BY random()"}), "grade")
    assert caught.value.code == "notes-changed" and "ORDER BY" in caught.value.next_step


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"tasks": [{"name": "Severity", "label": "x"}]}, "tasks.0.name"),
        ({"tasks": [{"name": "a", "label": ""}]}, "tasks.0.label"),
        ({"tasks": [{"name": "a"}]}, "tasks.0.label"),
        ({"tasks": [{"name": "a", "label": "x", "metric": "f1"}]}, "tasks.0.metric"),
        ({"tasks": [{"name": "a", "label": "x", "colour": "red"}]}, "tasks.0.colour"),
        ({"tasks": [{"name": "a", "label": "x"}, {"name": "a", "label": "y"}]}, "tasks"),
        ({"policy": {"release_embeddings": True}}, "policy.release_embeddings"),
        ({"policy": {"release_embedding_space": "yes"}}, "policy.release_embedding_space"),
    ],
)
def test_mistakes_are_told_by_their_place(make: Callable[..., Site], settings: dict[str, Any], path: str) -> None:
    with pytest.raises(InputError) as caught:
        make(settings.pop("tasks", []), **settings)
    assert caught.value.code == "site-invalid" and f"  {path}: " in caught.value.message


def test_nothing_of_the_embedding_space_leaves_unless_it_is_said(make: Callable[..., Site]) -> None:
    assert not make([]).config.policy.release_embedding_space
    assert make([], policy={"release_embedding_space": True}).config.policy.release_embedding_space
