"""Every objective on every family: one step with real notes reaches every weight that it should."""

import functools
from typing import Any

import numpy as np
import pytest
import torch
from objective_helpers import study

from client.device import autocast
from client.notes.store import NoteStore
from client.objectives import make_objective
from client.training import train
from common.encoder import Encoder, load_encoder

CPU = torch.device("cpu")
CASES: dict[str, dict[str, Any]] = {
    "declutr": {"kind": "declutr", "max_span": 30},
    "declutr, plain anchors": {"kind": "declutr", "max_span": 30, "masked": False},
    "declutr, cached": {"kind": "declutr", "max_span": 30, "spans_at_once": 5},
    "declutr, contrastive alone": {"kind": "declutr", "max_span": 30, "mlm_weight": 0.0, "spans_at_once": 5},
    "declutr, MLM alone": {"kind": "declutr", "max_span": 30, "contrastive_weight": 0.0},
    "linear": {"kind": "note-category"},
    "contrastive": {"kind": "note-category", "loss": "contrastive", "masked": False},
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES)
def test_a_step_gives_every_weight_a_gradient(
    family: str, bases: dict[str, str], stores: dict[str, NoteStore], case: str, precision: str
) -> None:
    encoder, notes = load_encoder(bases[family]), stores[family]
    objective = make_objective(study(CASES[case]), encoder.tokenizer, notes)
    objective.attach(encoder)
    encoder.model.train()
    some = [objective.read(notes, i) for i in notes.split_indices("train")[:6]]
    batch = objective.collate(some, np.random.default_rng(0))
    loss = objective.backward(encoder, batch, functools.partial(autocast, CPU, precision))
    assert loss.mean.isfinite() and all(total.isfinite() for total, _ in loss.parts.values())
    body = encoder.shared("encoder")
    for name, p in encoder.tensors().items():
        if case == "declutr, contrastive alone" and name not in body:
            assert p.grad is None, name  # the MLM head
        else:
            assert p.grad is not None and p.grad.isfinite().all() and p.grad.any(), name


@pytest.mark.parametrize(
    ("case", "part"), [("declutr", "contrastive"), ("linear", "category"), ("contrastive", "category")]
)
def test_training_makes_the_loss_of_the_objective_fall(
    encoder: Encoder, notes: NoteStore, case: str, part: str
) -> None:
    """On eight notes of two categories, that it may learn by heart."""
    settings = {"batch_size": 8, "learning_rate": 2e-3, "schedule": "constant", "precision": "float32"}
    plan = study(CASES[case] | ({"weight": 3.0} if part == "category" else {}), settings, max_length=64)
    categories = notes.column("category")
    nursing, letters = ([i for i in notes.split_indices("train") if categories[i] == n] for n in ("nursing", "letter"))
    few = notes.view([*nursing[:4], *letters[:4]])
    objective = make_objective(plan, encoder.tokenizer, few)
    objective.attach(encoder)
    run = functools.partial(train, encoder, objective, few, plan.training, key=(1, 2), total_steps=40)
    first, _, last = (run(first_step=step, steps=steps).parts[part] for step, steps in ((0, 5), (5, 30), (35, 5)))
    assert last < 0.75 * first


def test_a_round_is_repeated_by_its_key(encoder: Encoder, notes: NoteStore, bases: dict[str, str]) -> None:
    """With gradient caching, too, which throws the dice of a step twice."""
    plan = study(CASES["declutr, cached"], {"batch_size": 4, "precision": "float32"})
    other = load_encoder(bases["bert"])
    rounds = []
    for one in (encoder, other):
        objective = make_objective(plan, one.tokenizer, notes)
        state = torch.get_rng_state()
        rounds.append(train(one, objective, notes, plan.training, key=(1, 2), first_step=3, steps=2, total_steps=9))
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(77)
    assert rounds[0] == rounds[1]
    assert all(torch.equal(p, other.tensors()[name]) for name, p in encoder.tensors().items())
