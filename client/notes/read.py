"""One way in for notes of every format: a stream of checked `Note`s, and a refusal that names the file and the line."""

import os
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from client.notes.check import Broken, Note, to_note
from client.notes.lines import csv_file, jsonl_file
from client.notes.rows import Rows
from client.notes.source import Columns, NotesSource
from client.notes.tables import parquet_file, query
from common.errors import InputError

BadRow = tuple[int, str]
FORMATS = ("csv", "jsonl", "ndjson", "parquet")


def read_notes(source: NotesSource, skipped: list[BadRow] | None = None) -> Iterator[Note]:
    """The notes of a source, one at a time; broken rows that are tolerated are appended to `skipped` as (row, reason).

    Raises:
        InputError: no such file, a format or a column that is not there, no rows at all, more than `skip_bad` broken
            rows. Never with a note's text.
        MachineError: no room to unpack, a missing database driver.
    """
    skipped = [] if skipped is None else skipped
    count = 0
    with open_rows(source, source.columns.names().values()) as rows:
        _refuse_missing_columns(source, rows.columns)
        names = source.columns.names()
        for number, values in rows.stream:
            count += 1
            try:
                if isinstance(values, Broken):
                    raise values
                note = to_note(number, values, names)
            except Broken as broken:
                skipped.append((number, broken.reason))
                refuse_broken(source, skipped, broken.fix)
            else:
                yield note
    if not count:
        raise _empty(source)


def refuse_broken(source: NotesSource, skipped: list[BadRow], fix: str = "Correct them") -> None:
    """Raises InputError, with every row listed, where `skipped` is longer than the source tolerates."""
    if len(skipped) <= source.skip_bad:
        return
    unit = row_unit(source)
    where = "The query" if source.is_database else source.source
    if len(skipped) == 1:
        number, reason = skipped[0]
        message = f"{where}, {unit} {number}: the row {reason}."
    else:
        listed = "".join(f"\n  {unit} {number}: {reason}" for number, reason in skipped)
        message = f"{where} has more than the {source.skip_bad} broken rows that are tolerated:{listed}\n"
    raise InputError("notes-broken-row", message, f"{fix}, or tolerate more broken rows with --skip-bad.")


def file_format(source: NotesSource) -> str:
    """One of `FORMATS`, or "query".

    Raises:
        InputError: missing, a folder, no regular file, not readable, empty, or an ending that is no format.
    """
    if source.is_database:
        return "query"
    path = Path(source.source)
    # Not Path.exists, which raises where a folder above may not be searched.
    if not os.path.exists(path):  # noqa: PTH110
        raise InputError("notes-missing", f"There is no file {path}.", "Correct the path, or copy the file there.")
    if path.is_dir():
        raise InputError("notes-folder", f"{path} is a folder.", "Name the one file of notes in it.")
    if not path.is_file():
        raise InputError("notes-folder", f"{path} is no regular file.", "Write the notes to a file first.")
    if not os.access(path, os.R_OK):
        raise InputError("notes-unreadable", f"This user may not read {path}.", "Give this user the right to read it.")
    if path.stat().st_size == 0:
        raise _empty(source)
    ending = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if ending not in FORMATS:
        raise InputError(
            "notes-format",
            f"{path} ends in none of {', '.join(f'.{name}' for name in FORMATS)} (each may end in .gz).",
            "Export the notes in one of these formats, and let the name say which.",
        )
    return ending


def row_unit(source: NotesSource) -> str:
    """What a row's number counts: "line" in a text file, else "row"."""
    return "line" if file_format(source) in ("csv", "jsonl", "ndjson") else "row"


def open_rows(source: NotesSource, wanted: Collection[str]) -> AbstractContextManager[Rows]:
    """The rows of a source as they stand; of a Parquet file only the `wanted` columns are read. Raises as
    `read_notes`."""
    kind = file_format(source)
    path = Path(source.source)
    if kind == "query":
        return query(source.source, source.query or "")
    if kind == "csv":
        return csv_file(path)
    if kind == "parquet":
        return parquet_file(path, wanted)
    return jsonl_file(path)


def _refuse_missing_columns(source: NotesSource, available: list[str]) -> None:
    # Lines of JSON of which none could be read have no columns to compare with: the broken line is the news.
    if not available:
        return
    if missing := [name for name in source.columns.required() if name not in available]:
        where = "The query" if source.is_database else source.source
        flags = [f"--{field}-column" for field in Columns.model_fields if source.columns.names()[field] in missing]
        raise InputError(
            "notes-column",
            f"{where} has no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, available))}.",
            f"Name the right one with {', '.join(flags)}, or under columns in site.toml.",
        )


def _empty(source: NotesSource) -> InputError:
    where = "The query" if source.is_database else source.source
    return InputError("notes-empty", f"{where} holds no notes.", "Check the export that made it.")
