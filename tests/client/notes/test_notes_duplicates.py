"""Copies are found, unlike notes are not, and a copy never stands on another side than its original."""

import itertools
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from notes_helpers import KEY, change, prepared, words, write_jsonl

from client.notes.duplicates import Groups, find_groups
from client.notes.shingles import PERMUTATIONS, fingerprint
from client.notes.split import assign_splits


def grouped(texts: list[str]) -> Groups:
    return find_groups(fingerprint(texts), lambda bands: None)


def jaccard(one: str, other: str) -> float:
    """The similarity that the signatures estimate, computed in full."""
    runs = [{tuple(text.split()[i : i + 5]) for i in range(len(text.split()) - 4)} for text in (one, other)]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


def test_exact_copies_look_past_case_and_white_space() -> None:
    text = "Fièvre after the Second dose, No rash"
    groups = grouped(
        [text, text.upper(), f"  {text}\n", text.replace(" ", "\n\t"), "Fièvre after the second dose, a rash"]
    )
    assert groups.group[:4].tolist() == [groups.group[0]] * 4 and groups.group[4] != groups.group[0]
    assert (groups.exact, groups.near) == (3, 0)


def test_near_copies_are_found() -> None:
    texts = []
    for seed in range(100):
        original = words(seed, 100)
        texts += [original, change(original, 1, seed), original + " seen and signed", original.replace(" ", ", ", 9)]
    groups = grouped(texts)
    assert len(groups.names) == 100
    assert all(len(set(groups.group[first : first + 4])) == 1 for first in range(0, 400, 4))
    assert (groups.exact, groups.near) == (0, 300)


def test_notes_that_share_half_their_words_are_no_copies() -> None:
    template = words(0, 50)
    groups = grouped([f"{template} {words(seed, 50)}" for seed in range(1, 300)])
    assert (groups.exact, groups.near) == (0, 0)


def test_the_estimate_is_of_the_jaccard_similarity() -> None:
    pairs = [(text := words(seed, 200), change(text, 1 + seed % 30, seed)) for seed in range(200)]
    prints = fingerprint(list(itertools.chain(*pairs)))
    estimates = (prints.signatures[0::2] == prints.signatures[1::2]).mean(axis=1)
    errors = estimates - [jaccard(*pair) for pair in pairs]
    assert abs(errors.mean()) < 0.01
    assert errors.std() < 1.2 * np.sqrt(0.25 / PERMUTATIONS)


def test_signatures_do_not_depend_on_the_batch() -> None:
    texts = ["", "a b", *(words(seed, 5 + seed) for seed in range(30)), " ", "Größe über fünf Wörter hinaus", "???"]
    together = fingerprint(texts)
    for index, text in enumerate(texts):
        alone = fingerprint([text])
        assert np.array_equal(alone.signatures[0], together.signatures[index])
        assert alone.digests[0] == together.digests[index]
    assert together.words[:3].tolist() == [0, 2, 5]


def test_groups_do_not_depend_on_the_order() -> None:
    texts = [change(words(seed // 3, 80), seed % 3, seed) for seed in range(600)]
    order = random.Random(1).sample(range(600), 600)
    one, other = grouped(texts), grouped([texts[index] for index in order])
    assert one.names[one.group[order]].tolist() == other.names[other.group].tolist()


def test_a_copy_of_a_copy_is_in_the_group() -> None:
    first = words(1, 100)
    second = change(first, 2, 1)
    third = change(second, 2, 2)
    assert len(grouped([first, second, third]).names) == 1


def test_short_and_empty_notes_have_no_group() -> None:
    groups = grouped(["", "", "one two three four", "one two three four", "one two three four five"])
    assert groups.group.tolist() == [-1, -1, -1, -1, 0]
    assert groups.exact == 0


@pytest.mark.timeout(20)
def test_many_notes_from_one_template_do_not_take_for_ever() -> None:
    template = words(0, 150)
    half = [f"{template} {words(seed, 150)}" for seed in range(1, 4000)]
    assert grouped(half).near == 0
    assert len(grouped([change(words(0, 300), 2, seed) for seed in range(4000)]).names) == 1


def test_copies_across_patients_stand_on_one_side(tmp_path: Path, cache: Path) -> None:
    rows = []
    for patient in range(300):
        shared = words(patient // 3, 60)
        rows += [
            {"patient": f"p{patient}", "text": shared if patient % 2 else change(shared, 1, patient)},
            {"patient": f"p{patient}", "text": words(10_000 + patient, 60)},
        ]
    store = prepared(write_jsonl(tmp_path / "notes.jsonl", rows), cache)
    sides: dict[int, set[str]] = {}
    for group, split in zip(store.column("group"), store.column("split"), strict=True):
        sides.setdefault(group, set()).add(split)
    assert all(len(found - {"set-aside"}) == 1 for found in sides.values())
    intake = store.intake
    assert intake.copies == intake.set_aside == (store.column("split") == "set-aside").sum() > 20
    assert intake.exact_duplicates + intake.near_duplicates == 200
    # The own notes of each patient stay: nothing but copies is set aside, and no patient is moved.
    assert Counter(store.column("split")[1::2])["set-aside"] == 0


def test_the_most_protected_copy_stays() -> None:
    text = words(1)
    groups = grouped([text, text, text, words(2), words(2), text])
    splits = assign_splits([None] * 6, ["train", "test", "dev", "dev", "train", "test"], groups, KEY)
    assert splits.split.tolist() == ["set-aside", "test", "set-aside", "dev", "set-aside", "test"]
    assert splits.copies == 3


def test_copies_of_no_patient_fall_together(tmp_path: Path, cache: Path) -> None:
    rows = [{"text": change(words(seed // 4, 60), seed % 2, 0)} for seed in range(400)]
    store = prepared(write_jsonl(tmp_path / "notes.jsonl", rows), cache)
    assert store.intake.set_aside == 0
    by_group = {(group, split) for group, split in zip(store.column("group"), store.column("split"), strict=True)}
    assert len(by_group) == 100


def test_planted_copies_among_real_notes(tmp_path: Path, cache: Path) -> None:
    import gzip

    path = Path(__file__).parents[3] / ".." / "shared" / "data" / "mtsamples" / "notes.jsonl.gz"
    if not path.is_file():
        pytest.skip("the real notes are not here")
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in itertools.islice(stream, 500)]
    long_rows = [row for row in rows if len(row["text"].split()) >= 60][:200]
    copies = [{**row, "split": "train", "text": change(row["text"], 1, seed)} for seed, row in enumerate(long_rows)]
    store = prepared(write_jsonl(tmp_path / "notes.jsonl", [*rows, *copies]), cache)
    groups = store.column("group")
    place = {row["id"]: index for index, row in enumerate(rows)}
    found = sum(groups[len(rows) + seed] == groups[place[row["id"]]] for seed, row in enumerate(long_rows))
    assert found >= 198
    held_out = {groups[index] for index in (*store.split_indices("dev"), *store.split_indices("test"))}
    assert not held_out & {groups[index] for index in store.split_indices("train")}
