"""A site's folder: what `site.toml` may say, and what is said of mistakes in it."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from client.notes.source import NotesSource
from client.notes.store import NoteStore, prepare
from client.site import SITE_FILE, open_site, open_site_file, site_facts
from common.encoder import load_tokenizer
from common.errors import InputError
from common.plan import StudyPlan

GOOD = {"name": "A", "split_key": "00" * 16, "cache": "cache", "notes": {"source": "notes.jsonl"}}


def write(folder: Path, **changed: object) -> Path:
    (folder / SITE_FILE).write_text(tomli_w.dumps(GOOD | changed))
    return folder / SITE_FILE


def refusal(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        open_site_file(path)
    return caught.value


def test_a_site_is_read(tmp_path: Path) -> None:
    site = open_site(write(tmp_path).parent)
    assert (site.name, site.folder, site.config.min_notes, site.config.rows) == ("A", tmp_path, 20, None)


def test_all_mistakes_are_told_at_once_and_no_values(tmp_path: Path) -> None:
    """The split key and a database's password stand in this file: an error must not repeat them."""
    error = refusal(
        write(
            tmp_path,
            name="",
            split_key="deadbeef" * 4 + "xyz",
            min_notes=0,
            extra=1,
            notes={"source": "postgresql://me:hunter2@db/notes"},
        )
    )
    lines = error.message.splitlines()
    assert error.code == "site-invalid" and len(lines) == 6
    for path in ("name", "split_key", "min_notes", "extra", "notes"):
        assert any(line.startswith(f"  {path}: ") for line in lines), path
    assert "deadbeef" not in str(error) and "hunter2" not in str(error)


@pytest.mark.parametrize("key", ["", "00", "0" * 15, "0" * 17, "AB" * 16, "zz" * 16])
def test_a_split_key_is_hexadecimal(tmp_path: Path, key: str) -> None:
    assert "split_key" in refusal(write(tmp_path, split_key=key)).message


@pytest.mark.parametrize(
    ("content", "code"),
    [(None, "site-missing"), (b"name = ", "site-invalid"), (b"\xff", "site-invalid"), (b"", "site-invalid")],
)
def test_what_is_no_site(tmp_path: Path, content: bytes | None, code: str) -> None:
    if content is not None:
        (tmp_path / SITE_FILE).write_bytes(content)
    assert refusal(tmp_path / SITE_FILE).code == code


def test_a_site_has_its_rows(
    make_site: Callable[..., Path], hospitals: dict[str, np.ndarray], notes: NoteStore, bases: dict[str, str]
) -> None:
    tokenizer = load_tokenizer(bases["bert"])
    for name, rows in hospitals.items():
        own = open_site(make_site(name, rows)).notes(tokenizer)
        assert own.rows.tolist() == rows.tolist() and set(own.column("site")) == {name}
        assert own.digest == notes.digest
        for split in ("train", "dev", "test"):
            assert set(own.rows[own.split_indices(split)]) <= set(notes.split_indices(split))


def test_the_cache_is_relative_to_the_site(
    make_site: Callable[..., Path],
    hospitals: dict[str, np.ndarray],
    bases: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = make_site("A", hospitals["eastholme"], cache=Path("own/cache"))
    monkeypatch.chdir(folder.parent)
    open_site(folder).notes(load_tokenizer(bases["bert"]))
    assert (folder / "own" / "cache").is_dir()


def test_pickled_rows_are_never_run(
    make_site: Callable[..., Path], hospitals: dict[str, np.ndarray], bases: dict[str, str], tmp_path: Path
) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "went-off"),)

    folder = make_site("A", hospitals["eastholme"])
    (folder / "rows.npy").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises((InputError, ValueError)):
        open_site(folder).notes(load_tokenizer(bases["bert"]))
    assert not (tmp_path / "went-off").exists()


@pytest.mark.parametrize("most", [16, 32, 8192])
def test_facts_are_counts(
    texts: list[str], tmp_path: Path, bases: dict[str, str], make_plan: Callable[..., StudyPlan], most: int
) -> None:
    """Of notes of which some are set aside, for a copy of them is a test note."""
    given = [(text, "test" if i % 3 else "dev") for i, text in enumerate(texts[:30])]
    rows = [{"text": text, "split": split} for text, split in [*given, *((text, "train") for text in texts[20:60])]]
    (tmp_path / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = NotesSource(source=str(tmp_path / "notes.jsonl"))
    notes = prepare(source, load_tokenizer(bases["bert"]), b"a key", tmp_path / "cache")
    facts = site_facts("A", notes, make_plan(encoder={"max_length": most}))
    splits = [notes.column("split").tolist().count(split) for split in ("train", "dev", "test", "set-aside")]
    assert [facts.train, facts.dev, facts.test, facts.set_aside] == splits
    tokens = sum(
        min(len(notes.tokens(i)), most - 2) + 2 for i in range(len(notes)) if notes.column("split")[i] != "set-aside"
    )
    assert facts.set_aside >= 10 and facts.tokens == tokens and facts.name == "A"
    longer = sum(len(notes.tokens(i)) > most - 2 for i in notes.split_indices("train"))
    assert (facts.whole, facts.shortened, facts.too_short) == (facts.train - longer, longer, 0)


def test_facts_say_what_the_objective_can_use(notes: NoteStore, make_plan: Callable[..., StudyPlan]) -> None:
    """With four anchors, a span has at most an eighth of the note: 320 tokens for spans of 40, 240 for those of 30."""
    objective = {"kind": "declutr", "anchors": 4, "min_span": 30, "max_span": 40}
    facts = site_facts("A", notes, make_plan(encoder={"max_length": 64}, objective=objective))
    lengths = [len(notes.tokens(i)) for i in notes.split_indices("train")]
    expected = [sum(n >= 320 for n in lengths), sum(240 <= n < 320 for n in lengths), sum(n < 240 for n in lengths)]
    assert [facts.whole, facts.shortened, facts.too_short] == expected and min(expected) > 0
