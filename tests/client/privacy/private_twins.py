"""Bugs that are planted, each one that private training has had somewhere: a test that does not find its own is none.

Each keeps to the interface of what it stands in for, so that the very code of the private step runs with it.
"""

import functools
from typing import Any

import numpy as np
import torch
from private_helpers import Bench, Tensors, bench
from torch.nn import functional

from client.clipping import Owned, make_clipper
from client.notes.store import NoteStore
from client.objectives import Batch, Objective
from client.objectives.declutr_public import PublicDeclutr
from client.objectives.mlm import Mlm
from client.objectives.unit_rows import by_unit
from client.units import Units
from common.encoder import Encoder

EXAMPLE = {"BatchMean": "mlm", "InBatch": "declutr"}


class BatchMean(Mlm):
    """As Hugging Face's own loss, the mean over the hidden tokens of all units."""

    def unit_losses(self, encoder: Encoder, batch: Batch, owned: Owned) -> torch.Tensor:
        hidden = (batch.tensors["share"] > 0).float()
        return super().unit_losses(encoder, Batch(batch.tensors | {"share": hidden / hidden.sum()}, 0), owned)


class InBatch(PublicDeclutr):
    """The negatives of a unit are the others of its chunk, and its rows are clipped as if they were its own."""

    def unit_losses(self, encoder: Encoder, batch: Batch, owned: Owned) -> torch.Tensor:
        t = batch.tensors
        with owned(t["owner"]):
            anchors = encoder.embed(t["plain_ids"], t["attention_mask"])
        with owned(t["positive_owner"]):
            positives = encoder.embed(t["positive_ids"], t["positive_mask"])
        positives = positives.view(len(anchors), self.plan.positives, -1).mean(1)
        z, k = functional.normalize(anchors, dim=1), functional.normalize(positives, dim=1)
        each = functional.cross_entropy(z @ k.T / self.plan.temperature, torch.arange(len(z)), reduction="none")
        return by_unit(each, t)


def planted(bug: type[Objective], base: str, notes: NoteStore, **other: Any) -> Bench:
    """The bench of a buggy objective."""
    made = bench(EXAMPLE[bug.__name__], base, notes, **other)
    twin: Any = bug
    objective = twin(made.plan, made.plan.objective, made.encoder.tokenizer)
    objective.begin_round(made.encoder, notes, np.random.default_rng(2))
    objective.begin_step(np.random.default_rng(2))
    return Bench(made.plan, made.encoder, objective, made.tensors)


def sum_of_chunks(made: Bench, notes: NoteStore, units: Units, bound: float, size: int) -> Tensors:
    """Groups that are consecutive chunks of the units that were drawn: where one is missing, all after it move up."""
    drawn = [members for members in units.members if len(members)]
    with make_clipper("loop", made.encoder, made.tensors, bound) as clipper:
        for first in range(0, len(drawn), size):
            group = [made.objective.read(notes, i) for one in drawn[first : first + size] for i in one[:2].tolist()]
            batch = made.objective.collate_units([group], [np.random.default_rng(first)])
            clipper.add(functools.partial(made.objective.unit_losses, made.encoder, batch), 1)
    return clipper.sums
