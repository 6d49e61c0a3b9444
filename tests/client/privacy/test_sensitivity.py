"""Sensitivity, measured: taking a unit's notes away moves what a step sums by the clipping norm at the most, or by
twice that where units are clipped in groups; counts and losses included, in single precision, whatever the notes."""

from typing import Any

import numpy as np
import pytest
import torch
from private_helpers import IDENTICAL, LONG, MANY, RARE, SHORT, Bench, bench, flat, key_of, norm, without
from private_twins import BatchMean, InBatch, planted, sum_of_chunks

from client.clipping import Owned, make_clipper
from client.clipping.book_keeping import BookKeeping
from client.dpsgd import sensitivity
from client.notes.store import NoteStore
from client.objectives import Objective
from common.encoder import Encoder

BOUNDS = (1e-5, 1e-2, 0.1, 3.0, 100.0)
ROOM = 1e-4
SINGLE: dict[str, Any] = {"dtype": torch.float32, "notes_per_unit": 4}


def worst(
    made: Bench, notes: NoteStore, bound: float, gone: tuple[int, ...] = (IDENTICAL, LONG, MANY), **privacy: Any
) -> float:
    """The farthest that the absence of one of some units moves the sum of a step, over the clipping norm."""
    units, key, found = made.units(notes), key_of("worst", bound), []
    whole, told = made.exact(notes, units, key, max_grad_norm=bound, **privacy)
    for unit in gone:
        rest, rest_told = made.exact(notes, without(units, unit), key, max_grad_norm=bound, **privacy)
        change = float((flat(whole).double() - flat(rest).double()).norm()) / bound
        released = np.linalg.norm(told - rest_told) if privacy.get("release_loss", True) else 0.0
        found.append(float(np.hypot(change, released)))
    return max(found)


@pytest.mark.parametrize("objective", ["mlm", "declutr", "category-plain", "prototypes"])
def test_a_unit_moves_the_sum_by_the_clipping_norm_at_most(
    bases: dict[str, str], notes: NoteStore, adversarial: NoteStore, objective: str
) -> None:
    made = bench(objective, bases["bert"], notes, **SINGLE)
    found = [worst(made, adversarial, bound) for bound in BOUNDS]
    assert max(*found, worst(made, adversarial, 0.1, (SHORT, RARE))) <= 1 + ROOM
    assert min(found[:3]) > 0.99  # where every unit is clipped nothing is given away
    assert 0.99 < worst(made, adversarial, 1e-2, (LONG,), release_loss=False) <= 1 + ROOM


@pytest.mark.parametrize(
    ("engine", "objective"),
    [("loop", "mlm"), ("loop", "declutr"), ("opacus", "mlm"), ("opacus", "category-plain"), ("opacus", "prototypes")],
)
def test_so_it_is_with_every_engine(
    bases: dict[str, str], notes: NoteStore, adversarial: NoteStore, engine: str, objective: str
) -> None:
    made = bench(objective, bases["bert"], notes, **SINGLE)
    for bound in (1e-2, 3.0):
        assert 0.1 < worst(made, adversarial, bound, (LONG, MANY), engine=engine) <= 1 + ROOM


def test_with_random_groups_a_unit_moves_it_by_twice_that_at_most(
    bases: dict[str, str], notes: NoteStore, adversarial: NoteStore
) -> None:
    made = bench("declutr-groups", bases["bert"], notes, **SINGLE)
    assert sensitivity(made.objective, made.privacy) == 2 * made.privacy.max_grad_norm
    terms = [(1e-5, 8), (1e-2, 2), (0.1, 8), (3.0, 2), (100.0, 8)]
    found = [worst(made, adversarial, bound, (IDENTICAL, MANY), group_size=size) for bound, size in terms]
    assert max(found) <= 2 + ROOM
    assert max(found) > 1.05  # the half of it would not do


@pytest.mark.parametrize("bug", [BatchMean, InBatch])
def test_a_loss_of_the_whole_batch_moves_it_farther(
    bases: dict[str, str],
    notes: NoteStore,
    adversarial: NoteStore,
    bug: type[Objective],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(BookKeeping, "units_at_once", 64)  # one batch
    made = planted(bug, bases["bert"], notes, **SINGLE | {"notes_per_unit": 10})
    assert max(worst(made, adversarial, bound, (MANY,)) for bound in BOUNDS) > 2


def test_groups_that_are_consecutive_chunks_move_it_farther(bases: dict[str, str], notes: NoteStore) -> None:
    made = bench("declutr-groups", bases["bert"], notes, **SINGLE)
    units = made.units(notes)
    whole, rest = (sum_of_chunks(made, notes, some, 1e-2, 4) for some in (units, without(units, 0)))
    assert norm({name: whole[name] - rest[name] for name in whole}) > 2.5e-2


@pytest.mark.parametrize("objective", ["mlm", "declutr-alone"])
@pytest.mark.parametrize("engine", ["loop", "book-keeping"])
def test_a_unit_whose_gradient_is_no_number_moves_it_no_farther(
    bases: dict[str, str], notes: NoteStore, adversarial: NoteStore, engine: str, objective: str
) -> None:
    """Weights come from the coordinator, who may ask in this way whether a site's notes have a certain word."""
    made = bench(objective, bases["bert"], notes, **SINGLE)
    units, key = made.units(adversarial), key_of("no number")
    word = made.encoder.tokenizer.unk_token_id
    having = [n for n in range(len(adversarial)) if word in adversarial.tokens(n)]
    assert having == units.members[RARE].tolist()
    with torch.no_grad():
        made.encoder.body.get_input_embeddings().weight[word] = torch.linspace(-1e20, 1e20, 32)
    found, _ = made.exact(adversarial, units, key, engine=engine)
    rest, _ = made.exact(adversarial, without(units, RARE), key, engine=engine)
    assert norm({name: found[name] - rest[name] for name in rest}) <= 1 + ROOM


@pytest.mark.parametrize("objective", ["mlm", "declutr", "category-plain", "prototypes"])
def test_weights_that_make_much_of_rounding_gain_nothing_where_each_unit_is_computed_alone(
    bases: dict[str, str], notes: NoteStore, adversarial: NoteStore, objective: str
) -> None:
    """With such weights, which come from the coordinator, other units' vectors may hang on who is in their chunk."""
    made = bench(objective, bases["bert"], notes, **SINGLE)
    with torch.no_grad():
        for p in made.encoder.model.parameters():
            p.mul_(1000.0 if p.ndim > 1 else 1.0)
    for bound in (1e-2, 1.0):
        assert 0.1 < worst(made, adversarial, bound, (LONG, MANY), engine="loop") <= 1 + ROOM


@pytest.mark.parametrize("engine", ["loop", "opacus", "book-keeping"])
def test_a_gradient_whose_parts_nearly_cancel_is_clipped_all_the_same(engine: Any) -> None:
    """The same coordinator may have chosen them so that the parts of a unit's gradient are huge and cancel."""
    layer = torch.nn.Linear(64, 64, bias=False)
    encoder = Encoder(torch.nn.ModuleDict({"layer": layer}), None, "", False)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    normal = lambda *shape: torch.randn(*shape, generator=generator)
    with make_clipper(engine, encoder, encoder.tensors(), 1.0) as clipper:
        for apart in (1e-2, 1e-3, 1e-4) * 10:
            one, onto = normal(64), 1e6 * normal(64)
            rows = torch.stack([one, one + apart * normal(64)])[None]

            def losses(owned: Owned, rows: torch.Tensor = rows, onto: torch.Tensor = onto) -> torch.Tensor:
                with owned(torch.zeros(1, dtype=torch.long)):
                    read = layer(rows)
                return (read[:, 0] - read[:, 1]) @ onto

            clipper.clear()
            clipper.add(losses, 1)
            assert 0 < norm(clipper.sums) <= 1 + ROOM


@pytest.mark.parametrize("engine", ["loop", "opacus", "book-keeping"])
def test_a_gradient_of_parts_whose_squares_vanish_is_clipped_all_the_same(engine: Any) -> None:
    """So may be the product of a huge input and of a gradient that is too small to be squared in single precision."""
    layer = torch.nn.Linear(64, 64, bias=False)
    encoder = Encoder(torch.nn.ModuleDict({"layer": layer}), None, "", False)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    normal = lambda *shape: torch.randn(*shape, generator=generator)
    for large, small, bound in ((1e17, 1e-23, 1e-4), (1e18, 3e-23, 1e-2), (1e-23, 1e17, 1e-4), (1e18, 1e-24, 1e-5)):
        rows, onto = (large * normal(64)).expand(1, 40, 64), small * normal(64)

        def losses(owned: Owned, rows: torch.Tensor = rows, onto: torch.Tensor = onto) -> torch.Tensor:
            with owned(torch.zeros(1, dtype=torch.long)):
                return (layer(rows) @ onto).sum(1)

        with make_clipper(engine, encoder, encoder.tensors(), bound) as clipper:
            clipper.add(losses, 1)
        assert norm(clipper.sums) <= bound * (1 + ROOM)


def test_a_step_reads_at_most_so_many_notes_of_a_unit(
    bases: dict[str, str], notes: NoteStore, adversarial: NoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench("mlm", bases["bert"], notes, notes_per_unit=3)
    units, read = made.units(adversarial), []
    for step in range(12):
        with monkeypatch.context() as watched:
            see = lambda store, index, step=step: (
                read.append((step, index)) or Objective.read(made.objective, store, index)
            )
            watched.setattr(made.objective, "read", see)
            made.exact(adversarial, units, key_of("most"), step=step)
    ours = [[i for at, i in read if at == step and i in units.members[MANY]] for step in range(12)]
    assert all(len(set(mine)) == len(mine) == 3 for mine in ours)
    assert {i for mine in ours for i in mine} == set(units.members[MANY].tolist())  # drawn anew each step
    assert len(read) == 12 * (len(units) - 1 + 3)
