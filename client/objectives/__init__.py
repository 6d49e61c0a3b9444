"""Pre-training objectives: one file each, one protocol, chosen in the plan.

`read` is what an objective needs of a note, `collate` makes a batch of notes, `loss` is pure mathematics on the
encoder's output. A head of its own, where it has one, is the encoder's `category_head`. Private training
(client/dpsgd.py) asks for `collate_units` and `unit_losses` instead: one loss a unit, that depends on no other.
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

    from client.clipping import Owned
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

    # What follows is for private training. A unit is the notes of one patient, or one note; or, where units are put
    # into random groups and each group is clipped as one, such a group.

    units_at_once: int | None = 1  # that `collate_units` takes; None: as many as there are

    @property
    def groups(self) -> bool:
        """Whether units are put into groups at random: their losses are of the group, whose sensitivity is twice."""
        return False

    @property
    def needs_public_text(self) -> bool:
        """Whether it compares units with text that is no secret."""
        return False

    @property
    def reads_mlm_head(self) -> bool:
        """Whether the MLM head learns: noise is added to nothing else than what does."""
        return True

    def begin_round(  # noqa: B027 - most have nothing to prepare
        self, encoder: "Encoder", public: "NoteStore | None", rng: np.random.Generator
    ) -> None:
        """Prepare for a round of private training from the encoder as it stands; `public` is text that is no secret."""

    def begin_step(self, rng: np.random.Generator) -> None:  # noqa: B027
        """Prepare for a step; `rng` depends on no note."""

    def collate_units(self, units: Sequence[Sequence[TokenisedNote]], rngs: Sequence[np.random.Generator]) -> Batch:
        """Make a batch of units, each of one note or more, and each by its own generator. Tensors: besides the
        objective's own, `notes` [units], the number of each one's notes."""
        import torch

        (unit,), (rng,) = units, rngs
        batch = self.collate(unit, rng)
        return Batch(batch.tensors | {"notes": torch.tensor([len(unit)])}, batch.tokens)

    def unit_losses(self, encoder: "Encoder", batch: Batch, owned: "Owned") -> "torch.Tensor":
        """The loss of each unit, [units], summed over its notes: entry i depends on unit i alone."""
        return (self.loss(encoder, batch).mean * batch.tensors["notes"][0]).view(1)


def make_objective(plan: StudyPlan, tokenizer: "PreTrainedTokenizerBase", notes: "NoteStore") -> Objective:
    """The objective that the plan names, for a site with these notes.

    Raises:
        InputError: `too-few-categories`: note-category finds fewer than two at the site.
    """
    if isinstance(plan.objective, DeclutrPlan):
        if plan.privacy and plan.privacy.negatives == "public":
            from client.objectives.declutr_public import PublicDeclutr

            return PublicDeclutr(plan, plan.objective, tokenizer)
        from client.objectives.declutr import Declutr

        return Declutr(plan, plan.objective, tokenizer)
    if isinstance(plan.objective, NoteCategoryPlan):
        from client.objectives.note_category import NoteCategory, site_categories

        return NoteCategory(plan, plan.objective, tokenizer, site_categories(plan.objective, notes))
    from client.objectives.mlm import Mlm

    return Mlm(plan, plan.objective, tokenizer)
