"""The check at the door: one raw row in, one `Note` out, or `Broken` with a reason that repeats none of its words."""

import datetime
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

MAX_CHARACTERS = 1_000_000
SPLITS = {"train": "train", "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev", "test": "test"}


@dataclass(frozen=True, slots=True)
class Note:
    """One note. `row` is its line (CSV, JSON Lines) or its row (Parquet, SQL), from 1. An empty note has text ""."""

    row: int
    text: str
    id: str | None = None
    patient: str | None = None
    category: str | None = None
    label: str | None = None
    date: str | None = None
    split: str | None = None
    site: str | None = None


class Broken(Exception):
    """A row that cannot be a note. Neither `reason` nor `fix` may hold a value of the row."""

    def __init__(self, reason: str, fix: str = "Correct it") -> None:
        super().__init__(reason)
        self.reason = reason
        self.fix = fix


def to_note(row: int, values: Mapping[str, object], names: Mapping[str, str]) -> Note:
    """The note in `values` (column -> value), where `names` says which column holds which field.

    Raises:
        Broken: a text that is missing from the row, no string, too long or not text; a split or a date that is none.
    """
    if names["text"] not in values:
        raise Broken(f"has no field {names['text']!r}", "Give every row its text (null for an empty note)")
    fields = {field: _plain(values.get(name), name) for field, name in names.items() if field != "text"}
    if (split := fields["split"]) is not None:
        fields["split"] = SPLITS.get(split.lower())
        if fields["split"] is None:
            raise Broken(f"column {names['split']!r} holds a split that is none of {', '.join(SPLITS)}")
    if fields["date"] is not None and not _is_date(fields["date"]):
        raise Broken(f"column {names['date']!r} holds no ISO date", "Write dates as YYYY-MM-DD")
    return Note(row=row, text=_text(values[names["text"]], names["text"]), **fields)


def _text(value: object, name: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, str):
        raise Broken(f"column {name!r} holds {_kind(value)}, not text", "Name the column that holds the notes")
    if len(value) > MAX_CHARACTERS:
        raise Broken(
            f"note too long ({len(value):,} characters; at most {MAX_CHARACTERS:,})",
            "See whether rows have run together, or split it into its parts",
        )
    _check_characters(value, name)
    return value


def _plain(value: object, name: str) -> str | None:
    """A category, a label, an id as a string; None for every way of having none."""
    if value is None:
        return None
    if isinstance(value, float):
        if math.isnan(value):
            return None
        # A nullable column of whole numbers comes out of many tools as floats: patient 7.0 is patient 7.
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, str):
        _check_characters(value, name)
        return value.strip() or None
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, int | Decimal):
        return (
            str(int(value) if value == value.to_integral_value() else value)
            if isinstance(value, Decimal)
            else str(value)
        )
    raise Broken(f"column {name!r} holds {_kind(value)}, not a single value")


def _check_characters(value: str, name: str) -> None:
    if "\0" in value:
        raise Broken(f"column {name!r} holds a NUL character: it is binary, not text", "Export it as text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Broken(f"column {name!r} holds half of a Unicode character", "Export it as UTF-8") from None


def _is_date(value: str) -> bool:
    try:
        datetime.datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _kind(value: object) -> str:
    """What a value is, in words that do not repeat it."""
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "true or false"),
        ((int, float, Decimal), "a number"),
        ((bytes, bytearray, memoryview), "binary data"),
        ((list, tuple, set), "a list"),
        (dict, "an object"),
    )
    return next((words for types, words in kinds if isinstance(value, types)), f"a {type(value).__name__}")
