"""A downstream task at one site: which notes are scored, under which classes, and when a task cannot be scored."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from common.results import Metric, NotScored

MIN_TEST_NOTES = 10


@dataclass(frozen=True, eq=False)
class TaskData:
    """The notes of one task that are scored, as rows of the site's own arrays.

    Attributes:
        task: name of the task.
        site: name of the site.
        train_labels: [n_train] strings, the class of each kept train note.
        test_labels: [n_test] strings, the class of each kept test note.
        train_rows: [n_train] integers: row of each kept train note in the arrays that were given, ascending.
        test_rows: [n_test] integers, the same for the test notes.
        dev_labels: [n_dev] strings, the class of each kept dev note; there may be none.
        dev_rows: [n_dev] integers, as for the others.
        metric: what every choice in training and every verdict go by.
    """

    task: str
    site: str
    train_labels: np.ndarray
    test_labels: np.ndarray
    train_rows: np.ndarray
    test_rows: np.ndarray
    dev_labels: np.ndarray = field(default_factory=lambda: np.array([], dtype=str))
    dev_rows: np.ndarray = field(default_factory=lambda: np.array([], dtype=np.int64))
    metric: Metric = "macro-f1"

    @property
    def support(self) -> dict[str, int]:
        """Test notes of each class of the task; 0 for a class that the test set lacks."""
        counts = Counter(self.test_labels.tolist())
        return {str(name): counts[name] for name in np.unique(self.train_labels)}


def task_data(
    site: str,
    task: str,
    train_labels: Iterable,
    test_labels: Iterable,
    min_train_per_class: int = 8,
    *,
    dev_labels: Iterable = (),
    metric: Metric = "macro-f1",
) -> TaskData | NotScored:
    """Keep the notes that can be scored, or say in one sentence why none can.

    The classes are those with at least `min_train_per_class` labelled *train* notes; the test labels have no say, so a
    test set cannot choose its own classes. Notes of other classes are left out of both sides, and so are notes without
    a label (None, NaN or blank).

    Args:
        site: name of the site.
        task: name of the task.
        train_labels: one label for each train note, in the order of the site's arrays.
        test_labels: the same for the test notes.
        min_train_per_class: fewest train notes for a class to be kept.
        dev_labels: the same for the dev notes, which stop the training of an encoder that learns the task.
        metric: the task's own.
    """
    train, test, dev = ([_text(label) for label in labels] for labels in (train_labels, test_labels, dev_labels))
    counts = Counter(label for label in train if label)
    classes = {label for label, count in counts.items() if count >= min_train_per_class}
    train_rows, test_rows, dev_rows = (_rows_of(labels, classes) for labels in (train, test, dev))
    data = TaskData(
        task=task,
        site=site,
        train_labels=np.array([train[row] for row in train_rows], dtype=str),
        test_labels=np.array([test[row] for row in test_rows], dtype=str),
        train_rows=train_rows,
        test_rows=test_rows,
        dev_labels=np.array([dev[row] for row in dev_rows], dtype=str),
        dev_rows=dev_rows,
        metric=metric,
    )
    reason = ""
    if not counts:
        reason = "None of its train notes has a label."
    elif len(counts) == 1:
        reason = "All of its labelled train notes have the same class, so there is nothing to learn."
    elif len(classes) < 2:
        reason = f"Fewer than 2 of its classes have {min_train_per_class} labelled train notes or more."
    elif len(test_rows) < MIN_TEST_NOTES:
        reason = f"Only {len(test_rows)} test notes have one of its classes; at least {MIN_TEST_NOTES} are needed."
    elif len(set(data.test_labels.tolist())) < 2:
        reason = "All of its test notes have the same class, so nothing can be told apart."
    return NotScored(site=site, task=task, reason=reason) if reason else data


def _text(label: object) -> str:
    """A label as stripped text; "" where there is none. NaN is the one value that differs from itself."""
    return "" if label is None or label != label else str(label).strip()


def _rows_of(labels: list[str], classes: set[str]) -> np.ndarray:
    return np.array([row for row, label in enumerate(labels) if label in classes], dtype=np.int64)
