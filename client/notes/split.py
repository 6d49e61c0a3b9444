"""Which notes train, are held out (dev) or test: by patient, by a keyed hash, and with no copy on another side."""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.notes.duplicates import Groups

# From the least to the most protected: where copies stand on several sides, those on the last of them stay.
SIDES = ("train", "dev", "test")
SET_ASIDE = "set-aside"
TEST_SHARE = 0.1
DEV_SHARE = 0.1


@dataclass(frozen=True)
class Splits:
    """`split` (n,) of strings: one of `SIDES`, or `SET_ASIDE` for a note that is too short or a copy.

    `copies` notes were set aside because a copy of them stands on a more protected side. `torn_patients` stand on
    several sides, as only a given split can have it.
    """

    split: NDArray[np.object_]
    copies: int
    torn_patients: int


def seeded_key(seed: int) -> bytes:
    """A key that is no secret, for notes that have no site of their own: the same seed, the same split."""
    return f"fednotes split {seed}".encode()


def assign_splits(patients: Sequence[str | None], given: Sequence[str | None], groups: Groups, key: bytes) -> Splits:
    """Gives each of n notes its side.

    A given side is honoured. A patient's other notes follow the given ones to the most protected side they are on; the
    notes of a patient with no given side go together, where the keyed hash of the patient falls. A note of no
    patient goes where its group of copies falls. Nobody without the site's `key` can tell on which side a patient is.
    """
    side = np.array([SIDES.index(own) if own else -1 for own in given], dtype=np.int64)
    of_patient: dict[str, int] = {}
    torn: set[str] = set()
    for patient, own in zip(patients, side.tolist(), strict=True):
        if patient is not None and own >= 0:
            if of_patient.setdefault(patient, own) != own:
                torn.add(patient)
            of_patient[patient] = max(of_patient[patient], own)
    for note in np.flatnonzero((side < 0) & (groups.group >= 0)).tolist():
        patient = patients[note]
        if patient is None:
            side[note] = _fall(key, f"group {groups.names[groups.group[note]]:016x}")
        else:
            if patient not in of_patient:
                of_patient[patient] = _fall(key, f"patient {patient}")
            side[note] = of_patient[patient]
    copies = _copies_to_set_aside(side, groups)
    split = np.array([*SIDES, SET_ASIDE], dtype=object)[np.where(copies | (groups.group < 0), len(SIDES), side)]
    return Splits(split, int(copies.sum()), len(torn))


def _copies_to_set_aside(side: NDArray[np.int64], groups: Groups) -> NDArray[np.bool_]:
    """Which notes have a copy on a more protected side.

    They are left out, rather than their patients moved to the copy's side: one template note that every patient has
    would chain all patients into a single side.
    """
    grouped = groups.group >= 0
    most_protected = np.full(len(groups.names), -1, dtype=np.int64)
    np.maximum.at(most_protected, groups.group[grouped], side[grouped])
    copies = np.zeros(len(side), dtype=bool)
    copies[grouped] = side[grouped] < most_protected[groups.group[grouped]]
    return copies


def _fall(key: bytes, name: str) -> int:
    """The index in `SIDES` where a name falls under a key."""
    share = int.from_bytes(hmac.digest(key, name.encode(), hashlib.sha256)[:8], "big") / 2**64
    if share < TEST_SHARE:
        return SIDES.index("test")
    return SIDES.index("dev" if share < TEST_SHARE + DEV_SHARE else "train")
