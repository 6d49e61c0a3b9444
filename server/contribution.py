"""What each site's update did to the average: its weight, and whether it points where the others do."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import Message

from common import messages
from common.messages import Tensors


@dataclass(frozen=True)
class Contribution:
    """`weight`: the site's share of the average (0 to 1). `cosine`: of the angle between its update and the weighted
    mean of all, None where either is nothing."""

    site: str
    weight: float
    cosine: float | None


def contributions(replies: Mapping[str, Message], before: Tensors) -> list[Contribution]:
    """Of checked replies, as strategies take them, to the shared tensors `before`.

    In float64, for a sum of millions of squares in float32 loses digits; tensor by tensor and site by site, for the
    updates of many sites do not fit in memory twice.
    """
    counts = {site: messages.weight(reply) for site, reply in replies.items()}
    shares = {site: count / sum(counts.values()) for site, count in counts.items()}
    after = {
        site: messages.from_arrays(reply.content.array_records[messages.ARRAYS]) for site, reply in replies.items()
    }
    dots, squares, mean_square = dict.fromkeys(replies, 0.0), dict.fromkeys(replies, 0.0), 0.0
    for name, old in before.items():
        mean = np.zeros(old.size)
        for site, tensors in after.items():
            mean += shares[site] * _delta(tensors[name], old)
        mean_square += float(mean @ mean)
        for site, tensors in after.items():
            delta = _delta(tensors[name], old)
            dots[site] += float(delta @ mean)
            squares[site] += float(delta @ delta)
    cosines: dict[str, float | None] = {}
    for site in replies:
        length = math.sqrt(squares[site] * mean_square)
        cosines[site] = dots[site] / length if length > 0.0 and math.isfinite(length) else None
    return [Contribution(site, shares[site], cosines[site]) for site in replies]


def _delta(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    return (new.astype(np.float64) - old).ravel()
