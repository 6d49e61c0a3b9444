"""The second stage of the cache: every note's tokens, made once for a tokenizer and memory-mapped ever after.

`tokens.bin` holds the ids of all notes one after another, whole and without special tokens; `offsets.bin` where each
note starts, int64 (n + 1,); `word_starts.bin` a byte a token, 1 where a word starts; `tokens.json` the ids' type.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from client.notes.folders import publish, scratch
from client.notes.intake import TEXTS, Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENS = "tokens.bin"
OFFSETS = "offsets.bin"
WORD_STARTS = "word_starts.bin"
META = "tokens.json"


def tokenise(notes: Path, tokenizer: "PreTrainedTokenizerBase", cache: Path, progress: Progress) -> Path:
    """The folder in `cache` with the tokens of the notes in the folder `notes`, made now unless it is there.

    Raises:
        MachineError: the cache cannot be written, or its disk is full.
    """
    target = cache / f"tokens-{notes.name.removeprefix('notes-')}-{fingerprint(tokenizer)}"
    if target.is_dir():
        return target
    with scratch(cache) as folder:
        kind = np.dtype("uint16" if len(tokenizer) < 2**16 else "int32")
        lengths = [0]
        done = 0
        with (folder / TOKENS).open("wb") as ids, (folder / WORD_STARTS).open("wb") as starts:
            for texts in _text_batches(notes / TEXTS):
                for note_ids, note_starts in _encode(tokenizer, texts, kind):
                    ids.write(note_ids.tobytes())
                    starts.write(note_starts.tobytes())
                    lengths.append(len(note_ids))
                done += len(texts)
                progress("tokenise", done)
        (folder / OFFSETS).write_bytes(np.cumsum(lengths, dtype=np.int64).tobytes())
        (folder / META).write_text(json.dumps({"dtype": kind.name}), encoding="utf-8")
        publish(folder, target)
    return target


def token_type(folder: Path) -> np.dtype:
    """The type of the ids in `tokens.bin`."""
    return np.dtype(json.loads((folder / META).read_text(encoding="utf-8"))["dtype"])


def fingerprint(tokenizer: "PreTrainedTokenizerBase") -> str:
    """16 hexadecimal digits that differ where two fast tokenizers could cut a whole note differently."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    rules["truncation"] = rules["padding"] = None
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:16]


def _text_batches(texts: Path) -> Iterator[list[str]]:
    # Read, not mapped: the pages of half a gigabyte of texts would otherwise count as this process's memory.
    with texts.open("rb") as stream, pa.ipc.open_file(stream) as reader:
        for batch in range(reader.num_record_batches):
            yield reader.get_batch(batch).column(0).to_pylist()


def _encode(
    tokenizer: "PreTrainedTokenizerBase", texts: list[str], kind: np.dtype
) -> Iterator[tuple[NDArray, NDArray[np.bool_]]]:
    """For each text its token ids (t,) and which of them start a word (t,)."""
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        truncation=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    for encoding in encoded.encodings:
        # As floats, a token of no word (None) becomes NaN, which differs from its neighbours: it starts one of its own.
        words = np.array(encoding.word_ids, dtype=np.float64)
        yield np.array(encoding.ids, dtype=kind), np.diff(words, prepend=np.nan) != 0
