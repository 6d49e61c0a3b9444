"""What happened in a study, in order: for whoever follows it, and as lines of JSON."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import select

from server.events import Event
from server.record.database import Database
from server.record.place import find
from server.record.tables import EventRow

_FIELDS = ("kind", "round", "site", "text", "code")


def events(database: Database, study: str, after: int = 0) -> list[dict[str, Any]]:
    """What happened after the event with the id `after`; each with its time, and with the next step of an incident."""
    with database.read() as session:
        wanted = select(EventRow).where(EventRow.study == study, EventRow.id > after).order_by(EventRow.id)
        return [
            {"id": one.id, "time": one.time.isoformat(timespec="milliseconds")}
            | {name: getattr(one, name) for name in (*_FIELDS, "next_step")}
            for one in session.scalars(wanted)
        ]


class EventReader:
    """Reads what happened since it last looked."""

    def __init__(self, run: Path) -> None:
        self._run, self._after = run, 0
        self._found: tuple[Database, str] | None = None

    def new(self) -> Iterator[tuple[str, Event]]:
        """(time in ISO 8601, event), in order; nothing where the run keeps no record. Raises as `Database.read`."""
        self._found = self._found or find(self._run)
        if self._found is None:
            return
        for said in events(*self._found, self._after):
            self._after = said["id"]
            yield said["time"], Event(**{name: said[name] for name in _FIELDS})
