"""The search for secrets finds each form of one, wherever it lies, and nothing else."""

import base64
import json
import sqlite3
import zlib
from pathlib import Path

import numpy as np
import pytest
from needles import files_in, needles, search
from transformers import PreTrainedTokenizerFast

WORD = "Brimquazzle"
TEXT = f"The patient {WORD} was seen."


@pytest.fixture(scope="module")
def tokenizer(tokenizers: dict[str, PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    return tokenizers["bert"]


def ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    return tokenizer(TEXT)["input_ids"]


@pytest.mark.parametrize(
    "leak",
    [
        lambda t: TEXT.encode(),
        lambda t: TEXT.lower().encode(),
        lambda t: TEXT.upper().encode(),
        lambda t: json.dumps({"error": TEXT}).encode(),
        lambda t: TEXT.encode("utf-16"),
        lambda t: TEXT.lower().encode("utf-16-be"),
        lambda t: TEXT.encode().hex().encode(),
        lambda t: TEXT.lower().encode().hex().upper().encode(),
        lambda t: base64.b64encode(TEXT.encode()),
        lambda t: base64.b64encode(b"1" + TEXT.encode()),
        lambda t: base64.urlsafe_b64encode(b"12" + TEXT.lower().encode()),
        lambda t: str(ids(t)).encode(),
        lambda t: ",".join(map(str, ids(t))).encode(),
        lambda t: "\n".join(map(str, ids(t))).encode(),
        lambda t: np.array(ids(t), np.int64).tobytes(),
        lambda t: np.array(ids(t), np.uint16).tobytes(),
        lambda t: np.array(ids(t), np.float32).tobytes(),
        lambda t: " ".join(t.convert_ids_to_tokens(ids(t))).encode(),
        lambda t: json.dumps(t.convert_ids_to_tokens(ids(t))).encode(),
    ],
)
def test_each_form_is_found_at_the_start_in_the_middle_and_at_the_end(leak, tokenizer: PreTrainedTokenizerFast) -> None:
    rng = np.random.default_rng(0)
    noise, secret = rng.bytes(100_003), leak(tokenizer)
    wanted = needles({"a note": WORD}, tokenizer)
    hay = {"start": secret + noise, "middle": noise + secret + noise, "end": noise + secret}
    assert {one.haystack for one in search(hay, wanted)} == set(hay)


def test_nothing_is_found_where_nothing_is(tokenizer: PreTrainedTokenizerFast) -> None:
    wanted = needles({"a note": WORD}, tokenizer)
    others = "Brimquazzl Bri mquazzle the patient was seen " * 1000
    hay = {"noise": np.random.default_rng(1).bytes(1_000_000), "words": others.encode(), "empty": b"", "short": b"Brim"}
    hay["token ids"] = np.array(tokenizer(others)["input_ids"], np.int64).tobytes()
    assert not search(hay, wanted)


def test_files_names_and_tables_are_read(tmp_path: Path) -> None:
    (tmp_path / f"of {WORD}").mkdir()
    (tmp_path / "summary.json").write_text(json.dumps(TEXT))
    long = zlib.compress(np.random.default_rng(2).bytes(3000)) + TEXT.encode()
    with sqlite3.connect(tmp_path / "state.db") as opened:
        opened.execute("CREATE TABLE one (content)")
        opened.executemany("INSERT INTO one VALUES (?)", [(long[-size:],) for size in range(20, 9000, 500)])
    found = {one.haystack for one in search(files_in(tmp_path), needles({"a note": WORD}))}
    assert found == {"names of files", "summary.json", "state.db", "tables of state.db"}
