"""A whole task at one site under every kind of model, and TF-IDF on real notes."""

import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.evaluation.few_shot import draw
from client.evaluation.fine_tune import fine_tune
from client.evaluation.head import fit_head
from client.evaluation.metrics import macro_f1
from client.evaluation.probe import tfidf_probe
from client.evaluation.score import score_frozen, score_majority, score_tuned
from client.evaluation.task import TaskData, task_data
from common.encoder import load_encoder, tensors_digest
from common.plan_sections import Evaluation
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
    score, predicted = score_frozen(data, "federated", train_x, test_x, shots=(8, 16, 500), seeds=5, seed=1)
    assert (score.site, score.task, score.model) == ("Leeds", "specialty", "federated")
    assert score.n_train == len(data.train_labels) and score.n_test == len(predicted.full) == sum(
        score.support.values()
    )
    assert set(score.support) == {"heart", "lung", "knee"}
    assert score.macro_f1.value == pytest.approx(macro_f1(data.test_labels, predicted.full))
    assert score.macro_f1.value > 0.8 and score.metric == "macro-f1"
    assert score.auroc is not None and score.auroc.value > 0.9
    for estimate in (score.macro_f1, score.accuracy, score.auroc):
        assert estimate.low < estimate.value < estimate.high
    assert [few.shots for few in score.few_shot] == [8, 16]
    assert all(len(few.per_seed) == 5 for few in score.few_shot)
    assert {n: of_draw.shape for n, of_draw in predicted.draws.items()} == dict.fromkeys((8, 16), (5, score.n_test))
    assert score.few_shot[1].per_seed == [macro_f1(data.test_labels, labels) for labels in predicted.draws[16]]
    assert TaskScore.model_validate_json(score.model_dump_json()) == score


def test_the_rows_of_the_task_are_used_and_no_others():
    data, train_x, test_x = site()
    score, predicted = score_frozen(data, "base", train_x, test_x, shots=(8,), seeds=2)
    left_out = np.setdiff1d(np.arange(len(train_x)), data.train_rows)
    changed = train_x.copy()
    changed[left_out] = 1e6
    again, same = score_frozen(data, "base", changed, test_x, shots=(8,), seeds=2)
    assert len(left_out) > 10 and again == score and (same.full == predicted.full).all()


def test_patients_are_taken_by_the_rows_of_the_task(monkeypatch):
    data, train_x, test_x = site()
    groups = np.arange(len(train_x)) // 2
    given = []

    def spy(train, train_y, test, seed, patients, metric):
        given.append((train_y, patients))
        return fit_head(train, train_y, test, seed, patients, metric)

    monkeypatch.setattr("client.evaluation.score.fit_head", spy)
    score_frozen(data, "base", train_x, test_x, shots=(8,), seeds=2, groups=groups)
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
    score, predicted = score_frozen(data, "tf-idf", texts, test_texts, shots=(8,), seeds=2)
    assert (predicted.full == data.test_labels).all()
    assert (score.macro_f1.value, score.macro_f1.low) == (1.0, None)
    assert score.few_shot[0].per_seed == [1.0, 1.0]
    with pytest.raises(TypeError):
        score_frozen(data, "federated", texts, test_texts)


def test_the_majority_class_is_what_a_score_is_worth_that_reads_nothing():
    data, _, _ = site()
    score, predicted = score_majority(data, seed=1)
    assert set(predicted.full) == {"heart"} and predicted.draws == {} and score.few_shot == []
    assert (score.model, score.mode, score.n_train) == ("majority", "frozen", len(data.train_labels))
    share = np.mean(data.test_labels == "heart")
    assert score.accuracy.value == pytest.approx(share)
    assert score.macro_f1.value == pytest.approx(2 * share / (1 + share) / 3)
    assert score.auroc is not None and (score.auroc.value, score.auroc.low) == (0.5, None)


def test_of_equally_frequent_classes_the_first_by_name_is_the_majority():
    data = task_data("Leeds", "side", ["right", "left"] * 8, ["right", "left"] * 5)
    assert isinstance(data, TaskData)
    assert set(score_majority(data)[1].full) == {"left"}


def test_the_metric_of_the_task_chooses_c_and_is_reported(monkeypatch):
    data, train_x, test_x = site()
    used = []

    def spy(train, train_y, test, seed, patients, metric):
        used.append(metric)
        return fit_head(train, train_y, test, seed, patients, metric)

    monkeypatch.setattr("client.evaluation.score.fit_head", spy)
    for metric in ("macro-f1", "accuracy"):
        of_metric = replace(data, metric=metric)
        score, _ = score_frozen(of_metric, "base", train_x, test_x, shots=(8,), seeds=2)
        assert score.metric == metric == score_majority(of_metric)[0].metric
        assert score.few_shot[0].accuracy is not None
    assert used == ["macro-f1"] * 3 + ["accuracy"] * 3


def test_a_class_of_one_note_and_a_class_for_every_note_can_be_scored():
    rng = np.random.default_rng(0)
    for labels in (["a"] * 9 + ["b"], [f"class {k}" for k in range(10)]):
        data = task_data("Leeds", "odd", labels, labels, min_train_per_class=1)
        assert isinstance(data, TaskData)
        x = rng.normal(size=(10, 4))
        score, predicted = score_frozen(data, "base", x, x, shots=(1, 2), seeds=2)
        assert set(predicted.full) <= set(labels) and 0 <= score.macro_f1.value <= 1
        assert score_majority(data)[0].n_train == 10


EVALUATION = Evaluation(
    tuning_epochs=4,
    tuning_learning_rate=3e-3,
    lora_learning_rate=2e-2,
    head_learning_rate=1e-2,
    lora_rank=4,
    tuned_shots=[4, 500],
)
TUNED = {"evaluation": EVALUATION, "max_length": 32, "precision": "float32", "seed": 3}


@pytest.mark.parametrize("mode", ["fine-tuned", "lora"])
def test_a_tuned_encoder_is_scored_on_the_draws_of_the_frozen_curve(bases, task_stores, task_of, monkeypatch, mode):
    encoder, store = load_encoder(bases["bert"]), task_stores["bert"]
    data, before = task_of(store), tensors_digest(encoder.tensors().items())
    given = []

    def spy(encoder, notes, train, dev, test, **settings):
        given.append((train.rows.tolist(), None if dev is None else len(dev.rows), settings["seed"]))
        assert (notes.column("label")[train.rows] == train.labels).all()
        assert dev is None or (notes.column("label")[dev.rows] == dev.labels).all()
        assert (test == notes.split_indices("test")[data.test_rows]).all()
        return fine_tune(encoder, notes, train, dev, test, **settings)

    monkeypatch.setattr("client.evaluation.score.fine_tune", spy)
    score, predicted = score_tuned(data, "federated", mode, encoder, store, **TUNED)
    train = store.split_indices("train")[data.train_rows]
    drawn = [train[draw(data.train_labels, 4, 3, number)].tolist() for number in range(5)]
    assert given == [(train.tolist(), 18, 3), *((rows, None, 3 + number) for number, rows in enumerate(drawn))]
    assert (score.model, score.mode, score.n_train, score.n_test) == ("federated", mode, 60, 30)
    assert score.macro_f1.value == pytest.approx(macro_f1(data.test_labels, predicted.full)) and score.auroc is not None
    assert [few.shots for few in score.few_shot] == [4] == list(predicted.draws)
    assert predicted.draws[4].shape == (5, 30)
    assert score.few_shot[0].per_seed == [macro_f1(data.test_labels, labels) for labels in predicted.draws[4]]
    assert tensors_digest(encoder.tensors().items()) == before
    again, same = score_tuned(data, "federated", mode, encoder, store, **TUNED)
    assert again == score and (same.draws[4] == predicted.draws[4]).all()


def test_without_tuned_shots_the_encoder_learns_once(bases, task_stores, task_of):
    encoder, store = load_encoder(bases["bert"]), task_stores["bert"]
    once = TUNED | {"evaluation": EVALUATION.model_copy(update={"tuned_shots": []})}
    score, predicted = score_tuned(task_of(store, dev=False), "base", "fine-tuned", encoder, store, **once)
    assert score.few_shot == [] and predicted.draws == {} and score.macro_f1.value > 0.8


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
