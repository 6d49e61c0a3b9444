"""The loss of a unit is its own: who else is in the chunk, or in the step, changes nothing of it."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from private_helpers import (
    CATEGORIES,
    IDENTICAL,
    LONG,
    MANY,
    UNGROUPED,
    Bench,
    bench,
    flat,
    key_of,
    only,
    units_of_notes,
    without,
)
from private_twins import BatchMean, InBatch, planted

from client.notes.store import NoteStore
from client.objectives import Objective, TokenisedNote
from common.encoder import FAMILIES

SIZES = [[20, 31], [12], [29, 14, 25], [50]]
ROUNDING = 1e-12
# Every objective, and every family.
EACH = [("bert", objective) for objective in UNGROUPED]
EACH += [(family, objective) for family in FAMILIES[1:] for objective in ("mlm", "declutr-plain", "category-plain")]


def joining() -> list[list[TokenisedNote]]:
    """A unit of very long notes, one that another is like, one of a rare token, and a short one."""
    ones = np.ones(400, dtype=bool)
    long = TokenisedNote(np.arange(400) % 395 + 5, ones, category=CATEGORIES[0])
    rare = TokenisedNote(np.full(25, 399), ones[:25], category=CATEGORIES[2])
    return [[long] * 3, units_of_notes(SIZES)[0], [rare], [TokenisedNote(np.arange(12) + 5, ones[:12])]]


def change_by_company(made: Bench) -> float:
    """The most that a unit's loss differs, whoever is in its chunk, and at what place."""
    units = units_of_notes(SIZES)

    def losses(chunk: Sequence[Sequence[TokenisedNote]], seeds: Sequence[int]) -> torch.Tensor:
        with torch.no_grad():
            return made.losses(chunk, seeds)(lambda owner: torch.no_grad())

    alone = torch.cat([losses([unit], [seed]) for seed, unit in enumerate(units)])
    assert bool((alone > 0.1).all())
    seeds = list(range(len(units)))
    changes = [losses(units, seeds) - alone]
    for one in joining():
        for place in (0, 2, len(units)):
            found = losses([*units[:place], one, *units[place:]], [*seeds[:place], 99, *seeds[place:]])
            changes.append(torch.cat([found[:place], found[place + 1 :]]) - alone)
    return float(torch.cat(changes).abs().max())


@pytest.mark.parametrize(("family", "objective"), EACH)
def test_no_unit_changes_the_loss_of_another(
    bases: dict[str, str], stores: dict[str, NoteStore], family: str, objective: str
) -> None:
    assert change_by_company(bench(objective, bases[family], stores[family])) <= ROUNDING


@pytest.mark.parametrize("bug", [BatchMean, InBatch])
def test_a_loss_of_the_whole_batch_is_found(bases: dict[str, str], notes: NoteStore, bug: type[Objective]) -> None:
    assert change_by_company(planted(bug, bases["bert"], notes)) > 0.01


def change_by_absence(made: Bench, notes: NoteStore) -> float:
    """How far what a step sums is from the sum without a unit and the sum of that unit alone: 0 where all the others
    contribute the very same, by the same random numbers of their own."""
    units, key, found = made.units(notes), key_of("absence"), []
    for step, rate in enumerate((1.0, 0.6)):
        whole, told = made.exact(notes, units, key, step=step, rate=rate)
        for gone in (IDENTICAL, LONG, MANY):
            rest, rest_told = made.exact(notes, without(units, gone), key, step=step, rate=rate)
            alone, alone_told = made.exact(notes, only(units, gone), key, step=step, rate=rate)
            found.append(float((flat(whole) - flat(rest) - flat(alone)).norm()))
            found.append(float(np.abs(told - rest_told - alone_told).max()))
    return max(found)


@pytest.mark.parametrize("objective", ["mlm-words", "declutr", "category-plain", "prototypes"])
def test_without_a_unit_all_others_contribute_the_same(
    bases: dict[str, str], notes: NoteStore, adversarial: NoteStore, objective: str
) -> None:
    assert change_by_absence(bench(objective, bases["bert"], notes), adversarial) < 1e-9


@pytest.mark.parametrize("bug", [BatchMean, InBatch])
def test_others_that_contribute_something_else_are_found(
    bases: dict[str, str], notes: NoteStore, adversarial: NoteStore, bug: type[Objective]
) -> None:
    assert change_by_absence(planted(bug, bases["bert"], notes), adversarial) > 0.1
