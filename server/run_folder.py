"""One run, one folder: what every run leaves in it, on one machine or over real servers, and who may write there."""

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from common.errors import InputError
from common.files import explained, write_text
from common.plan import StudyPlan, load_plan
from common.results import Summary

PLAN_FILE, CHECKPOINTS = "plan.toml", "checkpoints"
SUMMARY_FILE, REPORT_FILE, MODEL_FOLDER = "summary.json", "report.html", "model"
_LOCK = ".lock"
_ATTEMPTS = 5


class RunFolder:
    """The folder of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def plan(self) -> StudyPlan:
        return load_plan(self.path / PLAN_FILE)

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    def summary(self) -> Summary | None:
        """The results; None before there are any."""
        try:
            return Summary.model_validate_json((self.path / SUMMARY_FILE).read_text("utf-8"))
        except FileNotFoundError:
            return None

    def write_summary(self, summary: Summary) -> None:
        write_text(self.path / SUMMARY_FILE, json.dumps(summary.model_dump(mode="json"), indent=2, ensure_ascii=False))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process. Raises InputError where another holds it; a killed holder holds nothing."""
        with explained(self.path):
            file = (self.path / _LOCK).open("a")
        with file:
            for attempt in range(_ATTEMPTS):  # one that only asks holds it for a moment
                if take(file.fileno()):
                    break
                if attempt == _ATTEMPTS - 1:
                    message = f"Another process works on {self.path}."
                    raise InputError("run-busy", message, "Wait for it, or stop it first.")
                time.sleep(0.1)
            with contextlib.suppress(OSError):  # the disk may be full; then nobody can be told who holds it
                os.ftruncate(file.fileno(), 0)
                os.write(file.fileno(), str(os.getpid()).encode())
            yield

    def busy(self) -> bool:
        """Whether a process holds the run."""
        return held(self.path / _LOCK)

    def kill_holder(self) -> None:
        """Kill the process that holds the run, if one of this machine does."""
        with contextlib.suppress(OSError, ValueError):
            number = int((self.path / _LOCK).read_text())
            if self.busy():
                os.kill(number, signal.SIGKILL)


def new_folder_of_run(study: str, out: Path | None, allowed: frozenset[str] = frozenset({_LOCK})) -> Path:
    """Make the folder of a run: `out`, or `runs/<study>-<time>`. Raises InputError where `out` holds more than what a
    set-up that was killed left behind (`allowed`): that is no run yet, and may be begun again."""
    path = out or Path("runs") / f"{study}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    with explained(path):
        if path.exists() and (not path.is_dir() or {file.name for file in path.iterdir()} - allowed):
            raise InputError("out-exists", f"{path} exists and is not empty.", "Choose another folder, or --resume it.")
        path.mkdir(parents=True, exist_ok=True)
        (path / _LOCK).touch()  # an unwritable folder is found now, not after the notes were read
    return path


def no_run(path: Path) -> NoReturn:
    raise InputError("no-run", f"{path} is not the folder of a run.", "Give a folder that holds plan.toml.")


def held(lock: Path) -> bool:
    """Whether a process holds a lock file."""
    with contextlib.suppress(FileNotFoundError), lock.open() as file:
        return not take(file.fileno(), fcntl.LOCK_SH)
    return False


def take(file: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file for as long as it is open; False where another process has it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
