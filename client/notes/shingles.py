"""What two notes are compared by: a digest of the whole, and a MinHash signature of its runs of five words. Only numpy.

Both look past case and white space; the signature looks past punctuation too.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BANDS = 24
BAND_ROWS = 5
PERMUTATIONS = BANDS * BAND_ROWS
SHINGLE_WORDS = 5

_MIX = np.uint64(0x9E3779B97F4A7C15)
_MIX_BACK = np.uint64(pow(0x9E3779B97F4A7C15, -1, 2**64))
_NEVER = np.uint32(0xFFFFFFFF)
# Letters, digits and every byte of a non-ASCII letter; everything else separates words.
_IN_WORD = np.zeros(256, dtype=bool)
_IN_WORD[[*range(ord("0"), ord("9") + 1), *range(ord("a"), ord("z") + 1), *range(0x80, 0x100)]] = True

_constants = np.random.Generator(np.random.PCG64(20240229))
_FLIP = _constants.integers(0, 2**32, PERMUTATIONS, dtype=np.uint32)
_FACTOR = _constants.integers(0, 2**32, PERMUTATIONS, dtype=np.uint32) | np.uint32(1)
_WEIGHTS = _constants.integers(0, 2**64, SHINGLE_WORDS, dtype=np.uint64) | np.uint64(1)


@dataclass(frozen=True)
class Fingerprints:
    """Of n notes: `words` int32 (n,) separated by white space; `digests` uint64 (n,), equal for exact duplicates;
    `signatures` uint32 (n, PERMUTATIONS), all ones for a note with fewer than five words."""

    words: NDArray[np.int32]
    digests: NDArray[np.uint64]
    signatures: NDArray[np.uint32]

    @staticmethod
    def join(parts: list["Fingerprints"]) -> "Fingerprints":
        return Fingerprints(
            np.concatenate([part.words for part in parts]),
            np.concatenate([part.digests for part in parts]),
            np.concatenate([part.signatures for part in parts]),
        )


def fingerprint(texts: list[str]) -> Fingerprints:
    """The fingerprints of some notes. Takes about a hundred times the memory of the texts' five-word runs: batch it."""
    split = [text.casefold().split() for text in texts]
    plain = [" ".join(words).encode() for words in split]
    return Fingerprints(
        np.array([len(words) for words in split], dtype=np.int32),
        np.array([int.from_bytes(hashlib.blake2b(p, digest_size=8).digest(), "big") for p in plain], dtype=np.uint64),
        _signatures(plain),
    )


def _signatures(plain: list[bytes]) -> NDArray[np.uint32]:
    """MinHash signatures (n, PERMUTATIONS) of n lower-case UTF-8 texts."""
    signatures = np.full((len(plain), PERMUTATIONS), _NEVER, dtype=np.uint32)
    ends = np.cumsum([len(text) + 1 for text in plain])
    words, starts = _word_hashes(np.frombuffer(b" ".join(plain) + b" ", dtype=np.uint8))
    if len(words) < SHINGLE_WORDS:
        return signatures
    note = np.searchsorted(ends, starts, side="right")
    runs = len(words) - SHINGLE_WORDS + 1
    hashes = np.zeros(runs, dtype=np.uint64)
    for place, weight in enumerate(_WEIGHTS):
        hashes += _scramble(words[place : place + runs] * weight)
    # A run that reaches into the next note is none.
    inside = note[:runs] == note[SHINGLE_WORDS - 1 :]
    shingles = (_scramble(hashes[inside]) >> np.uint64(32)).astype(np.uint32)
    notes, first = np.unique(note[:runs][inside], return_index=True)
    if len(notes):
        for column in range(PERMUTATIONS):
            signatures[notes, column] = np.minimum.reduceat((shingles ^ _FLIP[column]) * _FACTOR[column], first)
    return signatures


def _word_hashes(characters: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """A 64-bit hash of every word in a buffer of UTF-8 bytes that ends in a separator, and where each starts.

    The hash is a polynomial of the word's bytes, taken from running sums so that no word is touched one by one:
    the factor's inverse moves every word's polynomial back to the origin (arithmetic is modulo 2**64).
    """
    inside = _IN_WORD[characters]
    edges = np.flatnonzero(np.diff(inside, prepend=False))
    starts, ends = edges[0::2], edges[1::2]
    sums = np.zeros(len(characters) + 1, dtype=np.uint64)
    np.cumsum((characters.astype(np.uint64) + np.uint64(1)) * _powers(_MIX, len(characters)), out=sums[1:])
    return (sums[ends] - sums[starts]) * _powers(_MIX_BACK, len(characters))[starts], starts


def _powers(base: np.uint64, count: int) -> NDArray[np.uint64]:
    powers = np.full(count, base, dtype=np.uint64)
    powers[:1] = 1
    return np.cumprod(powers, dtype=np.uint64)


def _scramble(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: spreads every bit over all."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
