"""Frozen embeddings of a site's notes."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch

from client.device import autocast
from client.notes.store import NoteStore
from common.encoder import Encoder

SPECIAL_TOKENS = 2  # one before and one behind whatever is read

# Padded tokens a batch. On a processor, where four times as many made MiniLM a fifth slower (float32) for want of
# cache; an accelerator needs more to be kept busy.
_BATCH_TOKENS = 2048
_ACCELERATOR_BATCH_TOKENS = 32_768

LongNotes = Literal["cut", "windows"]
Progress = Callable[[int, int], None]


def embed_notes(
    encoder: Encoder,
    notes: NoteStore,
    indices: np.ndarray,
    *,
    max_length: int,
    precision: str = "auto",
    long_notes: LongNotes = "cut",
    progress: Progress | None = None,
) -> np.ndarray:
    """Pooled embeddings [n, H] float32 of the notes at `indices`; dropout is off.

    Args:
        max_length: tokens that the encoder reads at once, the two special ones included.
        precision: as in the plan's training section.
        long_notes: what becomes of a note of more than max_length - 2 tokens. "cut" reads its start. "windows" reads it
            whole, in the fewest pieces that fit, equal in length to within a token, and takes the mean of their
            embeddings, weighted by their tokens. A shorter note gets the same embedding from both, to the bit.
        progress: called after each batch with the tokens read so far, and those to read.
    """
    device = next(encoder.model.parameters()).device
    room = max_length - SPECIAL_TOKENS
    lengths = notes.lengths[indices]
    place, start, stop = _pieces(lengths, room, long_notes)
    share = np.ones(len(place), dtype=np.float32)
    whole = lengths[place] <= room
    if long_notes == "windows":
        share[~whole] = ((stop - start) / np.maximum(lengths[place], 1))[~whole]
    out = np.zeros((len(indices), encoder.hidden_size), dtype=np.float32)
    read, total = 0, tokens_read(lengths, max_length, long_notes)
    budget = _BATCH_TOKENS if device.type == "cpu" else _ACCELERATOR_BATCH_TOKENS
    encoder.model.eval()
    # One context for all batches: it keeps the weights that it has cast to bfloat16 until it is left.
    with torch.inference_mode(), autocast(device, precision):
        # Long notes in batches of their own, so that what becomes of them has no say in how short ones are padded. The
        # longest first: memory that does not suffice is missed at once, and the time left is not told too low.
        for group in (np.flatnonzero(~whole), np.flatnonzero(whole)):
            for batch in reversed(batches_by_length((stop - start)[group] + SPECIAL_TOKENS, budget)):
                pieces = group[batch]
                spans = [notes.tokens(int(indices[place[p]]))[start[p] : stop[p]] for p in pieces]
                ids, mask = _padded(encoder, spans)
                pooled = encoder.embed(ids.to(device), mask.to(device)).float().cpu().numpy()
                np.add.at(out, place[pieces], pooled * share[pieces, None])
                read += sum(len(span) + SPECIAL_TOKENS for span in spans)
                if progress:
                    progress(read, total)
    return out


def tokens_read(lengths: np.ndarray, max_length: int, long_notes: LongNotes) -> int:
    """Tokens that embedding notes of `lengths` [n] reads, special ones included and padding left out."""
    place, start, stop = _pieces(lengths, max_length - SPECIAL_TOKENS, long_notes)
    return int((stop - start).sum()) + SPECIAL_TOKENS * len(place)


def padded(
    encoder: Encoder, notes: NoteStore, indices: np.ndarray, max_length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, [n, T] int64 each, of notes in their special tokens, cut at `max_length` tokens."""
    return _padded(encoder, [notes.tokens(int(index))[: max_length - SPECIAL_TOKENS] for index in indices])


def batches_by_length(lengths: np.ndarray, budget: int | None = None) -> list[np.ndarray]:
    """Batches of places of similar length, within a budget of padded tokens (a processor's, where none is given)."""
    budget = _BATCH_TOKENS if budget is None else budget
    batches: list[np.ndarray] = []
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * int(lengths[order[stop]]) <= budget:
            stop += 1
        batches.append(order[start:stop])
        start = stop
    return batches


def _pieces(lengths: np.ndarray, room: int, long_notes: LongNotes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is read of notes of `lengths` [n]: each piece's note, first token, and the one behind its last, [p] each."""
    if long_notes == "cut":
        return np.arange(len(lengths)), np.zeros_like(lengths), np.minimum(lengths, room)
    counts = np.maximum(1, -(-lengths // room))  # an empty note is one empty piece
    place = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(place)) - (np.cumsum(counts) - counts)[place]
    return place, number * lengths[place] // counts[place], (number + 1) * lengths[place] // counts[place]


def _padded(encoder: Encoder, spans: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, [n, T] int64 each, of spans of tokens in their special tokens."""
    tokenizer = encoder.tokenizer
    width = max(len(span) for span in spans) + SPECIAL_TOKENS
    ids = np.full((len(spans), width), tokenizer.pad_token_id, dtype=np.int64)
    mask = np.zeros((len(spans), width), dtype=np.int64)
    for row, span in enumerate(spans):
        ids[row, 0], ids[row, len(span) + 1] = tokenizer.cls_token_id, tokenizer.sep_token_id
        ids[row, 1 : len(span) + 1] = span
        mask[row, : len(span) + SPECIAL_TOKENS] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)
