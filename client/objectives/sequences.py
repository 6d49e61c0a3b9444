"""Rows of token ids as the encoder reads them: padded, with their special tokens, and masked for prediction."""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from client.objectives import TokenisedNote


class Sequences:
    """Makes sequences of one tokeniser; `max_length` in tokens counts the two special ones."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.vocabulary = len(tokenizer)
        self.room = max_length - 2
        self.first, self.last = tokenizer.cls_token_id, tokenizer.sep_token_id
        self.mask_id, self.pad = tokenizer.mask_token_id, tokenizer.pad_token_id

    def window(self, note: TokenisedNote, rng: np.random.Generator, cut: bool) -> TokenisedNote:
        """A note that fits: itself, a random window of it, or with `cut` its beginning."""
        if len(note.ids) <= self.room:
            return note
        start = 0 if cut else int(rng.integers(len(note.ids) - self.room + 1))
        part = slice(start, start + self.room)
        return TokenisedNote(note.ids[part], note.word_starts[part], note.patient, note.group, note.category)

    def padded(self, rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Ids and attention mask, both [B, T], of rows of ids without special tokens."""
        width = max(map(len, rows)) + 2
        ids = np.full((len(rows), width), self.pad, dtype=np.int64)
        attention = np.zeros((len(rows), width), dtype=np.int64)
        for row, part in enumerate(rows):
            n = len(part)
            ids[row, 0], ids[row, 1 : n + 1], ids[row, n + 1] = self.first, part, self.last
            attention[row, : n + 2] = 1
        return ids, attention

    def choose(self, rows: Sequence[np.ndarray], width: int, p: float, rng: np.random.Generator) -> np.ndarray:
        """Which tokens of padded rows to predict, [B, T] of bool: each with probability p, one at the least."""
        chosen = np.zeros((len(rows), width), dtype=bool)
        for row, part in enumerate(rows):
            chosen[row, 1 : len(part) + 1] = rng.random(len(part)) < p
        return self.at_least_one(chosen, len(rows[0]), rng)

    @staticmethod
    def at_least_one(chosen: np.ndarray, first_length: int, rng: np.random.Generator) -> np.ndarray:
        """The loss needs a term: of very short rows, none may have been chosen."""
        if not chosen.any():
            chosen[0, 1 + int(rng.integers(first_length))] = True
        return chosen

    def hide(self, ids: np.ndarray, chosen: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Hide the chosen ids in place: 80 % masked, 10 % random, 10 % kept (METHOD section 1.2).

        Returns `positions` [M] into the flat ids, ascending, and the `targets` [M] that stood there.
        """
        positions = np.flatnonzero(chosen)
        flat = ids.reshape(-1)
        targets = flat[positions].copy()
        lot = rng.random(len(positions))
        flat[positions[lot < 0.8]] = self.mask_id
        random = positions[(lot >= 0.8) & (lot < 0.9)]
        flat[random] = rng.integers(self.vocabulary, size=len(random))
        return positions, targets
