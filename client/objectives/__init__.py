"""Pre-training objectives: one file each, one protocol, chosen in the plan.

`read` is what an objective needs of a note, `collate` makes a batch of notes, `loss` is pure mathematics on the
encoder's output. A head of its own, where it has one, is the encoder's `category_head`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from client.batching import Batches
from client.objectives.usage import Usage, usage
from common.plan import StudyPlan
from common.plan_sections import Declutr as DeclutrPlan
from common.plan_sections import NoteCategory as NoteCategoryPlan

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from client.notes.store import NoteStore
    from common.encoder import Encoder

Compute = Callable[[], AbstractContextManager[object]]  # opens the number format in which the encoder computes


@dataclass(frozen=True)
class TokenisedNote:
    """Token ids of a whole note without special tokens, and which of them start a word; both [n].

    `patient`, `group` (of copies; -1 for none) and `category` are there where the objective reads them.
    """

    ids: np.ndarray
    word_starts: np.ndarray
    patient: str | None = None
    group: int = -1
    category: str | None = None


@dataclass(frozen=True)
class Batch:
    """What a step computes on: named tensors, and how many real tokens (special ones too) the encoder will read."""

    tensors: dict[str, "torch.Tensor"]
    tokens: int

    def to(self, device: "torch.device") -> "Batch":
        return Batch({name: tensor.to(device) for name, tensor in self.tensors.items()}, self.tokens)


@dataclass(frozen=True)
class Loss:
    """The loss of a batch in nats: `mean` is a scalar, with gradient where it was not already gone through backward.

    `terms` weighs it among other batches; `parts` are the sums of the losses that it adds up, and their counts.
    """

    mean: "torch.Tensor"
    terms: int
    parts: dict[str, tuple["torch.Tensor", int]] = field(default_factory=dict)


class Objective(ABC):
    """An objective at one site."""

    def __init__(self, plan: StudyPlan) -> None:
        self.study = plan
        self.max_length = plan.encoder.max_length

    def read(self, notes: "NoteStore", index: int) -> TokenisedNote:
        """One note, with what the objective needs to know of it."""
        return TokenisedNote(notes.tokens(index), notes.word_starts(index))

    def usage(self, lengths: np.ndarray) -> Usage:
        """Which of n notes of `lengths` [n] in tokens it can use, and how."""
        return usage(self.study, lengths)

    def batches(self, notes: "NoteStore", rows: np.ndarray, batch_size: int, key: tuple[int, ...]) -> Batches:
        """The notes of every step, as places in `rows` [n]: n notes that it can use."""
        return Batches(np.minimum(notes.lengths[rows], self.max_length - 2), batch_size, key)

    def attach(self, encoder: "Encoder") -> None:
        """Give the encoder the head that this objective needs, fresh; and none that it does not."""
        encoder.set_categories(0, shared=False)

    @abstractmethod
    def collate(self, notes: Sequence[TokenisedNote], rng: np.random.Generator, cut: bool = False) -> Batch:
        """Make a batch. A note longer than the plan's maximum gives a random window, or with `cut` its beginning."""

    @abstractmethod
    def loss(self, encoder: "Encoder", batch: Batch) -> Loss:
        """The loss of a batch."""

    def backward(self, encoder: "Encoder", batch: Batch, compute: Compute) -> Loss:
        """The loss of a batch, with its gradient added to the encoder's."""
        with compute():
            loss = self.loss(encoder, batch)
        loss.mean.backward()
        return loss


def make_objective(plan: StudyPlan, tokenizer: "PreTrainedTokenizerBase", notes: "NoteStore") -> Objective:
    """The objective that the plan names, for a site with these notes.

    Raises:
        InputError: `too-few-categories`: note-category finds fewer than two at the site.
    """
    if isinstance(plan.objective, DeclutrPlan):
        from client.objectives.declutr import Declutr

        return Declutr(plan, plan.objective, tokenizer)
    if isinstance(plan.objective, NoteCategoryPlan):
        from client.objectives.note_category import NoteCategory, site_categories

        return NoteCategory(plan, plan.objective, tokenizer, site_categories(plan.objective, notes))
    from client.objectives.mlm import Mlm

    return Mlm(plan, plan.objective, tokenizer)
