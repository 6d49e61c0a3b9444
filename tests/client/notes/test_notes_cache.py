"""The cache survives a kill, a full disk, a second process at once, and is nobody else's to read."""

import multiprocessing
import os
import resource
import signal
import stat
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from notes_helpers import KEY, SECRET, SmallTokenizer, pack, prepared, words, write_jsonl, write_parquet

from client.notes.folders import scratch
from client.notes.source import NotesSource
from client.notes.store import prepare
from common.errors import FednotesError, MachineError

# A fresh interpreter, as two runs of the program are; forked, they would share more than a real pair does.
spawn = multiprocessing.get_context("spawn")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    rows = [{"text": f"{SECRET} {words(number, 60)}"} for number in range(2500)]
    return write_jsonl(tmp_path / "notes.jsonl", rows)


def stop_at(stage: str, path: Path, cache: Path, reached: Path) -> None:
    """Prepares, and stands still once a stage has written something."""

    def progress(now: str, done: int) -> None:
        if now == stage:
            reached.touch()
            time.sleep(60)

    prepare(NotesSource(source=str(path)), SmallTokenizer(), KEY, cache, progress)  # type: ignore[arg-type]


def wait_for(path: Path) -> None:
    for _ in range(300):
        if path.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} never appeared")


@pytest.mark.parametrize("stage", ["read", "compare", "tokenise"])
def test_a_killed_process_leaves_nothing_that_is_taken_for_finished(
    notes: Path, tmp_path: Path, cache: Path, stage: str
) -> None:
    child = spawn.Process(target=stop_at, args=(stage, notes, cache, tmp_path / "reached"))
    child.start()
    wait_for(tmp_path / "reached")
    with scratch(cache):
        # Alive, it keeps its half-made folder, though another process now looks for stale ones.
        assert len(list(cache.glob(".making-*"))) == 2
    assert child.pid
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert len(list(cache.glob(".making-*"))) == 1
    assert not list(cache.glob("tokens-*"))
    store = prepared(notes, cache)
    assert len(store) == 2500 and store.text(7) == f"{SECRET} {words(7, 60)}"
    assert not list(cache.glob(".making-*"))


def prepare_at_once(path: Path, cache: Path, together: Barrier, results: Any) -> None:
    def progress(stage: str, done: int) -> None:
        # Both are halfway through each stage before either goes on.
        if done == 2000:
            together.wait(30)

    store = prepare(NotesSource(source=str(path)), SmallTokenizer(), KEY, cache, progress)  # type: ignore[arg-type]
    results.put((int(store.lengths.sum()), store.text(2499), [int(token) for token in store.tokens(11)]))


def test_two_processes_at_once_end_with_one_cache(notes: Path, cache: Path) -> None:
    together, results = spawn.Barrier(2), spawn.Queue()
    children = [spawn.Process(target=prepare_at_once, args=(notes, cache, together, results)) for _ in range(2)]
    for child in children:
        child.start()
    one, other = results.get(timeout=30), results.get(timeout=30)
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert one == other
    assert sorted(path.name.partition("-")[0] for path in cache.iterdir()) == [".lock", "notes", "tokens"]
    assert sorted(path.name for path in next(cache.glob("notes-*")).iterdir()) == [
        "intake.json",
        "notes.arrow",
        "texts.arrow",
    ]


def prepare_with_little_disk(limit: int, path: Path, cache: Path, results: Any) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        prepared(path, cache)
    except FednotesError as error:
        results.put((error.code, str(error), [path.name for path in cache.glob(".making-*")] if cache.exists() else []))


# The texts are 1.2 MB, the tokens .3 MB: the disk is full at the first or at the second stage.
@pytest.mark.parametrize("limit", [100_000, 1_000_000])
def test_a_full_disk_is_explained_and_leaves_nothing(notes: Path, cache: Path, limit: int) -> None:
    if limit == 1_000_000:
        store = prepared(notes, cache)
        (tokens,) = cache.glob("tokens-*")
        limit = (tokens / "tokens.bin").stat().st_size // 2
        assert len(store) == 2500
        for file in tokens.iterdir():
            file.unlink()
        tokens.rmdir()
    results = spawn.Queue()
    child = spawn.Process(target=prepare_with_little_disk, args=(limit, notes, cache, results))
    child.start()
    code, message, left = results.get(timeout=30)
    child.join()
    assert (code, left) == ("disk-full", [])
    assert SECRET not in message
    assert len(prepared(notes, cache)) == 2500


def test_a_full_disk_while_unpacking_parquet(tmp_path: Path, cache: Path) -> None:
    path = pack(write_parquet(tmp_path / "notes.parquet", [{"text": words(seed)} for seed in range(3000)]))
    results = spawn.Queue()
    child = spawn.Process(target=prepare_with_little_disk, args=(50_000, path, cache, results))
    child.start()
    code, message, _ = results.get(timeout=30)
    child.join()
    assert code == "disk-full" and "TMPDIR" in message


def test_a_cache_that_cannot_be_written_is_explained(notes: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for cache in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(MachineError) as refused:
            prepared(notes, cache)
        assert refused.value.code == "unwritable" and str(cache) in refused.value.message


def test_a_tokenizer_that_fails_leaves_nothing(notes: Path, cache: Path) -> None:
    class Failing(SmallTokenizer):
        def __call__(self, texts: list[str], **_: Any) -> SmallTokenizer:
            raise RuntimeError("no tokens today")

    with pytest.raises(RuntimeError, match="no tokens today"):
        prepare(NotesSource(source=str(notes)), Failing(), KEY, cache)  # type: ignore[arg-type]
    assert sorted(path.name.partition("-")[0] for path in cache.iterdir()) == [".lock", "notes"]


def test_only_the_owner_can_look_inside(notes: Path, cache: Path) -> None:
    old = os.umask(0)
    try:
        prepared(notes, cache)
    finally:
        os.umask(old)
    folders = [cache, *(path for path in cache.iterdir() if path.is_dir())]
    assert len(folders) == 3
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}


def test_a_file_that_changes_while_it_is_read_is_refused(notes: Path, cache: Path) -> None:
    def progress(stage: str, done: int) -> None:
        if stage == "read" and done == 1000:
            with notes.open("a") as stream:
                stream.write('{"text": "one more note than there was"}\n')

    with pytest.raises(FednotesError) as refused:
        prepare(NotesSource(source=str(notes)), SmallTokenizer(), KEY, cache, progress)  # type: ignore[arg-type]
    assert refused.value.code == "notes-changed"
    assert not list(cache.glob("notes-*"))
