"""One run, one folder: what it holds, and who may write in it."""

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from client.notes.source import NotesSource
from common.errors import InputError
from common.files import explained, write_text
from common.plan import StudyPlan, load_plan, plan_to_toml
from common.results import Summary
from server.app import PLAN_FILE

SYNTHETIC_FILE, SITES, SITE_LOG = "synthetic-notes.jsonl", "sites", "sites.log"
PUBLIC_FILE = "public-text.jsonl"
SETUP_FILE, SUMMARY_FILE, REPORT_FILE, MODEL_FOLDER = "simulation.json", "summary.json", "report.html", "model"

_SET_UP = {".lock", SYNTHETIC_FILE, PUBLIC_FILE, SITES, PLAN_FILE}

Baseline = Literal["local-only", "centralised"]


class Setup(BaseModel):
    """What a simulation was asked to do, kept in its folder so that it can be resumed.

    `site_folders` maps the name of each site that takes part to its folder, `digest` is the content of the notes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    notes: NotesSource
    digest: str
    engine: Literal["inprocess", "flower"]
    baselines: list[Baseline]
    embedding_map: Literal["pca", "umap"] | None
    cache: Path
    started: str
    site_folders: dict[str, str]
    left_out_sites: dict[str, str]


class RunFolder:
    """The folder of a run. Raises InputError where it is not one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def plan(self) -> StudyPlan:
        return load_plan(self.path / PLAN_FILE)

    @property
    def setup(self) -> Setup:
        try:
            return Setup.model_validate_json((self.path / SETUP_FILE).read_text("utf-8"))
        except (OSError, ValidationError):
            raise InputError(
                "no-run", f"{self.path} is not the folder of a run.", "Give a folder that `fednotes simulate` made."
            ) from None

    @property
    def sites(self) -> dict[str, Path]:
        return {name: self.path / folder for name, folder in self.setup.site_folders.items()}

    def begin(self, plan: StudyPlan, setup: Setup) -> None:
        """Write what the run is to do; from here on it can be resumed."""
        write_text(self.path / PLAN_FILE, plan_to_toml(plan))
        write_text(self.path / SETUP_FILE, setup.model_dump_json(indent=2))

    def summary(self) -> Summary:
        return Summary.model_validate_json((self.path / SUMMARY_FILE).read_text("utf-8"))

    def write_summary(self, summary: Summary) -> None:
        write_text(self.path / SUMMARY_FILE, json.dumps(summary.model_dump(mode="json"), indent=2, ensure_ascii=False))

    def abandon(self) -> None:
        """Remove what a set-up that failed has written; there is no run to resume."""
        shutil.rmtree(self.path, ignore_errors=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process. Raises InputError where another holds it; a killed holder holds nothing."""
        with explained(self.path):
            file = (self.path / ".lock").open("a")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(
                    "run-busy", f"Another process works on {self.path}.", "Wait for it, or stop it first."
                ) from None
            yield


def new_run(plan: StudyPlan, out: Path | None) -> RunFolder:
    """Make the folder of a run: `out`, or `runs/<study>-<time>`. Raises InputError where `out` holds something."""
    path = out or Path("runs") / f"{plan.study.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    with explained(path):
        # What a set-up that was killed left behind is no run yet, and may be begun again.
        if path.exists() and (not path.is_dir() or {file.name for file in path.iterdir()} - _SET_UP):
            raise InputError("out-exists", f"{path} exists and is not empty.", "Choose another folder, or --resume it.")
        path.mkdir(parents=True, exist_ok=True)
        (path / ".lock").touch()  # an unwritable folder is found now, not after the notes were read
    return RunFolder(path)
