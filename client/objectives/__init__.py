"""Pre-training objectives: one file each, one protocol, chosen in the plan."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from common.plan import StudyPlan

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from common.encoder import Encoder


@dataclass(frozen=True)
class TokenisedNote:
    """Token ids of a whole note without special tokens, and which of them start a word; both [n]."""

    ids: np.ndarray
    word_starts: np.ndarray


@dataclass(frozen=True)
class Batch:
    """What a step computes on: named tensors, and how many real tokens (special ones too) the encoder will read."""

    tensors: dict[str, "torch.Tensor"]
    tokens: int

    def to(self, device: "torch.device") -> "Batch":
        return Batch({name: tensor.to(device) for name, tensor in self.tensors.items()}, self.tokens)


class Objective(Protocol):
    """What training asks of an objective."""

    def collate(self, notes: Sequence[TokenisedNote], rng: np.random.Generator, cut: bool = False) -> Batch:
        """Make a batch. A note longer than the plan's maximum gives a random window, or with `cut` its beginning."""

    def loss(self, encoder: "Encoder", batch: Batch) -> tuple["torch.Tensor", int]:
        """The sum of the losses (a scalar, with gradient) and how many terms it sums."""


def make_objective(plan: StudyPlan, tokenizer: "PreTrainedTokenizerBase") -> Objective:
    """The objective that the plan names."""
    from client.objectives.mlm import Mlm

    return Mlm(plan.objective, tokenizer, plan.encoder.max_length)
