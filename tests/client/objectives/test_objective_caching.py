"""Gradient caching: pieces of a batch read twice give the loss and the gradient of the batch read once."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from objective_helpers import declutr, furthest, gradients, some_notes

import client.objectives.declutr
from client.device import autocast
from client.objectives import Loss
from common.encoder import Encoder, load_encoder

CPU = torch.device("cpu")
MODES = [
    {},
    {"masked": False},
    {"contrastive_weight": 0.0},
    {"mlm_weight": 0.0},
    {"contrastive_weight": 0.3, "mlm_weight": 2.0, "anchors": 1, "positives": 3},
]


def step(encoder: Encoder, seed: int = 0, precision: str = "float32", **settings: Any) -> Loss:
    """One backward pass on the same batch, its dropout drawn from a seed."""
    objective = declutr(encoder, mask_probability=0.3, **settings)
    batch = objective.collate(some_notes(), np.random.default_rng(3))
    encoder.model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return objective.backward(encoder, batch, functools.partial(autocast, CPU, precision))


def same_loss(a: Loss, b: Loss, tolerance: float) -> bool:
    numbers = [
        [float(loss.mean.detach()), *(float(total) / count for total, count in loss.parts.values())] for loss in (a, b)
    ]
    return a.parts.keys() == b.parts.keys() and a.terms == b.terms and np.allclose(*numbers, atol=tolerance, rtol=0)


@pytest.mark.parametrize("settings", MODES, ids=str)
@pytest.mark.parametrize("at_once", [1, 3, 7])
def test_it_is_the_plain_loss_and_gradient(still: Encoder, settings: dict[str, Any], at_once: int) -> None:
    plain = step(still, **settings)
    expected = gradients(still)
    cached = step(still, spans_at_once=at_once, **settings)
    assert same_loss(plain, cached, 1e-5)
    assert furthest(gradients(still), expected) < 1e-5 < max(float(g.abs().max()) for g in expected.values())


@pytest.mark.parametrize("at_once", [1, 3, 7])
def test_with_dropout_it_is_the_gradient_of_the_same_dropout(
    family: str, bases: dict[str, str], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plain loss, read in the same pieces, draws the same dropout: then the second reading must have drawn what
    the first one did. Another seed tells that dropout matters."""
    encoder = load_encoder(bases[family])
    rows = 36  # of six notes: two anchors, four positives
    cached = step(encoder, spans_at_once=at_once)
    found = gradients(encoder)
    monkeypatch.setattr(client.objectives.declutr, "_PIECES", -(-rows // at_once))
    plain = step(encoder)
    assert same_loss(cached, plain, 1e-5)
    assert furthest(gradients(encoder), found) < 1e-5
    other = step(encoder, seed=1)
    assert not same_loss(other, plain, 1e-3) and furthest(gradients(encoder), found) > 1e-3


def test_memory_is_that_of_the_spans_at_once(still: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """No reading has more rows than were allowed; each piece is read once without a gradient and once with."""
    read: list[tuple[int, bool]] = []
    hidden = Encoder.hidden

    def spy(self: Encoder, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        read.append((len(ids), torch.is_grad_enabled()))
        return hidden(self, ids, mask)

    monkeypatch.setattr(Encoder, "hidden", spy)
    step(still, spans_at_once=7)
    sizes = [rows for rows, _ in read]
    assert max(sizes) <= 7 and sum(sizes) == 2 * 36
    assert [with_gradient for _, with_gradient in read] == [False] * (len(read) // 2) + [True] * (len(read) // 2)
    read.clear()
    step(still, spans_at_once=7, contrastive_weight=0.0)
    assert sum(rows for rows, _ in read) == 12 and all(with_gradient for _, with_gradient in read)
    read.clear()
    step(still, spans_at_once=36)
    assert sum(rows for rows, _ in read) == 36


@pytest.mark.parametrize("at_once", [1, 7])
def test_in_bfloat16_every_weight_has_its_gradient(
    family: str, make_base: Callable[..., Path], tmp_path: Path, at_once: int
) -> None:
    """Autocast may keep the weights that it cast without a gradient; used again, they would give the encoder none."""
    encoder = load_encoder(str(make_base(tmp_path / "base", family, dropout=0.0)))
    exact = step(encoder, temperature=0.5)
    expected = gradients(encoder)
    low = step(encoder, precision="bfloat16", temperature=0.5, spans_at_once=at_once)
    found = gradients(encoder)
    assert same_loss(low, exact, 0.05)
    matrices = [name for name, gradient in expected.items() if gradient.ndim > 1 and gradient.any()]
    assert len(matrices) > 8
    for name in matrices:
        assert float(torch.cosine_similarity(expected[name].ravel(), found[name].ravel(), dim=0)) > 0.9, name


def test_a_gradient_is_added_to_what_is_there(still: Encoder) -> None:
    step(still, spans_at_once=3)
    once = gradients(still)
    step(still, spans_at_once=3)
    step(still, spans_at_once=3)
    twice = gradients(still)
    assert furthest(twice, {name: 2 * gradient for name, gradient in once.items()}) < 1e-5


def test_what_it_returns_holds_no_graph(still: Encoder) -> None:
    loss = step(still, spans_at_once=3)
    assert not loss.mean.requires_grad and not any(total.requires_grad for total, _ in loss.parts.values())
