"""The studies that the dashboard shows: those of a folder of runs, or those of a database of records."""

from dataclasses import dataclass
from pathlib import Path

from common.errors import FednotesError, InputError
from server.dashboard.live import Feed
from server.dashboard.rendering import rendered
from server.record.database import Database
from server.record.place import PLACE_FILE, find
from server.record.reader import Listed, studies


@dataclass(frozen=True)
class Entry:
    """A study: its key in addresses, its database and its id there, and the folder of its run."""

    key: str
    database: Database
    study: str
    run: Path


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
            return [one.id for one in studies(self._database)]
        assert self.runs is not None
        try:
            return sorted(path.name for path in self.runs.iterdir() if (path / PLACE_FILE).is_file())
        except OSError as error:
            message = f"The folder of runs, {self.runs}, cannot be read: {error.strerror}."
            raise InputError("runs-unreadable", message, "Give one with --runs.") from None

    def entry(self, key: str) -> Entry | None:
        """None where there is no such study; a key is only ever compared, never made a path of. Raises as `find`."""
        if key not in self.keys():
            return None
        if key not in self._opened:
            if self._database is not None:
                run = next(one.folder for one in studies(self._database) if one.id == key)
                self._opened[key] = Entry(key, self._database, key, Path(run))
            else:
                assert self.runs is not None
                found = find(self.runs / key)
                if found is None:
                    return None
                self._opened[key] = Entry(key, *found, self.runs / key)
        return self._opened[key]

    def listed(self) -> list[tuple[str, Listed | None, str]]:
        """Key, study, and why it cannot be read; the newest first. One that is damaged does not hide the others."""
        if self._database is not None:
            return [(one.id, one, "") for one in studies(self._database)]
        rows: list[tuple[str, Listed | None, str]] = []
        for key in self.keys():
            try:
                if entry := self.entry(key):
                    rows.append((key, next(one for one in studies(entry.database) if one.id == entry.study), ""))
            except (FednotesError, StopIteration) as error:
                rows.append((key, None, str(error) or "Its record holds no such study."))
        return sorted(rows, key=lambda row: row[1].started.timestamp() if row[1] else 0.0, reverse=True)

    # As a source of the page of all studies.

    def feed(self) -> Feed:
        rows = self.listed()
        said = [(key, one.model_dump_json(exclude={"heartbeat"}) if one else problem) for key, one, problem in rows]
        return Feed(repr(said))

    def sections(self) -> dict[str, str]:
        return {"studies": rendered("studies.html", rows=self.listed(), place=self.place)}
