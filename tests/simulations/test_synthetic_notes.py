"""Synthetic notes: the same for a seed, like real ones, unlike from hospital to hospital, and no trivial task."""

import gzip
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from random import Random

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from simulations.synthetic_notes import synthetic_notes, write_jsonl
from simulations.synthetic_notes.hospitals import NAMES

Notes = list[dict[str, str]]
PER_CLASS = 16
# The names of the labels, of those who work there, and of what else their departments are called.
GIVEAWAYS = re.compile(
    r"\b(cardiolog|cardiac|pulmonolog|respirat|chest (clinic|team)|gastroenterolog|hepatolog|neurolog|neuro\b|nephrolog"
    r"|renal|orthop(a)?ed|ortho\b|endocrin|diabetolog|oncolog|onc\b)",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def notes() -> Notes:
    return list(synthetic_notes())


def by(notes: Notes, key: str) -> dict[str, Notes]:
    groups: dict[str, Notes] = defaultdict(list)
    for note in notes:
        groups[note[key]].append(note)
    return groups


def shares(notes: Notes, key: str, keys: list[str]) -> np.ndarray:
    counts = Counter(note[key] for note in notes)
    return np.array([counts[k] for k in keys]) / len(notes)


def test_same_seed_gives_the_same_notes_and_another_seed_gives_others() -> None:
    first = list(synthetic_notes(seed=3, notes=60))
    assert first == list(synthetic_notes(seed=3, notes=60))
    other = list(synthetic_notes(seed=4, notes=60))
    assert not {note["text"] for note in first} & {note["text"] for note in other}


def test_notes_do_not_hang_on_the_order_of_hashes() -> None:
    program = (
        "import hashlib, json; from simulations.synthetic_notes import synthetic_notes;"
        "print(hashlib.sha256(json.dumps(list(synthetic_notes(notes=80))).encode()).hexdigest())"
    )
    root = Path(__file__).parents[2]
    digests = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, cwd=root, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


@pytest.mark.parametrize(("count", "hospitals"), [(1, 1), (7, 4), (500, 12)])
def test_as_many_notes_and_hospitals_as_asked_for(count: int, hospitals: int) -> None:
    made = list(synthetic_notes(notes=count, hospitals=hospitals))
    assert len(made) == len({note["id"] for note in made}) == count
    assert {note["site"] for note in made} <= set(NAMES[:hospitals])
    if count == 500:
        assert len({note["site"] for note in made}) == hospitals


@pytest.mark.parametrize("hospitals", [0, len(NAMES) + 1])
def test_refuses_a_number_of_hospitals_that_it_has_no_names_for(hospitals: int) -> None:
    with pytest.raises(ValueError, match="hospitals"):
        next(synthetic_notes(hospitals=hospitals))


def test_written_file_is_the_same_every_time_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl.gz", notes=40)
    write_jsonl(tmp_path / "b.jsonl.gz", notes=40)
    write_jsonl(tmp_path / "c.jsonl", notes=40)
    a, b, c = ((tmp_path / name).read_bytes() for name in ("a.jsonl.gz", "b.jsonl.gz", "c.jsonl"))
    assert a == b
    assert gzip.decompress(a) == c
    assert [json.loads(line) for line in c.decode().splitlines()] == list(synthetic_notes(notes=40))
    assert len(list(tmp_path.iterdir())) == 3


def test_every_type_of_note_and_every_specialty_is_there(notes: Notes) -> None:
    types, labels = by(notes, "category"), by(notes, "label")
    assert {"discharge summary", "progress", "nursing", "radiology", "emergency", "operation", "letter"} < set(types)
    assert "incident report" in types
    assert len(labels) == 8
    assert min(map(len, types.values())) > 40
    assert min(map(len, labels.values())) > 5 * PER_CLASS


def test_no_note_names_a_specialty(notes: Notes) -> None:
    labels = set(by(notes, "label"))
    for note in notes:
        assert not (found := GIVEAWAYS.search(note["text"])), f"{note['id']}: {found}"
        assert not any(label in note["text"].lower() for label in labels)


def test_templates_are_filled_in(notes: Notes) -> None:
    for note in notes:
        assert not re.search(r"[{}]|\d\.\.\d| \* \S.* \* ", note["text"]), note["text"]


def test_patients_have_several_notes_over_time_in_one_place_for_one_specialty(notes: Notes) -> None:
    patients = by(notes, "patient")
    several = [stay for stay in patients.values() if len(stay) > 1]
    assert len(several) > 0.95 * len(patients)
    for stay in patients.values():
        dates = [note["date"] for note in stay]
        assert dates == sorted(dates)
        assert len({note["label"] for note in stay}) == len({note["site"] for note in stay}) == 1
    assert sum(stay[0]["date"] < stay[-1]["date"] for stay in several) > 0.8 * len(several)


def test_notes_are_as_long_as_notes_and_full_of_numbers_and_negation(notes: Notes) -> None:
    lengths = [len(note["text"].split()) for note in notes]
    assert 100 < np.median(lengths) < 160
    assert min(lengths) > 25
    assert max(lengths) < 400
    units = re.compile(r"\d ?(mmol/L|mg|mmHg|bpm|cm|ml|g/L|umol/L|kPa|%)")
    negation = re.compile(r"\b(no|denie[sd]|nil|without|w/o|negative for|not)\b", re.IGNORECASE)
    assert np.mean([bool(units.search(note["text"])) for note in notes]) > 0.9
    assert np.mean([bool(negation.search(note["text"])) for note in notes]) > 0.8


def test_hospitals_differ_in_size_and_in_mix(notes: Notes) -> None:
    sites = by(notes, "site")
    sizes = sorted(map(len, sites.values()))
    assert 2.5 < sizes[-1] / sizes[0] < 4.5
    for key in ("label", "category"):
        keys = sorted(by(notes, key))
        everywhere = shares(notes, key, keys)
        distances = [np.abs(shares(at, key, keys) - everywhere).sum() / 2 for at in sites.values()]
        assert np.mean(distances) > 0.08, (key, distances)


def test_hospitals_have_heading_styles_and_date_formats_of_their_own(notes: Notes) -> None:
    styles = {
        "capitals": re.compile(r"^[A-Z][A-Z ]+:$", re.MULTILINE),
        "short": re.compile(r"\b(PC|PMH|O/E|Ix|Imp|P): "),
        "title case": re.compile(r"^[A-Z][a-z]+( [A-Z][a-z]+)*$\n", re.MULTILINE),
        "numbered": re.compile(r"^\d\. [A-Z][a-z ]+$", re.MULTILINE),
    }
    habits = {
        site: max(styles, key=lambda style: sum(bool(styles[style].search(note["text"])) for note in at))
        for site, at in by(notes, "site").items()
    }
    assert sorted(habits.values()) == sorted(styles)
    dates = {
        site: Counter(
            re.sub(r"\d", "0", d) for note in at for d in re.findall(r"^\S*?\b(\d+[-/.]\d+[-/.]\d+)\b", note["text"])
        )
        for site, at in by(notes, "site").items()
    }
    assert len({counts.most_common(1)[0][0] for counts in dates.values()}) == len(habits)


def test_hospitals_differ_in_spelling_and_in_abbreviations(notes: Notes) -> None:
    words = {
        site: re.findall(r"\b[a-z]{6,}\b", " ".join(n["text"] for n in at)) for site, at in by(notes, "site").items()
    }
    # What is written well is written often: the generator's vocabulary is far smaller than its text.
    counts = Counter(word for at in words.values() for word in at)
    rates = sorted(np.mean([counts[word] <= 2 for word in at]) for at in words.values())
    assert rates[-1] > 3 * rates[0] > 0
    short, full = re.compile(r"\b(hrs|wks|w/|Na|K|Cr|pre)(?!\w)"), re.compile(r"\b(hours|weeks|with|sodium|before)\b")
    habits = []
    for at in by(notes, "site").values():
        text = " ".join(note["text"] for note in at)
        habits.append(len(short.findall(text)) / (len(short.findall(text)) + len(full.findall(text))))
    assert max(habits) - min(habits) > 0.4


def test_few_notes_are_copies_of_others(notes: Notes) -> None:
    shingles = []
    for note in notes:
        words = note["text"].split()
        shingles.append({tuple(words[i : i + 5]) for i in range(len(words) - 4)})
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    copies = set()
    for i, own in enumerate(shingles):
        shared = Counter(j for shingle in own for j in holders[shingle])
        copies |= {i for j, n in shared.items() if n > 0.8 * (len(own) + len(shingles[j]) - n)}
        for shingle in own:
            holders[shingle].append(i)
    assert 0.002 < len(copies) / len(notes) < 0.04


def macro_f1(notes: Notes, seed: int, per_class: int | None) -> float:
    """TF-IDF and logistic regression, tested on patients it has not seen."""
    rng = Random(seed)
    patients = sorted(by(notes, "patient"))
    rng.shuffle(patients)
    held_out = set(patients[: len(patients) // 3])
    train = [note for note in notes if note["patient"] not in held_out]
    rng.shuffle(train)
    train = [note for group in by(train, "label").values() for note in group[:per_class]]
    test = [note for note in notes if note["patient"] in held_out]
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=8000)
    x = vectors.fit_transform([note["text"] for note in train])
    model = LogisticRegression(C=10, solver="newton-cg").fit(x, [note["label"] for note in train])
    guessed = model.predict(vectors.transform([note["text"] for note in test]))
    return f1_score([note["label"] for note in test], guessed, average="macro")


def test_words_alone_do_not_tell_the_specialty_from_a_few_notes_but_do_from_many(notes: Notes) -> None:
    few = float(np.mean([macro_f1(notes, seed, PER_CLASS) for seed in range(5)]))
    assert 2 / 8 < few < 0.85
    assert macro_f1(notes, 0, None) > max(0.8, few + 0.1)
