"""The two representations that are scored: frozen embeddings, and TF-IDF beside them.

A representation is fitted on the text of all the site's train notes and never sees a label or a test note; few-shot is
about scarce labels, not scarce text, so its draws share the representation (as they share the encoder, which was
pre-trained on the same notes). Rows come out with a mean squared length of 1 in both, so that one grid of C means the
same amount of shrinkage for both.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import StandardScaler

from client.evaluation.head import Matrix, Predictions, fit_head
from common.errors import InputError, StudyError

MAX_WORDS = 50_000


def check_finite(*embeddings: np.ndarray) -> None:
    """Raise StudyError `embeddings-not-finite` where any of the arrays holds NaN or infinity."""
    if not all(np.isfinite(array).all() for array in embeddings):
        raise StudyError(
            "embeddings-not-finite",
            "The encoder gives embeddings that are not numbers, so its training diverged.",
            "Lower the learning rate, or score an earlier checkpoint.",
        )


def standardised(train_x: np.ndarray, test_x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings scaled to mean 0 and variance 1 by the train notes' statistics, over sqrt(d).

    Args:
        train_x: [n_train, d] embeddings.
        test_x: [n_test, d] embeddings.

    Raises:
        StudyError: `embeddings-not-finite`: the encoder gave NaN or infinity.
    """
    check_finite(train_x, test_x)
    scaler = StandardScaler().fit(train_x.astype(np.float64))
    width = np.sqrt(train_x.shape[1])
    return scaler.transform(train_x.astype(np.float64)) / width, scaler.transform(test_x.astype(np.float64)) / width


def tfidf(train_texts: Sequence[str], test_texts: Sequence[str]) -> tuple[Matrix, Matrix]:
    """TF-IDF of words and pairs of words (sublinear, each note of length 1), the vocabulary from the train notes.

    Args:
        train_texts: n_train notes.
        test_texts: n_test notes.

    Returns:
        [n_train, w] and [n_test, w] sparse, w the words in two train notes or more, at most `MAX_WORDS`.

    Raises:
        InputError: `no-shared-words`: no word stands in two train notes.
    """
    vectoriser = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2, max_features=MAX_WORDS)
    try:
        train = vectoriser.fit_transform(train_texts)
    except ValueError as error:
        raise InputError(
            "no-shared-words",
            f"No word stands in two of the {len(train_texts)} train notes, so TF-IDF has nothing to count.",
            "Check that the text column holds the notes.",
        ) from error
    return train, vectoriser.transform(test_texts)


def frozen_probe(
    train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, seed: int, groups: np.ndarray | None = None
) -> Predictions:
    """Logistic regression on standardised frozen embeddings; shapes as in `standardised` and `head.fit_head`."""
    train, test = standardised(train_x, test_x)
    return fit_head(train, train_y, test, seed, groups)


def tfidf_probe(
    train_texts: Sequence[str],
    train_y: np.ndarray,
    test_texts: Sequence[str],
    seed: int,
    groups: np.ndarray | None = None,
) -> Predictions:
    """The same head on TF-IDF: the bar that an encoder has to clear to earn its keep."""
    train, test = tfidf(train_texts, test_texts)
    return fit_head(train, train_y, test, seed, groups)
