"""Which spans of a note are anchors, and which are their positives (METHOD section 1.3; Giorgi et al. 2021).

Spans are ranges of token ids: nothing is decoded and tokenised again. Anchors are long (Beta(4, 2)), positives short
(Beta(2, 4)). Two anchors of a note lie at least the longest span apart, which a note of n tokens has room for where
n >= 2 A Lmax. Notes are seldom that long, so Lmax adapts to each: min(Lmax, n // 2A).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Sampling = Literal["default", "adjacent", "subsuming"]
Span = tuple[int, int]  # first token, and the one after the last

_LONG, _SHORT = (4.0, 2.0), (2.0, 4.0)
LONG_MEAN, SHORT_MEAN = 4 / 6, 2 / 6  # of these Beta distributions


@dataclass(frozen=True)
class AnchorSpans:
    """An anchor and its positives, as ranges of one note's tokens."""

    anchor: Span
    positives: list[Span]


def longest_span(tokens: int, anchors: int, longest: int) -> int:
    """The longest span that a note of so many tokens can have; 0 where it has no room for any."""
    return min(longest, tokens // (2 * anchors))


def sample_spans(
    tokens: int,
    *,
    anchors: int,
    positives: int,
    shortest: int,
    longest: int,
    rng: np.random.Generator,
    sampling: Sampling = "default",
) -> list[AnchorSpans]:
    """Draw the anchors of one note and the positives of each.

    Args:
        tokens: of the note; at least `2 * anchors * shortest`.
        longest: of any span, where the note has room for it.
        sampling: where positives lie: anywhere that overlaps or touches the anchor, beside it, or within it.

    Raises:
        ValueError: the note is too short.
    """
    longest = longest_span(tokens, anchors, longest)
    if longest < shortest:
        raise ValueError(f"a note of {tokens} tokens has no room for {anchors} spans of {shortest}")
    # The blocks seldom fill the note: what is left over is before or after them, lest the end be never in an anchor.
    offset = int(rng.integers(tokens % longest + 1))
    blocks = list(range(offset, tokens - longest + 1, longest))
    drawn = []
    for left in range(anchors, 0, -1):
        length = _length(_LONG, shortest, longest, rng)
        # With few blocks left, one at an end: one in the middle would take away the room of the anchors to come.
        place = int(rng.integers(len(blocks))) if len(blocks) // left >= left else int(rng.integers(2)) * -1
        start = blocks[place] + int(rng.integers(longest - length + 1))
        place %= len(blocks)
        del blocks[max(0, place - 1) : place + 2]
        anchor = (start, start + length)
        drawn.append(
            AnchorSpans(anchor, [_positive(anchor, tokens, shortest, longest, rng, sampling) for _ in range(positives)])
        )
    return drawn


def _positive(
    anchor: Span, tokens: int, shortest: int, longest: int, rng: np.random.Generator, sampling: Sampling
) -> Span:
    first, end = anchor
    if sampling == "subsuming":
        length = _length(_SHORT, shortest, end - first, rng)
        start = first + int(rng.integers(end - first - length + 1))
    elif sampling == "adjacent":
        before, after = first, tokens - end
        length = _length(_SHORT, shortest, min(longest, max(before, after)), rng)
        starts = [start for start, room in ((first - length, before), (end, after)) if room >= length]
        start = starts[int(rng.integers(len(starts)))]
    else:
        length = _length(_SHORT, shortest, longest, rng)
        lowest, highest = max(0, first - length), min(end, tokens - length)
        start = lowest + int(rng.integers(highest - lowest + 1))
    return start, start + length


def _length(beta: tuple[float, float], shortest: int, longest: int, rng: np.random.Generator) -> int:
    """A length from `shortest` to `longest`; where the room is less than `shortest`, all of it."""
    shortest = min(shortest, longest)
    return int(rng.beta(*beta) * (longest - shortest) + shortest)
