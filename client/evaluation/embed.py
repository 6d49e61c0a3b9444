"""Frozen embeddings of a site's notes."""

import numpy as np
import torch

from client.device import autocast
from client.notes.store import NoteStore
from common.encoder import Encoder

_BATCH_TOKENS = 8192  # padded tokens a batch: large enough to keep the processor busy, small enough for any memory


def embed_notes(
    encoder: Encoder, notes: NoteStore, indices: np.ndarray, *, max_length: int, precision: str = "auto"
) -> np.ndarray:
    """Pooled embeddings [n, H] float32 of the notes at `indices`, each cut at `max_length` tokens; dropout is off."""
    device = next(encoder.model.parameters()).device
    tokenizer = encoder.tokenizer
    room = max_length - 2
    lengths = np.minimum(notes.lengths[indices], room) + 2
    out = np.zeros((len(indices), encoder.hidden_size), dtype=np.float32)
    encoder.model.eval()
    for places in _by_length(lengths):
        width = int(lengths[places].max())
        ids = np.full((len(places), width), tokenizer.pad_token_id, dtype=np.int64)
        mask = np.zeros((len(places), width), dtype=np.int64)
        for row, place in enumerate(places):
            tokens = notes.tokens(int(indices[place]))[:room]
            ids[row, 0], ids[row, len(tokens) + 1] = tokenizer.cls_token_id, tokenizer.sep_token_id
            ids[row, 1 : len(tokens) + 1] = tokens
            mask[row, : len(tokens) + 2] = 1
        with torch.inference_mode(), autocast(device, precision):
            pooled = encoder.embed(torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device))
        out[places] = pooled.float().cpu().numpy()
    return out


def _by_length(lengths: np.ndarray) -> list[np.ndarray]:
    """Batches of places of similar length, within the budget of padded tokens."""
    batches: list[np.ndarray] = []
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * int(lengths[order[stop]]) <= _BATCH_TOKENS:
            stop += 1
        batches.append(order[start:stop])
        start = stop
    return batches
