"""The head and the two representations: what they learn, and what they must never see."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler

from client.evaluation import head
from client.evaluation.head import C_GRID, DEFAULT_C, MAX_FOLDS, fit_head
from client.evaluation.metrics import accuracy, macro_f1
from client.evaluation.probe import frozen_probe, standardised, tfidf, tfidf_probe
from common.errors import InputError, StudyError

pytestmark = pytest.mark.filterwarnings("error")  # a head that did not converge, or a fold that could not be made


def clusters(seed: int, n: int, classes: int = 4, width: int = 20, distance: float = 3.0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    centres = np.random.default_rng(1000).normal(size=(classes, width)) * distance
    return centres[y] + rng.normal(size=(n, width)), np.array([f"class {k}" for k in y])


def test_separable_clusters_are_told_apart():
    x, y = clusters(0, 200)
    test_x, test_y = clusters(1, 80)
    predictions = frozen_probe(x, y, test_x, seed=0)
    assert macro_f1(test_y, predictions.labels) > 0.97
    assert predictions.classes.tolist() == sorted(set(y))
    assert predictions.scores.shape == (80, 4)
    assert predictions.scores.sum(axis=1) == pytest.approx(np.ones(80))


def test_two_classes_work_too():
    x, y = clusters(0, 100, classes=2)
    test_x, test_y = clusters(1, 40, classes=2)
    predictions = frozen_probe(x, y, test_x, seed=0)
    assert predictions.scores.shape == (40, 2) and accuracy(test_y, predictions.labels) > 0.97


def test_shuffled_labels_give_chance():
    x, y = clusters(0, 400)
    test_x, test_y = clusters(1, 400)
    y = np.random.default_rng(2).permutation(y)
    assert accuracy(test_y, frozen_probe(x, y, test_x, seed=0).labels) == pytest.approx(0.25, abs=0.12)


def test_the_standardiser_is_fitted_on_train_only():
    x, y = clusters(0, 120)
    test_x, _ = clusters(1, 40)
    train_rows, rows = standardised(x, test_x)
    expected = StandardScaler().fit(x)
    assert rows == pytest.approx(expected.transform(test_x) / np.sqrt(20))
    assert (train_rows**2).sum(axis=1).mean() == pytest.approx(1.0)
    # other test notes beside a note change nothing for it, however far off they lie
    alone = frozen_probe(x, y, test_x[:1], seed=0)
    beside = frozen_probe(x, y, np.concatenate([test_x[:1], test_x + 1e3]), seed=0)
    assert beside.scores[0] == pytest.approx(alone.scores[0])
    assert beside.c == alone.c


def test_embeddings_that_are_not_numbers_are_refused():
    x, y = clusters(0, 40)
    bad = x.copy()
    bad[3, 2] = np.nan
    for train_x, test_x in ((bad, x), (x, bad)):
        with pytest.raises(StudyError) as caught:
            frozen_probe(train_x, y, test_x, seed=0)
        assert caught.value.code == "embeddings-not-finite"


def test_an_embedding_dimension_that_never_varies_is_harmless():
    x, y = clusters(0, 80)
    x[:, 0] = 5.0
    assert np.isfinite(frozen_probe(x, y, x, seed=0).scores).all()


def test_c_follows_the_train_notes():
    noisy = clusters(0, 200, width=300, distance=0.08)
    clean = clusters(0, 200, width=300, distance=0.5)
    chosen = [frozen_probe(x, y, x[:10], seed=0).c for x, y in (noisy, clean)]
    assert set(chosen) <= set(C_GRID)
    x, y = noisy
    assert {frozen_probe(x, y, test_x, seed=0).c for test_x in (x[:3], x + 9, -x)} == {chosen[0]}
    assert chosen[1] == C_GRID[0]  # all C are perfect here: the smallest of equals


def test_c_is_the_grid_value_with_the_best_out_of_fold_macro_f1():
    x, y = clusters(0, 160, width=60, distance=0.25)
    rows, test_rows = standardised(x, x[:5])
    folds = StratifiedKFold(MAX_FOLDS, shuffle=True, random_state=3)
    scores = [
        macro_f1(y, cross_val_predict(LogisticRegression(C=c, tol=1e-5, max_iter=2000), rows, y, cv=folds))
        for c in C_GRID
    ]
    chosen = fit_head(rows, y, test_rows, 3, None).c
    assert scores[C_GRID.index(chosen)] == pytest.approx(max(scores), abs=0.01)
    assert max(scores) - min(scores) > 0.02  # or the choice would be no test


def test_one_note_a_class_falls_back_to_the_default_c():
    x, y = clusters(0, 4)
    predictions = frozen_probe(x, y, x, seed=0)
    assert predictions.c == DEFAULT_C and accuracy(y, predictions.labels) == 1.0


def test_no_patient_is_on_both_sides_of_a_fold(monkeypatch):
    seen = []

    class Spy(head.StratifiedGroupKFold):
        def split(self, x, y, groups):
            for kept, held in super().split(x, y, groups):
                seen.append(set(groups[kept]) & set(groups[held]))
                yield kept, held

    monkeypatch.setattr(head, "StratifiedGroupKFold", Spy)
    x, y = clusters(0, 120)
    groups = np.repeat(np.arange(30), 4)
    frozen_probe(x, y, x[:5], seed=0, groups=groups)
    assert seen == [set()] * MAX_FOLDS


def test_a_class_of_a_single_patient_still_gets_a_head():
    x, y = clusters(0, 60, classes=2)
    one_each = np.where(y == "class 0", "p1", "p2")
    assert accuracy(y, frozen_probe(x, y, x, seed=0, groups=one_each).labels) == 1.0
    assert accuracy(y, frozen_probe(x, y, x, seed=0, groups=np.full(60, "p1")).labels) == 1.0


def test_the_rotation_changes_nothing_but_the_speed(monkeypatch):
    x, y = clusters(0, 60, width=200, distance=0.3)
    x[30:34] = x[0:4]  # duplicates: the Gram matrix is singular
    test_x, _ = clusters(1, 40, width=200, distance=0.3)
    fast = frozen_probe(x, y, test_x, seed=0)
    monkeypatch.setattr(head, "MAX_ROTATED", 0)
    plain = frozen_probe(x, y, test_x, seed=0)
    assert fast.scores == pytest.approx(plain.scores, abs=2e-3)  # the solver's tolerance
    assert fast.c == plain.c


NOTES = {
    "heart": "chest pain radiating to the left arm, troponin raised, stent placed",
    "lung": "cough with sputum and wheeze, chest film shows consolidation",
    "knee": "fall on the stairs, knee swollen, ligament torn, brace fitted",
}


def tiny(copies: int):
    texts, labels = [], []
    for number in range(copies):
        for label, text in NOTES.items():
            words = text.split()
            texts.append(" ".join([*words[number % 3 :], f"ward{number}"]))
            labels.append(label)
    return texts, np.array(labels)


def test_tfidf_reads_tiny_notes():
    texts, y = tiny(8)
    predictions = tfidf_probe(texts, y, ["raised troponin and chest pain", "torn knee ligament", ""], seed=0)
    assert predictions.labels[:2].tolist() == ["heart", "knee"]
    assert np.isfinite(predictions.scores).all()


def test_tfidf_takes_its_words_from_train_only():
    texts, _ = tiny(4)
    train, alone = tfidf(texts, texts[:1])
    _, beside = tfidf(texts, [texts[0], *["troponin zebra zebra"] * 50])
    assert train.shape[1] == beside.shape[1]
    assert (beside[:1] != alone).nnz == 0


def test_notes_that_share_no_word_are_refused_without_their_text():
    with pytest.raises(InputError) as caught:
        tfidf(["alpha", "beta", "gamma"], ["alpha"])
    assert caught.value.code == "no-shared-words"
    assert "alpha" not in str(caught.value)


def test_the_same_seed_gives_the_same_scores():
    x, y = clusters(0, 100, width=50, distance=0.3)
    first, again = (frozen_probe(x, y, x[:20], seed=5) for _ in range(2))
    assert (first.scores == again.scores).all() and first.c == again.c
