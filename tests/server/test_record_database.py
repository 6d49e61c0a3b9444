"""The database of records: nothing that was acknowledged is lost, versions migrate, and what is wrong is said."""

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from common.errors import InputError, MachineError
from common.plan import StudyPlan
from server.events import Event
from server.record import database as module
from server.record.database import Database
from server.record.events import events
from server.record.place import PLACE_FILE, RECORD_FILE, create, find, opened
from server.record.recorder import Recorder
from server.record.tables import Base, EventRow, StudyRow

MIGRATIONS = Path(module.__file__).parent / "migrations"
WRITER = """
import sys
from pathlib import Path
from server.events import Event
from server.record.place import opened
from server.record.recorder import Recorder
recorder = Recorder(*opened(Path(sys.argv[1])))
for number in range(100_000):
    recorder(Event("round-started", number))
    print(number, flush=True)
"""


@pytest.mark.parametrize("after", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
def test_nothing_acknowledged_is_lost_when_the_writer_is_killed(
    record: tuple[Database, str],
    run: Path,
    where: str,
    after: float,
    request: pytest.FixtureRequest,
    make_plan: Callable[..., StudyPlan],
) -> None:
    if where == "postgresql":
        create(run, make_plan(), "inprocess", request.getfixturevalue("postgresql"))
    writer = subprocess.Popen([sys.executable, "-c", WRITER, run], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    said = [writer.stdout.readline()]
    time.sleep(after)
    writer.send_signal(signal.SIGKILL)
    said += writer.stdout.readlines()
    writer.wait()
    whole = [int(line) for line in said if line.endswith("\n")]
    database, study = opened(run)
    kept = [one["round"] for one in events(database, study)]
    assert kept[: len(whole)] == whole and len(kept) <= len(whole) + 1
    if where == "sqlite":
        with sqlite3.connect(run / RECORD_FILE) as raw:
            assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
def test_the_migrations_make_the_tables_as_they_are_declared(
    where: str, run: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgresql") if where == "postgresql" else run / RECORD_FILE
    database = Database(url)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        script = ScriptDirectory(str(MIGRATIONS))
        assert context.get_current_revision() == script.get_current_head() == module._HEAD


def test_a_record_of_an_older_version_is_migrated_and_keeps_what_it_holds(tmp_path: Path) -> None:
    old = create_engine(f"sqlite:///{tmp_path / 'old.sqlite'}")
    with old.begin() as connection:
        module.migrate(connection, "0001")
        moment = "2026-01-02 03:04:05"
        row = "('a', 'old study', '', '', '', 'inprocess', '{}', :now, 'finished', '', '', '', :now, null, null, null)"
        connection.execute(text(f"insert into study values {row}"), {"now": moment})
    with pytest.raises(OperationalError), old.connect() as connection:
        connection.execute(text("select * from memorisation"))
    old.dispose()
    (found,) = Database(tmp_path / "old.sqlite").write(lambda session: list(session.scalars(select(StudyRow.name))))
    assert found == "old study"
    with Database(tmp_path / "old.sqlite").read() as session:
        assert session.execute(text("select * from memorisation")).all() == []


def test_a_record_of_a_newer_version_is_refused(run: Path, record: tuple[Database, str]) -> None:
    with sqlite3.connect(run / RECORD_FILE) as raw:
        raw.execute("update alembic_version set version_num = '9999'")
    with pytest.raises(InputError) as caught:
        opened(run)
    assert caught.value.code == "record-newer"


def test_two_that_write_at_once_take_turns(run: Path, record: tuple[Database, str]) -> None:
    code = WRITER.replace("100_000", "40")
    writers = [subprocess.Popen([sys.executable, "-c", code, run], stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert len(events(*record)) == 80


def test_two_that_open_an_empty_database_at_once(run: Path, postgresql: str) -> None:
    for url in (f"sqlite:///{run / 'new.sqlite'}", postgresql):
        code = f"from server.record.database import Database; Database({url!r})"
        openers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
        assert [one.wait(60) for one in openers] == [0, 0, 0]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("nonsense", "record-url"),
        ("nosuch://here/x", "record-url"),
        ("mysql://u:hush@127.0.0.1/x", "driver-missing"),
        ("postgresql+psycopg://u:hush@127.0.0.1:9/x", "record-unreachable"),
        ("sqlite:////no/such/folder/x.sqlite", "record-unreachable"),
    ],
)
def test_a_database_that_cannot_be_had_is_said_without_its_password(url: str, code: str) -> None:
    with pytest.raises((InputError, MachineError)) as caught:
        Database(url)
    assert caught.value.code == code and caught.value.next_step and "hush" not in str(caught.value)


def test_a_database_that_is_gone(run: Path, record: tuple[Database, str]) -> None:
    (run / RECORD_FILE).write_bytes(b"no database at all, " * 300)
    with pytest.raises(MachineError) as caught:
        opened(run)
    assert caught.value.code == "record-unreachable"
    (run / RECORD_FILE).unlink()
    with pytest.raises(InputError) as missing:
        opened(run)
    assert missing.value.code == "record-damaged" and not (run / RECORD_FILE).exists()
    (run / PLACE_FILE).write_text('{"study": "../../etc"}')
    with pytest.raises(InputError) as damaged:
        find(run)
    assert damaged.value.code == "record-damaged"


def test_a_full_disk_is_said(run: Path, record: tuple[Database, str]) -> None:
    database, study = record

    def fill(session: Session) -> None:
        session.connection().exec_driver_sql("PRAGMA max_page_count = 60")
        long = EventRow(study=study, time=datetime.now(UTC), kind="phase", round=1, text="x" * 1_000_000)
        session.add(long)
        session.flush()

    with pytest.raises(MachineError) as caught:
        database.write(fill)
    assert caught.value.code == "disk-full" and events(database, study) == []


def test_a_database_that_was_away_for_a_moment_is_written_to(
    run: Path, postgresql: str, make_plan: Callable[..., StudyPlan]
) -> None:
    create(run, make_plan(), "inprocess", postgresql)
    database, study = opened(run)
    recorder, other = Recorder(database, study), Database(postgresql)
    cut = text("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname <> ''")

    def write_and_be_cut_off(session: Session) -> None:
        recorder._take(session, Event("round-started", len(cuts)), datetime.now(UTC))
        if not cuts:
            cuts.append(other.write(lambda another: another.execute(cut).rowcount))
        session.flush()

    cuts: list[int] = []
    database.write(write_and_be_cut_off)
    assert cuts[0] >= 1 and [one["round"] for one in events(database, study)] == [1]
