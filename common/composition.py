"""Numerical composition of privacy losses: epsilon after many steps, from the law of the loss of one.

The method is that of Gopi, Lee and Wutschitz 2021 (arXiv 2106.02848), and its parts are Opacus'. All that is here is
the grid, and what happens where the grid is too large or double precision too coarse.
"""

import math
import sys
from collections.abc import Sequence
from typing import Protocol

import numpy as np

_ERROR, _MOST_ERROR = 0.01, 0.5  # that composition adds to epsilon
_ERROR_OF_DELTA = 1 / 1000  # of delta, as in Opacus
_POINTS = 2**21  # of the grid: a second or two
_PARTS = 32  # steps of so many kinds, for each has a grid in memory
_FARTHEST = 700.0  # exp() of a larger loss is infinite


class Loss(Protocol):
    """The privacy loss of one step."""

    def mean(self) -> float: ...

    def cdf(self, t: np.ndarray) -> np.ndarray: ...


def chances(steps: int, delta: float) -> tuple[tuple[int, float], ...]:
    """Numbers of steps, and with what chance their loss may be out of reach: of all steps, and of each (remark 5.6)."""
    return (steps, delta * _ERROR_OF_DELTA / 8), (1, delta * _ERROR_OF_DELTA / (16 * steps))


def composed(losses: Sequence[tuple[Loss, int]], reach: float, delta: float) -> float:
    """An upper bound of epsilon at `delta` after some steps of each loss, within 0.02 of it, or more on a long grid.

    Infinite where it cannot be had. `reach` is what losses exceed only with `chances`, in either direction.
    """
    from opacus.accountants.analysis.prv import Domain, compose_heterogeneous, discretize
    from scipy.fft import next_fast_len

    steps = [number for _, number in losses]
    error_of_delta = delta * _ERROR_OF_DELTA
    # A Fourier transform to the power of n is wrong by n roundings.
    if not reach < _FARTHEST or sum(steps) * sys.float_info.epsilon > error_of_delta or len(losses) > _PARTS:
        return math.inf
    spread = math.sqrt(sum(steps) * math.log(12 / error_of_delta) / 2)
    error = max(_ERROR, 2 * reach * spread / _POINTS)
    if error > _MOST_ERROR:
        return math.inf
    # The mesh is a little finer than the error asks for, so that the grid has a length of which transforms are fast.
    mesh = reach / (next_fast_len(math.ceil(reach * spread / error) + 2) - 1.5)
    try:
        domain = Domain.create_aligned(-reach, reach, mesh)
        parts = [discretize(loss, domain) for loss, _ in losses]
        _, _, most = compose_heterogeneous(parts, steps).compute_epsilon(delta, error_of_delta, error)
    except (RuntimeError, ValueError):  # so Opacus says that it cannot
        return math.inf
    return max(0.0, float(most)) if math.isfinite(most) else math.inf
