"""Two worlds: whole private rounds with a unit and without it, again and again under other keys, and an attacker who
knows everything but the key. What he proves must be within what was charged for; a planted bug must put it beyond.

The unit is the worst there is: its gradient is clipped, and its direction known and nobody else's. That is so in the
category head while it is all zeros, where the others have no category.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from private_helpers import SHORT, Bench, Tensors, bench, flat, key_of, only, without
from private_statistics import gaussian_epsilon, proved_epsilon, proved_mu

from client import dpsgd
from client.clipping import Clipper
from client.noise import SecretStream
from client.notes.store import NoteStore
from client.units import Units
from common.privacy import epsilon_of

CANARY = 0
BOUND = 0.5


@dataclasses.dataclass(frozen=True)
class Claim:
    """What is charged for a round, and how it is attacked: a statistic of what the steps of a round handed on along
    the canary's direction, [rounds, steps] in clipping norms, and the threshold that it is compared with."""

    noise: float
    rate: float
    delta: float
    statistic: Callable[[np.ndarray], np.ndarray]
    threshold: float
    rounds: int
    steps: int = 2

    @property
    def epsilon(self) -> float:
        return epsilon_of([(self.noise, self.rate, self.steps)], self.delta)


total = lambda seen: seen.sum(1)
difference = lambda seen: np.abs(seen[:, 0] - seen[:, 1])
ALL = Claim(noise=1.4, rate=1.0, delta=1e-5, statistic=total, threshold=1.0, rounds=200)
SOME = Claim(noise=0.6, rate=0.1, delta=0.05, statistic=total, threshold=1.0, rounds=120)
HALF = Claim(noise=2.0, rate=0.5, delta=0.01, statistic=difference, threshold=0.5, rounds=150)


class World:
    """Rounds of a site with a canary and two others."""

    def __init__(self, made: Bench, notes: NoteStore) -> None:
        self.made, self.notes = made, notes
        members = made.units(notes).members
        self.units = Units([members[SHORT + 1], members[SHORT + 4], members[SHORT + 8]])
        head = made.encoder.category_head
        assert head is not None
        with torch.no_grad():
            for p in head.parameters():
                p.zero_()
        made.objective.plan = made.objective.plan.model_copy(update={"weight": 1000.0})  # type: ignore[attr-defined]
        exact, _ = made.exact(notes, only(self.units, CANARY), key_of("direction"))
        self.direction = self.head(exact) / self.head(exact).norm()
        others, _ = made.exact(notes, without(self.units, CANARY), key_of("others"))
        assert self.head(exact).norm() > 0.98 and not self.head(others).any() and flat(others).norm() > 0.01

    @staticmethod
    def head(tensors: Tensors) -> torch.Tensor:
        return flat({name: g for name, g in tensors.items() if name.startswith("category_head.")})

    def rounds(self, claim: Claim, here: bool) -> np.ndarray:
        units = self.units if here else without(self.units, CANARY)
        terms: dict[str, Any] = {"noise": claim.noise, "rate": claim.rate, "steps": claim.steps}
        terms |= {"max_grad_norm": BOUND, "release_loss": False, "learning_rate": 1e-12}
        seen = []
        for number in range(claim.rounds):
            _, steps = self.made.round(self.notes, units, key_of("worlds", here, number), **terms)
            seen.append([float(self.head(step) @ self.direction) for step in steps])
        return np.array(seen) * claim.rate * len(self.units) / BOUND

    def proved(self, claim: Claim, **actual: Any) -> float:
        """The epsilon that is proved of rounds that are like the claim, but for what they actually are."""
        does = dataclasses.replace(claim, **actual)
        with_it, without_it = (claim.statistic(self.rounds(does, here)) for here in (True, False))
        if claim.rate == 1:
            return gaussian_epsilon(proved_mu(with_it, without_it, does.threshold), claim.delta)
        return proved_epsilon(with_it, without_it, does.threshold, claim.delta)


@pytest.fixture
def world(tmp_path: Path, make_base: Callable[..., Path], notes: NoteStore, adversarial: NoteStore) -> World:
    base = str(make_base(tmp_path / "base", "bert", num_hidden_layers=1))
    return World(bench("category-plain", base, notes, "lora", torch.float32), adversarial)


@pytest.mark.parametrize("claim", [ALL, SOME, HALF], ids=["all", "some", "half"])
def test_no_more_is_proved_than_was_charged_for(world: World, claim: Claim) -> None:
    assert world.proved(claim) <= claim.epsilon


def test_half_of_the_noise_is_found(world: World) -> None:
    assert world.proved(ALL, noise=ALL.noise / 2) > ALL.epsilon


def test_a_gradient_that_is_not_clipped_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def wide(engine: Any, encoder: Any, tensors: Any, bound: float) -> Clipper:
        return real(engine, encoder, tensors, 1000 * bound)

    real = dpsgd.make_clipper
    monkeypatch.setattr(dpsgd, "make_clipper", wide)
    assert world.proved(ALL, rounds=60, threshold=9.0) > ALL.epsilon


def test_steps_of_all_units_that_were_charged_for_as_of_some_are_found(world: World) -> None:
    assert world.proved(SOME, rate=1.0) > SOME.epsilon


def test_noise_that_comes_twice_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def repeated(key: bytes, purpose: str, step: int = 0) -> SecretStream:
        return SecretStream(key, purpose, 0 if purpose == "noise" else step)

    monkeypatch.setattr(dpsgd, "SecretStream", repeated)
    assert world.proved(HALF) > HALF.epsilon
