"""Rows of the two line formats, CSV and JSON Lines, streamed with true line numbers."""

import csv
import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from client.notes.check import Broken
from client.notes.rows import Rows, open_bytes
from common.errors import InputError

# A line past this is no row of notes: a note has at most a million characters, of at most 12 bytes each in JSON.
MAX_LINE = 16 * 2**20
# How many lines of JSON are looked at to learn which fields there are.
PEEK = 1000


class Lines:
    """The physical lines of a text file, decoded; `take` tells what was wrong with those read since it last did."""

    def __init__(self, stream: BufferedReader | gzip.GzipFile, path: Path) -> None:
        self._stream = stream
        self._path = path
        self._offset = 0
        self._fault: Broken | None = None
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        while line := self._stream.readline(MAX_LINE):
            self.number += 1
            if self.number == 1:
                _refuse_binary(line, self._path)
            yield self._decode(line)

    def take(self) -> Broken | None:
        fault, self._fault = self._fault, None
        return fault

    def _decode(self, line: bytes) -> str:
        start, self._offset = self._offset, self._offset + len(line)
        if len(line) == MAX_LINE and not line.endswith(b"\n"):
            self._skip_line()
            self._fault = Broken(f"is a line of more than {MAX_LINE:,} bytes", "See whether rows have run together")
            return "\n"
        if b"\0" in line:
            self._fault = Broken("holds a NUL byte: it is binary, not text", "Export it as text")
        try:
            return line.decode("utf-8-sig" if self.number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            self._fault = Broken(
                f"is not UTF-8 (byte {start + error.start:,} of the file)",
                "Convert the file, for instance with `iconv -f WINDOWS-1252 -t UTF-8`",
            )
            return line.decode(errors="replace")

    def _skip_line(self) -> None:
        while rest := self._stream.readline(MAX_LINE):
            self._offset += len(rest)
            if rest.endswith(b"\n"):
                return


def _refuse_binary(line: bytes, path: Path) -> None:
    head = line[:4096]
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(
            "notes-encoding",
            f"{path}, line 1: the file is UTF-16 (byte 0), not UTF-8.",
            "Convert it with `iconv -f UTF-16 -t UTF-8`, or save it as UTF-8.",
        )
    if b"\0" in head or head[:4] in (b"PK\x03\x04", b"PAR1"):
        raise InputError(
            "notes-binary",
            f"{path}, line 1: the file is binary, not text.",
            "Export the notes as CSV, JSON Lines or Parquet, and let the name end accordingly.",
        )


@contextmanager
def csv_file(path: Path) -> Iterator[Rows]:
    """A CSV file with a header, separated by commas. A row that spans several lines is numbered by its first.

    Raises:
        InputError: a header that cannot be used; while streaming, a quote that is never closed.
    """
    csv.field_size_limit(MAX_LINE)
    with open_bytes(path) as stream:
        lines = Lines(stream, path)
        reader = csv.reader(lines, strict=True)
        header = _header(reader, lines, path)
        yield Rows(header, _csv_rows(reader, lines, header, path))


def _header(reader: Iterator[list[str]], lines: Lines, path: Path) -> list[str]:
    where = f"{path}, line 1: the header"
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error:
        raise InputError("notes-header", f"{where} is no valid CSV.", "Correct its quotes.") from None
    if fault := lines.take():
        raise InputError("notes-header", f"{where} {fault.reason}.", f"{fault.fix}.")
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise InputError("notes-header", f"{where} is not separated by commas.", "Export the file with commas.")
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise InputError("notes-header", f"{where} repeats {', '.join(map(repr, repeated))}.", "Rename one of them.")
    return header


def _csv_rows(
    reader: Iterator[list[str]], lines: Lines, header: list[str], path: Path
) -> Iterator[tuple[int, dict[str, object] | Broken]]:
    while True:
        line = lines.number + 1
        try:
            values = next(reader, None)
        except csv.Error as error:
            if "field limit" in str(error) or "unexpected end" in str(error):
                # The open quote swallowed every row after it: nothing from here on can be trusted.
                raise InputError(
                    "notes-quote",
                    f"{path}, line {line}: a quote is opened and never closed.",
                    'Close it; a quote inside a quoted field is written twice ("").',
                ) from None
            lines.take()
            yield line, Broken("is no valid CSV: something follows a closing quote", 'Write a quote in a field as ""')
            continue
        if values is None:
            return
        if fault := lines.take():
            yield line, fault
        elif len(values) == len(header):
            yield line, dict(zip(header, values, strict=True))
        elif values:
            reason = f"has {len(values)} fields where the header has {len(header)}"
            yield line, Broken(reason, "Put fields that hold commas or line ends in quotes")


@contextmanager
def jsonl_file(path: Path) -> Iterator[Rows]:
    """One JSON object a line. Its columns are the fields of its first `PEEK` lines."""
    names: dict[str, None] = {}
    with open_bytes(path) as stream:
        for seen, (_, values) in enumerate(_json_rows(Lines(stream, path))):
            if seen == PEEK:
                break
            if isinstance(values, dict):
                names.update(dict.fromkeys(values))
    with open_bytes(path) as stream:
        yield Rows(list(names), _json_rows(Lines(stream, path)))


def _json_rows(lines: Lines) -> Iterator[tuple[int, dict[str, object] | Broken]]:
    for line in lines:
        if fault := lines.take():
            yield lines.number, fault
        elif line.strip():
            yield lines.number, _json_object(line)


def _json_object(line: str) -> dict[str, object] | Broken:
    # The decoder's own message and exception hold pieces of the line: only the position is passed on.
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        return Broken(f"is not valid JSON (at character {error.pos + 1})", "Write one JSON object a line")
    except (RecursionError, ValueError):
        return Broken("is JSON nested too deep, or with a number too long", "Write one flat JSON object a line")
    if not isinstance(values, dict):
        return Broken("is JSON but no object", "Write one JSON object a line")
    return values
