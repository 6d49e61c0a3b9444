"""The noise and the draws: of the right law, as much as was charged for, in every tensor, and never the same twice."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from private_helpers import Bench, bench, flat, key_of, only
from private_statistics import (
    CERTAIN,
    Z,
    p_of_normal,
    p_of_rate,
    p_of_variance,
    z_of_correlation,
    z_of_mean,
    z_of_variance,
)
from scipy import stats

from client import dpsgd
from client.noise import SecretStream
from client.notes.store import NoteStore
from client.units import Units

KEY = key_of("noise")
MANY = 1 << 21
Draw = Callable[[int], np.ndarray]


def stream(key: bytes = KEY, purpose: str = "noise", step: int = 0) -> SecretStream:
    return SecretStream(key, purpose, step)


def normal(count: int) -> np.ndarray:
    return stream().normal(count).numpy().astype(np.float64)


# The law of one stream.


def wrong_laws(drawn: np.ndarray) -> list[str]:
    """What tells some numbers from independent standard normal ones."""
    half = len(drawn) // 2
    # The two numbers of a pair stand half a block apart.
    blocks = drawn[: len(drawn) >> 20 << 20].reshape(-1, 2, 1 << 19)
    first, second = blocks[:, 0].ravel(), blocks[:, 1].ravel()
    found = {
        "mean": abs(z_of_mean(drawn)) > Z,
        "variance": abs(z_of_variance(drawn)) > Z,
        "law": p_of_normal(drawn[:200_000]) < CERTAIN,
        "tail": p_of_rate(int((np.abs(drawn) > 4).sum()), len(drawn), 2 * stats.norm.sf(4)) < CERTAIN,
        "neighbours": abs(z_of_correlation(drawn[:-1], drawn[1:])) > Z,
        "halves": abs(z_of_correlation(drawn[:half], drawn[half : 2 * half])) > Z,
        "pairs": abs(z_of_correlation(first, second)) > Z,
        "sizes of neighbours": abs(z_of_correlation(drawn[:-1] ** 2, drawn[1:] ** 2)) > Z,
        "sizes of pairs": abs(z_of_correlation(first**2, second**2)) > Z,
    }
    return [name for name, wrong in found.items() if wrong]


def test_a_stream_is_of_independent_normal_numbers() -> None:
    drawn = normal(MANY)
    assert wrong_laws(drawn) == []
    assert np.isfinite(drawn).all() and 4.5 < np.abs(drawn).max() < 9
    assert len(np.unique(drawn)) > 0.8 * MANY  # of single precision, and yet not of a few values


def uniform(name: str, count: int) -> np.ndarray:
    return stream(purpose=name).uniform(count)


def box_and_muller(radius: np.ndarray, angle: np.ndarray, turn: float = 2 * np.pi) -> np.ndarray:
    size = np.sqrt(-2 * np.log(radius))
    parts = [size * np.cos(turn * angle), size * np.sin(turn * angle)]
    return np.stack([part.reshape(-1, 1 << 19) for part in parts], 1).ravel()


BAD_LAWS: dict[str, Draw] = {
    "half of it": lambda n: normal(n) / 2,
    "one in a hundred too little": lambda n: normal(n) * 0.99,
    "uniform": lambda n: (uniform("a", n) - 0.5) * np.sqrt(12),
    "no tail": lambda n: np.clip(normal(n), -3.5, 3.5),
    "the first half twice": lambda n: np.tile(normal(n // 2), 2),
    "moving sums": lambda n: (normal(n + 1)[1:] + normal(n + 1)[:-1]) / np.sqrt(2),
    "half a turn": lambda n: box_and_muller(uniform("a", n // 2), uniform("b", n // 2), np.pi),
    "one number for radius and angle": lambda n: box_and_muller(uniform("a", n // 2), uniform("a", n // 2)),
    "a sine for a cosine": lambda n: np.repeat(normal(n // 2).reshape(-1, 1 << 19), 2, axis=0).ravel(),
    "one radius for two pairs": lambda n: np.abs(normal(n // 2)).repeat(2) * np.sign(normal(n)),
}


@pytest.mark.parametrize("bug", BAD_LAWS)
def test_numbers_of_another_law_are_found(bug: str) -> None:
    assert wrong_laws(BAD_LAWS[bug](MANY)) != []


def test_uniform_numbers_are_uniform_and_never_zero() -> None:
    drawn = stream().uniform(MANY)
    assert drawn.min() > 0 and drawn.max() <= 1
    assert stats.kstest(drawn, "uniform").pvalue > CERTAIN
    integers = stream(purpose="bits").integers(1 << 17)
    ones = np.unpackbits(integers.view(np.uint8)).reshape(-1, 64).sum(0)
    assert all(p_of_rate(int(count), len(integers), 0.5) > CERTAIN / 64 for count in ones)


# One stream and another.


def test_one_name_names_one_stream_and_two_names_two() -> None:
    names = [(key_of(site, nonce), purpose, step) for site, nonce, purpose, step in itertools.product(
        ("a", "b"), (1, 2), ("noise", "units", "coins"), (0, 1, 10))]  # fmt: skip
    drawn = [stream(*name).normal(20_000).numpy() for name in names]
    assert all(np.array_equal(one, stream(*name).normal(20_000)) for one, name in zip(drawn, names, strict=True))
    pairs = itertools.combinations(drawn, 2)
    assert max(abs(z_of_correlation(a, b)) for a, b in pairs) < Z
    with pytest.raises(ValueError, match="32 bytes"):
        SecretStream(b"short", "noise")


# What a round adds.


def rounds_noise(made: Bench, notes: NoteStore, key: bytes = KEY, steps: int = 12, noise: float = 1.3) -> list[dict]:
    """What each step of a round of units without notes hands on, over what the sum was divided by: noise alone."""
    units = only(made.units(notes))
    _, handed = made.round(notes, units, key, noise=noise, rate=0.5, steps=steps)
    return [{name: g.double().numpy().ravel() * 0.5 * len(units) for name, g in step.items()} for step in handed]


def wrong_noise(steps: list[dict], expected: float) -> list[str]:
    """What tells the noise of some steps from independent numbers of a standard deviation in every tensor."""
    sizes = {name: p_of_variance(np.concatenate([s[name] for s in steps]), expected) for name in steps[0]}
    found = [name for name, p in sizes.items() if p < CERTAIN / len(sizes)]
    whole = [np.concatenate(list(step.values())) for step in steps]
    if max(abs(z_of_correlation(a, b)) for a, b in itertools.combinations(whole, 2)) > Z:
        found.append("steps")
    alike = [
        (a, b)
        for a, b in itertools.combinations(steps[0], 2)
        if steps[0][a].shape == steps[0][b].shape and steps[0][a].size > 20
    ]
    within = [
        z_of_correlation(np.concatenate([s[a] for s in steps]), np.concatenate([s[b] for s in steps])) for a, b in alike
    ]
    assert alike
    return [*found, "tensors"] if np.abs(within).max() > Z else found


@pytest.mark.parametrize(
    ("objective", "trainable", "sensitivity"),
    [("prototypes", "all", 0.7), ("declutr", "lora", 0.7), ("declutr-groups", "no-embeddings", 1.4)],
)
def test_every_tensor_gets_the_noise_that_was_charged_for(
    bases: dict[str, str], notes: NoteStore, objective: str, trainable: str, sensitivity: float
) -> None:
    made = bench(objective, bases["bert"], notes, trainable, torch.float32, max_grad_norm=0.7)
    steps = rounds_noise(made, notes)
    assert set(steps[0]) == set(made.encoder.tensors())
    assert wrong_noise(steps, 1.3 * sensitivity) == []
    other = rounds_noise(made, notes, key_of("another nonce"))
    pairs = [(np.concatenate(list(a.values())), np.concatenate(list(b.values()))) for a in steps for b in other]
    assert max(abs(z_of_correlation(a, b)) for a, b in pairs) < Z


def test_with_notes_the_noise_is_the_same(bases: dict[str, str], notes: NoteStore) -> None:
    """The gradient that is handed on is the exact one plus the noise that units without notes get."""
    made = bench("mlm", bases["bert"], notes, dtype=torch.float32)
    units = Units(made.units(notes).members[:12])
    noise = rounds_noise(made, notes, steps=1)[0]
    made = bench("mlm", bases["bert"], notes, dtype=torch.float32)
    exact, _ = made.exact(notes, units, KEY, rate=0.5)
    _, (handed,) = made.round(notes, units, KEY, noise=1.3, rate=0.5)
    added = {name: handed[name] * 0.5 * len(units) - exact[name] for name in exact}
    wanted = {name: torch.from_numpy(noise[name]).view(added[name].shape) for name in added}
    assert float(flat(exact).norm()) > 1
    torch.testing.assert_close(added, {name: n.float() for name, n in wanted.items()}, rtol=0, atol=1e-5)


class OneSeed(SecretStream):
    """A planted bug: the noise of every step is the same stream."""

    def __init__(self, key: bytes, purpose: str, step: int = 0) -> None:
        super().__init__(key, purpose)


class OneTensor(SecretStream):
    """A planted bug: the noise of every tensor is the same stream from its beginning."""

    def __init__(self, key: bytes, purpose: str, step: int = 0) -> None:
        super().__init__(key, purpose, step)
        self.named = key, purpose, step

    def normal(self, count: int) -> torch.Tensor:
        return SecretStream(*self.named).normal(count)


@pytest.mark.parametrize(("bug", "found"), [(OneSeed, "steps"), (OneTensor, "tensors")])
def test_noise_that_comes_twice_is_found(
    bases: dict[str, str], notes: NoteStore, bug: type, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench("mlm", bases["bert"], notes, dtype=torch.float32)
    monkeypatch.setattr(dpsgd, "SecretStream", bug)
    assert found in wrong_noise(rounds_noise(made, notes, steps=4), 1.3)


def test_half_of_the_noise_is_found_in_every_tensor(bases: dict[str, str], notes: NoteStore) -> None:
    made = bench("mlm", bases["bert"], notes, dtype=torch.float32)
    steps = rounds_noise(made, notes, steps=12, noise=0.65)
    assert set(wrong_noise(steps, 1.3)) == set(steps[0])


# Which units a step draws.

RATE, UNITS, STEPS = 0.15, 150, 3000


def poisson() -> np.ndarray:
    units, found = Units([np.zeros(0, dtype=np.int64)] * UNITS), np.zeros((STEPS, UNITS), dtype=bool)
    for step in range(STEPS):
        found[step, units.draw(RATE, KEY, step)] = True
    return found


def fixed_size() -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.stack([rng.permutation(UNITS) < RATE * UNITS for _ in range(STEPS)])


def shuffled_epochs() -> np.ndarray:
    rng, batches = np.random.default_rng(1), round(1 / RATE)
    return np.concatenate([rng.permutation(UNITS) % batches == np.arange(batches)[:, None] for _ in range(
        STEPS // batches + 1)])[:STEPS]  # fmt: skip


def neighbours_together() -> np.ndarray:
    return np.repeat(np.random.default_rng(1).random((STEPS, UNITS // 2)) < RATE, 2, axis=1)


def by_number() -> np.ndarray:
    return np.random.default_rng(1).random((STEPS, UNITS)) < np.linspace(0.8, 1.2, UNITS) * RATE


def wrong_draws(drawn: np.ndarray) -> list[str]:
    """What tells draws [steps, units] from independent ones of one rate."""
    spread = RATE * (1 - RATE)
    sizes, each = drawn.sum(1), drawn.sum(0)
    off = (drawn - RATE) / np.sqrt(spread)
    both = lambda a, b: float((a * b).mean() * np.sqrt(a.size))
    # The variance of the square of a binomial number's distance from its mean, in units of its variance.
    kurtosis = 2 + (1 - 6 * spread) / (UNITS * spread)
    found = {
        "rate": p_of_rate(int(drawn.sum()), drawn.size, RATE) < CERTAIN,
        "rates": min(p_of_rate(int(count), STEPS, RATE) for count in each) < CERTAIN / UNITS,
        "sizes": abs(sizes.var() / (UNITS * spread) - 1) * np.sqrt(STEPS / kurtosis) > Z,
        "units": abs(both(off[:, :-1], off[:, 1:])) > Z,
        "steps": abs(both(off[:-1], off[1:])) > Z,
    }
    return [name for name, wrong in found.items() if wrong]


def test_every_unit_is_drawn_at_the_rate_whatever_becomes_of_others_and_before() -> None:
    assert wrong_draws(poisson()) == []
    everyone = Units([np.zeros(0, dtype=np.int64)] * UNITS).draw(1.0, KEY, 0)
    assert everyone.tolist() == list(range(UNITS))


@pytest.mark.parametrize(
    ("bug", "found"),
    [(fixed_size, "sizes"), (shuffled_epochs, "steps"), (neighbours_together, "units"), (by_number, "rates")],
)
def test_draws_that_are_not_poisson_are_found(bug: Callable[[], np.ndarray], found: str) -> None:
    assert found in wrong_draws(bug())
