"""Whether one model does better than another, and when that is said."""

from dataclasses import replace

import numpy as np
import pytest

from client.evaluation.compare import compare, verdict
from client.evaluation.metrics import accuracy, macro_f1
from client.evaluation.task import TaskData, task_data
from common.results import Comparison, Estimate


@pytest.fixture
def data() -> TaskData:
    rng = np.random.default_rng(0)
    train, test = (rng.choice(["heart", "lung", "knee"], n, p=[0.5, 0.3, 0.2]) for n in (140, 60))
    made = task_data("Leeds", "organ", train, test)
    assert isinstance(made, TaskData)
    return made


def test_the_verdict_follows_the_interval(data: TaskData) -> None:
    true = data.test_labels
    other = np.roll(true, 1)
    better, worse = compare(data, "base", true, other), compare(data, "local-only", other, true)
    assert (better.verdict, better.against, better.n_test) == ("better", "base", len(true))
    assert better.difference.low is not None and better.difference.low > 0
    assert better.difference.value == pytest.approx(-worse.difference.value)
    assert (worse.verdict, worse.against) == ("worse", "local-only")
    one_note = true.copy()
    one_note[0] = next(name for name in data.support if name != true[0])
    assert compare(data, "base", true, one_note).verdict == "no clear difference"
    same = compare(data, "centralised", other, other)
    assert (same.difference.value, same.verdict) == (0.0, "no clear difference")


def test_the_difference_is_of_the_metric_of_the_task(data: TaskData) -> None:
    true, other = data.test_labels, np.where(data.test_labels == "knee", "lung", data.test_labels)
    by_f1 = compare(data, "base", true, other, mode="lora")
    by_accuracy = compare(replace(data, metric="accuracy"), "base", true, other)
    assert (by_f1.metric, by_f1.mode, by_accuracy.metric, by_accuracy.mode) == (
        "macro-f1",
        "lora",
        "accuracy",
        "frozen",
    )
    assert by_f1.difference.value == pytest.approx(1 - macro_f1(true, other))
    assert by_accuracy.difference.value == pytest.approx(1 - accuracy(true, other))
    assert Comparison.model_validate_json(by_f1.model_dump_json()) == by_f1


def test_draws_are_compared_by_their_mean(data: TaskData) -> None:
    true, rng = data.test_labels, np.random.default_rng(1)
    ours, theirs = (np.stack([np.where(rng.random(60) < p, true, "heart") for _ in range(5)]) for p in (0.9, 0.6))
    compared = compare(data, "tf-idf", ours, theirs)
    expected = np.mean([macro_f1(true, labels) for labels in ours]) - np.mean([macro_f1(true, p) for p in theirs])
    assert compared.difference.value == pytest.approx(expected) and compared.verdict == "better"


def test_an_interval_that_touches_0_or_is_missing_decides_nothing() -> None:
    assert verdict(Estimate(value=0.1, low=0.0, high=0.2)) == "no clear difference"
    assert verdict(Estimate(value=0.1)) == "no clear difference"
    assert verdict(Estimate(value=-0.1, low=-0.2, high=-0.01)) == "worse"
