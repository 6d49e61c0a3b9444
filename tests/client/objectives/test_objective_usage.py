"""What an objective makes of notes: which it uses, how many tokens it will read, and so how many steps a round has."""

from typing import Any

import numpy as np
import pytest
from objective_helpers import study

from client.batching import Batches
from client.notes.store import NoteStore
from client.objectives import Objective, make_objective
from client.objectives.usage import round_steps, usage
from client.training import usable
from common.encoder import Encoder
from common.plan import StudyPlan

OBJECTIVES: list[dict[str, Any]] = [
    {"kind": "mlm"},
    {"kind": "mlm", "whole_word": True},
    *(
        {"kind": "declutr", "min_span": 4, "max_span": 60} | settings
        for settings in (
            {},
            {"sampling": "adjacent"},
            {"sampling": "adjacent", "anchors": 1},
            {"sampling": "subsuming"},
            {"sampling": "subsuming", "anchors": 4, "positives": 1, "masked": False},
            {"max_span": 30, "min_span": 30},
            {"masked": False},
            {"contrastive_weight": 0.0, "masked": False},
            {"mlm_weight": 0.0, "masked": False},
            {"anchors": 4, "min_span": 33},  # of some notes only
        )
    ),
    {"kind": "note-category"},
    {"kind": "note-category", "masked": False},
    {"kind": "note-category", "loss": "contrastive"},
]


def plan_for(objective: dict[str, Any], **training: Any) -> StudyPlan:
    return study(objective, {"batch_size": 16} | training, max_length=128)


def read(objective: Objective, notes: NoteStore, rows: np.ndarray, batch_size: int, steps: int) -> int:
    """Tokens of so many steps of training."""
    batches = objective.batches(notes, rows, batch_size, (1, 2, 0))
    return sum(
        objective.collate(
            [objective.read(notes, i) for i in rows[batches.at(step)]], np.random.default_rng([1, step])
        ).tokens
        for step in range(steps)
    )


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_the_tokens_are_those_that_are_read(encoder: Encoder, notes: NoteStore, objective: dict[str, Any]) -> None:
    """Twenty epochs, of some 300 steps."""
    made = make_objective(plan_for(objective), encoder.tokenizer, notes)
    rows = usable(made, notes, "train")
    use = made.usage(notes.lengths[rows])
    epochs = 20
    steps = epochs * made.batches(notes, rows, 16, (1, 2, 0)).per_epoch
    assert read(made, notes, rows, 16, steps) == pytest.approx(epochs * use.tokens.sum(), rel=0.02)


@pytest.mark.parametrize("batch_size", [16, 5])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_a_budget_of_tokens_is_the_same_for_every_objective(
    encoder: Encoder, notes: NoteStore, objective: dict[str, Any], batch_size: int
) -> None:
    plan = plan_for(objective, tokens_per_round=60_000, batch_size=batch_size)
    made = make_objective(plan, encoder.tokenizer, notes)
    steps = round_steps(plan, notes.lengths[notes.split_indices("train")])
    assert read(made, notes, usable(made, notes, "train"), batch_size, steps) == pytest.approx(60_000, rel=0.05)


@pytest.mark.parametrize("objective", [{"kind": "mlm"}, {"kind": "declutr"}, {"kind": "note-category"}], ids=str)
def test_a_site_of_fewer_notes_than_a_batch_keeps_the_budget(
    encoder: Encoder, notes: NoteStore, objective: dict[str, Any]
) -> None:
    """All its notes are one batch, so that it makes more steps for as many tokens."""
    plan = plan_for(objective, tokens_per_round=60_000, batch_size=64)
    few = notes.view(notes.split_indices("train")[:20])
    made = make_objective(plan, encoder.tokenizer, few)
    steps = round_steps(plan, few.lengths)
    assert read(made, few, np.arange(20), 64, steps) == pytest.approx(60_000, rel=0.05)


def test_whole_shortened_and_too_short() -> None:
    lengths = np.array([0, 1, 63, 64, 127, 128, 129, 126, 4000])
    found = usage(plan_for({"kind": "mlm"}), lengths)  # 126 tokens fit beside the two special ones
    assert found.used.tolist() == [False] + [True] * 8
    assert (found.whole, found.shortened, found.too_short) == (4, 4, 1)
    assert found.tokens.tolist() == [0, 3, 65, 66, 128, 128, 128, 128, 128]

    found = usage(plan_for({"kind": "declutr", "anchors": 2, "min_span": 16, "max_span": 32}), lengths)
    assert found.used.tolist() == [False, False, False, True, True, True, True, True, True]
    assert (found.whole, found.shortened, found.too_short) == (3, 3, 3)
    assert (found.tokens > 0).tolist() == found.used.tolist()
    # Two anchors and four positives of 16 tokens, and the special ones of each.
    assert found.tokens[3] == 6 * (16 + 2)
    assert found.tokens[5] == pytest.approx(2 * (16 + 16 * 2 / 3 + 1.5) + 4 * (16 + 16 / 3 + 1.5))

    twice = usage(plan_for({"kind": "note-category", "masked": False}), lengths)
    assert twice.tokens.tolist() == [0, 6, 130, 132, 256, 256, 256, 256, 256]


@pytest.mark.parametrize(
    ("training", "notes", "steps"),
    [
        ({"steps_per_round": 7}, 1000, 7),
        ({"epochs_per_round": 1.0}, 17, 5),
        ({"epochs_per_round": 0.5}, 16, 2),
        ({"epochs_per_round": 0.001}, 16, 1),
        ({"epochs_per_round": 3.0}, 16, 12),
        ({"tokens_per_round": 4000}, 100, 10),  # of 100 tokens a note, special ones included
        ({"tokens_per_round": 1}, 100, 1),
        ({"tokens_per_round": 4000}, 2, 20),
        ({"tokens_per_round": 100 * 1000}, 10, 300),  # 100 epochs of three batches
        ({"tokens_per_round": 4000}, 0, 1),
        ({}, 0, 1),
    ],
)
def test_steps_of_a_round(training: dict[str, Any], notes: int, steps: int) -> None:
    plan = plan_for({"kind": "mlm"}, batch_size=4, **training)
    assert round_steps(plan, np.full(notes, 98)) == steps


@pytest.mark.parametrize("batch_size", [1, 4, 5])
def test_an_epoch_is_an_epoch_whatever_the_notes(batch_size: int) -> None:
    plan = plan_for({"kind": "mlm"}, batch_size=batch_size, epochs_per_round=1.0)
    for n in range(1, 50):
        assert round_steps(plan, np.full(n, 9)) == Batches(np.ones(n, dtype=int), batch_size, (1,)).per_epoch


def test_notes_that_are_not_used_make_no_steps() -> None:
    plan = plan_for({"kind": "declutr", "anchors": 2, "min_span": 16}, batch_size=4, epochs_per_round=1.0)
    assert round_steps(plan, np.array([63] * 100 + [64] * 8)) == 2


@pytest.mark.parametrize("batch_size", [3, 4, 5, 16, 300])
def test_an_epoch_of_pairs_is_one_too(encoder: Encoder, notes: NoteStore, batch_size: int) -> None:
    plan = plan_for({"kind": "note-category", "loss": "contrastive"}, batch_size=batch_size, epochs_per_round=1.0)
    made = make_objective(plan, encoder.tokenizer, notes)
    rows = usable(made, notes, "train")
    per_epoch = made.batches(notes, rows, batch_size, (1, 2, 0)).per_epoch
    assert round_steps(plan, notes.lengths[rows]) == per_epoch
