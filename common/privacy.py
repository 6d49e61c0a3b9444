"""The accounting mathematics, pure: from a history of (noise multiplier, sampling rate, steps) to epsilon, and back.

A step is the Poisson-subsampled Gaussian mechanism: each unit is drawn with the sampling rate, the clipped sum gets
noise of the multiplier times the sensitivity (docs/privacy.md proves it of each objective). Two accountants, both by
Opacus and both upper bounds: `prv` (Gopi et al. 2021) and `rdp` (Mironov et al. 2019), which is looser. Where `prv`
cannot be had, `rdp` stands in.
"""

import contextlib
import functools
import itertools
import math
import warnings
from collections.abc import Iterable

import numpy as np

from common.composition import chances, composed
from common.errors import InputError
from common.plan_sections import Privacy, Training

Step = tuple[float, float, int]  # noise multiplier, sampling rate, steps
_NO_NOISE = 1e-3  # less hides nothing, and Opacus' series need not end there
_LEAST, _MOST = 100, 1_000_000  # of the noise multipliers that are sought, in thousandths
# Few are fractions, whose series are slow; those are for large epsilons.
_ORDERS = [1 + part for part in (0.01, 0.03, 0.06, 0.1, 0.2, 0.35, 0.5, 0.75, 1.5, 2.5)]
_ORDERS += [*range(2, 65), 128, 256, 512]


def epsilon_of(history: Iterable[Step], delta: float, accountant: str = "prv") -> float:
    """Epsilon at `delta` after all steps of a history, in whatever order; 0 where there were none.

    Infinite where the noise is too little for a number.

    Raises:
        ValueError: a noise multiplier that is not above 0 and finite, a rate outside (0, 1], a negative number of
            steps, a delta outside (0, 1), or no such accountant.
    """
    if not (0 < delta < 1 and accountant in ("prv", "rdp")):
        raise ValueError(f"no epsilon at delta {delta} by {accountant}")
    total: dict[tuple[float, float], int] = {}
    for noise, rate, steps in history:
        if not (0 < noise < math.inf and 0 < rate <= 1 and steps >= 0):
            raise ValueError(f"no step has noise {noise}, rate {rate} and number {steps}")
        total[noise, rate] = total.get((noise, rate), 0) + steps
    merged = tuple(sorted((noise, rate, steps) for (noise, rate), steps in total.items() if steps))
    if not merged:
        return 0.0
    return math.inf if merged[0][0] < _NO_NOISE else _epsilon(merged, delta, accountant)


@functools.lru_cache(maxsize=4096)
def _epsilon(history: tuple[Step, ...], delta: float, accountant: str) -> float:
    bound = _by_rdp(history, delta)
    return min(bound, _by_prv(history, delta)) if accountant == "prv" else bound


@functools.lru_cache(maxsize=4096)
def _rdp(noise: float, rate: float) -> np.ndarray:
    """Renyi differential privacy of one step, of each of the orders."""
    from opacus.accountants.analysis.rdp import compute_rdp

    return np.maximum(0.0, compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=_ORDERS))


def _by_rdp(history: Iterable[Step], delta: float) -> float:
    from opacus.accountants.analysis.rdp import get_privacy_spent

    spent = np.sum([steps * _rdp(noise, rate) for noise, rate, steps in history], axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says when the best order is the first or the last
        return max(0.0, float(get_privacy_spent(orders=_ORDERS, rdp=spent, delta=delta)[0]))


def _by_prv(history: tuple[Step, ...], delta: float) -> float:
    """Infinite where it cannot be had."""
    from opacus.accountants.analysis.prv import PoissonSubsampledGaussianPRV, TruncatedPrivacyRandomVariable

    (_, chance), (_, chance_of_one) = chances(sum(steps for _, _, steps in history), delta)
    single = max(_by_rdp([(noise, rate, 1)], chance_of_one) for noise, rate, _ in history)
    reach = 3 + max(_by_rdp(history, chance), single)
    with np.errstate(all="ignore"):  # the logarithms of 0 that Opacus meets on its way come out right
        losses = [
            (TruncatedPrivacyRandomVariable(PoissonSubsampledGaussianPRV(rate, noise), -reach, reach), steps)
            for noise, rate, steps in history
        ]
        return composed(losses, reach, delta)


def noise_for(epsilon: float, delta: float, rate: float, steps: int, accountant: str = "prv") -> float:
    """The least noise multiplier, in thousandths from 0.1, with which `steps` steps spend at most `epsilon` at `delta`.

    Raises:
        InputError: `epsilon-too-small`: no multiplier up to 1,000 is enough.
    """

    def spent(thousandths: int) -> float:
        return epsilon_of([(thousandths / 1000, rate, steps)], delta, accountant)

    high = 1000
    if accountant == "prv":
        with contextlib.suppress(InputError):  # RDP is quick, and its answer near
            high = round(1000 * noise_for(epsilon, delta, rate, steps, "rdp"))
    while spent(high) > epsilon:
        if high == _MOST:
            raise InputError(
                "epsilon-too-small",
                f"No noise multiplier up to {_MOST // 1000:,} gives epsilon {epsilon:g} at delta {delta:g} over "
                f"{steps:,} steps at sampling rate {rate:.3g}.",
                "Raise privacy.epsilon, or plan fewer steps.",
            )
        high = min(2 * high, _MOST)
    low = high
    while spent(low) <= epsilon:
        if low == _LEAST:
            return low / 1000
        high, low = low, max(low * 4 // 5, _LEAST)
    for turn in itertools.count(1):
        if high - low <= 1:
            break
        # Epsilon is nearly a power of the noise; every fourth guess is the middle, in case that it is not.
        share = math.log(epsilon / spent(low)) / math.log(max(spent(high), 1e-9) / spent(low)) if turn % 4 else 0.5
        middle = min(max(math.ceil(low * (high / low) ** share), low + 1), high - 1)
        low, high = (low, middle) if spent(middle) <= epsilon else (middle, high)
    return high / 1000


def sampling_rate(batch_size: int, units: int) -> float:
    """The chance of each of `units` units to be in a step whose expected size is `batch_size`."""
    return min(1.0, batch_size / units)


def steps_per_round(training: Training, units: int) -> int:
    """Steps of one private round at a site with `units` units in training."""
    if training.steps_per_round is not None:
        return training.steps_per_round
    assert training.epochs_per_round is not None  # a private plan has one of the two
    return max(1, math.ceil(training.epochs_per_round * units / training.batch_size))


def noise_multiplier(plan: Privacy, rate: float, steps: int) -> float:
    """The plan's noise at a site whose study has `steps` steps at `rate` in all. Raises as `noise_for`."""
    if plan.noise_multiplier is not None:
        return plan.noise_multiplier
    assert plan.epsilon is not None  # the plan has one of the two
    return noise_for(plan.epsilon, plan.delta, rate, steps, plan.accountant)
