"""Masked language modelling: predict hidden tokens from their context (METHOD section 1.2).

Masks are drawn anew whenever a note is collated. A note is one sequence; a note longer than the plan's maximum gives a
random window each time, so that over the epochs all of its text is read and a step never holds two pieces of one note.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from client.clipping import Owned
from client.objectives import Batch, Loss, Objective, TokenisedNote
from client.objectives.sequences import Sequences
from client.objectives.unit_rows import by_unit, masked_rows, mlm_losses
from common.encoder import Encoder
from common.plan import StudyPlan
from common.plan_sections import Mlm as MlmPlan


class Mlm(Objective):
    """The objective over one tokeniser."""

    def __init__(self, study: StudyPlan, plan: MlmPlan, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(study)
        self.plan = plan
        self.sequences = Sequences(tokenizer, self.max_length)

    def collate(self, notes: Sequence[TokenisedNote], rng: np.random.Generator, cut: bool = False) -> Batch:
        """Tensors: `input_ids` and `attention_mask` [B, T]; `positions` [M] into the flat B*T and `targets` [M]."""
        windows = [self.sequences.window(note, rng, cut) for note in notes]
        ids, attention = self.sequences.padded([w.ids for w in windows])
        chosen = np.zeros(ids.shape, dtype=bool)
        for row, window in enumerate(windows):
            chosen[row, 1 : len(window.ids) + 1] = self._choose(window, rng)
        chosen = self.sequences.at_least_one(chosen, len(windows[0].ids), rng)
        positions, targets = self.sequences.hide(ids, chosen, rng)
        arrays = {"input_ids": ids, "attention_mask": attention, "positions": positions, "targets": targets}
        return Batch({k: torch.from_numpy(v) for k, v in arrays.items()}, tokens=int(attention.sum()))

    def loss(self, encoder: Encoder, batch: Batch) -> Loss:
        """Cross-entropy averaged over the masked positions; logits are computed for these only."""
        t = batch.tensors
        states = encoder.hidden(t["input_ids"], t["attention_mask"])
        logits = encoder.mlm_logits(states.flatten(0, 1)[t["positions"]])
        return Loss(functional.cross_entropy(logits.float(), t["targets"]), len(t["targets"]))

    units_at_once = None

    def collate_units(self, units: Sequence[Sequence[TokenisedNote]], rngs: Sequence[np.random.Generator]) -> Batch:
        """Tensors: those of `masked_rows`, a row a note; `owner` [R], the unit of each; `notes` [units]."""
        windows = [(u, self.sequences.window(note, rngs[u], False)) for u, unit in enumerate(units) for note in unit]
        of_row = [rngs[u] for u, _ in windows]
        chosen = [self._choose(window, rngs[u]) for u, window in windows]
        arrays = masked_rows(self.sequences, [window.ids for _, window in windows], chosen, of_row)
        arrays["owner"] = np.array([u for u, _ in windows])
        arrays["notes"] = np.array([len(unit) for unit in units])
        tokens = int(arrays["attention_mask"].sum())
        return Batch({k: torch.from_numpy(v) for k, v in arrays.items()}, tokens)

    def unit_losses(self, encoder: Encoder, batch: Batch, owned: Owned) -> torch.Tensor:
        t = batch.tensors
        with owned(t["owner"]):
            states = encoder.hidden(t["input_ids"], t["attention_mask"])
        return by_unit(mlm_losses(encoder, states, t, owned), t)

    def _choose(self, window: TokenisedNote, rng: np.random.Generator) -> np.ndarray:
        """Which tokens of a window are to be predicted, [n] of bool."""
        n, p = len(window.ids), self.plan.mask_probability
        if not self.plan.whole_word:
            return rng.random(n) < p
        word = np.cumsum(window.word_starts)  # a window may begin inside a word: its tail is word 0
        return (rng.random(int(word[-1]) + 1) < p)[word]
