"""Groups of notes that are copies of one another, so that no copy of a test note is ever trained on. Only numpy.

Exact: equal but for case and white space. Near: runs of five words with a Jaccard similarity of .8 or more, estimated
by MinHash among candidates from banding. The estimate's standard error is .037 at 120 permutations, so the line is
drawn at `SIMILAR`, below .8: 98 in 100 pairs at .8 are found and 999 in 1,000 at .84, the price being that some pairs
from .7 on are taken for copies too.
Groups are transitive: a copy of a copy is in the group, for otherwise it could stand on the other side of the split.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.notes.shingles import BAND_ROWS, BANDS, Fingerprints

SIMILAR = 0.72
# Notes below it say too little to learn from or to be called copies.
MIN_WORDS = 5
# Within one band's bucket, how many notes in turn are compared with all the others. A bucket of unlike notes that share
# a template would otherwise cost its size squared; a true pair that it loses meets again in the other bands.
PIVOTS = 32
# Pairs compared at once: 50 MB.
PAIRS = 50_000


@dataclass(frozen=True)
class Groups:
    """Of n notes, `group` int64 (n,): equal for copies, -1 for notes of fewer than `MIN_WORDS` words, which have none.

    `names` uint64 (groups,) is a digest of each group's content, the same in whatever order the notes came.
    `exact` counts the notes that repeat an earlier one; `near` the further ones that are almost one.
    """

    group: NDArray[np.int64]
    names: NDArray[np.uint64]
    exact: int
    near: int


def find_groups(prints: Fingerprints, progress: Callable[[int], None]) -> Groups:
    """Groups the copies among n notes; `progress` gets the bands done, of `BANDS`."""
    group = np.full(len(prints.words), -1, dtype=np.int64)
    long_enough = np.flatnonzero(prints.words >= MIN_WORDS)
    # Sorted by digest: everything that follows is then the same whatever the order of the notes.
    digests, first, which = np.unique(prints.digests[long_enough], return_index=True, return_inverse=True)
    labels = _near(prints.signatures[long_enough[first]], progress)
    roots, compact = np.unique(labels, return_inverse=True)
    group[long_enough] = compact[which]
    return Groups(group, digests[roots], len(long_enough) - len(digests), len(digests) - len(roots))


def _near(signatures: NDArray[np.uint32], progress: Callable[[int], None]) -> NDArray[np.int64]:
    """For each of n notes the lowest index in its group, (n,)."""
    labels = np.arange(len(signatures))
    comparable = np.flatnonzero(signatures[:, 0] != np.uint32(0xFFFFFFFF))
    for band in range(BANDS):
        columns = signatures[comparable, band * BAND_ROWS : (band + 1) * BAND_ROWS]
        _, bucket = np.unique(
            np.ascontiguousarray(columns).view(f"V{columns.itemsize * BAND_ROWS}"), return_inverse=True
        )
        labels = _merge_buckets(signatures, labels, comparable, bucket.ravel())
        progress(band + 1)
    return labels


def _merge_buckets(
    signatures: NDArray[np.uint32], labels: NDArray[np.int64], members: NDArray[np.int64], bucket: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Joins each bucket's notes that are similar to its first, then the rest to the first of the rest, and so on."""
    order = np.argsort(bucket, kind="stable")
    members, bucket = members[order], bucket[order]
    for _ in range(PIVOTS):
        crowded = np.bincount(bucket)[bucket] > 1 if len(bucket) else np.zeros(0, dtype=bool)
        members, bucket = members[crowded], bucket[crowded]
        if not len(members):
            break
        is_pivot = np.diff(bucket, prepend=-1) > 0
        pivots = members[is_pivot][np.cumsum(is_pivot) - 1]
        joined = is_pivot | (labels[members] == labels[pivots])
        open_pairs = np.flatnonzero(~joined)
        similar = open_pairs[_similar(signatures, pivots[open_pairs], members[open_pairs])]
        labels = _join(labels, pivots[similar], members[similar])
        joined[similar] = True
        members, bucket = members[~joined], bucket[~joined]
    return labels


def _similar(signatures: NDArray[np.uint32], left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which pairs (n,) of notes have an estimated similarity of at least `SIMILAR`."""
    similar = np.zeros(len(left), dtype=bool)
    for start in range(0, len(left), PAIRS):
        part = slice(start, start + PAIRS)
        similar[part] = (signatures[left[part]] == signatures[right[part]]).mean(axis=1) >= SIMILAR
    return similar


def _join(labels: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """The labels after joining pairs: each note's label is the lowest index in its group. Hooks roots, then jumps."""
    while True:
        low = np.minimum(labels[left], labels[right])
        if np.array_equal(labels[left], low) and np.array_equal(labels[right], low):
            return labels
        hooked = labels.copy()
        np.minimum.at(hooked, labels[left], low)
        np.minimum.at(hooked, labels[right], low)
        while not np.array_equal(jumped := hooked[hooked], hooked):
            hooked = jumped
        labels = hooked
