"""Units of privacy: whose notes a step draws, clips and protects together. And which of them a step draws.

A unit is a patient: all notes that name the same one. A note that names none is a unit with its copies, and so is every
note where the plan's unit is the note: what stands in two notes would else be protected half.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from client.noise import SecretStream
from client.notes.store import NoteStore


@dataclass(frozen=True)
class Units:
    """The units of a site's training notes.

    `members` holds for each unit the places in the store of those of its notes that the objective can use: none, where
    it can use none. Such a unit counts like any other, and contributes nothing: how many units there are says nothing
    of what their notes hold.
    """

    members: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.members)

    def draw(self, rate: float, key: bytes, step: int) -> np.ndarray:
        """The units of a step: each with probability `rate`, whatever becomes of the others (Poisson sampling)."""
        return np.flatnonzero(SecretStream(key, "units", step).uniform(len(self)) <= rate)

    def notes(self, unit: int, most: int, rng: np.random.Generator) -> np.ndarray:
        """At most so many of a unit's notes, drawn at random."""
        members = self.members[unit]
        return members if len(members) <= most else np.sort(rng.choice(members, most, replace=False))


def units_of(notes: NoteStore, usable: np.ndarray, unit: Literal["patient", "note"]) -> Units:
    """The units of the training notes; `usable` are the places of the notes that the objective can use."""
    rows = notes.split_indices("train")
    patient, group = notes.column("patient")[rows], notes.column("group")[rows]
    names = [
        f"patient {p}" if unit == "patient" and p is not None else f"copies {g}" if g >= 0 else f"note {r}"
        for p, g, r in zip(patient, group, notes.rows[rows], strict=True)
    ]
    members: dict[str, list[int]] = {}
    can_use = set(usable.tolist())
    for row, name in zip(rows.tolist(), names, strict=True):
        of_unit = members.setdefault(name, [])
        if row in can_use:
            of_unit.append(row)
    return Units([np.array(of_unit, dtype=np.int64) for of_unit in members.values()])


def count_units(notes: NoteStore, unit: Literal["patient", "note"]) -> int:
    """How many units train, whatever an objective can use of them."""
    return len(units_of(notes, np.zeros(0, dtype=np.int64), unit))
