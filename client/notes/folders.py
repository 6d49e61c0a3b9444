"""Folders that appear whole or not at all, safe from a kill, a full disk, and a second process that makes the same."""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from common.files import explained

_MAKING = ".making-"
_LOCK = ".lock"


@contextmanager
def scratch(cache: Path) -> Iterator[Path]:
    """A new private folder (mode 0700) in `cache` to fill and then `publish`; gone afterwards if it was not.

    What killed processes left behind is removed first: theirs are the scratch folders that nobody holds a lock on.

    Raises:
        MachineError: the cache cannot be written, or its disk is full (also while the folder is being filled).
    """
    with explained(cache), ExitStack() as stack:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Under the cache's lock, so that nobody sweeps the folder away between its making and its own locking.
        with _locked(cache / _LOCK):
            _sweep(cache)
            folder = Path(tempfile.mkdtemp(prefix=_MAKING, dir=cache))
            stack.enter_context(_locked(folder / _LOCK))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


def publish(folder: Path, target: Path) -> None:
    """Renames a filled scratch folder to `target`. Where another process was first, its equal result stands."""
    for file in folder.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
    else:
        # Not before: without its lock the folder would look like one that a killed process left.
        (target / _LOCK).unlink()


def _sweep(cache: Path) -> None:
    for folder in cache.glob(f"{_MAKING}*"):
        with suppress(BlockingIOError, FileNotFoundError), _locked(folder / _LOCK, wait=False):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Holds a lock on a file, which the system lets go of when the process dies, however it dies.

    Raises:
        BlockingIOError: another holds it, and `wait` is false.
    """
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
