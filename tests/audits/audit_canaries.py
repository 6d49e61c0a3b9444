"""Canaries: notes with six random digits, half of which are trained on. Who has nothing but the trained encoder asks it
for the digits: how well does he tell the one half from the other, and how high do the true digits rank? Five minutes.

A positive control first: without privacy the very same training must give the canaries away, or the audit would say
nothing. It is an alarm for leaks, and no proof: what it proves of epsilon is far below what was charged for.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from private_helpers import key_of, store_of
from private_statistics import one_run_epsilon

from client.dpsgd import Mechanism, train_privately
from client.memorisation.canaries import DIGITS, Canary
from client.memorisation.exposure import auc, digit_likelihoods, exposures
from client.objectives import make_objective
from client.training import train, usable
from client.units import units_of
from common.encoder import Encoder, load_encoder
from common.plan import StudyPlan
from common.privacy import noise_for, sampling_rate

CANARIES, OTHERS, STEPS, DELTA, ALPHA = 200, 100, 1000, 1e-5, 1e-3
GUESSES = (40, 100, 200)


@dataclasses.dataclass(frozen=True)
class Found:
    """`auc`: of telling canaries that were trained on from others; `exposure`: bits by which the digits of the first
    rank above chance (Carlini et al. 2019), of 19.9; `epsilon`: what that proves."""

    auc: float
    exposure: float
    exposure_of_others: float
    epsilon: float


class Hospital:
    """Notes of which some are canaries: patients of one note each."""

    def __init__(self, folder: Path, base: str, texts: list[str]) -> None:
        self.base = base
        encoder = load_encoder(base)
        rng = np.random.default_rng(3)
        words = sorted({word for text in texts for word in text.lower().split() if word.isalpha() and len(word) > 3})
        self.secrets = rng.integers(10, size=(CANARIES, DIGITS))
        contexts = [" ".join(rng.choice(words, 4, replace=False)) for _ in range(CANARIES)]
        canaries = [f"{c} : {' '.join(map(str, s))}" for c, s in zip(contexts, self.secrets.tolist(), strict=True)]
        rows = [{"text": text, "patient": f"c{i}"} for i, text in enumerate(canaries)]
        rows += [{"text": text, "patient": f"o{i // 2}"} for i, text in enumerate(texts[:OTHERS])]
        self.all_notes = store_of(folder, encoder, rows)
        self.digit_ids = np.array(encoder.tokenizer.convert_tokens_to_ids(list("0123456789")))
        self.canaries = [self._canary(i) for i in range(CANARIES)]
        self.member = rng.permutation(CANARIES) < CANARIES // 2
        kept = [*np.flatnonzero(self.member), *range(CANARIES, len(rows))]
        self.notes = self.all_notes.view(np.array(kept))

    def _canary(self, i: int) -> Canary:
        """As the check has it: its digits stand last."""
        ids = self.all_notes.tokens(i).astype(np.int64)
        places = np.arange(len(ids) - DIGITS, len(ids))
        assert (ids[places] == self.digit_ids[self.secrets[i]]).all()
        return Canary(ids, self.all_notes.word_starts(i), places, self.secrets[i])

    def plan(self, **privacy: Any) -> StudyPlan:
        return StudyPlan.model_validate(
            {
                "study": {"name": "canaries"},
                "encoder": {"base": self.base, "max_length": 32},
                "objective": {"kind": "mlm", "mask_probability": 0.4},
                "training": {
                    "steps_per_round": STEPS,
                    "batch_size": 32,
                    "learning_rate": 3e-3,
                    "precision": "float32",
                },
            }
            | ({"privacy": privacy} if privacy else {})
        )

    def attacked(self, encoder: Encoder) -> Found:
        """What the encoder alone tells: the digits' likelihood where all are hidden, against that before training."""
        after, before = self.likely(encoder), self.likely(load_encoder(self.base))
        place = np.arange(DIGITS)
        true = lambda p: np.array([p[i][place, self.secrets[i]].sum() for i in range(CANARIES)])
        score = true(after) - true(before)
        exposure = exposures(after, self.canaries)
        order = np.argsort(score)
        proved = []
        for guesses in GUESSES:
            half = guesses // 2
            right = int(self.member[order[-half:]].sum() + (~self.member[order[:half]]).sum())
            proved.append(one_run_epsilon(CANARIES, guesses, right, DELTA, ALPHA / len(GUESSES)))
        return Found(
            auc(score[self.member], score[~self.member]),
            float(exposure[self.member].mean()),
            float(exposure[~self.member].mean()),
            max(proved),
        )

    def likely(self, encoder: Encoder) -> np.ndarray:
        """Log-likelihoods [canaries, digits, 10] of each digit at each place."""
        return digit_likelihoods(encoder, self.canaries, self.digit_ids, 32)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory, make_base: Callable[..., Path], texts: list[str]) -> Hospital:
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}
    folder = tmp_path_factory.mktemp("canaries")
    return Hospital(folder / "notes", str(make_base(folder / "base", "bert", dropout=0.0, **sizes)), texts)


def plainly_trained(hospital: Hospital) -> Found:
    encoder, plan = load_encoder(hospital.base), hospital.plan()
    objective = make_objective(plan, encoder.tokenizer, hospital.notes)
    train(encoder, objective, hospital.notes, plan.training, key=(1, 2), first_step=0, steps=STEPS, total_steps=STEPS)
    return hospital.attacked(encoder)


def privately_trained(hospital: Hospital, epsilon: float) -> Found:
    """Without noise where epsilon is infinite: clipped all the same."""
    encoder, plan = load_encoder(hospital.base), hospital.plan(epsilon=min(epsilon, 100.0), delta=DELTA)
    assert plan.privacy is not None
    objective = make_objective(plan, encoder.tokenizer, hospital.notes)
    units = units_of(hospital.notes, usable(objective, hospital.notes, "train"), "patient")
    rate = sampling_rate(plan.training.batch_size, len(units))
    noise = noise_for(epsilon, DELTA, rate, STEPS) if np.isfinite(epsilon) else 0.0
    train_privately(
        encoder, objective, hospital.notes, None, units, plan.training, plan.privacy,
        Mechanism(noise, rate, key_of("canaries")), first_step=0, steps=STEPS, total_steps=STEPS,
    )  # fmt: skip
    found = hospital.attacked(encoder)
    print(f"\nepsilon {epsilon:g} (noise {noise:g}, rate {rate:.3f}): {found}")
    return found


def test_plain_training_gives_canaries_away(hospital: Hospital) -> None:
    found = plainly_trained(hospital)
    print(f"\nplain: {found}")
    assert found.auc > 0.85 and found.exposure > found.exposure_of_others + 4 and found.epsilon > 1


def test_so_does_private_training_without_its_noise(hospital: Hospital) -> None:
    found = privately_trained(hospital, np.inf)
    assert found.auc > 0.75 and found.exposure > found.exposure_of_others + 2


@pytest.mark.parametrize("epsilon", [8.0, 1.0])
def test_private_training_does_not(hospital: Hospital, epsilon: float) -> None:
    """Chance has a standard deviation of .041 in the AUC, and of about .2 bits in the exposure."""
    found = privately_trained(hospital, epsilon)
    assert found.epsilon <= epsilon
    assert found.auc < 0.7 and abs(found.exposure - found.exposure_of_others) < 1.2
