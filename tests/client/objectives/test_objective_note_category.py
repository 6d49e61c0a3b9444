"""Note category: its two losses against other people's, which notes have a class, and headings that give it away."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from objective_helpers import alone, furthest, gradients, note, note_category, study
from sklearn.metrics import log_loss

from client.batching import PairedBatches
from client.notes.source import NotesSource
from client.notes.store import NoteStore, prepare
from client.objectives import Batch, TokenisedNote, make_objective
from client.objectives.note_category import heading_pattern, site_categories
from common.encoder import Encoder
from common.errors import InputError
from common.plan_sections import NoteCategory as NoteCategoryPlan

NAMES = ["emergency", "nursing", "radiology"]
Prepare = Callable[..., NoteStore]


@pytest.fixture
def store(encoder: Encoder, tmp_path: Path) -> Prepare:
    """Notes from rows of (text, category, split)."""

    def make(*rows: tuple[str, str, str]) -> NoteStore:
        lines = [json.dumps(dict(zip(("text", "category", "split"), row, strict=True))) + "\n" for row in rows]
        (tmp_path / "notes.jsonl").write_text("".join(lines))
        return prepare(NotesSource(source=str(tmp_path / "notes.jsonl")), encoder.tokenizer, b"key", tmp_path / "cache")

    return make


@pytest.fixture
def of_categories(store: Prepare, texts: list[str]) -> Callable[..., NoteStore]:
    """Notes for training, of such categories; a few of "d" and "e" that are not."""

    def make(categories: str) -> NoteStore:
        others = [("d", "dev"), ("d", "dev"), ("d", "test"), ("e", "test"), ("e", "test")]
        given = [(name.strip(), "train") for name in categories] + others
        return store(*((texts[5 * i], *row) for i, row in enumerate(given)))

    return make


def some(categories: list[str | None]) -> list[TokenisedNote]:
    return [note(10 + 7 * seed % 40, seed, category=name) for seed, name in enumerate(categories)]


def pooled(encoder: Encoder, ids: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The embedding of each row, read by itself."""
    lengths = batch.tensors["attention_mask"].sum(1)
    rows = [row[1 : n - 1].numpy() for row, n in zip(ids, lengths, strict=True)]
    return torch.stack([alone(encoder, row).mean(0) for row in rows])


def theirs_mlm(encoder: Encoder, batch: Batch) -> torch.Tensor:
    t = batch.tensors
    labels = torch.full_like(t["input_ids"], -100)
    labels.view(-1)[t["positions"]] = t["targets"]
    return encoder.model(input_ids=t["input_ids"], attention_mask=t["attention_mask"], labels=labels).loss


KINDS: list[str | None] = ["nursing", None, "radiology", "nursing", "letter", "emergency", "radiology", "nursing"]
KNOWN = [0, 2, 3, 5, 6, 7]
CODES = [1, 2, 1, 0, 2, 1]


@pytest.mark.parametrize("masked", [True, False])
def test_the_linear_loss_is_the_log_loss(still: Encoder, masked: bool) -> None:
    """Notes without a category, or of one that is not in the list, count for MLM alone."""
    objective = note_category(still, NAMES, masked=masked, weight=0.3)
    assert still.category_head is not None
    with torch.no_grad():
        still.category_head.weight.normal_(), still.category_head.bias.normal_()
    batch = objective.collate(some(KINDS), np.random.default_rng(0))
    ids = batch.tensors["input_ids" if masked else "plain_ids"]
    with torch.no_grad():
        found = objective.loss(still, batch)
        mlm = float(theirs_mlm(still, batch))
        logits = still.category_head(pooled(still, ids, batch)[KNOWN])
    expected = log_loss(CODES, logits.double().softmax(1).numpy(), labels=range(3))
    assert {name: (float(total) / n, n) for name, (total, n) in found.parts.items()} == {
        "mlm": (pytest.approx(mlm, abs=1e-5), len(batch.tensors["targets"])),
        "category": (pytest.approx(expected, abs=1e-5), 6),
    }
    assert float(found.mean) == pytest.approx(mlm + 0.3 * expected, abs=1e-5) and found.terms == 8


@pytest.mark.parametrize("masked", [True, False])
def test_the_contrastive_loss_is_its_formula(still: Encoder, masked: bool) -> None:
    objective = note_category(still, NAMES, masked=masked, loss="contrastive", temperature=0.2, weight=2.0)
    assert still.category_head is None
    batch = objective.collate(some(KINDS), np.random.default_rng(0))
    with torch.no_grad():
        found = objective.loss(still, batch)
        z = pooled(still, batch.tensors["input_ids" if masked else "plain_ids"], batch)[KNOWN]
        mlm = float(theirs_mlm(still, batch))
    z = z / z.norm(dim=1, keepdim=True)
    similar = (z @ z.T / 0.2).double().numpy()
    losses = []
    for i in range(6):
        positives = [p for p in range(6) if p != i and CODES[p] == CODES[i]]
        below = np.log(sum(np.exp(similar[i, a]) for a in range(6) if a != i))
        losses += [np.mean([below - similar[i, p] for p in positives])] if positives else []
    assert len(losses) == 5  # the one emergency has no partner
    assert float(found.parts["category"][0]) == pytest.approx(sum(losses), abs=1e-4) and found.parts["category"][1] == 5
    assert float(found.mean) == pytest.approx(mlm + 2.0 * np.mean(losses), abs=1e-4)


@pytest.mark.parametrize("loss", ["linear", "contrastive"])
@pytest.mark.parametrize("kinds", [[None, None, None], ["letter", None, "other"]])
def test_a_batch_without_categories_is_mlm(still: Encoder, loss: str, kinds: list[str | None]) -> None:
    objective = note_category(still, NAMES, loss=loss)
    batch = objective.collate(some(kinds), np.random.default_rng(0))
    found = objective.backward(still, batch, contextlib.nullcontext)
    ours = gradients(still)
    theirs = theirs_mlm(still, batch)
    theirs.backward()
    assert list(found.parts) == ["mlm"] and float(found.mean.detach()) == pytest.approx(
        float(theirs.detach()), abs=1e-6
    )
    assert furthest(ours, gradients(still)) < 1e-6


@pytest.mark.parametrize("kinds", [["nursing"], ["nursing", "radiology", "emergency"], ["nursing", None, None]])
def test_categories_that_are_all_alone_do_not_attract(still: Encoder, kinds: list[str | None]) -> None:
    objective = note_category(still, NAMES, loss="contrastive")
    found = objective.backward(still, objective.collate(some(kinds), np.random.default_rng(0)), contextlib.nullcontext)
    assert list(found.parts) == ["mlm"]
    assert all(gradient.isfinite().all() for gradient in gradients(still).values())


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_weight_is_that_of_the_category_loss(still: Encoder, weight: float) -> None:
    objective = note_category(still, NAMES, weight=weight)
    objective.backward(still, objective.collate(some(KINDS), np.random.default_rng(0)), contextlib.nullcontext)
    head = gradients(still)["category_head.weight"]
    assert bool(head.any()) == (weight > 0)


@pytest.mark.parametrize(("masked", "readings"), [(True, 1), (False, 2)])
def test_the_tokens_are_those_that_are_read(
    still: Encoder, masked: bool, readings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = note_category(still, NAMES, masked=masked)
    batch = objective.collate(some(KINDS), np.random.default_rng(0))
    read, hidden = [0], Encoder.hidden

    def spy(self: Encoder, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        read[0] += int(mask.sum())
        return hidden(self, ids, mask)

    monkeypatch.setattr(Encoder, "hidden", spy)
    objective.loss(still, batch)
    assert read[0] == batch.tokens == readings * int(batch.tensors["attention_mask"].sum())
    plain = batch.tensors["input_ids"].clone()
    plain.view(-1)[batch.tensors["positions"]] = batch.tensors["targets"]
    assert ("plain_ids" in batch.tensors) == (not masked)
    assert torch.equal(batch.tensors.get("plain_ids", plain), plain)


def test_a_long_note_gives_a_window_and_keeps_its_category(encoder: Encoder) -> None:
    objective, long = note_category(encoder, NAMES), note(90, category="nursing")
    starts = set()
    for seed in range(200):
        t = objective.collate([long], np.random.default_rng(seed)).tensors
        assert t["input_ids"].shape == (1, 32) and t["categories"].tolist() == [1]
        ids = t["input_ids"].clone()
        ids.view(-1)[t["positions"]] = t["targets"]
        first = " ".join(map(str, long.ids)).index(" ".join(map(str, ids[0, 1:-1].tolist())))
        starts.add(first)
    assert len(starts) > 30 and min(starts) == 0


# The categories of a site.


def test_a_sites_own_categories_are_those_of_two_training_notes(of_categories: Callable[..., NoteStore]) -> None:
    notes = of_categories("bbaaacd  ")
    assert notes.column("split").tolist().count("train") == 9 and notes.column("category").tolist()[8] is None
    assert site_categories(NoteCategoryPlan(kind="note-category"), notes) == ["a", "b"]
    shared = NoteCategoryPlan(kind="note-category", categories=["c", "z", "b"])
    assert site_categories(shared, notes) == ["c", "z", "b"]


@pytest.mark.parametrize(
    ("categories", "told"), [(None, 1), (["b", "z"], 1), (["y", "z"], 0), (["d", "b"], 1)], ids=str
)
def test_fewer_than_two_are_too_few(
    of_categories: Callable[..., NoteStore], encoder: Encoder, categories: list[str] | None, told: int
) -> None:
    plan = study({"kind": "note-category"} | ({"categories": categories} if categories else {}))
    with pytest.raises(InputError, match=f"are of {told} of the categories") as caught:
        make_objective(plan, encoder.tokenizer, of_categories("bbbc "))
    assert caught.value.code == "too-few-categories"


@pytest.mark.parametrize(
    ("settings", "outputs", "shared"),
    [
        ({}, 8, False),
        ({"categories": ["nursing", "letter", "none such"]}, 3, True),
        ({"loss": "contrastive"}, None, False),
        ({"loss": "contrastive", "categories": ["nursing", "letter"]}, None, False),
    ],
)
def test_the_head_is_the_sites_own_unless_there_is_one_list(
    encoder: Encoder, notes: NoteStore, settings: dict[str, Any], outputs: int | None, shared: bool
) -> None:
    plan = study({"kind": "note-category"} | settings)
    encoder.set_categories(5, shared=True)  # another study's
    make_objective(plan, encoder.tokenizer, notes).attach(encoder)
    head = encoder.category_head
    assert (None if head is None else head.out_features) == outputs and encoder.category_head_shared == shared
    assert (plan.shared_categories > 0) == shared
    make_objective(study({"kind": "mlm"}), encoder.tokenizer, notes).attach(encoder)
    assert encoder.category_head is None


def test_the_category_is_read_from_the_notes(encoder: Encoder, notes: NoteStore) -> None:
    objective = note_category(encoder, NAMES)
    for index in (0, 100, 299):
        one = objective.read(notes, index)
        assert one.category == notes.column("category")[index] is not None
        assert one.ids.tolist() == notes.tokens(index).tolist()


def test_contrastive_batches_are_of_pairs(encoder: Encoder, notes: NoteStore) -> None:
    rows = notes.split_indices("train")
    objective = note_category(encoder, ["nursing", "operation"], loss="contrastive")
    batches = objective.batches(notes, rows, 8, (1, 2, 3))
    assert isinstance(batches, PairedBatches)
    categories = notes.column("category")[rows]
    for step in range(batches.per_epoch):
        here = categories[batches.at(step)].tolist()
        assert all(here.count(name) != 1 for name in ("nursing", "operation"))
    assert not isinstance(note_category(encoder, NAMES).batches(notes, rows, 8, (1, 2, 3)), PairedBatches)


# Headings.

ODD = ["Nursing", "Nursing/other", "Nursing: night", "Discharge summary", "C++ (a|b)", "[ECG]", "Ärztin"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("NURSING:\nBP 120/80.", "\nBP 120/80."),
        ("nursing: BP 120/80.", " BP 120/80."),
        ("Nursing\nSlept well.", "\nSlept well."),
        ("Slept.\n  Nursing  \nWell.", "Slept.\n\nWell."),
        ("Slept.\r\nNursing\r\nWell.", "Slept.\r\n\nWell."),
        ("*** NURSING ***\nSlept.", "\nSlept."),
        ("__Nursing__\nSlept.", "\nSlept."),
        ("# Nursing - :\nSlept.", "\nSlept."),
        ("Slept well.\nNursing", "Slept well.\n"),
        ("Nursing/other: slept.", " slept."),
        ("Nursing: night: slept.", " slept."),
        ("DISCHARGE SUMMARY\nHome.", "\nHome."),
        ("c++ (A|B): home.", " home."),
        ("[ECG]\nSinus.", "\nSinus."),
        ("ÄRZTIN: gesehen.", " gesehen."),
        ("Nursing:\nNursing:\nTwice.", "\n\nTwice."),
    ],
)
def test_headings_that_name_a_category_go(text: str, left: str) -> None:
    assert heading_pattern(ODD).sub("", text) == left


@pytest.mark.parametrize(
    "text",
    [
        "Nursing note\nSlept.",
        "Nursing note: slept.",
        "Nursing staff were called.",
        "Seen by nursing.",
        "Seen by nursing: slept.",
        "Nursing2: slept.",
        "Discharge: home. Summary: well.",
        "Discharge\nsummary",
        "C (a): home.",
        "ECG: sinus.",
        "Nursing, physiotherapy: seen.",
    ],
)
def test_other_lines_stay(text: str) -> None:
    assert heading_pattern(ODD).sub("", text) == text


def test_a_note_is_tokenised_without_its_headings(store: Prepare, encoder: Encoder) -> None:
    given = {
        "NURSING:\nSlept well.\nNursing note as before.": "Slept well. Nursing note as before.",
        "Nursing:\n": "Nursing:",  # a note of headings only stays
        "No heading here.": "No heading here.",
        "Radiology: clear.": "clear.",
    }
    notes = store(*((text, "Nursing", "train") for text in given))
    names = ["Nursing", "Radiology"]
    stripped, whole = (note_category(encoder, names, strip_headings=strip) for strip in (True, False))
    for index, left in enumerate(given.values()):
        expected = encoder.tokenizer(left, add_special_tokens=False)
        words = expected.word_ids()
        one = stripped.read(notes, index)
        assert one.ids.tolist() == expected["input_ids"] and one.category == "Nursing"
        assert one.word_starts.tolist() == [i == 0 or words[i] != words[i - 1] for i in range(len(words))]
        assert whole.read(notes, index).ids.tolist() == notes.tokens(index).tolist()


def test_what_is_stripped_is_what_the_sites_categories_name(store: Prepare, encoder: Encoder, texts: list[str]) -> None:
    notes = store(*((f"{name}: {texts[5 * i]}", name, "train") for i, name in enumerate(["Alpha", "Beta"] * 3)))
    objective = make_objective(study({"kind": "note-category", "strip_headings": True}), encoder.tokenizer, notes)
    for index in range(6):
        expected = encoder.tokenizer(texts[5 * index], add_special_tokens=False, verbose=False)["input_ids"]
        assert objective.read(notes, index).ids.tolist() == expected
