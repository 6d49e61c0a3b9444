"""The shape of an embedding space: whether notes of one class lie together, how evenly all lie apart, how many
dimensions they fill, and how far training moved them.

A note without a class (None) is left out of the figures about classes. A figure that is undefined is None, never 0:
one class only, fewer than two notes, or embeddings that do not vary.

All figures but the effective rank and CKA go by the directions of the embeddings. They share one matrix of cosine
distances D = 1 - cos; between vectors of length 1 the squared distance is 2 D.
"""

import math
import zlib
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from sklearn.metrics import silhouette_score
from sklearn.metrics.pairwise import cosine_distances
from sklearn.neighbors import kneighbors_graph

from client.evaluation.probe import check_finite
from common.results import Space

MAX_NOTES = 3000  # above this a sample: an [n, n] matrix of float64 is 72 MB here
NEIGHBOURS = 10
PAIRS = 10_000  # a class: drawing them adds an error of a hundredth of the spread of its squared distances

_ROUNDING = 1e-6  # relative: a spread below this is the rounding of an encoder's float32, not a shape

Classes: TypeAlias = Sequence[str | None] | np.ndarray


def space(
    embeddings: np.ndarray,
    labels: Classes,
    categories: Classes,
    *,
    base: np.ndarray | None = None,
    local: np.ndarray | None = None,
    seed: int = 0,
) -> Space:
    """Every figure that is defined for these notes.

    An embedding of length 0 has no direction, so its note is left out; above `MAX_NOTES` notes the figures are of a
    random sample. `notes` says how many are behind them.

    Args:
        embeddings: [n, d].
        labels: [n] class of each note on the site's task, or None.
        categories: [n] category of each note, or None.
        base: [n, any] the same notes under the base encoder; None where not asked.
        local: [n, any] the same notes under the encoder that the site trained alone; None where not asked.
        seed: of the sample of notes, and of the pairs behind the alignment.

    Raises:
        StudyError: `embeddings-not-finite`: an encoder gave NaN or infinity.
    """
    others = [other for other in (base, local) if other is not None]
    check_finite(embeddings, *others)
    rows = np.flatnonzero(embeddings.any(axis=1))
    if len(rows) > MAX_NOTES:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_NOTES, replace=False))
    if len(rows) < 2:
        return Space(notes=len(rows))
    embeddings = embeddings[rows].astype(np.float64)
    labels, categories = np.array(labels, dtype=object)[rows], np.array(categories, dtype=object)[rows]
    distances = cosine_distances(embeddings)
    within, between = within_between(distances, labels)
    return Space(
        notes=len(rows),
        within=within,
        between=between,
        alignment=alignment(distances, labels, seed),
        uniformity=uniformity(distances),
        silhouette_label=silhouette(distances, labels),
        silhouette_category=silhouette(distances, categories),
        modularity_label=modularity(distances, labels),
        modularity_category=modularity(distances, categories),
        effective_rank=effective_rank(embeddings),
        cka_base=None if base is None else linear_cka(embeddings, base[rows]),
        cka_local=None if local is None else linear_cka(embeddings, local[rows]),
    )


def within_between(distances: np.ndarray, classes: Classes) -> tuple[float | None, float | None]:
    """Mean cosine over all pairs of notes of one class, and over all pairs of two classes.

    Every pair counts the same, so a large class has most of the say in the first; `alignment` has each class alike.

    Args:
        distances: [n, n] cosine distances with a diagonal of 0.
        classes: [n] names or None.
    """
    distances, names = _with_class(distances, classes)
    same = names[:, None] == names
    pairs_within = int(same.sum()) - len(names)
    pairs_between = same.size - int(same.sum())
    within = 1 - float(distances.sum(where=same)) / pairs_within if pairs_within else None
    between = 1 - float(distances.sum(where=~same)) / pairs_between if pairs_between else None
    return within, between


def alignment(distances: np.ndarray, classes: Classes, seed: int) -> float | None:
    """Mean squared distance of pairs of one class, between embeddings of length 1 (Wang and Isola 2020, alpha = 2).

    The number of pairs in a class grows with the square of its size, so a mean over all of them is the largest class's.
    Here each class of two notes or more gives `PAIRS` pairs, drawn with replacement by a generator keyed by (seed,
    class) alone: the same pairs for every encoder and every round, whatever other classes there are.

    Args:
        distances: [n, n] cosine distances.
        classes: [n] names or None.
        seed: of the pairs.

    Returns:
        0 (each class is one point) to 4; None where no class has two notes.
    """
    distances, names = _with_class(distances, classes)
    means = []
    for name in np.unique(names):
        members = np.flatnonzero(names == name)
        if len(members) < 2:
            continue
        rng = np.random.default_rng([seed, zlib.crc32(str(name).encode())])
        first, second = rng.integers(len(members), size=PAIRS), rng.integers(len(members) - 1, size=PAIRS)
        second += second >= first  # any note of the class but the first
        means.append(2 * distances[members[first], members[second]].mean())
    return float(np.mean(means)) if means else None


def uniformity(distances: np.ndarray) -> float | None:
    """Log of the mean of exp(-2 |x - y|^2) over pairs of notes, between embeddings of length 1 (Wang and Isola 2020,
    t = 2).

    Returns:
        0 where all directions are one, lower the more evenly they fill the sphere (about -4 in many dimensions); None
        for fewer than two notes.
    """
    n = len(distances)
    if n < 2:
        return None
    potential = -4 * distances
    np.exp(potential, out=potential)
    np.fill_diagonal(potential, 0.0)
    return math.log(potential.sum() / (n * (n - 1)))


def silhouette(distances: np.ndarray, classes: Classes) -> float | None:
    """Mean over notes of (b - a) / max(a, b) (Rousseeuw 1987).

    a is a note's mean distance to the others of its class, b the least of its mean distances to another class. A note
    that is alone in its class counts 0.

    Args:
        distances: [n, n] cosine distances with a diagonal of 0.
        classes: [n] names or None.

    Returns:
        -1 to 1; None for one class, where every note is a class of its own, or where the notes do not differ.
    """
    distances, names = _with_class(distances, classes)
    if not 2 <= len(np.unique(names)) < len(names) or _one_direction(distances):
        return None
    return float(silhouette_score(distances, names, metric="precomputed"))


def modularity(distances: np.ndarray, classes: Classes) -> float | None:
    """How much more often neighbours are of one class than chance would have it (Newman and Girvan 2004).

    Q = 1/2m sum_ij (A_ij - k_i k_j / 2m) d(c_i, c_j) of the graph in which two notes are joined where either is among
    the nearest of the other: the nearest `NEIGHBOURS`, or sqrt(n) where that is fewer, for among few notes ten are
    nearly all. Which of several equally near notes are taken is up to their order.

    Args:
        distances: [n, n] cosine distances with a diagonal of 0.
        classes: [n] names or None; the graph is of the notes that have one.

    Returns:
        -1/2 to 1, 0 as by chance; None for one class, or where the notes do not differ.
    """
    distances, names = _with_class(distances, classes)
    _, codes = np.unique(names, return_inverse=True)
    if len(np.unique(codes)) < 2 or _one_direction(distances):
        return None
    nearest = kneighbors_graph(distances, min(NEIGHBOURS, math.isqrt(len(names))), metric="precomputed")
    one, other = nearest.maximum(nearest.T).nonzero()  # each edge from both its ends: 2m entries
    ends = np.bincount(codes[one]) / len(one)  # the share of all ends of edges that each class has
    return float(np.mean(codes[one] == codes[other]) - (ends**2).sum())


def effective_rank(embeddings: np.ndarray) -> float | None:
    """How many dimensions the notes fill: exp of the entropy of the singular values' shares (Roy and Vetterli 2007).

    Args:
        embeddings: [n, d]; they are centred here, or a mean far from 0 would count as a dimension that dwarfs the rest.

    Returns:
        1 to min(n - 1, d), so that values over different numbers of notes do not compare unless n is well above d; None
        where the notes do not differ.
    """
    x = centred(embeddings)
    if x is None:
        return None
    values = np.linalg.svd(x, compute_uv=False)
    shares = values[values > 0] / values.sum()
    return math.exp(-(shares * np.log(shares)).sum())


def linear_cka(one: np.ndarray, other: np.ndarray) -> float | None:
    """How alike two encoders lay out the same notes: |Y'X|^2 / (|X'X| |Y'Y|), X and Y centred (Kornblith et al. 2019).

    Turning or scaling either space changes nothing. With fewer notes than dimensions the value is biased upwards (it is
    1 for any two notes), so compare values over the same notes only.

    Args:
        one: [n, d] embeddings under the one encoder.
        other: [n, e] embeddings of the same notes under the other.

    Returns:
        0 to 1; None where the notes do not differ under one of the two.
    """
    x, y = centred(one), centred(other)
    if x is None or y is None:
        return None
    alike = np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    return min(1.0, float(alike))


def centred(embeddings: np.ndarray) -> np.ndarray | None:
    """[n, d] float64 with a mean of 0; None for fewer than two rows, or where they are equal but for rounding."""
    if len(embeddings) < 2:
        return None
    x = embeddings.astype(np.float64)
    x -= x.mean(axis=0)
    return None if np.linalg.norm(x) <= _ROUNDING * np.linalg.norm(embeddings) else x


def _one_direction(distances: np.ndarray) -> bool:
    return bool(distances.max() <= _ROUNDING**2)  # a cosine distance goes with the square of the angle


def _with_class(distances: np.ndarray, classes: Classes) -> tuple[np.ndarray, np.ndarray]:
    """[m, m] distances between the notes that have a class, and [m] its name."""
    known = np.array([name is not None for name in classes], dtype=bool)
    names = np.array([name for name in classes if name is not None], dtype=str)
    return (distances if known.all() else distances[np.ix_(known, known)]), names
