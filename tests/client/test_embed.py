"""Frozen embeddings: of each note by itself, whatever it is batched with."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from client.evaluation import embed
from client.evaluation.embed import embed_notes
from client.notes.source import NotesSource
from client.notes.store import NoteStore, prepare
from common.encoder import Encoder, load_encoder


@pytest.mark.parametrize("most", [16, 64])
def test_a_note_is_embedded_as_by_itself(
    bases: dict[str, str], stores: dict[str, NoteStore], family: str, most: int
) -> None:
    encoder, store = load_encoder(bases[family]), stores[family]
    encoder.model.train()  # must be put out of it
    indices = np.array([7, 3, 120, 3, 299])
    got = embed_notes(encoder, store, indices, max_length=most, precision="float32")
    assert got.shape == (5, 32) and got.dtype == np.float32
    for row, index in enumerate(indices):
        tokens = encoder.tokenizer(store.text(int(index)), truncation=True, max_length=most, return_tensors="pt")
        with torch.no_grad():
            alone = encoder.embed(tokens["input_ids"], tokens["attention_mask"])[0].numpy()
        assert np.abs(got[row] - alone).max() < 1e-5
    assert np.abs(got[1] - got[3]).max() < 1e-6 and np.abs(got[0] - got[2]).max() > 1e-3


def test_batches_do_not_matter(
    encoder: Encoder, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Notes from a few tokens to more than are read, long and short in turn."""
    rows = [{"text": " ".join(text.split()[: 2 + 11 * i % 23])} for i, text in enumerate(texts[:40])]
    (tmp_path / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = NotesSource(source=str(tmp_path / "notes.jsonl"))
    notes, indices = prepare(source, encoder.tokenizer, b"a key", tmp_path / "cache"), np.arange(40)
    assert len(set(notes.lengths.tolist())) > 10 and notes.lengths.min() < 20 < 62 < notes.lengths.max()
    together = embed_notes(encoder, notes, indices, max_length=64, precision="float32")
    monkeypatch.setattr(embed, "_BATCH_TOKENS", 1)
    single = embed_notes(encoder, notes, indices, max_length=64, precision="float32")
    assert np.abs(together - single).max() < 1e-5


def test_indices_are_of_the_view(encoder: Encoder, notes: NoteStore) -> None:
    view = notes.view([10, 20, 30])
    a = embed_notes(encoder, view, np.array([2, 0]), max_length=64, precision="float32")
    b = embed_notes(encoder, notes, np.array([30, 10]), max_length=64, precision="float32")
    assert np.array_equal(a, b)


def test_no_notes_no_embeddings(encoder: Encoder, notes: NoteStore) -> None:
    assert embed_notes(encoder, notes, np.array([], dtype=np.int64), max_length=64).shape == (0, 32)


def test_batches_are_all_places_once_within_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(2, 700, 500)
    batches = embed._by_length(lengths)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert all(len(b) * int(lengths[b].max()) <= embed._BATCH_TOKENS for b in batches)
    assert len(batches) < 30


def test_a_note_beyond_the_budget_is_a_batch_of_its_own() -> None:
    assert [b.tolist() for b in embed._by_length(np.array([9000, 5, 9001]))] == [[1], [0], [2]]
