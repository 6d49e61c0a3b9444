"""A patient is on one side, always the same one, which only the site's key tells; a given split is honoured."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

from notes_helpers import KEY, prepared, words, write_jsonl

from client.notes.store import NoteStore

ROWS: list[dict[str, Any]] = [
    {"id": f"n{number}", "patient": f"p{number // 3}", "text": words(number, 20)} for number in range(3000)
]


def sides(store: NoteStore) -> dict[str, str]:
    return dict(zip(store.column("id"), store.column("split"), strict=True))


def test_a_patient_is_on_one_side(tmp_path: Path, cache: Path) -> None:
    store = prepared(write_jsonl(tmp_path / "notes.jsonl", ROWS), cache)
    pairs = set(zip(store.column("patient"), store.column("split"), strict=True))
    assert len(pairs) == store.intake.patients == 1000
    shares = Counter(split for _, split in pairs)
    assert 760 < shares["train"] < 840 and 70 < shares["dev"] < 130 and 70 < shares["test"] < 130
    assert store.intake.torn_patients == 0


def test_the_split_does_not_depend_on_the_order_of_rows_or_on_other_rows(tmp_path: Path, cache: Path) -> None:
    mixed = [row if number % 2 else {**row, "patient": None} for number, row in enumerate(ROWS)]
    whole = sides(prepared(write_jsonl(tmp_path / "a.jsonl", mixed), cache))
    shuffled = random.Random(3).sample(mixed, len(mixed))
    assert sides(prepared(write_jsonl(tmp_path / "b.jsonl", shuffled), cache)) == whole
    part = sides(prepared(write_jsonl(tmp_path / "c.jsonl", mixed[500:900]), cache))
    assert part.items() <= whole.items()


def test_the_split_changes_with_the_key(tmp_path: Path, cache: Path) -> None:
    path = write_jsonl(tmp_path / "notes.jsonl", ROWS)
    one, other = sides(prepared(path, cache)), sides(prepared(path, cache, key=b"another key"))
    moved = sum(one[note] != other[note] for note in one)
    # Two independent splits agree on .8 * .8 + .1 * .1 + .1 * .1 = .66.
    assert 0.25 < moved / len(one) < 0.43
    assert sides(prepared(path, cache, key=KEY)) == one


def test_a_given_split_is_honoured(tmp_path: Path, cache: Path) -> None:
    given = ["train", "valid", "test"]
    rows = [{**row, "split": given[number // 3 % 3]} for number, row in enumerate(ROWS)]
    store = prepared(write_jsonl(tmp_path / "notes.jsonl", rows), cache)
    assert store.intake.splits == {"train": 1002, "dev": 999, "test": 999}
    assert store.column("split").tolist() == [{"valid": "dev"}.get(row["split"], row["split"]) for row in rows]


def test_notes_without_a_given_side_follow_their_patient(tmp_path: Path, cache: Path) -> None:
    rows = [{**row, "split": "dev" if number % 3 == 0 else None} for number, row in enumerate(ROWS[:300])]
    store = prepared(write_jsonl(tmp_path / "notes.jsonl", rows), cache)
    assert set(store.column("split")) == {"dev"}


def test_a_patient_torn_by_a_given_split_is_counted(tmp_path: Path, cache: Path) -> None:
    rows = [{**row, "split": ["train", None, "test"][number % 3]} for number, row in enumerate(ROWS[:6])]
    store = prepared(write_jsonl(tmp_path / "notes.jsonl", rows), cache)
    assert store.intake.torn_patients == 2
    assert store.column("split").tolist() == ["train", "test", "test"] * 2


def test_empty_and_short_notes_are_set_aside(tmp_path: Path, cache: Path) -> None:
    rows = [
        {"text": text, "split": "test"}
        for text in ("", "  \n ", None, "four words are few", "five words are just enough")
    ]
    store = prepared(write_jsonl(tmp_path / "notes.jsonl", rows), cache)
    assert store.column("split").tolist() == ["set-aside"] * 4 + ["test"]
    intake = store.intake
    assert (intake.notes, intake.set_aside, intake.empty, intake.too_short, intake.copies) == (5, 4, 3, 1, 0)
