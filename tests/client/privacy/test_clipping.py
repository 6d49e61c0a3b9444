"""The fast clippers against plain autograd, a unit at a time, in double precision: every family, objective, frozen
pattern and way of putting rows together."""

import pytest
import torch
from private_helpers import OBJECTIVES, PATTERNS, bench, norm, units_of_notes

from client.notes.store import NoteStore

ONE_NOTE = [[20], [12], [29], [50], [13]]
SEVERAL = [[20, 31], [12], [29, 14, 25], [50], [13, 12]]
BOUNDS = (1e-4, 1e3)  # all units are clipped; none is


def close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return norm({name: a[name] - b[name] for name in b}) <= 1e-9 * norm(b)


@pytest.mark.parametrize("trainable", PATTERNS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_book_keeping_gives_what_autograd_gives_unit_by_unit(
    bases: dict[str, str], stores: dict[str, NoteStore], family: str, objective: str, trainable: str
) -> None:
    made = bench(objective, bases[family], stores[family], trainable)
    for sizes in (ONE_NOTE, SEVERAL):
        units = units_of_notes(sizes)
        for bound in BOUNDS:
            reference, losses = made.clipped("loop", units, bound)
            found, same = made.clipped("book-keeping", units, bound)
            assert norm(reference) > 0
            assert close(found, reference), (sizes, bound)
            torch.testing.assert_close(same, losses)


@pytest.mark.parametrize("trainable", PATTERNS)
@pytest.mark.parametrize("objective", ["mlm", "category", "prototypes"])
def test_opacus_gives_the_same_where_it_is_allowed(
    bases: dict[str, str], stores: dict[str, NoteStore], family: str, objective: str, trainable: str
) -> None:
    made = bench(objective, bases[family], stores[family], trainable)
    for sizes in (ONE_NOTE, SEVERAL):
        units = units_of_notes(sizes)
        reference, _ = made.clipped("loop", units, 1e-4)
        found, _ = made.clipped("opacus", units, 1e-4)
        assert close(found, reference), sizes
    again, _ = made.clipped("loop", units, 1e-4)
    assert close(again, reference)  # the encoder is left as it was
