"""Which notes of a task are scored, and the sentence where none can be."""

import numpy as np
import pytest

from client.evaluation.task import TaskData, task_data
from common.results import NotScored

TRAIN = ["heart"] * 9 + ["lung"] * 8 + ["rare"] * 7
TEST = ["heart"] * 6 + ["rare"] * 3 + ["lung"] * 4 + ["unseen"] * 2


def kept(train=TRAIN, test=TEST, **settings) -> TaskData:
    data = task_data("Leeds", "specialty", train, test, **settings)
    assert isinstance(data, TaskData)
    return data


def reason(train, test) -> str:
    result = task_data("Leeds", "specialty", train, test)
    assert isinstance(result, NotScored)
    assert (result.site, result.task) == ("Leeds", "specialty")
    return result.reason


def test_rare_and_unseen_classes_are_left_out_of_both_sides():
    data = kept()
    assert set(data.train_labels) == set(data.test_labels) == {"heart", "lung"}
    assert data.support == {"heart": 6, "lung": 4}


def test_rows_point_into_the_given_arrays():
    train = np.random.default_rng(0).permutation(np.array(TRAIN))
    data = kept(train=train)
    assert (train[data.train_rows] == data.train_labels).all()
    assert (np.array(TEST)[data.test_rows] == data.test_labels).all()
    assert len(data.train_rows) == 17 and (np.diff(data.train_rows) > 0).all()


def test_classes_are_decided_on_train_whatever_the_test_set_holds():
    assert "rare" not in kept(test=TEST + ["rare"] * 100).support
    assert set(kept(test=["heart"] * 9 + ["lung"]).train_labels) == {"heart", "lung"}
    assert "rare" in kept(min_train_per_class=7).support


def test_a_class_without_a_test_note_has_support_0():
    data = kept(train=[*TRAIN, "rare"], test=["heart"] * 6 + ["lung"] * 4)
    assert data.support == {"heart": 6, "lung": 4, "rare": 0}


def test_dev_notes_are_those_of_the_classes_and_the_metric_is_kept():
    dev = ["rare", "lung", None, "unseen", "heart", "lung"]
    data = kept(dev_labels=dev, metric="accuracy")
    assert data.dev_labels.tolist() == ["lung", "heart", "lung"] and data.dev_rows.tolist() == [1, 4, 5]
    assert data.metric == "accuracy"
    without = kept()
    assert len(without.dev_labels) == len(without.dev_rows) == 0 and without.metric == "macro-f1"
    assert (without.train_rows == data.train_rows).all()


def test_dev_notes_have_no_say_in_the_classes():
    assert set(kept(dev_labels=["rare"] * 50).train_labels) == {"heart", "lung"}


@pytest.mark.parametrize("null", [None, float("nan"), np.float64("nan"), "", "  "])
def test_notes_without_a_label_are_dropped(null):
    data = kept(train=[null] * 20 + TRAIN, test=[null] * 20 + TEST)
    assert set(data.train_labels) == {"heart", "lung"}
    assert data.train_rows.min() == 20 and data.test_rows.min() == 20


def test_labels_that_are_numbers_or_padded_are_read_as_text():
    data = kept(train=[1] * 8 + [" 2"] * 8, test=[1] * 5 + [2] * 5)
    assert data.support == {"1": 5, "2": 5}


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        ([], TEST, "has a label"),
        ([None, float("nan")], TEST, "has a label"),
        (["heart"] * 30 + [None], ["heart"] * 12, "have the same class"),
        ([f"class {k}" for k in range(30)], [f"class {k}" for k in range(30)], "Fewer than 2"),
        (["heart"], ["heart"], "have the same class"),
        (["heart"] * 9 + ["lung"] * 7, TEST, "Fewer than 2 of its classes have 8"),
        (TRAIN, TEST[:8], "Only 6 test notes"),
        (TRAIN, [], "Only 0 test notes"),
        (TRAIN, ["heart"] * 12 + ["rare"] * 12, "same class"),
    ],
)
def test_a_task_that_cannot_be_scored_says_why(train, test, words):
    assert words in reason(train, test)
