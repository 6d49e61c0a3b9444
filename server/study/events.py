"""What happens in a study, a line each in `events.jsonl`: written by the ServerApp, read by whoever looks on."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from server.rounds import Event

EVENTS_FILE = "events.jsonl"


class EventLog:
    """Appends events. A line that a kill cut off is ended before the next, and readers leave it aside."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / EVENTS_FILE
        if self._path.exists() and not self._path.read_bytes().endswith(b"\n"):
            self._append("\n")

    def __call__(self, event: Event) -> None:
        said = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **vars(event)}
        self._append(json.dumps(said, ensure_ascii=False) + "\n")

    def _append(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


class EventReader:
    """Reads what was appended since it last looked."""

    def __init__(self, folder: Path) -> None:
        self._path, self._at = folder / EVENTS_FILE, 0

    def new(self) -> Iterator[tuple[str, Event]]:
        """(time in ISO 8601, event), in order."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            whole, _, _ = file.read().rpartition(b"\n")
        if not whole:
            return
        self._at += len(whole) + 1
        for line in whole.splitlines():
            try:
                said = json.loads(line)
                yield said.pop("time"), Event(**said)
            except (ValueError, TypeError, KeyError, AttributeError):
                continue  # cut off by a kill
