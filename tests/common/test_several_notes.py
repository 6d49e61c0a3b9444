"""What a patient with several notes has where the unit is the note: the published table, and Google's accounting."""

import math

import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from scipy.stats import binom

from common.privacy import epsilon_of
from common.several_notes import several_notes

USUAL = (1.036, 0.0256, 390, 1e-5)  # noise, rate, steps, delta


def by_google(noise: float, rate: float, steps: int, delta: float, notes: int) -> float:
    chances = [float(chance) for chance in binom.pmf(range(notes + 1), notes, rate)]
    step = pld.from_mixture_gaussian_mechanism(
        noise, list(range(notes + 1)), chances, value_discretization_interval=2e-3
    )
    return step.self_compose(steps).get_epsilon_for_delta(delta)


@pytest.mark.parametrize(("notes", "epsilon"), [(1, 2.99), (2, 6.6), (3, 10.7), (5, 20.0), (10, 49.9), (20, 135.0)])
def test_the_published_table(notes: int, epsilon: float) -> None:
    assert several_notes(*USUAL, notes) == pytest.approx(epsilon, rel=0.02)


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "delta", "notes"),
    [
        (1.036, 0.0256, 390, 1e-5, 1),
        (1.036, 0.0256, 390, 1e-5, 3),
        (2.0, 0.2, 50, 1e-6, 5),
        (5.0, 0.9, 10, 1e-5, 3),
        (1.5, 0.01, 2000, 1e-7, 4),
    ],
)
def test_it_is_above_google_and_by_little(noise: float, rate: float, steps: int, delta: float, notes: int) -> None:
    google, found = by_google(noise, rate, steps, delta, notes), several_notes(noise, rate, steps, delta, notes)
    assert google - 5e-3 <= found <= google + 0.02


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "delta"),
    [
        USUAL,
        (0.8, 0.032, 500, 1e-5),
        (4.0, 1.0, 50, 1e-3),
        (0.3, 0.01, 100, 1e-5),
        (100.0, 0.01, 100_000, 1e-5),
        (0.5, 0.999, 3, 1e-5),
        (1.0, 0.0001, 100_000, 1e-7),
        (0.1, 0.001, 10, 1e-5),
        (1.0, 1.0, 600, 1e-5),
    ],
)
def test_one_note_is_the_unit_itself(noise: float, rate: float, steps: int, delta: float) -> None:
    """Two programs for one number: this one takes the larger of adding and removing, Opacus' class is of removing."""
    assert several_notes(noise, rate, steps, delta, 1) == pytest.approx(
        epsilon_of([(noise, rate, steps)], delta), abs=0.02
    )


def test_notes_that_are_all_in_every_step_shift_it_together() -> None:
    """With a rate of 1 there is nothing random but the noise: k notes are one of k times the norm."""
    assert several_notes(3.0, 1.0, 40, 1e-5, 3) == pytest.approx(several_notes(1.0, 1.0, 40, 1e-5, 1), abs=0.01)


def test_more_notes_have_more_to_lose() -> None:
    for rate, steps in ((0.0256, 390), (0.5, 5)):
        spent = [several_notes(1.5, rate, steps, 1e-5, notes) for notes in (1, 2, 3, 5, 10)]
        assert spent == sorted(spent) and len(set(spent)) == 5
        # Twice the notes is worse than twice the epsilon, as in the table.
        assert spent[1] > 2 * spent[0]


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "delta", "notes"),
    [
        (0.1, 1.0, 1000, 1e-5, 10),
        (0.5, 0.1, 1000, 1e-5, 10),
        (1.0, 0.5, 20_000, 1e-5, 10),
        (1.036, 0.0256, 10**11, 1e-5, 2),
        (1.036, 0.0256, 390, 1e-13, 5),
        (1.036, 0.0256, 10, 1e-300, 5),
    ],
)
def test_the_extreme_has_a_looser_bound(noise: float, rate: float, steps: int, delta: float, notes: int) -> None:
    found = several_notes(noise, rate, steps, delta, notes)
    # Above what one note has, by the other accountant.
    assert epsilon_of([(noise, rate, steps)], delta) < found < math.inf
    if rate == 1.0:
        mu = notes * math.sqrt(steps) / noise
        assert mu**2 / 2 < found < 1.01 * (mu**2 / 2 + mu * math.sqrt(2 * math.log(1 / delta)))


def test_the_looser_bound_is_above_the_tight_one(monkeypatch: pytest.MonkeyPatch) -> None:
    tight = several_notes(*USUAL, 4)
    monkeypatch.setattr("common.several_notes.composed", lambda losses, reach, delta: math.inf)
    several_notes.cache_clear()
    loose = several_notes(*USUAL, 4)
    several_notes.cache_clear()
    assert 1.05 * tight < loose < 1.5 * tight
