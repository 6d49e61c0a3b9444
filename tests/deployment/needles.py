"""A search for secrets in whatever left a site: each word in each form in which it could hide."""

import base64
import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

_START = 8  # bytes: the shortest needle


@dataclass(frozen=True)
class Needle:
    """A form of a secret. `place` says where the secret was planted."""

    place: str
    form: str
    content: bytes


@dataclass(frozen=True)
class Find:
    """A needle in a haystack."""

    haystack: str
    place: str
    form: str


def needles(secrets: Mapping[str, str], tokenizer: PreTrainedTokenizerFast | None = None) -> list[Needle]:
    """Every form of every secret: place -> a made-up word of nine letters or more, so that none occurs by chance."""
    found = []
    for place, word in secrets.items():
        assert len(word) >= 9 and word.isascii(), word
        for form, content in _forms(word, tokenizer):
            assert len(content) >= _START, (place, form)
            found.append(Needle(place, form, content))
    return found


def _forms(word: str, tokenizer: PreTrainedTokenizerFast | None) -> Iterator[tuple[str, bytes]]:
    for case, text in (("", word), ("lower case ", word.lower()), ("upper case ", word.upper())):
        plain = text.encode()
        yield f"{case}text", plain
        yield f"{case}UTF-16", text.encode("utf-16-le")  # that of the other byte order has it inside, but for an end
        yield f"{case}UTF-16, big-endian", text.encode("utf-16-be")
        yield f"{case}hex", plain.hex().encode()
        yield f"{case}HEX", plain.hex().upper().encode()
        for shift in range(3):  # where in a longer text it lies decides on its letters; those that neighbours share go
            letters = base64.b64encode(b"\0" * shift + plain).rstrip(b"=")
            inside = letters[-(-shift * 8 // 6) : len(plain + b"\0" * shift) * 8 // 6]
            yield f"{case}base64 at {shift}", inside
            yield f"{case}base64 of URLs at {shift}", inside.translate(bytes.maketrans(b"+/", b"-_"))
    if tokenizer is None:
        return
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    assert len(ids) >= 5, f"{word} has few tokens: they may occur by chance"
    for separator in (", ", ",", " ", "\n"):
        yield f"token ids by {separator!r}", separator.join(map(str, ids)).encode()
    for kind in ("<u2", "<i4", "<i8", "<f4"):
        # Without zeros in front: a database is full of them, and each would be looked at.
        yield f"token ids as {kind}", np.array(ids, kind).tobytes().lstrip(b"\0")
    pieces = tokenizer.convert_ids_to_tokens(ids)
    for separator in (" ", ", ", '", "', "', '"):
        yield f"tokens by {separator!r}", separator.join(pieces).encode()


def search(haystacks: Mapping[str, bytes], wanted: Iterable[Needle]) -> set[Find]:
    """All that is found. Every place where the first eight bytes of a needle might be, pair by pair, is looked at: a
    thousand needles cost no more than one."""
    by_start: dict[bytes, list[Needle]] = {}
    may_be = np.zeros((_START // 2, 65536), dtype=bool)
    for needle in wanted:
        start = needle.content[:_START]
        by_start.setdefault(start, []).append(needle)
        may_be[range(_START // 2), np.frombuffer(start, ">u2")] = True
    found = set()
    for name, content in haystacks.items():
        if len(content) < _START:
            continue
        data = np.frombuffer(content, np.uint8).astype(np.uint16)
        pairs = data[:-1] << 8 | data[1:]
        places = np.flatnonzero(may_be[0, pairs[: len(content) - _START + 1]])
        for pair in range(1, _START // 2):
            places = places[may_be[pair, pairs[places + 2 * pair]]]
        for place in places.tolist():
            for needle in by_start.get(content[place : place + _START], ()):
                if content.startswith(needle.content, place):
                    found.add(Find(name, needle.place, needle.form))
    return found


def files_in(folder: Path) -> dict[str, bytes]:
    """All files below a folder and their names; of databases what their tables hold, too."""
    found = {"names of files": "\n".join(str(path.relative_to(folder)) for path in folder.rglob("*")).encode()}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
            if path.suffix in (".db", ".sqlite"):
                found[f"tables of {path.relative_to(folder)}"] = b"\n".join(values_of(path))
    return found


def values_of(database: Path) -> Iterator[bytes]:
    """Every value of an SQLite database."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
        for (table,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in opened.execute(f'SELECT * FROM "{table}"'):
                yield from (value if isinstance(value, bytes) else str(value).encode() for value in row)
