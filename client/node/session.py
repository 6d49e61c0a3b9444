"""What a node that was killed leaves to the next one: its number at the coordinator, and the message in its hands.

The coordinator takes a killed node for online until its heartbeats are missed, and refuses a second one with its key.
The next node of the same folder knows that the first is dead, for it holds the folder's lock: it signs it off. A copy
of the folder, on this machine or another, must not: its lock is another file.
"""

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from flwr.app import Message

from client.node.parcel import header_bytes, read_header
from common.errors import MachineError
from common.files import explained, new_file, write_text

STATE = "node"  # folder of the site's folder
_LOCK, _SESSION, _CLAIMED, _PULSE = "lock", "session.json", "claimed", "pulse"
PULSE = 15.0  # seconds between two beats
_DEAD = 2 * PULSE
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Session:
    """The state of a node that has the lock; made by `open_session`."""

    def __init__(self, folder: Path, lock: IO[str]) -> None:
        self._folder = folder
        status = Path(lock.name).stat()
        boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
        self._here = f"{boot} {status.st_dev} {status.st_ino}" if boot else ""

    @property
    def number(self) -> int | None:
        """The node's number when it was last connected, here or in a folder of which this is a copy."""
        found = self._read().get("node")
        return found if isinstance(found, int) else None

    @property
    def predecessor(self) -> int | None:
        """The number of the node that had this very lock before us, since the machine was started."""
        return self.number if self._here and self._read().get("lock") == self._here else None

    def connected(self, number: int) -> None:
        write_text(self._folder / _SESSION, json.dumps({"node": number, "lock": self._here}) + "\n")

    def beat(self) -> None:
        """Tell the supervisor that we live."""
        with contextlib.suppress(OSError):  # on a full disk the file is there already
            (self._folder / _PULSE).touch()

    def claim(self, header: Message) -> None:
        """We are the only ones who will ever get this message: the coordinator hands it out once."""
        with new_file(self._folder / _CLAIMED) as scratch:
            scratch.write_bytes(header_bytes(header))

    def answered(self) -> None:
        (self._folder / _CLAIMED).unlink(missing_ok=True)

    def unanswered(self) -> Message | None:
        """The header of a message that the node before us claimed and never answered."""
        try:
            return read_header((self._folder / _CLAIMED).read_bytes())
        except (OSError, ValueError):
            return None

    def _read(self) -> dict[str, object]:
        try:
            found = json.loads((self._folder / _SESSION).read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


@contextlib.contextmanager
def open_session(site: Path) -> Iterator[Session]:
    """Hold the lock of a site's folder. Raises MachineError `already-running`."""
    folder = site / STATE
    with explained(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = (folder / _LOCK).open("a")
    with lock:
        for attempt in range(5):  # one that only asks holds it for a moment
            if _take(lock, fcntl.LOCK_EX):
                break
            if attempt == 4:
                raise MachineError("already-running", f"A node of {site} runs already.", "There is nothing to do.")
            time.sleep(0.1)
        yield Session(folder, lock)


def node_runs(site: Path) -> bool:
    """Whether a process holds the lock of the site's folder."""
    with contextlib.suppress(OSError), (site / STATE / _LOCK).open() as lock:
        return not _take(lock, fcntl.LOCK_SH)
    return False


def node_lives(site: Path) -> bool:
    """Whether a node has told lately that it lives; one that hangs does not."""
    with contextlib.suppress(OSError):
        return time.time() - (site / STATE / _PULSE).stat().st_mtime < _DEAD
    return False


def _take(lock: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
