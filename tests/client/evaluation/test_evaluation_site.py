"""A whole task at one site, the comparison of two models, and TF-IDF on real notes."""

import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from client.evaluation.few_shot import draw
from client.evaluation.head import fit_head
from client.evaluation.metrics import macro_f1
from client.evaluation.probe import tfidf_probe
from client.evaluation.site import compare, score_task
from client.evaluation.task import TaskData, task_data
from common.results import TaskScore

pytestmark = pytest.mark.filterwarnings("error")

REAL_NOTES = Path(__file__).parents[4] / "shared" / "data" / "mtsamples" / "notes.jsonl.gz"


def site(distance: float = 0.6):
    """140 train and 60 test notes of four classes, one of them too rare, some without a label."""
    rng = np.random.default_rng(0)
    names = np.array(["heart", "lung", "knee", "rare"])
    train, test = rng.choice(4, 140, p=[0.4, 0.3, 0.27, 0.03]), rng.choice(4, 60, p=[0.4, 0.3, 0.27, 0.03])
    centres = rng.normal(size=(4, 32)) * distance
    train_x, test_x = (centres[k] + rng.normal(size=(len(k), 32)) for k in (train, test))
    train_labels, test_labels = (names[k].astype(object) for k in (train, test))
    train_labels[:10] = None
    data = task_data("Leeds", "specialty", train_labels, test_labels)
    assert isinstance(data, TaskData)
    return data, train_x, test_x


def test_a_score_stands_with_its_n_its_support_and_its_intervals():
    data, train_x, test_x = site(distance=0.35)
    score, labels = score_task(data, "federated", train_x, test_x, shots=(8, 16, 500), seeds=5, seed=1)
    assert (score.site, score.task, score.model) == ("Leeds", "specialty", "federated")
    assert score.n_train == len(data.train_labels) and score.n_test == len(labels) == sum(score.support.values())
    assert set(score.support) == {"heart", "lung", "knee"}
    assert score.macro_f1.value == pytest.approx(macro_f1(data.test_labels, labels)) and score.macro_f1.value > 0.8
    assert score.auroc is not None and score.auroc.value > 0.9
    for estimate in (score.macro_f1, score.accuracy, score.auroc):
        assert estimate.low < estimate.value < estimate.high
    assert [few.shots for few in score.few_shot] == [8, 16]
    assert all(len(few.per_seed) == 5 for few in score.few_shot)
    assert TaskScore.model_validate_json(score.model_dump_json()) == score


def test_the_rows_of_the_task_are_used_and_no_others():
    data, train_x, test_x = site()
    score, labels = score_task(data, "base", train_x, test_x, shots=(8,), seeds=2)
    left_out = np.setdiff1d(np.arange(len(train_x)), data.train_rows)
    changed = train_x.copy()
    changed[left_out] = 1e6
    again, same = score_task(data, "base", changed, test_x, shots=(8,), seeds=2)
    assert len(left_out) > 10 and again == score and (same == labels).all()


def test_patients_are_taken_by_the_rows_of_the_task(monkeypatch):
    data, train_x, test_x = site()
    groups = np.arange(len(train_x)) // 2
    given = []

    def spy(train, train_y, test, seed, patients):
        given.append((train_y, patients))
        return fit_head(train, train_y, test, seed, patients)

    monkeypatch.setattr("client.evaluation.site.fit_head", spy)
    score_task(data, "base", train_x, test_x, shots=(8,), seeds=2, groups=groups)
    assert (given[0][1] == groups[data.train_rows]).all()
    drawn = [data.train_rows[draw(data.train_labels, 8, 0, number)] for number in range(2)]
    assert [patients.tolist() for _, patients in given[1:]] == [groups[rows].tolist() for rows in drawn]


def test_tfidf_takes_the_texts_and_embeddings_are_no_texts():
    data, train_x, test_x = site()
    texts = ["chest pain"] * len(train_x)
    for row, label in zip(data.train_rows, data.train_labels, strict=True):
        texts[row] = f"the {label} was examined"
    test_texts = ["none"] * len(test_x)
    for row, label in zip(data.test_rows, data.test_labels, strict=True):
        test_texts[row] = f"a note about the {label}"
    score, labels = score_task(data, "tf-idf", texts, test_texts, shots=(8,), seeds=2)
    assert (labels == data.test_labels).all()
    assert (score.macro_f1.value, score.macro_f1.low) == (1.0, None)
    assert score.few_shot[0].per_seed == [1.0, 1.0]
    with pytest.raises(TypeError):
        score_task(data, "federated", texts, test_texts)


def test_the_verdict_follows_the_interval():
    data, _, _ = site()
    true = data.test_labels
    other = np.roll(true, 1)
    better, worse = compare(data, "base", true, other), compare(data, "local-only", other, true)
    assert (better.verdict, better.against, better.n_test) == ("better", "base", len(true))
    assert better.difference.low > 0 and better.difference.value == pytest.approx(-worse.difference.value)
    assert (worse.verdict, worse.against) == ("worse", "local-only")
    one_note = true.copy()
    one_note[0] = next(name for name in data.support if name != true[0])
    assert compare(data, "base", true, one_note).verdict == "no clear difference"
    same = compare(data, "centralised", other, other)
    assert (same.difference.value, same.verdict) == (0.0, "no clear difference")


@pytest.mark.skipif(not REAL_NOTES.exists(), reason="the real notes are not here")
def test_tfidf_on_real_notes_is_as_good_as_known():
    with gzip.open(REAL_NOTES, "rt", encoding="utf-8") as lines:
        notes = [note for note in map(json.loads, lines) if not note.get("label_conflict")]
    totals = Counter(note["label"] for note in notes)
    train, test = ([note for note in notes if note["split"] == split] for split in ("train", "test"))
    label_of = {name: name if number >= 30 else None for name, number in totals.items()}
    data = task_data("all", "specialty", *([label_of[note["label"]] for note in side] for side in (train, test)))
    assert isinstance(data, TaskData) and len(data.support) == 16
    predictions = tfidf_probe(
        [train[row]["text"] for row in data.train_rows],
        data.train_labels,
        [test[row]["text"] for row in data.test_rows],
        seed=0,
    )
    assert 0.70 < macro_f1(data.test_labels, predictions.labels) < 0.88
