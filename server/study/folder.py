"""The folder of a study over real servers: a run, the Flower runs that carried it, and why it stopped."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import StudyError
from common.files import explained, write_text
from common.plan import StudyPlan, plan_to_toml
from server.record.place import create
from server.run_folder import PLAN_FILE, RunFolder, held, new_folder_of_run, no_run, take

STUDY_FILE, STOPPED_FILE = "study.json", "stopped.json"
_CARRIER = ".carrier.lock"
_LOOK = 0.5  # seconds


class Record(BaseModel):
    """`study.json`: when the study was started, under which coordinator's folder, and the Flower runs so far."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    started: str
    coordinator: str
    flower_runs: list[int] = []


class Study(RunFolder):
    """Raises InputError where the folder is not one."""

    @property
    def record(self) -> Record:
        try:
            return Record.model_validate_json((self.path / STUDY_FILE).read_text("utf-8"))
        except (OSError, ValidationError):
            no_run(self.path)

    @contextlib.contextmanager
    def carried(self, meanwhile: Callable[[], None]) -> Iterator[bool]:
        """Be the only one who starts Flower runs for the study. While another is, `meanwhile` is called now and then.

        Yields whether there was a wait.
        """
        waited = False
        with explained(self.path):
            file = (self.path / _CARRIER).open("a")
        with file:
            while not take(file.fileno()):
                waited = True
                meanwhile()
                time.sleep(_LOOK)
            yield waited

    def worked_on(self) -> bool:
        """Whether a ServerApp holds the study, or somebody waits for one to begin."""
        return self.busy() or held(self.path / _CARRIER)

    def add_flower_run(self, number: int) -> None:
        record = self.record
        self._write(record.model_copy(update={"flower_runs": [*record.flower_runs, number]}))

    def stop_reason(self) -> StudyError | None:
        """Why the latest Flower run stopped the study; None where it did not."""
        try:
            said = json.loads((self.path / STOPPED_FILE).read_text("utf-8"))
            return StudyError(said["code"], said["message"], said["next_step"])
        except (OSError, ValueError, KeyError):
            return None

    def write_stop_reason(self, error: StudyError) -> None:
        said = {"code": error.code, "message": error.message, "next_step": error.next_step}
        write_text(self.path / STOPPED_FILE, json.dumps(said))

    def forget_stop_reason(self) -> None:
        (self.path / STOPPED_FILE).unlink(missing_ok=True)

    def rounds_done(self) -> int:
        """Rounds that a checkpoint holds; -1 before the first."""
        names = [path.name for path in self.checkpoints.glob("round-*") if path.is_dir()]
        return max((int(name.removeprefix("round-")) for name in names), default=-1)

    def _write(self, record: Record) -> None:
        write_text(self.path / STUDY_FILE, record.model_dump_json(indent=2))


def new_study(plan: StudyPlan, runs: Path, coordinator: Path, database: str | None = None) -> Study:
    """Make the folder of a study in `runs`, and its record, in `database` (a URL) or there. Raises as `create`."""
    path = new_folder_of_run(plan.study.name, runs / f"{plan.study.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    study = Study(path)
    create(path, plan, "servers", database)
    write_text(path / PLAN_FILE, plan_to_toml(plan))
    study._write(Record(started=datetime.now(UTC).isoformat(timespec="seconds"), coordinator=str(coordinator)))
    return study
