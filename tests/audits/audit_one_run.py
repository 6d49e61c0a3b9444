"""An audit by one run (Steinke, Nasr and Jagielski 2023): of a thousand units a coin decides which take part, each is a
Dirac canary that moves a number of its own, and who sees all noised sums of a round guesses the coins. Five seconds.

Every line of the private step runs but for the text: the "encoder" is a table of one number a unit.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from private_helpers import handed_on, key_of, private_plan
from private_statistics import one_run_epsilon

from client import dpsgd
from client.clipping import Clipper, Owned
from client.clipping.book_keeping import BookKeeping
from client.dpsgd import Mechanism, train_privately
from client.noise import SecretStream
from client.notes.store import NoteStore
from client.objectives import Batch, Objective, TokenisedNote
from client.units import Units
from common.encoder import Encoder
from common.privacy import epsilon_of, noise_for

CANARIES, STEPS, RATE, DELTA, CLAIMED = 1000, 200, 0.1, 1e-7, 1.0
GUESSES = (50, 100, 200, 400)
ALPHA = 1e-3


class Table(torch.nn.Module):
    base_model_prefix = "table"

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(CANARIES, 1)
        torch.nn.init.zeros_(self.table.weight)


class Dirac(Objective):
    """The gradient of unit i is a huge number at place i."""

    units_at_once = None

    def read(self, notes: NoteStore, index: int) -> TokenisedNote:
        return TokenisedNote(np.array([index]), np.ones(1, dtype=bool))

    def collate(self, notes: Sequence[TokenisedNote], rng: np.random.Generator, cut: bool = False) -> Batch:
        raise NotImplementedError

    def loss(self, encoder: Encoder, batch: Batch) -> Any:
        raise NotImplementedError

    def collate_units(self, units: Sequence[Sequence[TokenisedNote]], rngs: Sequence[np.random.Generator]) -> Batch:
        ids = torch.tensor([[int(note.ids[0]) for note in unit] for unit in units])
        return Batch({"ids": ids, "notes": torch.ones(len(units))}, len(units))

    def unit_losses(self, encoder: Encoder, batch: Batch, owned: Owned) -> torch.Tensor:
        table: Any = encoder.model
        with owned(torch.arange(len(batch.tensors["ids"]))):
            return 1e3 * table.table(batch.tensors["ids"]).sum((1, 2))


@dataclasses.dataclass(frozen=True)
class Run:
    """What the round does, beside what it claims."""

    noise: float = noise_for(CLAIMED, DELTA, RATE, STEPS)
    rate: float = RATE

    def proved(self, notes: NoteStore, base: str) -> dict[int, float]:
        """The epsilon that is proved by so many guesses."""
        plan = private_plan("mlm", base, max_grad_norm=0.5, release_loss=False)
        assert plan.privacy is not None
        coins = np.random.default_rng(12).random(CANARIES) < 0.5
        units = Units([np.array([i] if coin else [], dtype=np.int64) for i, coin in enumerate(coins)])
        store = notes.view(np.arange(CANARIES) % len(notes))
        encoder = Encoder(Table(), None, "", False)  # type: ignore[arg-type]
        mechanism = Mechanism(self.noise, self.rate, key_of("one run"))
        with handed_on(encoder.tensors()) as steps:
            train_privately(
                encoder, Dirac(plan), store, None, units, plan.training, plan.privacy, mechanism,
                first_step=0, steps=STEPS, total_steps=STEPS,
            )  # fmt: skip
        seen = np.stack([step["table.weight"].numpy().ravel() for step in steps])
        order = np.argsort(seen.sum(0))
        found = {}
        for guesses in GUESSES:
            half = guesses // 2
            right = int(coins[order[-half:]].sum() + (~coins[order[:half]]).sum())
            found[guesses] = one_run_epsilon(CANARIES, guesses, right, DELTA, ALPHA / len(GUESSES))
        return found


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BookKeeping, "units_at_once", 256)


def test_one_run_proves_no_more_than_is_claimed(notes: NoteStore, bases: dict[str, str]) -> None:
    assert epsilon_of([(Run().noise, RATE, STEPS)], DELTA) == pytest.approx(CLAIMED, abs=0.02)
    proved = Run().proved(notes, bases["bert"])
    print(f"\nclaimed {CLAIMED}, proved by guesses: {proved}")
    assert max(proved.values()) <= CLAIMED


def unclipped(monkeypatch: pytest.MonkeyPatch) -> Run:
    real = dpsgd.make_clipper

    def wide(engine: Any, encoder: Any, tensors: Any, bound: float) -> Clipper:
        return real(engine, encoder, tensors, 10 * bound)

    monkeypatch.setattr(dpsgd, "make_clipper", wide)
    return Run()


def without_noise_for_the_later_steps(monkeypatch: pytest.MonkeyPatch) -> Run:
    class Waning(SecretStream):
        def __init__(self, key: bytes, purpose: str, step: int = 0) -> None:
            super().__init__(key, purpose, step)
            self.share = 1 / (1 + step) if purpose == "noise" else 1.0

        def normal(self, count: int) -> torch.Tensor:
            return super().normal(count) * self.share

    monkeypatch.setattr(dpsgd, "SecretStream", Waning)
    return Run()


BUGS: dict[str, Callable[[pytest.MonkeyPatch], Run]] = {
    "a tenth of the noise": lambda _: Run(noise=Run().noise / 10),
    "all units in each step": lambda _: Run(rate=1.0),
    "clipped to ten times the norm": unclipped,
    "noise that wanes": without_noise_for_the_later_steps,
}


@pytest.mark.parametrize("bug", BUGS)
def test_one_run_finds_bugs(notes: NoteStore, bases: dict[str, str], bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proved = BUGS[bug](monkeypatch).proved(notes, bases["bert"])
    print(f"\n{bug}: claimed {CLAIMED}, proved by guesses: {proved}")
    assert max(proved.values()) > CLAIMED
