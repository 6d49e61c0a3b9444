"""Spans: the statistics of METHOD section 1.3, and that no note of any length gives a span outside itself."""

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest

from client.objectives.spans import AnchorSpans, Sampling, longest_span, sample_spans

SAMPLINGS: tuple[Sampling, ...] = ("default", "adjacent", "subsuming")


def spans(tokens: int, seed: Any = 0, sampling: Sampling = "default", **settings: int) -> list[AnchorSpans]:
    numbers = {"anchors": 2, "positives": 2, "shortest": 8, "longest": 256} | settings
    return sample_spans(tokens, rng=np.random.default_rng(seed), sampling=sampling, **numbers)


def test_the_statistics_of_the_method() -> None:
    """Notes of 1024 to 4000 tokens. The tolerances are four standard errors of so many draws, and less than what the
    two Beta distributions, or their ranges, would change if they were mixed up."""
    anchors, positives, kinds = [], [], Counter[str]()
    for number, tokens in enumerate(np.random.default_rng(1).integers(1024, 4001, 3000)):
        for one in spans(int(tokens), seed=number):
            anchor = set(range(*one.anchor))
            anchors.append(len(anchor))
            for span in one.positives:
                positive = set(range(*span))
                positives.append(len(positive))
                shared = len(anchor & positive)
                kinds["apart" if not shared else "inside" if positive <= anchor else "partly"] += 1
    assert abs(np.mean(anchors) - 173) < 3 and abs(np.mean(positives) - 90) < 2
    # Of Beta(4, 2) and Beta(2, 4), both 0.178 of the range.
    assert abs(np.std(anchors) - 44.2) < 2 and abs(np.std(positives) - 44.2) < 2
    share = {kind: count / len(positives) for kind, count in kinds.items()}
    assert 0.35 < share["inside"] < 0.39 and 0.60 < share["partly"] < 0.65 and 0 < share["apart"] < 0.01


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("anchors", [1, 2, 3, 4])
def test_every_span_of_every_note_is_one(anchors: int, sampling: Sampling) -> None:
    """All lengths of a note from the fewest tokens up to where it has room for the longest spans, and some beyond."""
    shortest, longest = 3, 20
    for tokens in range(2 * anchors * shortest, 2 * anchors * longest + 2 * longest):
        most = longest_span(tokens, anchors, longest)
        assert shortest <= most == min(longest, tokens // (2 * anchors))
        drawn = spans(tokens, tokens, sampling, anchors=anchors, positives=3, shortest=shortest, longest=longest)
        assert len(drawn) == anchors
        for one in drawn:
            first, end = one.anchor
            assert first >= 0 and end <= tokens and shortest <= end - first <= most and len(one.positives) == 3
            for start, stop in one.positives:
                assert start >= 0 and stop <= tokens and 1 <= stop - start <= most
                if sampling == "subsuming":
                    assert first <= start and stop <= end
                elif sampling == "adjacent":
                    assert stop == first or start == end
                else:
                    assert start <= end and stop >= first
                # Beside an anchor of a short note there may be less room than the shortest span asks for.
                if sampling != "adjacent" or max(first, tokens - end) >= shortest:
                    assert stop - start >= shortest
        ordered = sorted(one.anchor for one in drawn)
        assert all(after - end >= most for (_, end), (after, _) in itertools.pairwise(ordered))


@pytest.mark.parametrize("anchors", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("shortest", [2, 8])
def test_the_fewest_tokens_are_enough_and_one_less_is_not(anchors: int, shortest: int) -> None:
    fewest = 2 * anchors * shortest
    for seed in range(50):
        drawn = spans(fewest, seed, anchors=anchors, shortest=shortest)
        assert [end - first for first, end in (one.anchor for one in drawn)] == [shortest] * anchors
    with pytest.raises(ValueError, match=f"{fewest - 1} tokens has no room for {anchors} spans of {shortest}"):
        spans(fewest - 1, anchors=anchors, shortest=shortest)


@pytest.mark.parametrize(("tokens", "anchors"), [(32, 2), (47, 2), (83, 1), (83, 2), (101, 3), (130, 2)])
def test_every_token_may_be_in_an_anchor(tokens: int, anchors: int) -> None:
    """Also those at the end of a note whose length is no multiple of the longest span."""
    covered = np.zeros(tokens, dtype=int)
    for seed in range(2000):
        for one in spans(tokens, seed, anchors=anchors, shortest=6, longest=20):
            covered[slice(*one.anchor)] += 1
    assert covered.min() > 0
    assert abs(covered[: tokens // 2].sum() / covered[-(tokens // 2) :].sum() - 1) < 0.1


def test_both_sides_of_an_anchor_have_positives() -> None:
    sides = Counter(
        start >= one.anchor[1]
        for seed in range(500)
        for one in spans(1100, seed, "adjacent")
        for start, _ in one.positives
    )
    assert abs(sides[True] / sides.total() - 0.5) < 0.1


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_draws_differ_and_are_repeated_by_their_key(sampling: Sampling) -> None:
    rng = np.random.default_rng(5)
    settings: dict[str, Any] = {"anchors": 2, "positives": 2, "shortest": 8, "longest": 64, "sampling": sampling}
    one, other = (sample_spans(400, rng=rng, **settings) for _ in range(2))
    assert one != other
    assert one == sample_spans(400, rng=np.random.default_rng(5), **settings)
    assert len({span for drawn in one for span in drawn.positives}) > 1
