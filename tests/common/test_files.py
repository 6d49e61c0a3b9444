"""Atomic writes: the old or the new, never a part."""

import contextlib
import errno
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import common.files
from common.errors import MachineError
from common.files import explained, new_file, new_folder, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """What a full disk does, done by the kernel: writes beyond `size` bytes fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_takes_its_place_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "made" / "on the way" / "file"
    with new_file(target) as scratch:
        scratch.write_text("new")
        assert not target.exists() and scratch.parent == target.parent and scratch.name.startswith(".")
    assert target.read_text() == "new" and names(target.parent) == ["file"]


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    with pytest.raises(KeyboardInterrupt), new_file(tmp_path / "file") as scratch:
        scratch.write_text("ne")
        raise KeyboardInterrupt
    assert (tmp_path / "file").read_text() == "old" and names(tmp_path) == ["file"]


def test_text_is_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "é—")
    assert (tmp_path / "file").read_bytes() == "é—".encode()


def test_a_folder_takes_its_place_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for content in ("old", "new"):
        with new_folder(target) as scratch:
            (scratch / "deep").mkdir()
            (scratch / "deep" / content).write_text(content)
    assert names(target / "deep") == ["new"] and names(tmp_path) == ["folder"]


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    with new_folder(tmp_path / "folder") as scratch:
        (scratch / "file").write_text("old")
    with pytest.raises(RuntimeError), new_folder(tmp_path / "folder") as scratch:
        (scratch / "file").write_text("ne")
        raise RuntimeError
    assert (tmp_path / "folder" / "file").read_text() == "old" and names(tmp_path) == ["folder"]


def test_an_old_folder_is_never_seen_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "folder"
    with new_folder(target) as scratch:
        for name in ("a", "b"):
            (scratch / name).write_text("old")

    remove = shutil.rmtree

    def killed_half_way(path: Path, ignore_errors: bool = False) -> None:
        if (Path(path) / "b").exists() and (Path(path) / "a").read_text() == "old":
            (Path(path) / "a").unlink()
            raise KeyboardInterrupt
        remove(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(common.files.shutil, "rmtree", killed_half_way)
    with contextlib.suppress(KeyboardInterrupt), new_folder(target) as scratch:
        for name in ("a", "b"):
            (scratch / name).write_text("new")
    assert not target.exists() or names(target) == ["a", "b"]


def test_what_a_killed_writer_left_is_not_in_the_way(tmp_path: Path) -> None:
    with new_folder(tmp_path / "folder") as scratch:
        left = scratch
    left.mkdir()
    (left / "half").write_text("x")
    with new_folder(tmp_path / "folder") as scratch:
        assert names(scratch) == []
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "disk-full"),
        (errno.EDQUOT, "disk-full"),
        (errno.EFBIG, "disk-full"),
        (errno.EACCES, "unwritable"),
        (errno.EROFS, "unwritable"),
        (errno.ENOTDIR, "unwritable"),
    ],
)
def test_what_a_disk_refuses_is_explained(number: int, code: str) -> None:
    with pytest.raises(MachineError, match="some/place") as caught, explained(Path("some/place")):
        raise OSError(number, os.strerror(number))
    assert caught.value.code == code and caught.value.exit_code == 3


def test_other_errors_pass() -> None:
    with pytest.raises(OSError, match="Input/output"), explained(Path("place")):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(MachineError) as caught:
        write_text(tmp_path / "file" / "below", "y")
    assert caught.value.code == "unwritable"


def test_no_space_for_a_text(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    with no_file_larger_than(1000), pytest.raises(MachineError) as caught:
        write_text(tmp_path / "file", "x" * 5000)
    assert caught.value.code == "disk-full"
    assert (tmp_path / "file").read_text() == "old" and names(tmp_path) == ["file"]


def test_no_space_for_tensors(tmp_path: Path) -> None:
    """safetensors tells of a full disk in an error of its own, which is no OSError."""
    with no_file_larger_than(1000), pytest.raises(MachineError) as caught, new_folder(tmp_path / "folder") as scratch:
        save_file({"a": np.zeros(5000, np.float32)}, scratch / "t.safetensors")
    assert caught.value.code == "disk-full" and names(tmp_path) == []
