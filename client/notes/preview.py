"""What a source of notes looks like before its columns are chosen: names and counts, and no value of any row."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from client.notes.check import Broken
from client.notes.read import open_rows
from client.notes.source import NotesSource
from common.errors import InputError

_MOST_ROWS = 5000


@dataclass(frozen=True)
class Column:
    """A column over the rows that were looked at: in how many it is filled, with how many values, of how many
    characters on average."""

    name: str
    filled: int
    distinct: int
    characters: float


@dataclass(frozen=True)
class Preview:
    """`rows` were looked at, and there are more if `more`; `broken` ones of them could not be read."""

    rows: int
    more: bool
    broken: int
    columns: list[Column]

    def guess(self, field: str) -> str | None:
        """The column that a field of a note is most likely in: that of its name; for the text, else the longest."""
        if any(column.name == field for column in self.columns):
            return field
        if field != "text":
            return None
        longest = max(self.columns, key=lambda column: column.characters, default=None)
        return longest.name if longest else None


def preview(source: NotesSource) -> Preview:
    """Look at the first rows of a source, whatever its columns are called. Raises as `read_notes`."""
    with open_rows(source, ()) as opened:
        names = list(dict.fromkeys(opened.columns))
    if not names:
        raise InputError("notes-empty", f"{source.source} holds no notes.", "Check the export that made it.")
    filled, length = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    values: dict[str, set[int]] = {name: set() for name in names}
    rows = broken = 0
    with open_rows(source, names) as opened:
        for _, row in itertools.islice(opened.stream, _MOST_ROWS + 1):
            rows += 1
            if isinstance(row, Broken):
                broken += 1
                continue
            _count(row, filled, length, values)
    columns = [Column(name, filled[name], len(values[name]), length[name] / max(1, filled[name])) for name in names]
    return Preview(min(rows, _MOST_ROWS), rows > _MOST_ROWS, broken, columns)


def _count(row: Mapping[str, object], filled: dict[str, int], length: dict[str, int], values: dict) -> None:
    for name in filled:
        value = row.get(name)
        if value is None or not (text := str(value).strip()):
            continue
        filled[name] += 1
        length[name] += len(text)
        values[name].add(hash(text))
