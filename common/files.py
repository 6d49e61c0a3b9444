"""Atomic writes: a reader sees the old file or the new one, never a part, whenever the writer is killed."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from common.errors import MachineError


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a scratch path beside `path`; on success it is synced and takes its place, else it is removed."""
    scratch = _scratch(path)
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield scratch
            _sync(scratch)
            scratch.replace(path)
            _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a scratch folder beside `path`; on success it is synced and replaces `path`, else it is removed."""
    scratch, old = _scratch(path), path.with_name(f".{path.name}.old.tmp")
    try:
        with explained(path):
            for left in (scratch, old):
                shutil.rmtree(left, ignore_errors=True)
            scratch.mkdir(parents=True)
            yield scratch
            for file in scratch.rglob("*"):
                _sync(file)
            _sync(scratch)
            if path.exists():  # aside in one step: a kill while it is removed must not leave half of it in place
                path.replace(old)
            scratch.replace(path)
            _sync(path.parent)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _scratch(path: Path) -> Path:
    """The same name every time: what a killed process left is overwritten when its work is done again. A folder that
    two processes could write to is locked by whoever owns it."""
    return path.with_name(f".{path.name}.tmp")


def write_text(path: Path, text: str) -> None:
    with new_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what a disk can refuse into a MachineError that names the path."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = error.errno if isinstance(error, OSError) else _errno_of(error)
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise MachineError(
                "disk-full", f"There is no space left to write {path}.", "Free some space and resume."
            ) from None
        if number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise MachineError(
                "unwritable", f"{path} cannot be written: {os.strerror(number)}.", "Choose another folder."
            ) from None
        raise


def _errno_of(error: SafetensorError) -> int | None:
    """safetensors writes in Rust, whose errors carry the system's number only in their text: "(os error 28)"."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
