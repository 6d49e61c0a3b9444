"""Units: which notes are protected together, and which of them a step draws."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from private_helpers import bench, flat, key_of, store_of, without

from client.notes.store import NoteStore
from client.units import Units, count_units, units_of
from common.encoder import Encoder

SENTENCE = "the patient was seen today for a check of the wound which heals well and no fever was found so home"
NOTES = [
    ("adam", "adam", 0),
    ("adam", "adam", 1),
    ("eve", "eve", 2),
    (None, "copies", 3),
    (None, "copies", 3),
    (None, "lone", 4),
    (None, "other", 5),
    ("adam", "adam", 6),
    ("group 0", "named like a group", 7),
]
Make = Callable[[Sequence[Mapping[str, str | None]]], NoteStore]


def text(number: int) -> str:
    return " ".join(np.random.default_rng([8, number]).permutation(SENTENCE.split()))


@pytest.fixture
def make(tmp_path: Path, encoder: Encoder) -> Make:
    return lambda rows: store_of(tmp_path / str(len(list(tmp_path.iterdir()))), encoder, rows)


@pytest.fixture
def some(make: Make) -> NoteStore:
    return make([{"text": text(number), "patient": patient} for patient, _, number in NOTES])


def everything(notes: NoteStore) -> np.ndarray:
    return np.arange(len(notes))


def grouped(units: Units) -> set[frozenset[int]]:
    return {frozenset(members.tolist()) for members in units.members}


def test_a_unit_is_a_patient_or_a_note_without_one_and_its_copies(some: NoteStore) -> None:
    names = [name for _, name, _ in NOTES]
    wanted = {frozenset(i for i, other in enumerate(names) if other == name) for name in names}
    units = units_of(some, everything(some), "patient")
    assert grouped(units) == wanted and len(units) == len(wanted) == count_units(some, "patient") == 6
    group = some.column("group").tolist()
    assert [group.index(one) for one in group] == [0, 1, 2, 3, 3, 5, 6, 7, 8]  # the copies were found


def test_or_a_note_and_its_copies_whosever(make: Make) -> None:
    notes = make([{"text": text(number), "patient": who} for who, number in (("a", 0), ("b", 0), ("a", 1), (None, 2))])
    assert grouped(units_of(notes, everything(notes), "note")) == {frozenset(s) for s in ({0, 1}, {2}, {3})}
    assert grouped(units_of(notes, everything(notes), "patient")) == {frozenset(s) for s in ({0, 2}, {1}, {3})}
    assert (count_units(notes, "note"), count_units(notes, "patient")) == (3, 3)


def test_notes_too_short_to_be_told_apart_are_units_of_their_own(make: Make) -> None:
    notes = make([{"text": "Stable.", "patient": None}, {"text": "Stable.", "patient": None}])
    assert notes.column("group").tolist() == [-1, -1]
    assert len(units_of(notes, everything(notes), "patient")) == count_units(notes, "note") == 2


def test_a_unit_counts_whether_or_not_its_notes_can_be_used(some: NoteStore) -> None:
    usable = np.array([0, 5])
    units = units_of(some, usable, "patient")
    assert len(units) == 6
    assert sorted(members.tolist() for members in units.members) == [[], [], [], [], [0], [5]]


def test_only_training_notes_are_of_units(some: NoteStore) -> None:
    split = np.array(["train", "dev", "test", "train", "set-aside", "train", "dev", "dev", "dev"], dtype=object)
    notes = some.with_columns(split=split)
    assert grouped(units_of(notes, everything(notes), "patient")) == {frozenset({0}), frozenset({3}), frozenset({5})}
    assert count_units(notes, "patient") == 3


def test_units_of_a_view_are_those_of_its_notes(some: NoteStore) -> None:
    """In places of the view, in whatever order its notes are."""
    rows = np.array([8, 7, 4, 1, 3, 0])
    places = grouped(units_of(some.view(rows), everything(some.view(rows)), "patient"))
    assert {frozenset(rows[list(unit)].tolist()) for unit in places} == {
        frozenset({8}),
        frozenset({7, 1, 0}),
        frozenset({4, 3}),
    }


def test_the_order_of_notes_does_not_change_what_is_a_unit(some: NoteStore) -> None:
    wanted = grouped(units_of(some, everything(some), "patient"))
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(some))
        found = grouped(units_of(some.view(order), everything(some), "patient"))
        assert {frozenset(order[list(unit)].tolist()) for unit in found} == wanted


def test_a_draw_does_not_depend_on_what_notes_hold_or_are_used(some: NoteStore, make: Make) -> None:
    units = units_of(some, everything(some), "patient")
    unusable = units_of(some, np.zeros(0, dtype=np.int64), "patient")
    others = make([{"text": text(50 + number), "patient": patient} for patient, _, number in NOTES])
    texts = units_of(others, everything(others), "patient")
    draws = [[some_units.draw(0.4, key_of("draw"), step).tolist() for step in range(30)] for some_units in (
        units, unusable, texts, without(units, 1))]  # fmt: skip
    assert draws[0] == draws[1] == draws[2] == draws[3]
    assert len({tuple(drawn) for drawn in draws[0]}) > 10


def test_which_notes_of_a_unit_a_step_reads_rests_on_its_own_generator() -> None:
    units = Units([np.arange(10), np.arange(10, 12), np.zeros(0, dtype=np.int64)])
    drawn = [units.notes(0, 3, np.random.default_rng(seed)) for seed in range(200)]
    assert all(len(set(notes.tolist())) == 3 and sorted(notes) == notes.tolist() for notes in drawn)
    assert np.bincount(np.concatenate(drawn), minlength=10).min() > 30  # 60 each, on average
    assert units.notes(1, 3, np.random.default_rng(0)).tolist() == [10, 11]
    assert units.notes(2, 3, np.random.default_rng(0)).tolist() == []


def test_a_unit_without_notes_is_in_no_sum_but_in_the_number_it_is_divided_by(
    bases: dict[str, str], notes: NoteStore
) -> None:
    made = bench("mlm", bases["bert"], notes)
    units = made.units(notes)
    few = Units(units.members[:2])
    more = Units([*units.members[:2], *[np.zeros(0, dtype=np.int64)] * 6])
    (one,), (other,) = (made.round(notes, some, key_of(1), noise=0.0, learning_rate=1e-12)[1] for some in (few, more))
    assert float(flat(other).norm()) > 0.01
    np.testing.assert_allclose(flat(other).numpy() * 8, flat(one).numpy() * 2, atol=1e-6)
