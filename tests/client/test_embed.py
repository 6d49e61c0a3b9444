"""Frozen embeddings: of each note by itself, whatever it is batched with."""

import itertools
import json
import math
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
    batches = embed.batches_by_length(lengths)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert all(len(b) * int(lengths[b].max()) <= embed._BATCH_TOKENS for b in batches)
    assert len(batches) < 2 * lengths.sum() / embed._BATCH_TOKENS
    assert len(embed.batches_by_length(lengths, 16 * embed._BATCH_TOKENS)) < len(batches) / 8


def test_a_note_beyond_the_budget_is_a_batch_of_its_own() -> None:
    assert [b.tolist() for b in embed.batches_by_length(np.array([9000, 5, 9001]))] == [[1], [0], [2]]


def store_of(lengths: list[int], words: list[str], encoder: Encoder, folder: Path) -> NoteStore:
    """Notes of so many words that are a token each."""
    rng = np.random.default_rng(5)
    rows = [{"text": " ".join(rng.choice(words, length))} for length in lengths]
    (folder / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    notes = prepare(NotesSource(source=str(folder / "notes.jsonl")), encoder.tokenizer, b"a key", folder / "cache")
    assert notes.lengths.tolist() == lengths
    return notes


@pytest.fixture
def words(encoder: Encoder) -> list[str]:
    return [token for token in encoder.tokenizer.get_vocab() if token.isalpha() and len(token) > 3][:50]


LENGTHS = [13, 14, 15, 0, 1, 28, 29, 300, 14, 7, 43]  # a sequence of 16 has room for 14


def test_windows_are_the_mean_of_equal_pieces_by_their_tokens(
    encoder: Encoder, words: list[str], tmp_path: Path
) -> None:
    notes = store_of(LENGTHS, words, encoder, tmp_path)
    indices = np.arange(len(notes))
    got = embed_notes(encoder, notes, indices, max_length=16, precision="float32", long_notes="windows")
    tokenizer = encoder.tokenizer
    for index in indices:
        tokens = notes.tokens(index).tolist()
        count = max(1, math.ceil(len(tokens) / 14))
        edges = [len(tokens) * number // count for number in range(count + 1)]
        pieces = [tokens[start:stop] for start, stop in itertools.pairwise(edges)]
        assert max(map(len, pieces)) <= 14 and max(map(len, pieces)) - min(map(len, pieces)) <= 1
        total = torch.zeros(32)
        for piece in pieces:
            ids = torch.tensor([[tokenizer.cls_token_id, *piece, tokenizer.sep_token_id]])
            with torch.no_grad():
                alone = encoder.embed(ids, torch.ones_like(ids))[0]
            total += alone * (len(piece) / len(tokens) if tokens else 1.0)
        assert np.abs(got[index] - total.numpy()).max() < 1e-5, index


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_short_notes_are_the_same_from_windows_to_the_bit(
    encoder: Encoder, words: list[str], tmp_path: Path, precision: str
) -> None:
    notes = store_of(LENGTHS, words, encoder, tmp_path)
    indices = np.arange(len(notes))
    cut = embed_notes(encoder, notes, indices, max_length=16, precision=precision)
    windows = embed_notes(encoder, notes, indices, max_length=16, precision=precision, long_notes="windows")
    short = notes.lengths <= 14
    assert np.array_equal(cut[short], windows[short])
    assert (np.abs(cut[~short] - windows[~short]).max(axis=1) > 1e-3).all()


def test_a_note_of_a_million_characters_is_read_whole(encoder: Encoder, words: list[str], tmp_path: Path) -> None:
    count = 1_000_000 // (max(map(len, words)) + 1)
    notes = store_of([count, 20], words, encoder, tmp_path)
    seen: list[tuple[int, int]] = []
    got = embed_notes(
        encoder, notes, np.array([0]), max_length=64, long_notes="windows", progress=lambda *state: seen.append(state)
    )
    assert np.isfinite(got).all() and np.abs(got).max() > 0
    assert seen[-1][0] == seen[-1][1] == count + 2 * math.ceil(count / 62)


@pytest.mark.parametrize("long_notes", ["cut", "windows"])
def test_progress_grows_to_its_total(
    encoder: Encoder, notes: NoteStore, monkeypatch: pytest.MonkeyPatch, long_notes: embed.LongNotes
) -> None:
    monkeypatch.setattr(embed, "_BATCH_TOKENS", 100)
    seen: list[tuple[int, int]] = []
    indices = np.arange(30)
    embed_notes(
        encoder, notes, indices, max_length=32, long_notes=long_notes, progress=lambda *state: seen.append(state)
    )
    done = [state[0] for state in seen]
    assert len(seen) > 5 and done == sorted(done) and {state[1] for state in seen} == {done[-1]}
    assert done[-1] == embed.tokens_read(notes.lengths[indices], 32, long_notes)
