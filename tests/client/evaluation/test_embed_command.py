"""`fednotes embed`: a file of embeddings that is whole, in the source's order, its owner's alone, or not there."""

import json
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tomli_w
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import fednotes as command_line
from client.evaluation import export
from client.evaluation.embed import embed_notes
from client.notes.source import NotesSource
from client.notes.split import seeded_key
from client.notes.store import NoteStore, prepare
from client.site import SITE_FILE
from common.encoder import load_encoder
from common.errors import FednotesError

Fednotes = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def notes(texts: list[str], tmp_path: Path) -> Path:
    """120 notes, of which some are set aside as copies of test notes."""
    splits = ("train", "dev", "test")
    rows = [{"id": f"n{i}", "text": text, "split": splits[i % 3]} for i, text in enumerate(texts[:100])]
    rows += [{"id": f"n{i}", "text": texts[i - 100], "split": "train"} for i in range(100, 120)]
    (tmp_path / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "notes.jsonl"


@pytest.fixture
def run(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """The command in this process: returns click's result, and lets a foreseen failure through."""
    monkeypatch.setenv("FEDNOTES_CACHE", environment["FEDNOTES_CACHE"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the test's process keeps its own
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: object) -> Any:
        return CliRunner().invoke(command_line.app, [str(part) for part in arguments], catch_exceptions=False)

    return invoke


@pytest.fixture
def store(notes: Path, bases: dict[str, str], tmp_path: Path) -> NoteStore:
    source = NotesSource(source=str(notes))
    return prepare(source, load_encoder(bases["bert"]).tokenizer, seeded_key(0), tmp_path / "cache")


def expected(store: NoteStore, base: str, indices: np.ndarray, **settings: Any) -> np.ndarray:
    return embed_notes(load_encoder(base), store, indices, **({"max_length": 64} | settings))


def test_parquet_has_a_row_for_each_note(
    fednotes: Fednotes, notes: Path, store: NoteStore, bases: dict[str, str], tmp_path: Path
) -> None:
    done = fednotes("embed", bases["bert"], "--notes", notes, "--out", "deep/er/e.parquet")
    assert done.returncode == 0, done.stderr
    assert "as private as the notes" in done.stderr and "120 embeddings of 32 numbers" in done.stdout
    path = tmp_path / "deep" / "er" / "e.parquet"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and [p.name for p in path.parent.iterdir()] == ["e.parquet"]
    table = pq.read_table(path)
    assert table.column_names == ["id", "row", "split", "embedding"]
    assert str(table.schema.field("embedding").type) == "fixed_size_list<element: float>[32]"
    assert table["id"].to_pylist() == [f"n{i}" for i in range(120)]
    assert table["row"].to_pylist() == list(range(1, 121))
    assert table["split"].to_pylist() == store.column("split").tolist() and "set-aside" in table["split"].to_pylist()
    got = np.array(table["embedding"].to_pylist(), dtype=np.float32)
    assert np.abs(got - expected(store, bases["bert"], np.arange(120))).max() < 1e-5
    facts = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert facts["notes"] == store.digest and facts["max_length"] == "64" and len(facts["weights"]) == 64


def test_npy_has_the_notes_of_a_split_in_order(
    run: Callable[..., Any], notes: Path, store: NoteStore, bases: dict[str, str]
) -> None:
    flags = ("--max-length", "16", "--long-notes", "windows", "--split", "test")
    done = run("embed", bases["bert"], "--notes", notes, "--out", "e.npy", *flags)
    assert done.exit_code == 0 and "row k for the k-th test note of the source" in done.stdout
    got = np.load("e.npy")
    test = store.split_indices("test")
    assert got.dtype == np.float32 and got.flags.c_contiguous and len(got) == len(test)
    wanted = expected(store, bases["bert"], test, max_length=16, long_notes="windows")
    assert np.abs(got - wanted).max() < 1e-5
    assert np.abs(got - expected(store, bases["bert"], test, max_length=16)).max() > 1e-2


@pytest.mark.parametrize("name", ["e.npy", "e.parquet"])
def test_pieces_of_a_file_fit_together(
    run: Callable[..., Any], notes: Path, bases: dict[str, str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run("embed", bases["bert"], "--notes", notes, "--out", f"whole-{name}")
    monkeypatch.setattr(export, "_CHUNK", 7)
    done = run("embed", bases["bert"], "--notes", notes, "--out", f"pieces-{name}", "--json")
    assert json.loads(done.stdout)["shape"] == [120, 32] and "private" in done.stderr

    def read(path: str) -> np.ndarray:
        return np.load(path) if name == "e.npy" else np.array(pq.read_table(path)["embedding"].to_pylist())

    assert np.abs(read(f"whole-{name}") - read(f"pieces-{name}")).max() < 1e-5


def test_a_virtual_hospital_is_in_the_order_of_the_source(
    run: Callable[..., Any], notes: Path, bases: dict[str, str], tmp_path: Path
) -> None:
    mine = np.array([40, 3, 77])
    np.save(tmp_path / "rows.npy", mine)
    config = {"name": "A", "split_key": "ab" * 16, "cache": "c", "notes": {"source": notes.name}, "rows": "rows.npy"}
    (tmp_path / SITE_FILE).write_text(tomli_w.dumps(config))
    assert run("embed", bases["bert"], "--notes", tmp_path / SITE_FILE, "--out", "e.parquet").exit_code == 0
    assert pq.read_table("e.parquet")["id"].to_pylist() == ["n3", "n40", "n77"]


def test_a_file_is_replaced_by_force_alone(
    run: Callable[..., Any], notes: Path, bases: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "e.npy"
    out.write_text("old")
    with pytest.raises(FednotesError) as caught:
        run("embed", bases["bert"], "--notes", notes, "--out", out)
    assert caught.value.code == "out-exists" and out.read_text() == "old"
    run("embed", bases["bert"], "--notes", notes, "--out", out, "--force")
    assert np.load(out).shape == (120, 32) and stat.S_IMODE(out.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--out", "e.csv"], "out-format"),
        (["--out", "folder.npy", "--force"], "out-exists"),
        (["--out", "e.npy", "--max-length", "100"], "usage"),
        (["--out", "e.npy", "--text-column", "body"], "notes-column"),
        (["--out", "notes.jsonl/e.npy"], "unwritable"),
    ],
)
def test_what_is_wrong_is_said_first(
    run: Callable[..., Any], notes: Path, bases: dict[str, str], tmp_path: Path, flags: list[str], code: str
) -> None:
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(FednotesError) as caught:
        run("embed", bases["bert"], "--notes", notes, *flags)
    assert caught.value.code == code and caught.value.next_step
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.npy", "notes.jsonl"]


def test_a_split_without_notes_is_refused(run: Callable[..., Any], bases: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one note of six words only", "split": "train"}\n')
    with pytest.raises(FednotesError) as caught:
        run("embed", bases["bert"], "--notes", "a.jsonl", "--out", "e.npy", "--split", "dev")
    assert caught.value.code == "notes-empty" and not (tmp_path / "e.npy").exists()


@pytest.mark.parametrize("name", ["e.npy", "e.parquet"])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_what_is_half_written_is_removed(
    run: Callable[..., Any],
    notes: Path,
    bases: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    stop: type[BaseException] | BaseException,
) -> None:
    calls = []

    def embed(*arguments: Any, **settings: Any) -> np.ndarray:
        calls.append(sorted(p.name for p in tmp_path.iterdir()))
        if len(calls) == 3:
            raise stop
        return embed_notes(*arguments, **settings)

    monkeypatch.setattr(export, "_CHUNK", 20)
    monkeypatch.setattr(export, "embed_notes", embed)
    if stop is KeyboardInterrupt:
        assert run("embed", bases["bert"], "--notes", notes, "--out", name).exit_code == 130
    else:
        with pytest.raises(FednotesError) as caught:
            run("embed", bases["bert"], "--notes", notes, "--out", name)
        assert caught.value.code == "disk-full"
    assert calls[-1] == [f".{name}.tmp", "notes.jsonl"] and [p.name for p in tmp_path.iterdir()] == ["notes.jsonl"]


def test_a_terminated_process_leaves_nothing(
    environment: dict[str, str], bases: dict[str, str], tmp_path: Path
) -> None:
    """Killed while it reads a note of a million characters, piece by piece."""
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "chest pain and " * 66_000}) + "\n")
    flags = ("--notes", "a.jsonl", "--out", "e.npy", "--max-length", "16", "--long-notes", "windows")
    line = [sys.executable, "-m", "fednotes", "embed", bases["bert"], *flags]
    process = subprocess.Popen(line, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (tmp_path / ".e.npy.tmp").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and b"Traceback" not in said
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_an_encoder_without_numbers_leaves_nothing(
    run: Callable[..., Any], notes: Path, tmp_path: Path, make_base: Callable[..., Path]
) -> None:
    broken = make_base(tmp_path / "broken", "bert") / "model.safetensors"
    tensors = load_file(broken)
    tensors["bert.embeddings.word_embeddings.weight"] = torch.full_like(
        tensors["bert.embeddings.word_embeddings.weight"], float("nan")
    )
    save_file(tensors, broken, metadata={"format": "pt"})
    with pytest.raises(FednotesError) as caught:
        run("embed", broken.parent, "--notes", notes, "--out", "e.npy")
    assert (caught.value.code, caught.value.exit_code) == ("embeddings-not-finite", 4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken", "notes.jsonl"]
