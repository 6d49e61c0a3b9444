"""The head of every probe: multinomial logistic regression, its C chosen by cross-validation on the train notes.

One head, one grid and one rule for every model, so that a difference between scores is a difference between
representations. A few-shot draw gets the same treatment as the whole train set: C is chosen again, inside the draw.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from client.evaluation.metrics import MEASURES
from common.results import Metric

# Inverse penalties for rows of mean squared length 1 (see probe.py): on standardised 384-d embeddings these are
# 0.0026 to 2.6. Small to large, so that each fit starts from the one before. On real notes 1 underfits, and 10,000
# moves a prediction or two.
C_GRID = (1.0, 10.0, 100.0, 1000.0)
DEFAULT_C = 10.0  # where a draw is too small for any fold (one note a class)
MAX_FOLDS = 3  # 5 chose no better on real notes, and few-shot pays for each fold in every draw
MAX_ROTATED = 3000

Matrix: TypeAlias = np.ndarray | sparse.csr_matrix


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a head says of the test notes.

    Attributes:
        classes: [k] class names, sorted.
        labels: [n_test] the predicted class of each note.
        scores: [n_test, k] probability of each class; rows sum to 1.
        c: the inverse penalty that was chosen.
    """

    classes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    c: float


def fit_head(
    train: Matrix,
    train_y: np.ndarray,
    test: Matrix,
    seed: int,
    groups: np.ndarray | None,
    metric: Metric = "macro-f1",
) -> Predictions:
    """Choose C on the train rows, fit on all of them, predict the test rows.

    Args:
        train: [n_train, d] rows, dense or sparse, of mean squared length about 1.
        train_y: [n_train] class names, at least two distinct.
        test: [n_test, d] rows.
        seed: of the folds.
        groups: [n_train] patient of each train note, so that no patient is on both sides of a fold; None for no groups.
        metric: the task's, by which C is chosen.
    """
    # One thread: on matrices of this size a second BLAS thread made the solver 10 times slower (2 cores, measured).
    with threadpool_limits(1):
        train, test = _rotated(train, test)
        c = _choose_c(train, train_y, seed, groups, metric)
        model = _regression().set_params(C=c).fit(train, train_y)
        scores = model.predict_proba(test)
    return Predictions(classes=model.classes_, labels=model.classes_[scores.argmax(axis=1)], scores=scores, c=c)


def _regression() -> LogisticRegression:
    return LogisticRegression(solver="lbfgs", tol=1e-5, max_iter=2000, warm_start=True)


def _choose_c(x: Matrix, y: np.ndarray, seed: int, groups: np.ndarray | None, metric: Metric) -> float:
    """The C with the best metric of the out-of-fold predictions, pooled over folds; the smallest of equals.

    Pooled, because a rare class has one or two notes in a fold, too few for a macro-F1 of its own. A fold whose train
    side holds a single class (all other classes are one patient's) predicts nothing: a miss, under every C alike.
    """
    _, counts = np.unique(y, return_counts=True)
    folds = min(MAX_FOLDS, counts.min(), len(y) if groups is None else len(np.unique(groups)))
    if folds < 2:
        return DEFAULT_C
    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    out_of_fold = np.full((len(C_GRID), len(y)), "", dtype=y.dtype)
    for kept, held in splitter(folds, shuffle=True, random_state=seed).split(x, y, groups):
        if len(np.unique(y[kept])) < 2:
            continue
        model = _regression()
        for row, c in enumerate(C_GRID):
            out_of_fold[row, held] = model.set_params(C=c).fit(x[kept], y[kept]).predict(x[held])
    return C_GRID[int(np.argmax([MEASURES[metric](y, predicted) for predicted in out_of_fold]))]


def _rotated(train: Matrix, test: Matrix) -> tuple[Matrix, Matrix]:
    """The same geometry in at most n_train dimensions, where that is fewer.

    The weights that minimise a squared-norm penalty lie in the span of the train rows (the representer theorem), so
    coordinates in an orthonormal basis of that span give the same predictions: with the Gram matrix K = U S U', the
    train rows become U sqrt(S). For 600 notes by 50,000 words this is 40 times faster. Above `MAX_ROTATED` notes the
    decomposition, cubic in n, would cost more than it saves.
    """
    n, d = train.shape
    if n >= d or n > MAX_ROTATED:
        return train, test
    values, vectors = np.linalg.eigh(_dense(train @ train.T))
    kept = values > 1e-10 * values[-1]  # the rest is rounding: duplicates, or the mean that standardising took out
    root, vectors = np.sqrt(values[kept]), vectors[:, kept]
    return vectors * root, _dense(test @ train.T) @ (vectors / root)


def _dense(matrix: Matrix) -> np.ndarray:
    return matrix if isinstance(matrix, np.ndarray) else matrix.toarray()
