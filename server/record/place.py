"""Where the record of a run is: `record.json` in its folder names the database and the study in it."""

import uuid
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import InputError
from common.files import write_text
from common.plan import StudyPlan, plan_to_toml
from server.record.database import Database
from server.record.tables import StudyRow
from server.versions import versions

PLACE_FILE, RECORD_FILE = "record.json", "record.sqlite"


class Place(BaseModel):
    """`database` is None where the record lies beside this file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: str = Field(pattern=r"^[0-9a-f]{32}$")
    database: str | None = None


def create(run: Path, plan: StudyPlan, engine: str, database: str | None) -> None:
    """Begin the record of a run, in `database` (a URL) or in a file of its own.

    Raises:
        InputError: `record-url`.
        MachineError: `driver-missing`, `record-unreachable`, and as `write_text`.
    """
    place, now = Place(study=uuid.uuid4().hex, database=database), datetime.now(UTC)
    opened = Database(database or run / RECORD_FILE)
    row = StudyRow(
        id=place.study,
        name=plan.study.name,
        folder=str(run.absolute()),
        plan=plan_to_toml(plan),
        plan_hash=plan.hash(),
        engine=engine,
        versions=versions(),
        started=now,
        state="waiting",
        heartbeat=now,
    )
    opened.write(lambda session: session.add(row))
    opened.close()
    write_text(run / PLACE_FILE, place.model_dump_json())


def find(run: Path) -> tuple[Database, str] | None:
    """The database and the study's id in it; None where the run keeps no record, as a baseline does not.

    Raises InputError `record-damaged`, and as `Database`.
    """
    file = run / PLACE_FILE
    if not file.exists():
        return None
    try:
        place = Place.model_validate_json(file.read_text("utf-8"))
    except (OSError, ValidationError):
        raise InputError("record-damaged", f"{file} is damaged.", "Put it back from a backup.") from None
    if place.database is None and not (run / RECORD_FILE).exists():
        raise InputError("record-damaged", f"{run / RECORD_FILE} is gone.", "Put it back from a backup.")
    return Database(place.database or run / RECORD_FILE), place.study


def opened(run: Path) -> tuple[Database, str]:
    """As `find`. Raises InputError `no-record` where there is none."""
    found = find(run)
    if found is None:
        raise InputError("no-record", f"{run} has no record.", "Give the folder of a study; a table of many has none.")
    return found
