"""Few-shot draws: how many, which, and the same for every model."""

import numpy as np
import pytest

from client.evaluation.few_shot import draw, few_shot, predict_draws
from client.evaluation.metrics import accuracy, macro_f1

Y = np.random.default_rng(0).permutation(np.array(["a"] * 40 + ["b"] * 20 + ["c"] * 9))


def counts(rows: np.ndarray) -> dict[str, int]:
    names, numbers = np.unique(Y[rows], return_counts=True)
    return dict(zip(names.tolist(), numbers.tolist(), strict=True))


def test_a_draw_holds_exactly_n_of_each_class_and_all_of_a_short_one():
    rows = draw(Y, 16, seed=0, number=0)
    assert counts(rows) == {"a": 16, "b": 16, "c": 9}
    assert len(set(rows.tolist())) == len(rows)


def test_draws_differ_between_numbers_and_seeds_and_repeat_for_the_same():
    first = draw(Y, 16, seed=0, number=0)
    assert (first == draw(Y, 16, seed=0, number=0)).all()
    assert (first != draw(Y, 16, seed=0, number=1)).any()
    assert (first != draw(Y, 16, seed=1, number=0)).any()


def test_the_draw_of_a_class_does_not_depend_on_the_other_classes():
    renamed = np.where(Y == "a", "z", Y)  # "b" and "c" move up by one
    before, after = draw(Y, 8, 0, 0), draw(renamed, 8, 0, 0)
    for name in ("b", "c"):
        assert before[Y[before] == name].tolist() == after[renamed[after] == name].tolist()


class Recorder:
    """A model that notes what it was given and answers at random, or always right."""

    def __init__(self, test_y: np.ndarray, right: bool) -> None:
        self.test_y, self.right, self.given = test_y, right, []

    def __call__(self, rows: np.ndarray, seed: int) -> np.ndarray:
        self.given.append((rows.tolist(), seed))
        return self.test_y if self.right else np.random.default_rng(len(self.given)).permutation(self.test_y)


def test_every_model_learns_from_the_same_draws():
    test_y = np.array(["a", "b", "c"] * 10)
    models = [Recorder(test_y, right) for right in (True, False)]
    for model in models:
        predict_draws(model, Y, (4, 16), 5, seed=3)
    assert models[0].given == models[1].given
    assert len(models[0].given) == 10


def test_scores_are_over_the_whole_test_set_with_a_student_interval():
    test_y = np.array(["a"] * 30 + ["b"] * 10 + ["c"] * 5)
    draws = predict_draws(Recorder(test_y, right=False), Y, (16,), 5)
    (result,) = few_shot(Y, test_y, draws)
    assert result.per_seed == [macro_f1(test_y, labels) for labels in draws[16]]
    assert result.accuracy is not None
    assert result.accuracy.value == pytest.approx(np.mean([accuracy(test_y, labels) for labels in draws[16]]))
    mean, sd = np.mean(result.per_seed), np.std(result.per_seed, ddof=1)
    assert result.macro_f1.value == pytest.approx(mean)
    assert result.macro_f1.high - mean == pytest.approx(2.7764451 * sd / np.sqrt(5))  # t of 4 degrees of freedom
    assert len(result.per_seed) == 5 and result.shots == 16 and result.short_classes == 1


def test_the_interval_stays_in_range_and_one_draw_has_none():
    test_y = np.array(["a", "b", "c"] * 10)
    (certain,) = few_shot(Y, test_y, predict_draws(Recorder(test_y, right=True), Y, (4,), 5))
    assert (certain.macro_f1.low, certain.macro_f1.high) == (1.0, 1.0)
    (single,) = few_shot(Y, test_y, predict_draws(Recorder(test_y, right=False), Y, (4,), 1))
    assert single.macro_f1.low is None and single.macro_f1.high is None


def test_an_n_that_no_class_can_fill_is_left_out():
    test_y = np.array(["a", "b", "c"] * 10)
    draws = predict_draws(Recorder(test_y, right=True), Y, (16, 32, 40, 41, 128), 2)
    results = few_shot(Y, test_y, draws)
    assert {n: labels.shape for n, labels in draws.items()} == dict.fromkeys((16, 32, 40), (2, 30))
    assert [(result.shots, result.short_classes) for result in results] == [(16, 1), (32, 2), (40, 2)]
