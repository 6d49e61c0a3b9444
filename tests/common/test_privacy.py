"""The accounting: what epsilon a history has, the noise that a budget needs, and that neither is ever too small."""

import functools
import itertools
import math
import random

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from opacus.accountants import PRVAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from common.errors import InputError
from common.plan import parse_plan
from common.plan_sections import Privacy, Training
from common.privacy import (
    Step,
    epsilon_of,
    noise_for,
    noise_multiplier,
    sampling_rate,
    steps_per_round,
)

USUAL: list[Step] = [(1.036, 0.0256, 390)]
# By PRV, RDP and Google's PLD, as they were found before this project began.
PUBLISHED = [
    ((1.0, 0.01, 1000), 1e-5, 1.838, 2.101, 1.829),
    ((0.8, 0.032, 500), 1e-5, 7.53, 8.46, 7.52),
    ((4.0, 1.0, 50), 1e-3, 6.46, 7.18, 6.45),
]
MIXED: list[list[Step]] = [
    [(1.0, 0.01, 1000), (0.8, 0.032, 500)],
    [(1.0, 0.01, 1000), (50.0, 0.5, 10), (0.3, 0.0001, 3)],
    [(4.0, 1.0, 20), (1.5, 0.05, 300), (0.7, 0.002, 50)],
    [(0.5, 0.01, 50), (300.0, 0.9, 1000)],
]


@functools.cache
def losses_by_google(history: tuple[Step, ...]) -> pld.PrivacyLossDistribution:
    parts = [
        pld.from_gaussian_mechanism(noise, sampling_prob=rate, value_discretization_interval=1e-4).self_compose(steps)
        for noise, rate, steps in history
    ]
    return functools.reduce(lambda whole, part: whole.compose(part), parts)


def by_google(history: list[Step], delta: float) -> float:
    """The larger of adding and removing a unit, by privacy loss distributions; rounded up, by little."""
    return losses_by_google(tuple(history)).get_epsilon_for_delta(delta)


def gaussian(noise: float, steps: int, delta: float) -> float:
    """Exact, for a rate of 1 (Balle and Wang 2018, theorem 8)."""
    mu = math.sqrt(steps) / noise
    excess = lambda epsilon: (
        norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon + norm.logcdf(-mu / 2 - epsilon / mu)) - delta
    )
    return float(brentq(excess, 0.0, 700.0))


# Against others.


@pytest.mark.parametrize(("step", "delta", "prv", "rdp", "google"), PUBLISHED)
def test_the_published_figures(step: Step, delta: float, prv: float, rdp: float, google: float) -> None:
    assert epsilon_of([step], delta) == pytest.approx(prv, abs=0.006)
    assert rdp - 0.006 <= epsilon_of([step], delta, "rdp") <= 1.01 * rdp
    assert by_google([step], delta) == pytest.approx(google, abs=0.006)


@pytest.mark.parametrize("delta", [1e-5, 1e-8])
@pytest.mark.parametrize("history", [[step] for step, *_ in PUBLISHED] + MIXED)
def test_prv_is_above_google_and_by_less_than_two_hundredths(history: list[Step], delta: float) -> None:
    google = by_google(history, delta)
    assert google - 1e-3 <= epsilon_of(history, delta) <= google + 0.02
    assert epsilon_of(history, delta) <= epsilon_of(history, delta, "rdp")


def test_prv_is_that_of_opacus() -> None:
    account = PRVAccountant()
    account.history = [*MIXED[0]]
    assert epsilon_of(MIXED[0], 1e-5) == pytest.approx(account.get_epsilon(delta=1e-5), abs=1e-3)


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
@pytest.mark.parametrize(
    ("noise", "steps", "delta"),
    [(1.0, 1, 1e-5), (4.0, 50, 1e-3), (0.1, 1, 1e-5), (100.0, 10_000, 1e-6), (1.0, 200, 0.1)],
)
def test_a_rate_of_one_is_the_gaussian_mechanism(noise: float, steps: int, delta: float, accountant: str) -> None:
    exact, found = gaussian(noise, steps, delta), epsilon_of([(noise, 1.0, steps)], delta, accountant)
    assert exact <= found <= (exact + 0.02 if accountant == "prv" else 1.3 * exact + 0.1)


def test_no_epsilon_is_below_the_truth_whatever_the_step() -> None:
    """Drawn at random, from noise that hides all to noise that hides nothing."""
    draw = random.Random(7)
    for _ in range(12):
        noise, rate = 10 ** draw.uniform(-0.3, 2.0), 10 ** draw.uniform(-4, 0)
        steps, delta = int(10 ** draw.uniform(0, 4)), 10 ** draw.uniform(-9, -2.5)
        if (rate / noise) ** 2 * steps < 100:
            found = [epsilon_of([(noise, rate, steps)], delta, accountant) for accountant in ("prv", "rdp")]
            # Google's own figure is rounded up, at this mesh by up to some thousandths.
            assert min(found) >= by_google([(noise, rate, steps)], delta) - 2e-3, (noise, rate, steps, delta)


# Its laws.


def test_more_noise_a_lower_rate_and_fewer_steps_spend_less() -> None:
    for accountant in ("prv", "rdp"):
        spent = [epsilon_of([(noise, 0.02, 300)], 1e-5, accountant) for noise in (0.6, 0.9, 1.3, 2.0, 5.0)]
        assert spent == sorted(spent, reverse=True) and len(set(spent)) == 5
        spent = [epsilon_of([(1.0, rate, 300)], 1e-5, accountant) for rate in (0.001, 0.01, 0.05, 0.3, 1.0)]
        assert spent == sorted(spent) and len(set(spent)) == 5
        spent = [epsilon_of([(1.0, 0.02, steps)], 1e-5, accountant) for steps in (1, 10, 100, 1000, 10_000)]
        assert spent == sorted(spent) and len(set(spent)) == 5
        spent = [epsilon_of(USUAL, delta, accountant) for delta in (1e-3, 1e-5, 1e-7, 1e-9, 1e-12, 1e-15, 1e-300)]
        assert spent == sorted(spent) and len(set(spent)) == 7


@pytest.mark.parametrize("history", MIXED)
def test_the_whole_spends_no_less_than_a_part_and_no_more_than_the_sum(history: list[Step]) -> None:
    whole = epsilon_of(history, 1e-5)
    parts = [epsilon_of([step], 1e-5) for step in history]
    assert max(parts) <= whole + 1e-3
    # Basic composition, at the sum of the deltas.
    assert epsilon_of(history, 1e-5 * len(history)) <= sum(parts)


def test_the_order_of_a_history_does_not_matter_and_equal_steps_merge() -> None:
    history = [*MIXED[2], *MIXED[0]]
    assert len({epsilon_of(turned, 1e-5) for turned in itertools.permutations(history[:3])}) == 1
    assert epsilon_of([(1.0, 0.01, 1)] * 400 + [(1.0, 0.01, 600)], 1e-5) == epsilon_of([(1.0, 0.01, 1000)], 1e-5)
    assert epsilon_of([*history, (2.0, 0.3, 0)], 1e-5) == epsilon_of(history, 1e-5)


def test_nothing_done_is_nothing_spent() -> None:
    assert epsilon_of([], 1e-5) == epsilon_of([(1.0, 0.1, 0)], 1e-5) == 0.0


# What PRV cannot do.


@pytest.mark.parametrize(
    ("history", "delta"),
    [
        ([(0.1, 0.01, 10_000)], 1e-5),  # a grid of six thousand million points
        ([(0.1, 1.0, 20)], 1e-5),  # exp() of such losses is infinite
        ([(1.0, 0.01, 10**15)], 1e-5),
        ([(1.0, 0.01, 1000)], 1e-13),  # Opacus gives less than the truth here
        ([(1.0, 0.01, 10_000)], 1e-14),
        ([(1.0, 0.01, 1000)], 1e-300),
        ([(1.0 + number / 1000, 0.01, 10) for number in range(40)], 1e-5),
    ],
)
def test_rdp_stands_in_for_prv(history: list[Step], delta: float) -> None:
    assert 0 < epsilon_of(history, delta) == epsilon_of(history, delta, "rdp") < math.inf


def test_no_warning_reaches_the_user(recwarn: pytest.WarningsRecorder) -> None:
    for history in ([(0.1, 1.0, 10)], [(500.0, 0.001, 1)], USUAL):
        epsilon_of(history, 1.1e-5)
    assert not [warning for warning in recwarn if issubclass(warning.category, (RuntimeWarning, UserWarning))]


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
def test_noise_that_hides_nothing_has_no_epsilon(accountant: str) -> None:
    assert epsilon_of([(1e-9, 0.5, 1), (1.0, 0.01, 100)], 1e-5, accountant) == math.inf
    assert 1e5 < epsilon_of([(1e-3, 1.0, 1)], 1e-5, accountant) < math.inf


@pytest.mark.parametrize("noise", [0.0, -1.0, math.nan, math.inf])
def test_an_absurd_noise_is_refused(noise: float) -> None:
    with pytest.raises(ValueError, match="no step has noise"):
        epsilon_of([(1.0, 0.1, 1), (noise, 0.1, 1)], 1e-5)


@pytest.mark.parametrize(("rate", "steps"), [(0.0, 1), (-0.1, 1), (1.0001, 1), (math.nan, 1), (0.1, -1)])
def test_an_absurd_rate_or_number_is_refused(rate: float, steps: int) -> None:
    with pytest.raises(ValueError, match="no step has noise"):
        epsilon_of([(1.0, rate, steps)], 1e-5)


@pytest.mark.parametrize(
    ("delta", "accountant"), [(0.0, "prv"), (1.0, "prv"), (-1e-5, "rdp"), (math.nan, "prv"), (1e-5, "gdp")]
)
def test_an_absurd_delta_or_accountant_is_refused(delta: float, accountant: str) -> None:
    with pytest.raises(ValueError, match="no epsilon at delta"):
        epsilon_of(USUAL, delta, accountant)


# The noise for a budget.


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
@pytest.mark.parametrize(
    ("epsilon", "rate", "steps"),
    [(3.0, 0.0256, 390), (1.0, 0.032, 300), (8.0, 0.005, 2000), (0.5, 1.0, 20), (30.0, 0.1, 50)],
)
def test_the_noise_is_the_least_in_thousandths(epsilon: float, rate: float, steps: int, accountant: str) -> None:
    noise = noise_for(epsilon, 1e-5, rate, steps, accountant)
    assert round(noise * 1000) / 1000 == noise
    assert epsilon_of([(noise, rate, steps)], 1e-5, accountant) <= epsilon
    assert epsilon_of([((round(noise * 1000) - 1) / 1000, rate, steps)], 1e-5, accountant) > epsilon


def test_the_published_noise() -> None:
    """2,000 units, 64 a step, 10 epochs, delta a tenth of 1 / units; by RDP."""
    for epsilon, noise in ((1.0, 2.30), (3.0, 1.11), (8.0, 0.72)):
        assert noise_for(epsilon, 5e-5, 0.032, 312, "rdp") == pytest.approx(noise, rel=0.015)


def test_google_agrees_that_the_noise_is_enough_and_hardly_more() -> None:
    for epsilon, rate, steps in ((3.0, 0.0256, 390), (1.0, 0.1, 100)):
        noise = noise_for(epsilon, 1e-5, rate, steps)
        assert epsilon - 0.02 < by_google([(noise, rate, steps)], 1e-5) <= epsilon


def test_prv_needs_no_more_noise_than_rdp() -> None:
    assert noise_for(3.0, 1e-5, 0.0256, 390) < noise_for(3.0, 1e-5, 0.0256, 390, "rdp")
    assert noise_for(3.0, 1e-12, 0.0256, 390) == noise_for(3.0, 1e-12, 0.0256, 390, "rdp")


def test_there_is_a_least_noise_and_a_most() -> None:
    assert noise_for(100.0, 1e-5, 0.001, 1) == noise_for(1.0, 1e-5, 0.1, 0) == 0.1
    with pytest.raises(InputError) as caught:
        noise_for(0.005, 1e-5, 0.01, 100)
    assert caught.value.code == "epsilon-too-small" and "epsilon 0.005 at delta 1e-05" in caught.value.message
    assert "100 steps at sampling rate 0.01" in caught.value.message and "privacy.epsilon" in caught.value.next_step


# What a plan means at a site.


def test_the_noise_of_a_plan() -> None:
    assert noise_multiplier(Privacy(noise_multiplier=0.7), 0.0256, 390) == 0.7
    noise = noise_multiplier(Privacy(epsilon=3.0), 0.0256, 390)
    assert noise == noise_for(3.0, 1e-5, 0.0256, 390) == 1.036
    assert noise_multiplier(Privacy(epsilon=3.0, accountant="rdp"), 0.0256, 390) > noise
    assert noise_multiplier(Privacy(epsilon=3.0, delta=1e-7), 0.0256, 390) > noise


def test_a_small_site_draws_all_of_its_units() -> None:
    assert sampling_rate(64, 2500) == 0.0256
    assert sampling_rate(64, 64) == sampling_rate(64, 10) == 1.0


@pytest.mark.parametrize(
    ("settings", "units", "steps"),
    [
        ("steps_per_round = 7", 10_000, 7),
        ("epochs_per_round = 1.0", 1000, 63),
        ("epochs_per_round = 1.0", 1008, 63),
        ("epochs_per_round = 0.01", 10, 1),
        ("epochs_per_round = 2.5\nbatch_size = 64", 2500, 98),
        ("", 17, 2),
    ],
)
def test_the_steps_of_a_round(settings: str, units: int, steps: int) -> None:
    training: Training = parse_plan(f'[study]\nname = "a"\n[training]\n{settings}\n').training
    assert steps_per_round(training, units) == steps


def test_a_round_has_as_many_steps_as_without_privacy() -> None:
    from client.objectives.usage import round_steps

    plan = parse_plan('[study]\nname = "a"\n[training]\nepochs_per_round = 0.7\nbatch_size = 12\n')
    for notes in (1, 11, 17, 18, 500, 12_345):
        assert steps_per_round(plan.training, notes) == round_steps(plan, np.full(notes, 40))
