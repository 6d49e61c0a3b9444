"""One model on one task of one site: all train labels, then few-shot draws. No choice is made on the test notes.

Every function returns the score, and the predictions behind it, for `compare` and for any other paired comparison.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from client.evaluation.few_shot import SEEDS, SHOTS, few_shot, predict_draws
from client.evaluation.fine_tune import Labelled, Tuned, TunedMode, fine_tune
from client.evaluation.head import fit_head
from client.evaluation.metrics import accuracy_estimate, auroc_estimate, macro_f1_estimate
from client.evaluation.probe import standardised, tfidf
from client.evaluation.task import TaskData
from client.notes.store import NoteStore
from common.encoder import Encoder
from common.plan_sections import Evaluation
from common.results import Mode, ModelName, TaskScore

Notes = np.ndarray | Sequence[str]


@dataclass(frozen=True, eq=False)
class Predicted:
    """Labels that a model gives the test notes of a task, in the order of `TaskData.test_rows`.

    Attributes:
        full: [n_test] strings, having learned from all train labels.
        draws: shots -> [n_draws, n_test] strings, having learned from each draw of so many notes a class. The draws are
            the same for every model and mode of a site, so that row i may be compared with row i.
    """

    full: np.ndarray
    draws: Mapping[int, np.ndarray] = field(default_factory=dict)


def score_frozen(
    data: TaskData,
    model: ModelName,
    train: Notes,
    test: Notes,
    *,
    shots: Sequence[int] = SHOTS,
    seeds: int = SEEDS,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> tuple[TaskScore, Predicted]:
    """Probe fixed embeddings, or TF-IDF.

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

    Raises:
        StudyError: `embeddings-not-finite`.
        InputError: `no-shared-words`.
    """
    if model == "tf-idf":
        x, test_x = tfidf([train[row] for row in data.train_rows], [test[row] for row in data.test_rows])
    else:
        x, test_x = standardised(np.asarray(train)[data.train_rows], np.asarray(test)[data.test_rows])
    y = data.train_labels
    patients = None if groups is None else groups[data.train_rows]

    def fit_predict(rows: np.ndarray, draw_seed: int) -> np.ndarray:
        of_rows = None if patients is None else patients[rows]
        return fit_head(x[rows], y[rows], test_x, draw_seed, of_rows, data.metric).labels

    full = fit_head(x, y, test_x, seed, patients, data.metric)
    predicted = Predicted(full.labels, predict_draws(fit_predict, y, shots, seeds, seed))
    return _score(data, model, "frozen", predicted, full.classes, full.scores, seed), predicted


def score_majority(data: TaskData, seed: int = 0) -> tuple[TaskScore, Predicted]:
    """The model that always says the most frequent class of the train notes (of equals the first by name), few-shot
    apart: what a score is worth that reads nothing.

    Args:
        data: the task.
        seed: of the resamples.
    """
    classes, counts = np.unique(data.train_labels, return_counts=True)
    n = len(data.test_labels)
    predicted = Predicted(np.full(n, classes[counts.argmax()]))
    scores = np.tile(counts / counts.sum(), (n, 1))
    return _score(data, "majority", "frozen", predicted, classes, scores, seed), predicted


def score_tuned(
    data: TaskData,
    model: ModelName,
    mode: TunedMode,
    encoder: Encoder,
    notes: NoteStore,
    *,
    evaluation: Evaluation,
    max_length: int,
    precision: str,
    seed: int,
) -> tuple[TaskScore, Predicted]:
    """Let the encoder learn the task, anew from its given weights each time; it comes out as it went in.

    The curve has the points `evaluation.tuned_shots`, on the draws of the frozen curve. A draw is all the labels there
    are, as for the frozen probe: dev labels stop the training on all train labels, but a draw is learned from as a
    whole, through all epochs.

    Args:
        data: the task; its rows point into the store's train, dev and test notes (`NoteStore.split_indices`).
        model: the name to report.
        mode: "fine-tuned" (all weights) or "lora" (adapters).
        encoder: where training starts.
        notes: the site's notes.
        evaluation: the plan's section.
        max_length: tokens of a note that are read, special ones included.
        precision: as in the plan's training section.
        seed: of training, draws and resamples.

    Raises:
        StudyError: `embeddings-not-finite` or `tuning-diverged`.
    """
    train, dev, test = (
        notes.split_indices(split)[rows]
        for split, rows in (("train", data.train_rows), ("dev", data.dev_rows), ("test", data.test_rows))
    )
    y = data.train_labels

    def tuned(rows: np.ndarray, stop_by: Labelled | None, tuning_seed: int) -> Tuned:
        return fine_tune(
            encoder,
            notes,
            Labelled(train[rows], y[rows]),
            stop_by,
            test,
            mode=mode,
            evaluation=evaluation,
            metric=data.metric,
            max_length=max_length,
            precision=precision,
            seed=tuning_seed,
        )

    full = tuned(np.arange(len(y)), Labelled(dev, data.dev_labels), seed)
    draws = predict_draws(
        lambda rows, draw_seed: tuned(rows, None, draw_seed).labels,
        y,
        evaluation.tuned_shots,
        evaluation.seeds,
        seed,
    )
    predicted = Predicted(full.labels, draws)
    return _score(data, model, mode, predicted, full.classes, full.scores, seed), predicted


def _score(
    data: TaskData,
    model: ModelName,
    mode: Mode,
    predicted: Predicted,
    classes: np.ndarray,
    scores: np.ndarray,
    seed: int,
) -> TaskScore:
    """Every number of the predictions; `scores` [n_test, k] are of the `classes` [k], from all train labels."""
    y = data.test_labels
    return TaskScore(
        site=data.site,
        task=data.task,
        model=model,
        mode=mode,
        metric=data.metric,
        n_train=len(data.train_labels),
        n_test=len(y),
        support=data.support,
        macro_f1=macro_f1_estimate(y, predicted.full, seed),
        accuracy=accuracy_estimate(y, predicted.full, seed),
        auroc=auroc_estimate(y, scores, classes, seed),
        few_shot=few_shot(data.train_labels, y, predicted.draws),
    )
