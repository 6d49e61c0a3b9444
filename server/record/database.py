"""A database of records: SQLite in the run's folder, or any that SQLAlchemy can write to, by its URL.

SQLite writes ahead (WAL) and syncs every transaction: what was acknowledged is there after any kill, and readers never
wait for the writer.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session

from common.errors import InputError, MachineError

_Result = TypeVar("_Result")
_HEAD = "0002"  # the newest migration; a test compares
_PATIENCE = 60.0  # seconds that a database may be away while a study goes on
_WRITES = {"writes": True}


class Database:
    """Raises InputError `record-url` where the URL is none, MachineError `driver-missing` or `record-unreachable`."""

    def __init__(self, url: str | Path) -> None:
        self.url = f"sqlite:///{url}" if isinstance(url, Path) else url
        try:
            parsed = make_url(self.url)
            self._sqlite = parsed.get_backend_name() == "sqlite"
            self.engine = create_engine(parsed, pool_pre_ping=not self._sqlite)
        except (ArgumentError, NoSuchModuleError):
            raise InputError(
                "record-url", "The URL of the record is none that SQLAlchemy knows.", "Write postgresql+psycopg://..."
            ) from None
        except ImportError as error:
            raise MachineError(
                "driver-missing",
                f"The Python driver of the database is not installed: {error.name}.",
                'For PostgreSQL: pip install "fednotes[postgresql]".',
            ) from None
        self.name = parsed.render_as_string(hide_password=True)
        if self._sqlite:
            event.listen(self.engine, "connect", _set_up_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        self._migrate()

    def write(self, change: Callable[[Session], _Result]) -> _Result:
        """Run `change` in one transaction; on return it is on the disk.

        A database that is away is tried again for a minute. Raises MachineError `record-unreachable`, `disk-full`.
        """
        end, pause = time.monotonic() + _PATIENCE, 0.2
        while True:
            try:
                with Session(self.engine.execution_options(**_WRITES)) as session, session.begin():
                    return change(session)
            except OperationalError as error:
                if _full(error) or time.monotonic() > end:
                    raise self._explained(error) from None
            time.sleep(pause)
            pause = min(5.0, 2 * pause)

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """One consistent view. Raises MachineError `record-unreachable`."""
        try:
            with Session(self.engine) as session:
                yield session
        except OperationalError as error:
            raise self._explained(error) from None

    def close(self) -> None:
        self.engine.dispose()

    def _migrate(self) -> None:
        try:
            with self.engine.connect() as connection:
                revision = _revision(connection)
            if revision == _HEAD:
                return
            if revision is not None and revision > _HEAD:
                raise InputError(
                    "record-newer",
                    f"{self.name} was written by a newer version of Fednotes.",
                    "Install that version here, too.",
                )
            with self.engine.execution_options(**_WRITES).begin() as connection:
                migrate(connection)
        except DBAPIError as error:
            raise self._explained(error) from None

    def _explained(self, error: DBAPIError) -> MachineError:
        if _full(error):
            message = f"There is no space left to write {self.name}."
            return MachineError("disk-full", message, "Free some space and resume.")
        return MachineError(
            "record-unreachable",
            f"The record {self.name} cannot be read or written ({type(error.orig).__name__}).",
            "See that the database runs, that its URL is right, and that this user may write to it.",
        )


def migrate(connection: Connection, to: str = "head") -> None:
    """Bring the tables to a version, inside the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    if connection.dialect.name == "postgresql":  # two that begin at once take turns
        connection.execute(text("select pg_advisory_xact_lock(7346215)"))
    command.upgrade(config, to)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("select version_num from alembic_version")).scalar()


def _set_up_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver would begin transactions at its own whim; _begin_sqlite does
    for pragma in ("busy_timeout = 30000", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes its lock at once: one that read first could not wait for another writer."""
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _full(error: DBAPIError) -> bool:
    """A quota, or a limit on the size of files, is told by SQLite as a write that failed."""
    name = getattr(error.orig, "sqlite_errorname", "")
    return name in ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE") or "No space left" in str(error.orig)
