"""What a patient with several notes has where the unit is the note: the bound that group privacy cannot give.

Each of the patient's notes is drawn by itself, so that the number in a step is binomial; at worst all their clipped
gradients point one way. A step is then a mixture of Gaussians against one Gaussian (Charles et al. 2024,
arXiv 2407.07737, which proves that this pair dominates).
"""

import functools
import math

import numpy as np

from common.composition import chances, composed

_ORDERS = np.geomspace(1e-3, 32, 100)  # of the moments that bound the losses' tails
_TAIL = 12.0  # noises from the mean beyond which a Gaussian has nothing


@functools.lru_cache(maxsize=1024)
def several_notes(noise: float, rate: float, steps: int, delta: float, notes: int) -> float:
    """Epsilon at `delta` of a patient with `notes` notes, after `steps` steps that draw each note with `rate`.

    An upper bound, whether the patient is added or removed: by numerical composition, or by moments where that
    cannot be had.
    """
    pair, most = _Pair(noise, rate, notes), 0.0
    for removed in (True, False):
        most = max(most, _epsilon(_Loss(pair, removed), steps, delta, most))
    return most


class _Pair:
    """The mixture of normal laws with means 0..notes, and the one with mean 0; 1 is what a note can add."""

    def __init__(self, noise: float, rate: float, notes: int) -> None:
        from scipy.stats import binom

        self.noise, self.notes = noise, notes
        drawn = np.arange(notes + 1)
        logs = binom.logpmf(drawn, notes, rate)
        self.drawn, self.logs = drawn[np.isfinite(logs)], logs[np.isfinite(logs)]

    def loss(self, x: np.ndarray) -> np.ndarray:
        """Log of the mixture's density over the other's; it rises with x."""
        total = np.full(len(x), -np.inf)
        for number, log in zip(self.drawn, self.logs, strict=True):
            total = np.logaddexp(total, log + number * (x - number / 2) / self.noise**2)
        return total


class _Loss:
    """The privacy loss of one step: of the mixture where the patient is `removed`, of the other where added."""

    def __init__(self, pair: _Pair, removed: bool) -> None:
        self.pair, self.removed = pair, removed
        noise, most = pair.noise, pair.notes
        # Wide enough for the mass of every moment. A sum over a fine grid is as good as an integral of such functions.
        wide = (_ORDERS[-1] + 1) * most + _TAIL * noise
        x = np.arange(-wide, wide, noise / 16)
        loss = pair.loss(x)
        law = -((x / noise) ** 2) / 2 - math.log(16 * math.sqrt(2 * math.pi)) + (loss if removed else 0.0)
        self._law, self._loss = law, loss if removed else -loss
        self._moments = {sign: np.array([self._moment(sign * order) for order in _ORDERS]) for sign in (1, -1)}
        self._x = np.arange(-_TAIL * noise, most + _TAIL * noise, noise / 4096)
        self._loss_at_x = np.maximum.accumulate(pair.loss(self._x))

    def mean(self) -> float:
        return float(np.exp(self._law) @ self._loss)

    def _moment(self, order: float) -> float:
        """Log of the expectation of exp(order * loss)."""
        logs = self._law + order * self._loss
        return float(logs.max() + math.log(np.exp(logs - logs.max()).sum()))

    def cdf(self, t: np.ndarray) -> np.ndarray:
        from scipy.special import ndtr

        pair = self.pair
        if not self.removed:
            return ndtr(-np.interp(-t, self._loss_at_x, self._x) / pair.noise)
        x = np.interp(t, self._loss_at_x, self._x)
        parts = zip(pair.drawn, pair.logs, strict=True)
        return sum(math.exp(log) * ndtr((x - number) / pair.noise) for number, log in parts)

    def tail(self, steps: int, chance: float, sign: int = 1) -> float:
        """What the loss of `steps` steps (times `sign`) exceeds with at most this chance (Chernoff's bound)."""
        return float(np.min((steps * self._moments[sign] - math.log(chance)) / _ORDERS))


def _epsilon(loss: _Loss, steps: int, delta: float, known: float) -> float:
    """An upper bound; any will do that is no more than what is `known` of the other direction."""
    by_moments = loss.tail(steps, delta)
    if by_moments <= known:
        return by_moments
    reach = 3 + max(loss.tail(number, chance, sign) for number, chance in chances(steps, delta) for sign in (1, -1))
    return min(by_moments, composed([(loss, steps)], reach, delta))
