"""A hospital's prepared notes: cheap to open, memory-mapped, never all in memory. The only door to them from here."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from client.notes.intake import NOTES, TEXTS, Intake, Progress, load_intake, take_in
from client.notes.source import NotesSource
from client.notes.tokens import OFFSETS, TOKENS, WORD_STARTS, token_type, tokenise
from common.errors import MachineError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def default_cache() -> Path:
    """`$FEDNOTES_CACHE`, else `fednotes` in the user's cache folder."""
    if given := os.environ.get("FEDNOTES_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fednotes"


def prepare(
    source: NotesSource,
    tokenizer: "PreTrainedTokenizerBase",
    key: bytes,
    cache: Path,
    progress: Progress | None = None,
) -> "NoteStore":
    """Reads, checks, compares, splits and tokenises the notes of `source` into `cache`, or opens what is there already.

    Args:
        tokenizer: a fast one.
        key: the site's secret for the split.
        progress: called with a stage and how far it is: ("read", notes), ("compare", bands), ("tokenise", notes).

    Raises:
        InputError: notes that cannot be read or are broken, by file and line and never with their text.
        MachineError: the cache cannot be written, or its disk is full.
    """
    report = progress or (lambda stage, done: None)
    notes = take_in(source, key, cache, report)
    return NoteStore.open(notes, tokenise(notes, tokenizer, cache, report))


def prepare_columns(
    source: NotesSource, key: bytes, cache: Path, progress: Progress | None = None
) -> dict[str, NDArray]:
    """The columns that `NoteStore.column` names, of a source whose tokens are not needed. Raises as `prepare` does."""
    notes = take_in(source, key, cache, progress or (lambda stage, done: None))
    try:
        table = _table(notes)
        return {name: _values(table[name]) for name in table.column_names}
    except (OSError, ValueError):
        raise _damaged(notes) from None


class _Files:
    """The mapped files that all views of one store share."""

    def __init__(self, notes: Path, tokens: Path) -> None:
        self.folders = (notes, tokens)
        try:
            self.intake = load_intake(notes)
            self.columns = _table(notes)
            self.texts = pa.ipc.open_file(pa.memory_map(str(notes / TEXTS)))
            self.offsets = _map(tokens / OFFSETS, np.dtype(np.int64))
            self.ids = _map(tokens / TOKENS, token_type(tokens))
            self.starts = _map(tokens / WORD_STARTS, np.dtype(bool))
        except (OSError, ValueError):
            raise _damaged(notes, tokens) from None

    @cached_property
    def first_of_batch(self) -> NDArray[np.int64]:
        sizes = [self.texts.get_batch(batch).num_rows for batch in range(self.texts.num_record_batches)]
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _table(notes: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(notes / NOTES))).read_all()


def _values(column: pa.ChunkedArray) -> NDArray:
    return column.to_numpy() if pa.types.is_integer(column.type) else np.array(column.to_pylist(), dtype=object)


def _damaged(*folders: Path) -> MachineError:
    return MachineError(
        "cache-damaged", f"The prepared notes in {' or '.join(map(str, folders))} are damaged.", "Remove what is named."
    )


def _map(path: Path, kind: np.dtype) -> NDArray:
    # An empty file cannot be mapped, and notes of no token at all make one.
    return np.memmap(path, dtype=kind, mode="r") if path.stat().st_size else np.zeros(0, dtype=kind)


@dataclass(frozen=True, eq=False)
class NoteStore:
    """Prepared notes, or a view of some of them. Every index is a position within the view, from 0.

    `rows` int64 (n,) are the view's notes, as positions in the source.
    """

    rows: NDArray[np.int64]
    _files: _Files
    _given: Mapping[str, NDArray] = field(default_factory=dict)

    @classmethod
    def open(cls, notes: Path, tokens: Path) -> "NoteStore":
        """Opens the two folders of the cache.

        Raises:
            MachineError: a file in them is missing or damaged.
        """
        files = _Files(notes, tokens)
        return cls(np.arange(len(files.columns), dtype=np.int64), files)

    def __len__(self) -> int:
        return len(self.rows)

    def __reduce__(self) -> tuple:
        # Sent to another process as paths: what is mapped here is mapped again there.
        return _reopen, (*self._files.folders, self.rows, self._given)

    def view(self, indices: Sequence[int] | NDArray[np.int64]) -> "NoteStore":
        """The notes at some positions of this view, in that order."""
        places = np.asarray(indices, dtype=np.int64)
        return replace(
            self, rows=self.rows[places], _given={name: values[places] for name, values in self._given.items()}
        )

    def with_columns(self, **columns: NDArray) -> "NoteStore":
        """The same notes with other values, (n,) each, in some of the columns; "split" decides `split_indices`, too."""
        return replace(self, _given={**self._given, **columns})

    def tokens(self, index: int) -> NDArray:
        """One note's token ids (t,), whole, without special tokens: read-only and mapped."""
        return self._files.ids[self._span(index)]

    def word_starts(self, index: int) -> NDArray[np.bool_]:
        """Which of `tokens(index)` start a word, bool (t,)."""
        return self._files.starts[self._span(index)]

    @property
    def digest(self) -> str:
        """Names the source's content, columns and split, whatever the view: equal digests mean equal notes."""
        return self._files.folders[0].name

    def _span(self, index: int) -> slice:
        row = self.rows[index]
        return slice(self._files.offsets[row], self._files.offsets[row + 1])

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens in each note, int64 (n,)."""
        return self._files.offsets[self.rows + 1] - self._files.offsets[self.rows]

    def text(self, index: int) -> str:
        return self.texts([index])[0]

    def texts(self, indices: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """The texts at some positions, in that order. Ask for a batch at a time: these are not mapped but copied."""
        rows = self.rows[np.asarray(indices, dtype=np.int64)]
        first = self._files.first_of_batch
        batches = np.searchsorted(first, rows, side="right") - 1
        columns = {batch: self._files.texts.get_batch(batch).column(0) for batch in np.unique(batches).tolist()}
        return [columns[batch][row - first[batch]].as_py() for batch, row in zip(batches.tolist(), rows, strict=True)]

    def column(self, name: str) -> NDArray:
        """One value a note, (n,): `id`, `patient`, `category`, `label`, `date`, `split` or `site` as objects (string or
        None); `row` (line in the source), `group` (of copies; -1 for none) or `words` as integers."""
        if name in self._given:
            return self._given[name]
        values = self._files.columns[name]
        if pa.types.is_integer(values.type):
            return _values(values)[self.rows]
        return _values(values.take(pa.array(self.rows)))

    def patients(self) -> NDArray:
        """Names the patient of each note, (n,) of strings; a note without one is a patient of its own."""
        known = self.column("patient")
        return np.array([f"n{row}" if p is None else f"p{p}" for row, p in zip(self.rows, known, strict=True)])

    def split_indices(self, split: str) -> NDArray[np.int64]:
        """Positions of the notes of a split: "train", "dev", "test" or "set-aside"."""
        if "split" in self._given:
            return np.flatnonzero(self._given["split"] == split)
        return np.flatnonzero(pc.equal(self._files.columns["split"], split).to_numpy()[self.rows])

    @property
    def intake(self) -> Intake:
        """The counts of the whole source, whatever the view."""
        return self._files.intake


def _reopen(notes: Path, tokens: Path, rows: NDArray[np.int64], given: Mapping[str, NDArray]) -> NoteStore:
    return replace(NoteStore.open(notes, tokens), rows=rows, _given=given)
