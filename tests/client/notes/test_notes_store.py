"""What is stored is what was read, tokenised whole, once, and mapped."""

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sqlalchemy
from notes_helpers import KEY, SmallTokenizer, prepared, words, write_csv, write_jsonl

from client.notes.source import Columns, NotesSource
from client.notes.store import default_cache, prepare
from client.notes.tokens import fingerprint
from common.errors import InputError, MachineError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXTS = [
    "",
    "Severe headache, no fièvre; naïve 测试 😀 [MASK] ok",
    *(words(seed, 3 + seed * 7) for seed in range(120)),
    "x" * 5000,
]
ROWS: list[dict[str, Any]] = [
    {"id": f"n{number}", "text": text, "category": f"ward {number % 3}" if number % 5 else None, "site": "north"}
    for number, text in enumerate(TEXTS)
]


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_tokens_are_those_of_the_whole_note(
    tmp_path: Path, cache: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    tokenizer: PreTrainedTokenizerBase = request.getfixturevalue(kind)
    source = NotesSource(source=str(write_jsonl(tmp_path / "notes.jsonl", ROWS)))
    store = prepare(source, tokenizer, KEY, cache)
    assert len(store) == len(TEXTS)
    for index, text in enumerate(TEXTS):
        alone = tokenizer(text, add_special_tokens=False, verbose=False)
        assert store.tokens(index).tolist() == alone["input_ids"]
        of_words = alone.word_ids()
        starts = [place == 0 or word != of_words[place - 1] for place, word in enumerate(of_words)]
        assert store.word_starts(index).tolist() == starts
        assert store.lengths[index] == len(of_words)
    assert store.tokens(3).dtype == np.uint16
    assert store.word_starts(1).sum() < store.lengths[1]


def test_a_vocabulary_past_16_bits_gets_wider_ids(tmp_path: Path, cache: Path) -> None:
    tokenizer = SmallTokenizer()
    tokenizer.backend_tokenizer.add_tokens([f"extra{number}" for number in range(70_000)])
    path = write_jsonl(tmp_path / "notes.jsonl", [{"text": "extra69999 and words to make five"}])
    store = prepare(NotesSource(source=str(path)), tokenizer, KEY, cache)  # type: ignore[arg-type]
    assert store.tokens(0).dtype == np.int32 and store.tokens(0)[0] > 2**16


def test_columns_texts_and_views(tmp_path: Path, cache: Path) -> None:
    store = prepared(write_jsonl(tmp_path / "notes.jsonl", ROWS), cache)
    assert store.column("id").tolist() == [row["id"] for row in ROWS]
    assert store.column("category").tolist() == [row["category"] for row in ROWS]
    assert set(store.column("site")) == {"north"} and set(store.column("label")) == {None}
    assert store.column("row").tolist() == list(range(1, len(ROWS) + 1))
    assert store.column("words").tolist() == [len(text.split()) for text in TEXTS]
    assert store.column("group")[0] == -1
    assert store.texts([5, 1, 5]) == [TEXTS[5], TEXTS[1], TEXTS[5]]
    view = store.view([7, 3, 9]).view([2, 0])
    assert len(view) == 2 and view.rows.tolist() == [9, 7]
    assert view.text(1) == TEXTS[7] and view.column("id").tolist() == ["n9", "n7"]
    assert view.tokens(0).tolist() == store.tokens(9).tolist()
    assert view.lengths.tolist() == [store.lengths[9], store.lengths[7]]
    assert view.intake == store.intake
    train = store.view(store.split_indices("train"))
    assert set(train.column("split")) == {"train"}
    assert train.split_indices("train").tolist() == list(range(len(train)))
    assert train.split_indices("test").tolist() == []


def test_texts_of_several_batches(tmp_path: Path, cache: Path) -> None:
    texts = [words(seed, 10) for seed in range(2500)]
    texts[10] = "y" * 1_000_000
    texts[11] = "z " * 500_000
    store = prepared(write_jsonl(tmp_path / "notes.jsonl", [{"text": text} for text in texts]), cache)
    assert store.texts(range(2500)) == texts
    assert store.texts([]) == []


def test_what_is_mapped_cannot_be_written(tmp_path: Path, cache: Path) -> None:
    store = prepared(write_jsonl(tmp_path / "notes.jsonl", ROWS), cache)
    assert isinstance(store.tokens(3), np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        store.tokens(3)[0] = 1


def test_a_store_can_be_sent_to_another_process(tmp_path: Path, cache: Path) -> None:
    view = prepared(write_jsonl(tmp_path / "notes.jsonl", ROWS), cache).view([4, 2])
    packed = pickle.dumps(view)
    assert TEXTS[4].encode() not in packed
    again = pickle.loads(packed)  # noqa: S301
    assert again.texts([0, 1]) == [TEXTS[4], TEXTS[2]] and again.lengths.tolist() == view.lengths.tolist()


def inodes(cache: Path) -> dict[str, tuple[int, int]]:
    files = [path for path in cache.glob("*/*") if path.is_file()]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def test_a_second_time_nothing_is_read_or_tokenised(tmp_path: Path, cache: Path) -> None:
    path = write_jsonl(tmp_path / "notes.jsonl", ROWS)
    stages: list[str] = []
    tokenizer = SmallTokenizer()
    source = NotesSource(source=str(path))
    prepare(source, tokenizer, KEY, cache, lambda stage, done: stages.append(stage))  # type: ignore[arg-type]
    assert list(dict.fromkeys(stages)) == ["read", "compare", "tokenise"] and tokenizer.calls == 1
    stages.clear()
    before = inodes(cache)
    moved = path.rename(tmp_path / "moved.jsonl")
    prepare(NotesSource(source=str(moved)), tokenizer, KEY, cache, lambda stage, done: stages.append(stage))  # type: ignore[arg-type]
    assert (stages, tokenizer.calls, inodes(cache)) == ([], 1, before)


def test_a_query_with_the_same_rows_is_tokenised_once(tmp_path: Path, cache: Path) -> None:
    engine = sqlalchemy.create_engine(url := f"sqlite:///{tmp_path}/notes.db")
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE note (note_text TEXT)"))
        connection.execute(sqlalchemy.text("INSERT INTO note VALUES (:t)"), [{"t": text} for text in TEXTS])
    source = NotesSource(source=url, query="SELECT * FROM note", columns=Columns(text="note_text"))
    tokenizer = SmallTokenizer()
    for _ in range(2):
        store = prepare(source, tokenizer, KEY, cache)  # type: ignore[arg-type]
        assert store.texts(range(len(store))) == TEXTS and tokenizer.calls == 1
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("DELETE FROM note WHERE rowid = 1"))
    assert len(prepare(source, tokenizer, KEY, cache)) == len(TEXTS) - 1  # type: ignore[arg-type]
    assert tokenizer.calls == 2
    assert not list(cache.glob(".making-*"))


def test_the_cache_is_keyed_by_content_columns_and_tokenizer(tmp_path: Path, cache: Path) -> None:
    path = write_csv(tmp_path / "notes.csv", [{"a": words(1), "b": words(2)}, {"a": words(3), "b": words(4)}])
    first = prepared(path, cache, columns=Columns(text="a"))
    assert prepared(path, cache, columns=Columns(text="b")).text(0) == words(2) != first.text(0)
    path.write_text(path.read_text().replace(words(3), words(5)))
    assert prepared(path, cache, columns=Columns(text="a")).text(1) == words(5)
    one, other = SmallTokenizer(), SmallTokenizer()
    assert fingerprint(one) == fingerprint(other)  # type: ignore[arg-type]
    other.backend_tokenizer.enable_truncation(5)
    other.backend_tokenizer.enable_padding()
    assert fingerprint(one) == fingerprint(other)  # type: ignore[arg-type]
    other.backend_tokenizer.add_tokens(["pneumothorax"])
    assert fingerprint(one) != fingerprint(other)  # type: ignore[arg-type]


def test_rows_that_were_tolerated_once_are_refused_when_they_are_not(tmp_path: Path, cache: Path) -> None:
    path = write_jsonl(tmp_path / "notes.jsonl", ROWS)
    path.write_text(path.read_text() + "nonsense\n")
    skipped = prepared(path, cache, skip_bad=1).intake.skipped
    assert skipped == [(len(ROWS) + 1, "is not valid JSON (at character 1)")]
    with pytest.raises(InputError, match=f"line {len(ROWS) + 1}: the row is not valid JSON"):
        prepared(path, cache)


def test_a_damaged_cache_is_refused(tmp_path: Path, cache: Path) -> None:
    path = write_jsonl(tmp_path / "notes.jsonl", ROWS)
    prepared(path, cache)
    next(cache.glob("tokens-*/offsets.bin")).unlink()
    with pytest.raises(MachineError) as refused:
        prepared(path, cache)
    assert refused.value.code == "cache-damaged"


def test_notes_that_are_all_empty_can_be_opened(tmp_path: Path, cache: Path) -> None:
    store = prepared(write_jsonl(tmp_path / "notes.jsonl", [{"text": ""}, {"text": None}]), cache)
    assert store.lengths.tolist() == [0, 0] and store.tokens(1).tolist() == [] and store.intake.empty == 2


def test_the_default_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("FEDNOTES_CACHE", raising=False)
    assert default_cache() == Path.home() / ".cache" / "fednotes"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert default_cache() == Path("/x/fednotes")
    monkeypatch.setenv("FEDNOTES_CACHE", "/y")
    assert default_cache() == Path("/y")
