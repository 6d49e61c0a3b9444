"""One model on one task of one site, and whether federation helped there."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from client.evaluation.few_shot import SEEDS, SHOTS, few_shot
from client.evaluation.head import fit_head
from client.evaluation.metrics import accuracy_estimate, auroc_estimate, macro_f1_estimate, paired_difference
from client.evaluation.probe import standardised, tfidf
from client.evaluation.task import TaskData
from common.results import Comparison, ModelName, TaskScore

Notes = np.ndarray | Sequence[str]


def score_task(
    data: TaskData,
    model: ModelName,
    train: Notes,
    test: Notes,
    *,
    shots: Sequence[int] = SHOTS,
    seeds: int = SEEDS,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> tuple[TaskScore, np.ndarray]:
    """Probe one model: all train labels, then few-shot draws. No choice is made on the test notes.

    Args:
        data: the task; its rows point into `train`, `test` and `groups`.
        model: "tf-idf" takes texts; any other name takes embeddings.
        train: the site's train notes, in the order that `task_data` was given: [notes, d] embeddings, or texts.
        test: its test notes, likewise.
        shots: notes a class for few-shot; () for none.
        seeds: draws for each of them.
        seed: of folds, draws and resamples.
        groups: patient of each of the site's train notes, so that folds keep a patient's notes together. A note whose
            patient is unknown needs a value of its own.

    Returns:
        The score, and the [n_test] predicted labels with all train labels, for `compare`.

    Raises:
        StudyError: `embeddings-not-finite`.
        InputError: `no-shared-words`.
    """
    if model == "tf-idf":
        x, test_x = tfidf([train[row] for row in data.train_rows], [test[row] for row in data.test_rows])
    else:
        x, test_x = standardised(np.asarray(train)[data.train_rows], np.asarray(test)[data.test_rows])
    y, test_y = data.train_labels, data.test_labels
    patients = None if groups is None else groups[data.train_rows]

    def fit_predict(rows: np.ndarray, draw_seed: int) -> np.ndarray:
        return fit_head(x[rows], y[rows], test_x, draw_seed, None if patients is None else patients[rows]).labels

    full = fit_head(x, y, test_x, seed, patients)
    score = TaskScore(
        site=data.site,
        task=data.task,
        model=model,
        n_train=len(y),
        n_test=len(test_y),
        support=data.support,
        macro_f1=macro_f1_estimate(test_y, full.labels, seed),
        accuracy=accuracy_estimate(test_y, full.labels, seed),
        auroc=auroc_estimate(test_y, full.scores, full.classes, seed),
        few_shot=few_shot(fit_predict, y, test_y, shots, seeds, seed),
    )
    return score, full.labels


def compare(
    data: TaskData,
    against: ModelName,
    federated_predictions: np.ndarray,
    other_predictions: np.ndarray,
    seed: int = 0,
) -> Comparison:
    """Whether the federated encoder does better than `against` on the same test notes of the site.

    The verdict is "better" or "worse" only where the interval of the difference excludes 0. It is one site's verdict at
    the 95 % level: of twenty comparisons between equals, one or two will be called different by chance.

    Args:
        data: the task.
        against: the other model.
        federated_predictions: [n_test] labels, as `score_task` returned them.
        other_predictions: [n_test] labels of the other model.
        seed: of the resamples.
    """
    difference = paired_difference(data.test_labels, federated_predictions, other_predictions, seed)
    verdict: Literal["better", "worse", "no clear difference"] = "no clear difference"
    if difference.low is not None and difference.low > 0:
        verdict = "better"
    elif difference.high is not None and difference.high < 0:
        verdict = "worse"
    return Comparison(
        site=data.site,
        task=data.task,
        against=against,
        difference=difference,
        n_test=len(data.test_labels),
        verdict=verdict,
    )
