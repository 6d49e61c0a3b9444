"""DeCLUTR: the batch holds the spans that were sampled, and the loss is that of spans read one at a time."""

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from objective_helpers import (
    alone,
    declutr,
    furthest,
    gradients,
    note,
    rows_of,
    sampled,
    simple_nt_xent,
    some_notes,
)
from torch.nn import functional

from client.batching import Batches
from client.notes.store import NoteStore
from client.objectives import Batch, Loss, TokenisedNote
from client.objectives.declutr import Declutr
from client.training import held_out_loss, train
from common.encoder import Encoder
from common.plan_sections import Training

# Which losses there are, and whether anchors are compared as masked: how often an anchor and a positive are read.
MODES = [
    ({}, 1, 1),
    ({"masked": False}, 2, 1),
    ({"contrastive_weight": 0.0}, 1, 0),
    ({"contrastive_weight": 0.0, "masked": False}, 1, 0),
    ({"mlm_weight": 0.0}, 1, 1),
    ({"mlm_weight": 0.0, "masked": False}, 1, 1),
    ({"contrastive_weight": 0.5, "mlm_weight": 2.0, "anchors": 1, "positives": 3, "temperature": 0.2}, 1, 1),
    ({"sampling": "adjacent", "positives": 1}, 1, 1),
    ({"sampling": "subsuming", "anchors": 2, "masked": False}, 2, 1),
]


@pytest.mark.parametrize(("settings", "readings", "read"), MODES, ids=str)
def test_a_batch_holds_the_spans_that_were_sampled(
    encoder: Encoder, settings: dict[str, Any], readings: int, read: int
) -> None:
    objective, notes = declutr(encoder, **settings), some_notes()
    batch = objective.collate(notes, np.random.default_rng(3))
    anchors, positives = sampled(objective, notes, 3)
    expected = [*anchors * readings, *positives * read]
    rows = rows_of(batch)
    assert len(rows) == len(expected)
    for row, span in zip(rows, expected, strict=True):
        assert row.tolist() == span.tolist()
    t = batch.tensors
    assert t["width"].tolist() == sorted((len(span) + 2 for span in expected), reverse=True)
    assert batch.tokens == int(t["attention_mask"].sum()) == sum(len(span) + 2 for span in expected)
    for ids, mask in zip(t["input_ids"].tolist(), t["attention_mask"].tolist(), strict=True):
        width = sum(mask)
        assert mask == [1] * width + [0] * (len(mask) - width)
        assert ids[0] == encoder.tokenizer.cls_token_id and ids[width - 1] == encoder.tokenizer.sep_token_id
        assert set(ids[width:]) <= {encoder.tokenizer.pad_token_id}


@pytest.mark.parametrize(("settings", "readings", "read"), MODES, ids=str)
def test_only_anchors_are_masked_and_only_for_mlm(
    encoder: Encoder, settings: dict[str, Any], readings: int, read: int
) -> None:
    objective, notes = declutr(encoder, **settings, mask_probability=0.5), some_notes()
    batch = objective.collate(notes, np.random.default_rng(3))
    anchors, _ = sampled(objective, notes, 3)
    m = len(anchors) if objective.plan.mlm_weight else 0
    t = batch.tensors
    assert set(t["row"].tolist()) <= set(t["place"][:m].tolist()) and t["row"].tolist() == sorted(t["row"].tolist())
    assert len(t["targets"]) == len(t["row"]) == len(t["column"]) and (len(t["targets"]) > 0) == (m > 0)
    assert len(set(zip(t["row"].tolist(), t["column"].tolist(), strict=True))) == len(t["row"])
    changed = [
        number
        for number, (now, was) in enumerate(zip(rows_of(batch, unmask=False), rows_of(batch), strict=True))
        if not np.array_equal(now, was)
    ]
    assert (len(changed) > m / 2 if m else not changed) and all(number < m for number in changed)


@pytest.mark.parametrize(("settings", "readings", "read"), MODES, ids=str)
def test_loss_and_gradient_are_those_of_spans_read_one_at_a_time(
    still: Encoder, settings: dict[str, Any], readings: int, read: int
) -> None:
    """Every span by itself, unpadded; the losses written out."""
    objective = declutr(still, **settings, mask_probability=0.3)
    plan, notes = objective.plan, [*some_notes(), note(40, 9, patient="p"), note(41, 8, patient="p")]
    batch = objective.collate(notes, np.random.default_rng(3))
    apart = torch.ones(len(notes), len(notes), dtype=torch.bool)
    apart[6, 7] = apart[7, 6] = False
    apart = apart.repeat_interleave(plan.anchors, 0).repeat_interleave(plan.anchors, 1)
    m = len(apart)

    as_read = rows_of(batch, unmask=False)
    states = [alone(still, row) for row in as_read]
    loss, parts = torch.zeros(()), {}
    if plan.mlm_weight:
        t = batch.tensors
        number = {int(place): row for row, place in enumerate(t["place"])}
        chosen = [states[number[int(r)]][c] for r, c in zip(t["row"], t["column"], strict=True)]
        mlm = functional.cross_entropy(still.mlm_logits(torch.stack(chosen)), t["targets"])
        loss, parts["mlm"] = loss + plan.mlm_weight * mlm, (mlm * len(chosen), len(chosen))
    if plan.contrastive_weight:
        pooled = torch.stack([one.mean(0) for one in states])
        first = m if readings == 2 else 0
        positives = pooled[first + m :].view(m, plan.positives, -1).mean(1)
        contrast = simple_nt_xent(pooled[first : first + m], positives, plan.temperature, apart)
        loss, parts["contrastive"] = loss + plan.contrastive_weight * contrast, (contrast * m, m)
    loss.backward()
    expected = gradients(still)

    found = objective.backward(still, batch, contextlib.nullcontext)
    assert float(found.mean.detach()) == pytest.approx(float(loss.detach()), abs=1e-5) and found.terms == m
    assert {k: (pytest.approx(float(v.detach()), rel=1e-5), n) for k, (v, n) in parts.items()} == {
        k: (float(v), n) for k, (v, n) in found.parts.items()
    }
    assert furthest(gradients(still), expected) < 1e-5 < max(float(g.abs().max()) for g in expected.values())


def test_related_notes_are_no_negatives_but_anchors_of_one_note_are(encoder: Encoder) -> None:
    notes = [
        note(40, 0, patient="a", group=-1),
        note(40, 1, patient="b", group=4),
        note(40, 2, patient="a", group=5),
        note(40, 3, patient=None, group=4),
        note(40, 4, patient=None, group=-1),
    ]
    apart = declutr(encoder).collate(notes, np.random.default_rng(0)).tensors["apart"]
    related = {(0, 2), (2, 0), (1, 3), (3, 1)}
    for i in range(10):
        for j in range(10):
            assert bool(apart[i, j]) == ((i // 2, j // 2) not in related), (i, j)


@pytest.mark.parametrize("related_negatives", [False, True])
def test_who_is_related_is_read_from_the_notes(encoder: Encoder, notes: NoteStore, related_negatives: bool) -> None:
    objective = declutr(encoder, related_negatives=related_negatives)
    index = int(np.flatnonzero(notes.column("group") >= 0)[0])
    one = objective.read(notes, index)
    assert one.ids.tolist() == notes.tokens(index).tolist()
    if related_negatives:
        assert (one.patient, one.group) == (None, -1)
    else:
        assert (one.patient, one.group) == (notes.column("patient")[index], notes.column("group")[index])
        assert one.patient is not None


def test_related_negatives_change_the_loss(still: Encoder) -> None:
    batch = declutr(still, contrastive_weight=1.0, mlm_weight=0.0).collate(
        [note(40, seed, patient="p") for seed in range(4)], np.random.default_rng(0)
    )
    objective = declutr(still, mlm_weight=0.0, temperature=1.0)
    near = float(objective.loss(still, batch).mean.detach())
    every = Batch(batch.tensors | {"apart": torch.ones_like(batch.tensors["apart"])}, batch.tokens)
    assert near < float(objective.loss(still, every).mean.detach()) - 0.5


def test_the_encoder_reads_what_is_counted(still: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = declutr(still, masked=False)
    batch = objective.collate(some_notes(), np.random.default_rng(0))
    read: list[tuple[int, int]] = []
    hidden = Encoder.hidden

    def spy(self: Encoder, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        read.append((int(mask.sum()), mask.numel()))
        return hidden(self, ids, mask)

    monkeypatch.setattr(Encoder, "hidden", spy)
    objective.loss(still, batch)
    assert sum(tokens for tokens, _ in read) == batch.tokens
    # Read in pieces, less is padded than in one.
    assert sum(places for _, places in read) < 0.8 * batch.tensors["input_ids"].numel()


def _batches(
    encoder: Encoder, notes: NoteStore, monkeypatch: pytest.MonkeyPatch, first: int, steps: int, **settings: Any
) -> list[Batch]:
    """What a site trains on in some steps."""
    seen: list[Batch] = []
    backward = Declutr.backward

    def spy(self: Declutr, encoder: Encoder, batch: Batch, compute: Callable[..., Any]) -> Loss:
        seen.append(batch)
        return backward(self, encoder, batch, compute)

    monkeypatch.setattr(Declutr, "backward", spy)
    training = Training(batch_size=3, precision="float32")
    train(
        encoder, declutr(encoder, **settings), notes, training, key=(1, 2), first_step=first, steps=steps, total_steps=9
    )
    return seen


def test_every_epoch_has_other_spans_and_all_are_runs_of_the_notes_tokens(
    encoder: Encoder, notes: NoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same three notes at every step: METHOD section 5, defects 15 and 20."""
    three = notes.view(notes.split_indices("train")[:3])
    first, second, third = _batches(encoder, three, monkeypatch, first=0, steps=3)
    spans = [{tuple(row.tolist()) for row in rows_of(batch)} for batch in (first, second, third)]
    # Of short spans, one may come again by chance.
    assert all(len(a & b) <= 2 < 15 < len(a) for a, b in itertools.combinations(spans, 2))
    texts = [" ".join(map(str, three.tokens(i))) for i in range(3)]
    for span in spans[0] | spans[1] | spans[2]:
        assert any(" ".join(map(str, span)) in text for text in texts)
    (again,) = _batches(encoder, three, monkeypatch, first=1, steps=1)
    assert all(torch.equal(again.tensors[name], second.tensors[name]) for name in second.tensors)


def test_notes_that_are_too_short_are_left_out(encoder: Encoder, notes: NoteStore) -> None:
    objective = declutr(encoder, anchors=4, min_span=30, max_span=30)  # 240 tokens or more
    short = notes.lengths < 240
    assert objective.usage(notes.lengths).used.tolist() == (~short).tolist() and short.any()
    found = held_out_loss(encoder, objective, notes, Training(), key=(1, 2), most_notes=1000)
    dev = notes.split_indices("dev")
    assert found.notes == int((~short[dev]).sum()) < len(dev)
    assert set(found.parts) == {"contrastive", "mlm"} and np.isfinite(found.loss)


def test_the_held_out_loss_is_the_same_whenever_it_is_asked(encoder: Encoder, notes: NoteStore) -> None:
    objective = declutr(encoder)
    found = [held_out_loss(encoder, objective, notes, Training(), key=(1, 2), most_notes=40) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0].loss == pytest.approx(sum(found[0].parts.values()), rel=1e-5)


def test_a_batch_mixes_notes_of_all_lengths(encoder: Encoder, notes: NoteStore) -> None:
    """A batch of one length may be of one kind, and its spans no hard negatives."""
    rows = notes.split_indices("train")
    batches = declutr(encoder).batches(notes, rows, 8, (1, 2, 3))
    spread = [np.ptp(notes.lengths[rows[batches.at(step)]]) for step in range(batches.per_epoch - 1)]
    by_length = Batches(notes.lengths[rows], 8, (1, 2, 3))
    sorted_ = [np.ptp(notes.lengths[rows[by_length.at(step)]]) for step in range(batches.per_epoch - 1)]
    assert np.mean(spread) > 3 * np.mean(sorted_)
    taken = np.concatenate([batches.at(step) for step in range(batches.per_epoch)])
    assert sorted(taken.tolist()) == list(range(len(rows)))


def test_a_note_of_the_fewest_tokens_and_a_batch_of_one(still: Encoder) -> None:
    """One anchor alone has nothing to be pushed from: no contrastive loss, and no NaN."""
    objective = declutr(still, anchors=1, min_span=2, max_span=2)
    batch = objective.collate([TokenisedNote(np.arange(5, 9), np.ones(4, dtype=bool))], np.random.default_rng(0))
    found = objective.backward(still, batch, contextlib.nullcontext)
    assert float(found.parts["contrastive"][0]) == 0 and found.mean.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(still).values())
