"""Embeddings of notes in a file: what `fednotes embed` does. They are as private as the notes."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from client.evaluation.embed import LongNotes, Progress, embed_notes, tokens_read
from client.evaluation.probe import check_finite
from client.notes.store import NoteStore
from common.encoder import Encoder
from common.errors import InputError, MachineError
from common.files import explained, new_file

FORMATS = (".npy", ".parquet")

_CHUNK = 4096  # notes whose embeddings are in memory at once

_Chunks = Iterator[tuple[np.ndarray, np.ndarray]]  # positions of some notes, and their embeddings


def check_out(path: Path, force: bool) -> None:
    """Whether embeddings can be written to `path`, which is better known before they are made.

    Raises:
        InputError: `out-format`: an ending that is no form; `out-exists`: it is there, and `force` is false.
        MachineError: `unwritable`.
    """
    if path.suffix not in FORMATS:
        raise InputError(
            "out-format",
            f"{path} ends in neither {' nor '.join(FORMATS)}.",
            "Let its name say which form it is to have.",
        )
    if path.is_dir() or (path.exists() and not force):
        raise InputError("out-exists", f"{path} is there already.", "Name another file, or replace it with --force.")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise MachineError("unwritable", f"{path.parent} cannot be written by this user.", "Choose another folder.")


def export(
    encoder: Encoder,
    notes: NoteStore,
    positions: np.ndarray,
    path: Path,
    facts: Mapping[str, str],
    *,
    max_length: int,
    long_notes: LongNotes,
    progress: Progress,
) -> None:
    """Write the embeddings of the notes at `positions`, in the order of the source.

    The file appears whole or not at all, and only its owner may read it.

    Args:
        path: `.parquet`: a row a note, with its id, its row in the source, its split and its embedding. `.npy`: the
            embeddings alone, [n, H] float32.
        facts: what the parquet file says of itself (its schema's metadata).
        progress: called with the tokens read so far, and those to read.

    Raises:
        StudyError: `embeddings-not-finite`.
        MachineError: the disk is full, or the folder cannot be written.
    """
    positions = positions[np.argsort(notes.column("row")[positions], kind="stable")]
    chunks = _embedded(encoder, notes, positions, max_length, long_notes, progress)
    write = _write_npy if path.suffix == ".npy" else _write_parquet
    with new_file(path) as scratch:
        scratch.unlink(missing_ok=True)  # what a killed process left may have other permissions
        scratch.touch(mode=0o600)
        write(scratch, notes, chunks, (len(positions), encoder.hidden_size), facts)


def _embedded(
    encoder: Encoder,
    notes: NoteStore,
    positions: np.ndarray,
    max_length: int,
    long_notes: LongNotes,
    progress: Progress,
) -> _Chunks:
    before, total = 0, tokens_read(notes.lengths[positions], max_length, long_notes)
    for start in range(0, len(positions), _CHUNK):
        rows = positions[start : start + _CHUNK]

        def report(done: int, _: int, before: int = before) -> None:
            progress(before + done, total)

        vectors = embed_notes(encoder, notes, rows, max_length=max_length, long_notes=long_notes, progress=report)
        check_finite(vectors)
        before += tokens_read(notes.lengths[rows], max_length, long_notes)
        yield rows, vectors


def _write_npy(path: Path, notes: NoteStore, chunks: _Chunks, shape: tuple[int, int], facts: Mapping[str, str]) -> None:
    # Not by a memory map: where the disk is full, writing to one kills the process.
    kind = np.dtype("<f4")
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for _, vectors in chunks:
            file.write(vectors.astype(kind).tobytes())


def _write_parquet(
    path: Path, notes: NoteStore, chunks: _Chunks, shape: tuple[int, int], facts: Mapping[str, str]
) -> None:
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("row", pa.int64()),
            ("split", pa.string()),
            ("embedding", pa.list_(pa.float32(), shape[1])),
        ],
        metadata=dict(facts),
    )
    ids, rows, splits = (notes.column(name) for name in ("id", "row", "split"))
    with pq.ParquetWriter(path, schema) as writer:
        for places, vectors in chunks:
            embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), shape[1])
            columns = [
                pa.array(ids[places], pa.string()),
                pa.array(rows[places]),
                pa.array(splits[places], pa.string()),
            ]
            writer.write_table(pa.Table.from_arrays([*columns, embedding], schema=schema))
