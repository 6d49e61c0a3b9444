"""Masked language modelling: METHOD section 1.2, counted on large samples and held against transformers."""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from client.notes.store import NoteStore
from client.objectives import Batch, TokenisedNote, make_objective
from client.objectives.mlm import Mlm
from common.encoder import Encoder, load_encoder
from common.plan import StudyPlan
from common.plan_sections import EncoderPlan, Study
from common.plan_sections import Mlm as MlmPlan

MAX = 32


def study(max_length: int = MAX) -> StudyPlan:
    return StudyPlan(study=Study(name="test"), encoder=EncoderPlan(max_length=max_length))


@pytest.fixture
def mlm(encoder: Encoder) -> Callable[..., Mlm]:
    return lambda max_length=MAX, **plan: Mlm(study(max_length), MlmPlan(**plan), encoder.tokenizer)


def note(n: int, start: int = 5, words: int = 1) -> TokenisedNote:
    """A note of n different tokens (from id 5, the first after the special ones); every `words`-th starts a word."""
    return TokenisedNote(np.arange(start, start + n), np.arange(n) % words == 0)


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(a.tensors[k], b.tensors[k]) for k in a.tensors)


def original(batch: Batch) -> np.ndarray:
    """The ids before they were masked, [B, T]."""
    ids = batch.tensors["input_ids"].clone()
    ids.view(-1)[batch.tensors["positions"]] = batch.tensors["targets"]
    return ids.numpy()


def within(count: int, n: int, p: float) -> bool:
    """Whether a count lies within five standard deviations of a binomial."""
    return abs(count - n * p) < 5 * math.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("p", [0.15, 0.4])
def test_rates(mlm: Callable[..., Mlm], encoder: Encoder, p: float) -> None:
    objective, vocabulary = mlm(402, mask_probability=p), len(encoder.tokenizer)
    n, chosen, masked, kept, random = 0, 0, 0, 0, []
    for draw in range(40):
        batch = objective.collate([note(300, start=6) for _ in range(25)], np.random.default_rng(draw))
        t = batch.tensors
        now = t["input_ids"].view(-1)[t["positions"]].numpy()
        was = t["targets"].numpy()
        n, chosen = n + 25 * 300, chosen + len(was)
        masked += int((now == encoder.tokenizer.mask_token_id).sum())
        kept += int((now == was).sum())
        random += now[(now != was) & (now != encoder.tokenizer.mask_token_id)].tolist()
    assert within(chosen, n, p)
    # A random token is the same or the mask itself once in a vocabulary.
    assert within(masked, chosen, 0.8 + 0.1 / vocabulary)
    assert within(kept, chosen, 0.1 + 0.1 / vocabulary)
    assert within(len(random), chosen, 0.1 * (1 - 2 / vocabulary))
    counts = np.bincount(random, minlength=vocabulary)
    assert len(counts) == vocabulary and counts[[5, 50, vocabulary - 1]].min() > 0
    assert abs(np.mean(random) - vocabulary / 2) < 5 * vocabulary / math.sqrt(12 * len(random))


def test_only_real_tokens_are_chosen_and_all_of_them_can_be(mlm: Callable[..., Mlm], encoder: Encoder) -> None:
    some = [note(3), note(10), note(1), note(MAX - 2)]
    seen = set()
    for draw in range(300):
        batch = mlm(mask_probability=0.5).collate(some, np.random.default_rng(draw))
        width = batch.tensors["input_ids"].shape[1]
        seen |= {divmod(int(place), width) for place in batch.tensors["positions"]}
    assert seen == {(row, 1 + t) for row, one in enumerate(some) for t in range(len(one.ids))}


def test_a_batch_is_the_notes_between_special_tokens(mlm: Callable[..., Mlm], encoder: Encoder) -> None:
    tokenizer, some = encoder.tokenizer, [note(3), note(7, start=20)]
    batch = mlm(mask_probability=0.5).collate(some, np.random.default_rng(2))
    expected = np.full((2, 9), tokenizer.pad_token_id)
    for row, one in enumerate(some):
        expected[row, : len(one.ids) + 2] = [tokenizer.cls_token_id, *one.ids, tokenizer.sep_token_id]
    assert np.array_equal(original(batch), expected)
    assert batch.tensors["attention_mask"].sum(1).tolist() == [5, 9] and batch.tokens == 14
    assert (batch.tensors["input_ids"][0, 5:] == tokenizer.pad_token_id).all()
    places = batch.tensors["positions"].tolist()
    assert places == sorted(set(places)) and len(places) == len(batch.tensors["targets"])


def test_what_is_not_chosen_is_not_touched(mlm: Callable[..., Mlm]) -> None:
    batch = mlm(202).collate([note(200)], np.random.default_rng(0))
    untouched = np.setdiff1d(np.arange(1, 201), batch.tensors["positions"].numpy())
    assert np.array_equal(batch.tensors["input_ids"][0, untouched].numpy(), np.arange(5, 205)[untouched - 1])


@pytest.mark.parametrize("whole_word", [False, True])
def test_masks_are_drawn_anew_and_from_the_generator_alone(mlm: Callable[..., Mlm], whole_word: bool) -> None:
    objective, some = mlm(whole_word=whole_word), [note(60, words=3), note(20)]
    one, again, other = (objective.collate(some, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert same(one, again)
    assert one.tensors["positions"].tolist() != other.tensors["positions"].tolist()
    rng = np.random.default_rng(1)
    assert not same(objective.collate(some, rng), objective.collate(some, rng))


def test_notes_are_not_changed(mlm: Callable[..., Mlm]) -> None:
    one = note(20)
    one.ids.setflags(write=False)
    mlm().collate([one], np.random.default_rng(0))
    assert np.array_equal(one.ids, np.arange(5, 25))


def test_whole_words_are_chosen_whole(mlm: Callable[..., Mlm]) -> None:
    objective = mlm(302, whole_word=True, mask_probability=0.15)
    words = chosen = 0
    for draw in range(200):
        batch = objective.collate([note(300, words=4)], np.random.default_rng(draw))
        mask = np.zeros(300, dtype=bool)
        mask[batch.tensors["positions"].numpy() - 1] = True
        whole = mask.reshape(75, 4)
        assert (whole.all(1) == whole.any(1)).all()
        words, chosen = words + 75, chosen + int(whole.all(1).sum())
    assert within(chosen, words, 0.15)


def test_a_window_that_begins_inside_a_word_has_its_tail(mlm: Callable[..., Mlm]) -> None:
    one = TokenisedNote(np.arange(5, 35), np.array(([False] * 4 + [True]) * 6))
    seen = set()
    for draw in range(300):
        batch = mlm(whole_word=True, mask_probability=0.4).collate([one], np.random.default_rng(draw))
        mask = np.zeros(30, dtype=bool)
        mask[batch.tensors["positions"].numpy() - 1] = True
        if mask.sum() > 1:
            assert (
                mask[:4].all() == mask[:4].any()
                and (mask[4:29].reshape(5, 5).all(1) == mask[4:29].reshape(5, 5).any(1)).all()
            )
        seen |= set(np.flatnonzero(mask).tolist())
    assert seen == set(range(30))


def test_windows_cover_a_long_note(mlm: Callable[..., Mlm]) -> None:
    long, room, seen = note(90), MAX - 2, []
    for draw in range(2000):
        row = original(mlm().collate([long], np.random.default_rng(draw)))[0]
        assert len(row) == MAX and (np.diff(row[1:-1]) == 1).all()
        seen.append(int(row[1]) - 5)
    assert set(seen) == set(range(90 - room + 1))
    assert abs(np.mean(seen) - (90 - room) / 2) < 5 * 61 / math.sqrt(12 * 2000)


@pytest.mark.parametrize("n", [29, 30, 31, 90])
def test_cut_gives_the_start(mlm: Callable[..., Mlm], n: int) -> None:
    for draw in range(5):
        row = original(mlm().collate([note(n)], np.random.default_rng(draw), cut=True))[0]
        assert row[1:-1].tolist() == list(range(5, 5 + min(n, 30)))


@pytest.mark.parametrize("whole_word", [False, True])
def test_notes_of_one_token_give_a_term(mlm: Callable[..., Mlm], encoder: Encoder, whole_word: bool) -> None:
    for draw in range(30):
        batch = mlm(whole_word=whole_word).collate([note(1), note(1)], np.random.default_rng(draw))
        assert 1 <= len(batch.tensors["targets"]) <= 2 and (original(batch)[:, 1] == 5).all()
        loss = mlm().loss(encoder, batch)
        assert loss.terms == len(batch.tensors["targets"]) and loss.mean.isfinite() and loss.parts == {}


@pytest.mark.parametrize("whole_word", [False, True])
def test_the_loss_is_that_of_transformers(
    bases: dict[str, str], stores: dict[str, NoteStore], family: str, whole_word: bool
) -> None:
    encoder = load_encoder(bases[family])
    encoder.model.eval()
    objective = Mlm(study(), MlmPlan(whole_word=whole_word, mask_probability=0.3), encoder.tokenizer)
    notes = [objective.read(stores[family], i) for i in range(6)] + [
        TokenisedNote(np.array([9, 10]), np.array([True, True]))
    ]
    batch = objective.collate(notes, np.random.default_rng(0))
    t = batch.tensors
    labels = torch.full_like(t["input_ids"], -100)
    labels.view(-1)[t["positions"]] = t["targets"]
    with torch.no_grad():
        loss = objective.loss(encoder, batch)
        theirs = encoder.model(input_ids=t["input_ids"], attention_mask=t["attention_mask"], labels=labels).loss
    assert loss.terms == int((labels != -100).sum()) > 20
    assert abs(float(loss.mean) - float(theirs)) < 1e-5


def test_the_gradient_is_that_of_transformers(encoder: Encoder, stores: dict[str, NoteStore]) -> None:
    encoder.model.eval()
    objective = Mlm(study(), MlmPlan(), encoder.tokenizer)
    batch = objective.collate([objective.read(stores["bert"], i) for i in range(6)], np.random.default_rng(0))
    t = batch.tensors
    labels = torch.full_like(t["input_ids"], -100)
    labels.view(-1)[t["positions"]] = t["targets"]
    returned = objective.backward(encoder, batch, contextlib.nullcontext)
    assert returned.mean.isfinite() and returned.terms == len(t["targets"])
    ours = {n: p.grad.clone() for n, p in encoder.tensors().items() if p.grad is not None}
    encoder.model.zero_grad()
    encoder.model(input_ids=t["input_ids"], attention_mask=t["attention_mask"], labels=labels).loss.backward()
    for name, p in encoder.tensors().items():
        torch.testing.assert_close(ours[name], p.grad, atol=1e-6, rtol=1e-4)


def test_the_notes_of_a_site_start_and_end_as_the_tokeniser_does(
    bases: dict[str, str], stores: dict[str, NoteStore], family: str
) -> None:
    encoder, store = load_encoder(bases[family]), stores[family]
    objective = Mlm(study(), MlmPlan(), encoder.tokenizer)
    for i in range(4):
        row = original(objective.collate([objective.read(store, i)], np.random.default_rng(0), cut=True))[0]
        whole = encoder.tokenizer(store.text(i), truncation=True, max_length=MAX)["input_ids"]
        assert row.tolist() == whole


def test_the_plan_chooses_the_objective(
    make_plan: Callable[..., StudyPlan], encoder: Encoder, notes: NoteStore
) -> None:
    settings: dict[str, Any] = {"whole_word": True, "mask_probability": 0.2}
    objective = make_objective(make_plan(objective=settings, encoder={"max_length": 40}), encoder.tokenizer, notes)
    assert isinstance(objective, Mlm) and objective.max_length == 40
    assert (objective.plan.whole_word, objective.plan.mask_probability) == (True, 0.2)
