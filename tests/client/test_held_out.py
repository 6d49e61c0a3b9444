"""The loss on held-out notes: the same whenever it is asked, and of nothing but the weights."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from client.notes.store import NoteStore
from client.objectives.mlm import Mlm
from client.training import Measured, held_out_loss, site_key, train
from common.encoder import Encoder, load_encoder
from common.plan import StudyPlan
from common.plan_sections import EncoderPlan, Study, Training
from common.plan_sections import Mlm as MlmPlan

KEY = site_key(3, "Northgate")
STUDY = StudyPlan(study=Study(name="test"), encoder=EncoderPlan(max_length=32))
PLAN = Training(steps_per_round=4, batch_size=4, learning_rate=1e-3, precision="float32")
Weights = dict[str, torch.Tensor]


def weights(encoder: Encoder) -> Weights:
    return {name: p.detach().clone() for name, p in encoder.tensors().items()}


def equal(a: Weights, b: Weights) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def held_out(notes: NoteStore) -> Callable[..., Measured]:
    def measure(encoder: Encoder, most: int = 20, key: tuple[int, int] = KEY, store: NoteStore | None = None) -> Any:
        objective = Mlm(STUDY, MlmPlan(), encoder.tokenizer)
        return held_out_loss(encoder, objective, store or notes, PLAN, key=key, most_notes=most)

    return measure


def test_the_held_out_loss_is_the_same_whenever_it_is_asked(
    encoder: Encoder, held_out: Callable[..., Any], bases: dict[str, str]
) -> None:
    first = held_out(encoder)
    encoder.model.train()
    torch.manual_seed(7)
    assert held_out(encoder) == first == held_out(load_encoder(bases["bert"]))
    assert held_out(encoder, key=site_key(4, "other")) != first


def test_dropout_does_not_touch_it(
    make_base: Callable[..., Any], tmp_path: Any, encoder: Encoder, held_out: Callable[..., Any]
) -> None:
    still = load_encoder(str(make_base(tmp_path / "base", "bert", dropout=0.0)))
    assert held_out(still) == held_out(encoder)


def test_it_counts_notes_and_tokens(encoder: Encoder, notes: NoteStore, held_out: Callable[..., Any]) -> None:
    dev = notes.split_indices("dev")
    found = held_out(encoder, most=1000)
    assert found.notes == len(dev) and 3 < found.loss < 9
    assert found.tokens == int((np.minimum(notes.lengths[dev], 30) + 2).sum())
    assert held_out(encoder, most=3).notes == 3


def test_it_changes_nothing(encoder: Encoder, held_out: Callable[..., Any]) -> None:
    before = weights(encoder)
    held_out(encoder)
    assert equal(weights(encoder), before) and all(p.grad is None for p in encoder.tensors().values())


def test_training_goes_on_after_it(encoder: Encoder, notes: NoteStore, held_out: Callable[..., Any]) -> None:
    held_out(encoder)
    objective = Mlm(STUDY, MlmPlan(), encoder.tokenizer)
    train(encoder, objective, notes, PLAN, key=KEY, first_step=0, steps=1, total_steps=8)


def test_no_dev_notes_no_loss(encoder: Encoder, notes: NoteStore, held_out: Callable[..., Any]) -> None:
    found = held_out(encoder, store=notes.view(notes.split_indices("train")))
    assert math.isnan(found.loss) and (found.notes, found.tokens, found.parts) == (0, 0, {})
