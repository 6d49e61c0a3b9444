"""Statistics of the tests and audits of privacy: how unlikely a figure is, and how much epsilon an attack has proved.

A false alarm of any of them is to have a chance of less than one in a million: `CERTAIN`.
"""

import math

import numpy as np
from scipy import optimize, stats

CERTAIN = 1e-6
Z = 6.0  # of a normal figure: beyond it once in 5e8


def z_of_variance(drawn: np.ndarray, expected: float = 1.0) -> float:
    """Of numbers that are to be normal with mean 0 and a standard deviation."""
    return float((np.square(drawn / expected).mean() - 1) * math.sqrt(len(drawn) / 2))


def z_of_mean(drawn: np.ndarray) -> float:
    return float(drawn.mean() / drawn.std() * math.sqrt(len(drawn)))


def z_of_correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1] * math.sqrt(len(a)))


def p_of_variance(drawn: np.ndarray, expected: float) -> float:
    """As `z_of_variance`, two-sided and exact for few numbers."""
    total = float(np.square(drawn / expected).sum())
    return 2 * min(stats.chi2.cdf(total, len(drawn)), stats.chi2.sf(total, len(drawn)))


def p_of_normal(drawn: np.ndarray) -> float:
    """Kolmogorov and Smirnov."""
    return float(stats.kstest(drawn, "norm").pvalue)


def p_of_rate(hits: int, trials: int, rate: float) -> float:
    return float(stats.binomtest(hits, trials, rate).pvalue)


def most(hits: int, trials: int, alpha: float) -> float:
    """The largest rate that so few hits allow (Clopper and Pearson), but for a chance of `alpha`."""
    return 1.0 if hits == trials else float(stats.beta.ppf(1 - alpha, hits + 1, trials - hits))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Epsilon of a mechanism that is mu-GDP (Dong et al. 2022)."""
    if mu <= 0:
        return 0.0
    profile = lambda e: stats.norm.cdf(-e / mu + mu / 2) - math.exp(e) * stats.norm.cdf(-e / mu - mu / 2) - delta
    return float(optimize.brentq(profile, 0, 50 * mu + mu * mu)) if profile(0) > 0 else 0.0


def proved_mu(with_it: np.ndarray, without: np.ndarray, threshold: float, alpha: float = CERTAIN) -> float:
    """The least mu for which a test at the threshold errs so seldom, but for a chance of `alpha`."""
    false = most(int((without > threshold).sum()), len(without), alpha / 2)
    missed = most(int((with_it <= threshold).sum()), len(with_it), alpha / 2)
    return float(-stats.norm.ppf(false) - stats.norm.ppf(missed))


def proved_epsilon(
    with_it: np.ndarray, without: np.ndarray, threshold: float, delta: float, alpha: float = CERTAIN
) -> float:
    """The least epsilon at `delta` for which a test at the threshold errs so seldom, but for a chance of `alpha`."""
    false = most(int((without > threshold).sum()), len(without), alpha / 2)
    missed = most(int((with_it <= threshold).sum()), len(with_it), alpha / 2)
    ratios = [(1 - delta - missed, false), (1 - delta - false, missed)]
    return max([0.0, *(math.log(a / b) for a, b in ratios if a > 0)])


def one_run_p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """The chance of so many right guesses about coins of `canaries` units under (epsilon, delta), at most.

    Steinke, Nasr and Jagielski 2023, "Privacy auditing with one (1) training run", appendix D.
    """
    q = 1 / (1 + math.exp(-epsilon))
    beta = float(stats.binom.sf(right - 1, guesses, q))
    masses = np.cumsum(stats.binom.pmf(right - np.arange(1, right + 1), guesses, q))
    alpha = float((masses / np.arange(1, right + 1)).max(initial=0.0))
    return min(1.0, beta + alpha * delta * 2 * canaries)


def one_run_epsilon(canaries: int, guesses: int, right: int, delta: float, alpha: float = CERTAIN) -> float:
    """The largest epsilon that so many right guesses refute, but for a chance of `alpha`."""
    low, high = 0.0, 20.0
    if one_run_p_value(canaries, guesses, right, low, delta) > alpha:
        return 0.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        refuted = one_run_p_value(canaries, guesses, right, middle, delta) <= alpha
        low, high = (middle, high) if refuted else (low, middle)
    return low
