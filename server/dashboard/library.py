"""The studies that the dashboard shows: those of a folder of runs, or those of a database of records."""

from dataclasses import dataclass
from pathlib import Path

from common.errors import FednotesError, InputError
from server.dashboard.live import Feed
from server.dashboard.rendering import rendered
from server.record.database import Database
from server.record.listing import Listed, folder_of, pulses, studies
from server.record.place import PLACE_FILE, Place, find


@dataclass(frozen=True)
class Entry:
    """A study: its key in addresses, its database and its id there, and the folder that its run was made in."""

    key: str
    database: Database
    study: str
    folder: Path

    @property
    def run(self) -> Path | None:
        """The folder, where it is on this machine and says itself that it holds this study: whoever may write to a
        database may not name others."""
        try:
            place = Place.model_validate_json((self.folder / PLACE_FILE).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return self.folder if place.study == self.study else None


class Library:
    """Exactly one of the two is given. Raises InputError `runs-unreadable`, and as `Database`."""

    def __init__(self, runs: Path | None, database: str | None) -> None:
        self.runs = runs
        self._database = Database(database) if database else None
        self._opened: dict[str, Entry] = {}
        self.keys()  # what cannot be read is found now

    @property
    def place(self) -> str:
        return str(self.runs) if self._database is None else self._database.name

    def keys(self) -> list[str]:
        if self._database is not None:
            return [one.study for one in pulses(self._database)]
        assert self.runs is not None
        try:
            return sorted(path.name for path in self.runs.iterdir() if (path / PLACE_FILE).is_file())
        except OSError as error:
            message = f"The folder of runs, {self.runs}, cannot be read: {error.strerror}."
            raise InputError("runs-unreadable", message, "Give one with --runs.") from None

    def entry(self, key: str) -> Entry | None:
        """None where there is no such study; a key is only ever compared, never made a path of. Raises as `find`."""
        return self._entry(key) if key in self.keys() else None

    def _entry(self, key: str) -> Entry | None:
        if key not in self._opened:
            if self._database is not None:
                self._opened[key] = Entry(key, self._database, key, folder_of(self._database, key))
            elif self.runs and (found := find(self.runs / key)):
                self._opened[key] = Entry(key, *found, self.runs / key)
            else:
                return None
        return self._opened[key]

    def listed(self) -> list[tuple[str, Listed | None, str]]:
        """Key, study, and why it cannot be read; the newest first. One that is damaged does not hide the others."""
        if self._database is not None:
            return [(one.id, None if one.problem else one, one.problem) for one in studies(self._database)]
        rows: list[tuple[str, Listed | None, str]] = []
        for key in self.keys():
            try:
                if entry := self._entry(key):
                    one = next(one for one in studies(entry.database) if one.id == entry.study)
                    rows.append((key, None if one.problem else one, one.problem))
            except (FednotesError, StopIteration) as error:
                rows.append((key, None, str(error) or "Its record holds no such study."))
        return sorted(rows, key=lambda row: row[1].started.timestamp() if row[1] else 0.0, reverse=True)

    # As a source of the page of all studies.

    def feed(self) -> Feed:
        if self._database is not None:
            return Feed(repr(pulses(self._database)))
        return Feed(repr([(key, self._pulse(key)) for key in self.keys()]))

    def _pulse(self, key: str) -> object:
        try:
            entry = self._entry(key)
            return entry and pulses(entry.database)
        except FednotesError as error:
            return str(error)

    def sections(self) -> dict[str, str]:
        return {"studies": rendered("studies.html", rows=self.listed(), place=self.place)}
