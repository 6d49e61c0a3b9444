"""Metrics against scikit-learn, and the bootstrap against simulation."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from client.evaluation import metrics

CLASSES = np.array(["a", "b", "c", "d"])


def random_case(seed: int, n: int = 60, classes: np.ndarray = CLASSES):
    rng = np.random.default_rng(seed)
    true = rng.choice(classes, n, p=rng.dirichlet(np.ones(len(classes)) * 2))
    scores = rng.random((n, len(classes))).round(1) + 0.4 * (true[:, None] == classes)  # rounded: many ties
    return true, classes[scores.argmax(axis=1)], scores


@pytest.mark.parametrize("seed", range(20))
def test_values_equal_scikit_learn(seed):
    true, predicted, scores = random_case(seed)
    present = np.unique(true)
    expected = f1_score(true, predicted, labels=present, average="macro", zero_division=0)
    assert metrics.macro_f1(true, predicted) == pytest.approx(expected)
    assert metrics.accuracy(true, predicted) == pytest.approx(accuracy_score(true, predicted))
    one_vs_rest = [roc_auc_score(true == name, scores[:, name == CLASSES].ravel()) for name in present]
    assert metrics.auroc(true, scores, CLASSES) == pytest.approx(np.mean(one_vs_rest))


def test_a_class_without_test_notes_is_out_of_the_average_but_its_prediction_is_a_miss():
    true = np.array(["a", "a", "b", "b"])
    assert metrics.macro_f1(true, np.array(["a", "a", "b", "c"])) == pytest.approx((1 + 2 / 3) / 2)
    scores = np.eye(4)[[0, 0, 1, 1]]
    assert metrics.auroc(true, scores, CLASSES) == 1.0


def test_auroc_of_constant_scores_is_one_half_and_of_one_class_is_none():
    true = np.array(["a", "b", "c", "d"] * 3)
    assert metrics.auroc(true, np.full((12, 4), 0.25), CLASSES) == pytest.approx(0.5)
    assert metrics.auroc(np.array(["a"] * 12), np.full((12, 4), 0.25), CLASSES) is None
    assert metrics.auroc_estimate(np.array(["a"] * 12), np.full((12, 4), 0.25), CLASSES, 0) is None


def slow_resamples(true, predicted, scores, number: int):
    """The plain bootstrap, note by note, with scikit-learn."""
    rng = np.random.default_rng(99)
    f1, areas, right = [], [], []
    for _ in range(number):
        rows = rng.integers(len(true), size=len(true))
        t, p, s = true[rows], predicted[rows], scores[rows]
        f1.append(f1_score(t, p, labels=np.unique(t), average="macro", zero_division=0))
        areas.append(np.mean([roc_auc_score(t == name, s[:, name == CLASSES].ravel()) for name in np.unique(t)]))
        right.append(np.mean(t == p))
    return [np.quantile(values, [0.025, 0.975]) for values in (f1, areas, right)]


def test_intervals_equal_a_plain_bootstrap_with_scikit_learn():
    true, predicted, scores = random_case(3, n=80)
    f1, area, right = slow_resamples(true, predicted, scores, 1000)
    for estimate, expected in (
        (metrics.macro_f1_estimate(true, predicted, 0), f1),
        (metrics.auroc_estimate(true, scores, CLASSES, 0), area),
        (metrics.accuracy_estimate(true, predicted, 0), right),
    ):
        assert [estimate.low, estimate.high] == pytest.approx(expected, abs=0.025)
        assert estimate.low < estimate.value < estimate.high


def test_auroc_resamples_drawn_in_chunks_cover_every_resample(monkeypatch):
    true, _, scores = random_case(5)
    whole = metrics.auroc_estimate(true, scores, CLASSES, 0)
    monkeypatch.setattr(metrics, "_CHUNK_CELLS", 7 * len(true))
    assert metrics.auroc_estimate(true, scores, CLASSES, 0) == whole


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    rates = np.array([0.45, 0.3, 0.15, 0.1])
    confusion = 0.7 * np.eye(4) + 0.3 / 4
    joint = rates[:, None] * confusion
    truth = np.mean(2 * np.diag(joint) / (joint.sum(axis=0) + joint.sum(axis=1)))
    covered = 0
    for seed in range(300):
        cells = rng.choice(16, size=80, p=joint.ravel())
        estimate = metrics.macro_f1_estimate(CLASSES[cells // 4], CLASSES[cells % 4], seed)
        covered += estimate.low <= truth <= estimate.high
    assert 0.90 <= covered / 300 <= 0.99


def test_a_resample_without_a_rare_class_does_not_count_it_as_0():
    true = np.array(["a"] * 30 + ["b"] * 30 + ["c"])
    predicted = true.copy()
    predicted[:2] = "b"
    assert metrics.macro_f1_estimate(true, predicted, 0).low > 0.9  # "c" is in 63 % of resamples, and right in all


def test_no_interval_where_no_resample_differs():
    true = np.array(["a", "b"] * 6)
    for estimate in (
        metrics.macro_f1_estimate(true, true, 0),
        metrics.accuracy_estimate(true, true, 0),
        metrics.auroc_estimate(true, np.eye(4)[[0, 1] * 6], CLASSES, 0),
    ):
        assert (estimate.value, estimate.low, estimate.high) == (1.0, None, None)


def test_paired_difference_of_identical_predictions_is_exactly_0():
    true, predicted, _ = random_case(1)
    difference = metrics.paired_difference(true, predicted, predicted.copy(), 0)
    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)


def test_paired_difference_is_antisymmetric_in_value_and_narrower_than_unpaired():
    true, a, _ = random_case(2, n=200)
    b = a.copy()
    b[:10] = "a"
    forth, back = metrics.paired_difference(true, a, b, 0), metrics.paired_difference(true, b, a, 0)
    assert forth.value == pytest.approx(metrics.macro_f1(true, a) - metrics.macro_f1(true, b))
    assert back.value == pytest.approx(-forth.value)
    single = metrics.macro_f1_estimate(true, a, 0)
    assert forth.high - forth.low < 0.7 * (single.high - single.low)


def direct_paired(true, a, b, metric: str, seed: int):
    """A loop over the notes of each resample: note i is drawn as often as the cells of the same resample say."""
    cells = np.stack([true, *a, *b])
    distinct, cell_of = np.unique(cells, axis=1, return_inverse=True)
    counts = np.bincount(cell_of.ravel())
    drawn = np.random.default_rng(seed).multinomial(len(true), counts / len(true), metrics.RESAMPLES)
    values = []
    for of_cell in drawn:
        rows = np.repeat(np.arange(len(counts)), of_cell)
        t, *predicted = distinct[:, rows]
        of_each = [
            np.mean(t == p)
            if metric == "accuracy"
            else f1_score(t, p, labels=np.unique(t), average="macro", zero_division=0)
            for p in predicted
        ]
        values.append(np.mean(of_each[: len(a)]) - np.mean(of_each[len(a) :]))
    return np.quantile(values, [0.025, 0.975])


@pytest.mark.parametrize("metric", ["macro-f1", "accuracy"])
@pytest.mark.parametrize("sides", [(1, 1), (3, 3), (3, 1)])
def test_paired_difference_of_several_trainings_equals_a_direct_loop(metric, sides, monkeypatch):
    monkeypatch.setattr(metrics, "RESAMPLES", 100)
    rng = np.random.default_rng(6)
    true = rng.choice(CLASSES, 50, p=[0.4, 0.3, 0.2, 0.1])
    a, b = (
        np.stack([np.where(rng.random(50) < p, true, rng.choice(CLASSES, 50)) for _ in range(k)])
        for k, p in zip(sides, (0.8, 0.5), strict=True)
    )
    difference = metrics.paired_difference(true, a, b, 9, metric)
    value_of = metrics.MEASURES[metric]
    expected = np.mean([value_of(true, p) for p in a]) - np.mean([value_of(true, p) for p in b])
    assert difference.value == pytest.approx(expected)
    assert [difference.low, difference.high] == pytest.approx(direct_paired(true, a, b, metric, 9))


def test_one_training_is_the_same_with_and_without_its_axis_and_in_chunks(monkeypatch):
    true, a, _ = random_case(2)
    b = np.random.default_rng(0).permutation(a)
    plain = metrics.paired_difference(true, a, b, 0)
    assert metrics.paired_difference(true, a[None], b[None], 0) == plain
    assert metrics.paired_difference(true, np.stack([a, a]), np.stack([b, b]), 0) == plain
    monkeypatch.setattr(metrics, "_CHUNK_CELLS", 50)
    assert metrics.paired_difference(true, a, b, 0) == plain
    same = metrics.paired_difference(true, np.stack([a, b]), np.stack([a, b]), 0)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_the_mean_over_draws_is_surer_than_one_draw():
    rng = np.random.default_rng(3)
    true = rng.choice(CLASSES, 100)
    a, b = (np.stack([np.where(rng.random(100) < 0.7, true, rng.choice(CLASSES, 100)) for _ in range(5)]) for _ in "ab")
    one, five = metrics.paired_difference(true, a[0], b[0], 0), metrics.paired_difference(true, a, b, 0)
    assert five.high - five.low < 0.7 * (one.high - one.low)


def test_equal_models_are_rarely_called_different():
    rng = np.random.default_rng(1)
    called = 0
    for seed in range(200):
        true = rng.choice(CLASSES, 80)
        a, b = (np.where(rng.random(80) < 0.75, true, rng.choice(CLASSES, 80)) for _ in range(2))
        difference = metrics.paired_difference(true, a, b, seed)
        called += difference.low > 0 or difference.high < 0
    assert called / 200 <= 0.10


def test_the_seed_decides_the_resamples():
    true, predicted, _ = random_case(4)
    assert metrics.macro_f1_estimate(true, predicted, 7) == metrics.macro_f1_estimate(true, predicted, 7)
    assert metrics.macro_f1_estimate(true, predicted, 7) != metrics.macro_f1_estimate(true, predicted, 8)
