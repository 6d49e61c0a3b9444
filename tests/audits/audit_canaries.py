"""Canaries: notes with six random digits, half of which are trained on. Who has the trained encoder alone asks it for the
digits: how well does he tell the one half from the other, and how high do the true digits rank? Minutes.

A positive control first: without privacy the very same training must give the canaries away, or the audit would say
nothing. It is an alarm for leaks, and no proof: what it proves of epsilon is far below what was charged for.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from private_helpers import key_of, store_of
from private_statistics import auc, one_run_epsilon

from client.dpsgd import Mechanism, train_privately
from client.notes.store import NoteStore
from client.objectives import make_objective
from client.training import train, usable
from client.units import units_of
from common.encoder import Encoder, load_encoder
from common.plan import StudyPlan
from common.privacy import noise_for, sampling_rate

CANARIES, DIGITS, OTHERS, STEPS, DELTA, ALPHA = 200, 6, 300, 1000, 1e-5, 1e-3
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
        self.member = rng.permutation(CANARIES) < CANARIES // 2
        kept = [*np.flatnonzero(self.member), *range(CANARIES, len(rows))]
        self.notes = self.all_notes.view(np.array(kept))

    def plan(self, **privacy: Any) -> StudyPlan:
        return StudyPlan.model_validate(
            {
                "study": {"name": "canaries"},
                "encoder": {"base": self.base, "max_length": 32},
                "objective": {"kind": "mlm", "mask_probability": 0.3},
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
        ranks = np.array([1 + (sums(after[i]) > true(after)[i]).sum() for i in range(CANARIES)])
        exposure = DIGITS * np.log2(10) - np.log2(ranks)
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
        tokenizer = encoder.tokenizer
        digits = tokenizer.convert_tokens_to_ids(list("0123456789"))
        encoder.model.eval()
        found = []
        for i in range(CANARIES):
            ids = np.array([tokenizer.cls_token_id, *self.all_notes.tokens(i), tokenizer.sep_token_id])
            places = np.arange(len(ids) - 1 - DIGITS, len(ids) - 1)
            assert ids[places].tolist() == [digits[d] for d in self.secrets[i]]
            ids[places] = tokenizer.mask_token_id
            read = torch.from_numpy(ids)[None]
            with torch.no_grad():
                logits = encoder.mlm_logits(encoder.hidden(read, torch.ones_like(read))[0, places])
            found.append(logits.log_softmax(1)[:, digits].numpy())
        return np.stack(found)


def sums(likely: np.ndarray) -> np.ndarray:
    """The log-likelihood of every secret there could have been."""
    found = np.zeros(1)
    for place in likely:
        found = np.add.outer(found, place).ravel()
    return found
