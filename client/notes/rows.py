"""What every format of notes gives: its columns, and its rows one at a time, from bytes that may be gzip."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from client.notes.check import Broken
from common.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Rows:
    """`stream` gives a row's number, from 1, with its values by column, or with what made it unreadable."""

    columns: list[str]
    stream: Iterator[tuple[int, dict[str, object] | Broken]]


@contextmanager
def open_bytes(path: Path) -> Iterator[BufferedReader | gzip.GzipFile]:
    """The file's bytes, decompressed where they are gzip, whatever the file's name.

    Raises:
        InputError: damaged gzip.
    """
    try:
        with path.open("rb") as raw:
            if raw.peek(2)[:2] != GZIP_MAGIC:
                yield raw
                return
            with gzip.open(raw) as unpacked:
                yield unpacked
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise InputError(
            "notes-damaged", f"{path} is damaged: its gzip data is cut short or invalid.", "Copy or export it again."
        ) from None
