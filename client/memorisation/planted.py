"""A site's notes with its canaries after them, as training reads them. Whatever counts notes counts those without."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from client.ledger import secret_key
from client.memorisation.canaries import Canary, make_canaries
from client.notes.store import NoteStore
from client.site import Site
from common.encoder import Encoder
from common.messages import Request

_NONE = ("id", "category", "label", "date", "site")


def with_canaries(site: Site, notes: NoteStore, request: Request, encoder: Encoder) -> NoteStore:
    """What a round trains on: the notes, and the canaries that the plan has planted among them.

    Raises:
        FednotesError: `no-digits`. MachineError: the site's secret is damaged.
    """
    if not request.plan.canaries or request.plan.release is None:
        return notes
    made = make_canaries(request.plan, encoder.tokenizer, secret_key(site.folder), request.run)
    copies = [(canary, number) for number, canary in enumerate(made.planted)] * request.plan.release.repeats
    return Planted(notes.rows, notes._files, notes._given, own=notes, canaries=copies, name=made.name)


@dataclass(frozen=True, eq=False, kw_only=True)
class Planted(NoteStore):
    """The notes of `own`, and training notes after them: canaries with their numbers, copies among them.

    The copies of a canary are those of one patient, whom no note names: under differential privacy they are a unit.
    """

    own: NoteStore
    canaries: list[tuple[Canary, int]]
    name: str

    def __post_init__(self) -> None:
        first = int(self.own.rows.max(initial=-1)) + 1
        rows = np.concatenate([self.own.rows, np.arange(first, first + len(self.canaries), dtype=np.int64)])
        object.__setattr__(self, "rows", rows)

    def tokens(self, index: int) -> NDArray:
        canary = self._canary(index)
        return self.own.tokens(index) if canary is None else canary.ids

    def word_starts(self, index: int) -> NDArray[np.bool_]:
        canary = self._canary(index)
        return self.own.word_starts(index) if canary is None else canary.word_starts

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        return np.concatenate([self.own.lengths, [len(canary.ids) for canary, _ in self.canaries]]).astype(np.int64)

    @property
    def digest(self) -> str:
        tokens = np.concatenate([canary.ids for canary, _ in self.canaries])
        return f"{self.own.digest}+{hashlib.sha256(tokens.tobytes()).hexdigest()}"

    def column(self, name: str) -> NDArray:
        mine = self.own.column(name)
        numbers = [number for _, number in self.canaries]
        if name in _NONE:
            theirs: Sequence[object] = [None] * len(numbers)
        elif name == "split":
            theirs = ["train"] * len(numbers)
        elif name == "patient":
            theirs = [f"canary {self.name} {number}" for number in numbers]
        elif name == "group":
            after = int(self.own.column("group").max(initial=-1)) + 1
            theirs = [after + number for number in numbers]
        else:  # its line in the source, and its words
            theirs = [-1] * len(numbers)
        return np.concatenate([mine, np.array(theirs, dtype=mine.dtype)])

    def split_indices(self, split: str) -> NDArray[np.int64]:
        own = self.own.split_indices(split)
        return own if split != "train" else np.concatenate([own, np.arange(len(self.own), len(self), dtype=np.int64)])

    def view(self, indices: Sequence[int] | NDArray[np.int64]) -> NoteStore:
        """Of notes, or of notes with canaries after them."""
        places = np.asarray(indices, dtype=np.int64)
        notes = self.own.view(places[places < len(self.own)])
        canaries = [self.canaries[place - len(self.own)] for place in places[len(notes) :].tolist()]
        return replace(self, rows=notes.rows, own=notes, canaries=canaries) if canaries else notes

    def _canary(self, index: int) -> Canary | None:
        return self.canaries[index - len(self.own)][0] if index >= len(self.own) else None
