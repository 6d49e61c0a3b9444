"""Rows of masked language modelling of which each belongs to a unit, for private training: a row's masks rest on its
unit's own random numbers, and its loss on nothing else than the row."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from client.clipping import Owned
from client.objectives.sequences import Sequences
from common.encoder import Encoder


def masked_rows(
    sequences: Sequences, rows: Sequence[np.ndarray], chosen: Sequence[np.ndarray], rngs: Sequence[np.random.Generator]
) -> dict[str, np.ndarray]:
    """Padded rows with the chosen tokens hidden, each by its own generator.

    Args:
        rows: ids of each of R rows, without special tokens.
        chosen: of bool, which of them to predict; one at the least is.

    Returns:
        `input_ids`, `attention_mask` [R, T]; `positions`, `targets` [R, m] and `share` [R, m]: 1 over the row's number
        of tokens to predict, and 0 where there is none.
    """
    ids, attention = sequences.padded(rows)
    found = []
    for number, (row, own, rng) in enumerate(zip(rows, chosen, rngs, strict=True)):
        wide = np.zeros((1, ids.shape[1]), dtype=bool)
        wide[0, 1 : len(row) + 1] = own
        found.append(sequences.hide(ids[number : number + 1], sequences.at_least_one(wide, len(row), rng), rng))
    most = max(len(positions) for positions, _ in found)
    positions, targets = np.zeros((len(rows), most), dtype=np.int64), np.zeros((len(rows), most), dtype=np.int64)
    share = np.zeros((len(rows), most), dtype=np.float32)
    for number, (places, tokens) in enumerate(found):
        n = len(places)
        positions[number, :n], targets[number, :n], share[number, :n] = places, tokens, 1 / n
    return {"input_ids": ids, "attention_mask": attention, "positions": positions, "targets": targets, "share": share}


def mlm_losses(encoder: Encoder, states: torch.Tensor, t: dict[str, torch.Tensor], owned: Owned) -> torch.Tensor:
    """The cross-entropy of each row [R], averaged over its own hidden tokens; `states` [R, T, H]."""
    at = states.gather(1, t["positions"][:, :, None].expand(-1, -1, states.shape[2]))
    with owned(t["owner"]):
        logits = encoder.mlm_logits(at)
    each = functional.cross_entropy(logits.flatten(0, 1), t["targets"].flatten(), reduction="none")
    return (each.view_as(t["share"]) * t["share"].to(each.dtype)).sum(1)


def by_unit(rows: torch.Tensor, t: dict[str, torch.Tensor]) -> torch.Tensor:
    """The sum over each unit's rows, [units], of one number a row."""
    return rows.new_zeros(len(t["notes"])).index_add(0, t["owner"], rows)
