"""Masked language modelling: predict hidden tokens from their context (METHOD section 1.2).

Masks are drawn anew whenever a note is collated. A note is one sequence; a note longer than the plan's maximum gives a
random window each time, so that over the epochs all of its text is read and a step never holds two pieces of one note.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from client.objectives import Batch, TokenisedNote
from common.encoder import Encoder
from common.plan import Mlm as MlmPlan


class Mlm:
    """The objective over one tokeniser; `max_length` in tokens counts the two special ones."""

    def __init__(self, plan: MlmPlan, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.plan = plan
        self.max_length = max_length
        self.vocabulary = len(tokenizer)
        self.first, self.last = tokenizer.cls_token_id, tokenizer.sep_token_id
        self.mask, self.pad = tokenizer.mask_token_id, tokenizer.pad_token_id

    def collate(self, notes: Sequence[TokenisedNote], rng: np.random.Generator, cut: bool = False) -> Batch:
        """Tensors: `input_ids` and `attention_mask` [B, T]; `positions` [M] into the flat B*T and `targets` [M]."""
        windows = [self._window(note, rng, cut) for note in notes]
        width = max(len(w.ids) for w in windows) + 2
        ids = np.full((len(windows), width), self.pad, dtype=np.int64)
        attention = np.zeros((len(windows), width), dtype=np.int64)
        chosen = np.zeros((len(windows), width), dtype=bool)
        for row, window in enumerate(windows):
            n = len(window.ids)
            ids[row, 0], ids[row, 1 : n + 1], ids[row, n + 1] = self.first, window.ids, self.last
            attention[row, : n + 2] = 1
            chosen[row, 1 : n + 1] = self._choose(window, rng)
        if not chosen.any():  # very short notes only: the loss needs a term
            chosen[0, 1 + int(rng.integers(len(windows[0].ids)))] = True
        positions = np.flatnonzero(chosen)
        flat = ids.reshape(-1)
        targets = flat[positions].copy()
        lot = rng.random(len(positions))
        flat[positions[lot < 0.8]] = self.mask
        random = positions[(lot >= 0.8) & (lot < 0.9)]
        flat[random] = rng.integers(self.vocabulary, size=len(random))
        arrays = {"input_ids": ids, "attention_mask": attention, "positions": positions, "targets": targets}
        return Batch({k: torch.from_numpy(v) for k, v in arrays.items()}, tokens=int(attention.sum()))

    def loss(self, encoder: Encoder, batch: Batch) -> tuple[torch.Tensor, int]:
        """Cross-entropy summed over the masked positions; logits are computed for these only."""
        t = batch.tensors
        states = encoder.hidden(t["input_ids"], t["attention_mask"])
        logits = encoder.mlm_logits(states.flatten(0, 1)[t["positions"]])
        return functional.cross_entropy(logits.float(), t["targets"], reduction="sum"), len(t["targets"])

    def _window(self, note: TokenisedNote, rng: np.random.Generator, cut: bool) -> TokenisedNote:
        room = self.max_length - 2
        if len(note.ids) <= room:
            return note
        start = 0 if cut else int(rng.integers(len(note.ids) - room + 1))
        return TokenisedNote(note.ids[start : start + room], note.word_starts[start : start + room])

    def _choose(self, window: TokenisedNote, rng: np.random.Generator) -> np.ndarray:
        """Which tokens of a window are to be predicted, [n] of bool."""
        n, p = len(window.ids), self.plan.mask_probability
        if not self.plan.whole_word:
            return rng.random(n) < p
        word = np.cumsum(window.word_starts)  # a window may begin inside a word: its tail is word 0
        return (rng.random(int(word[-1]) + 1) < p)[word]
