"""A task that an encoder can learn in seconds: each class has words of its own. With dev notes, and without."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from client.evaluation.task import TaskData, task_data
from client.notes.source import NotesSource
from client.notes.store import NoteStore, prepare
from common.encoder import load_tokenizer

WORDS = {
    "heart": ("chest", "pain", "blood", "pressure"),
    "knee": ("left", "right", "weeks", "days"),
    "skin": ("patient", "noted", "history", "denies"),
}
NOTES = {"train": 60, "dev": 18, "test": 30}


def _rows() -> list[dict[str, str]]:
    rng = np.random.default_rng(0)
    names = sorted(WORDS)
    return [
        {
            "text": " ".join(rng.choice(WORDS[names[place % 3]], 6 + place % 5)) + f" {split} {place}",
            "label": names[place % 3],
            "split": split,
        }
        for split, number in NOTES.items()
        for place in range(number)
    ]


@pytest.fixture(scope="session")
def task_stores(bases: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, NoteStore]:
    """Family -> the notes of the task, prepared with its tokenizer."""
    folder: Path = tmp_path_factory.mktemp("task")
    (folder / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _rows()), encoding="utf-8")
    source = NotesSource(source=str(folder / "notes.jsonl"))
    return {f: prepare(source, load_tokenizer(base), b"a key", folder / "cache") for f, base in bases.items()}


@pytest.fixture
def task_of() -> Callable[..., TaskData]:
    """The task of a store: `task_of(store, dev=False)` leaves the dev notes out."""

    def make(store: NoteStore, dev: bool = True) -> TaskData:
        labels = store.column("label")
        train, dev_labels, test = (labels[store.split_indices(split)] for split in NOTES)
        data = task_data("Leeds", "organ", train, test, dev_labels=dev_labels if dev else ())
        assert isinstance(data, TaskData)
        return data

    return make
