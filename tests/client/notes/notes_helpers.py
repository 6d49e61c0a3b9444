"""What the tests of `client.notes` share: invented notes, files of every format, and a tokenizer quick to load.

The tokenizer is a module of its own, so that child processes can import it without the test framework.
"""

import csv
import gzip
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, models, pre_tokenizers

from client.notes.read import read_notes
from client.notes.source import NotesSource
from client.notes.store import NoteStore, prepare
from common.errors import FednotesError

KEY = b"a site's key"
SECRET = "zebrafinch"
_random = random.Random(7)
WORDS = ["".join(_random.choices("abcdefghijklmnoprstuvw", k=_random.randint(3, 9))) for _ in range(3000)]


def words(seed: int, count: int = 40) -> str:
    """An invented note, different for every seed."""
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def change(text: str, places: int, seed: int = 0) -> str:
    """The text with some of its words replaced."""
    chosen = random.Random(seed)
    parts = text.split()
    for place in chosen.sample(range(len(parts)), places):
        parts[place] = f"changed{seed}x{place}"
    return " ".join(parts)


class SmallTokenizer:
    """What `prepare` needs of a fast tokenizer, on a word list; `calls` counts how often it was asked."""

    def __init__(self) -> None:
        vocabulary = {word: index for index, word in enumerate(["[UNK]", *sorted(set(WORDS))])}
        self.backend_tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        self.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        self.calls = 0

    def __len__(self) -> int:
        return self.backend_tokenizer.get_vocab_size()

    def __call__(self, texts: list[str], **_: Any) -> "SmallTokenizer":
        self.calls += 1
        self.encodings = self.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
        return self


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def pack(path: Path) -> Path:
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    return packed


def prepared(path: Path, cache: Path, key: bytes = KEY, **source: Any) -> NoteStore:
    return prepare(NotesSource(source=str(path), **source), SmallTokenizer(), key, cache)  # type: ignore[arg-type]


def refusal(path: Path | str, **source: Any) -> FednotesError:
    """The error that reading a source ends in."""
    try:
        list(read_notes(NotesSource(source=str(path), **source)))
    except FednotesError as error:
        return error
    raise AssertionError("It was not refused.")
