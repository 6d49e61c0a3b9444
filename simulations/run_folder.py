"""The folder of a simulation: a run, with all that it was asked to do, so that it can be resumed."""

import shutil
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from client.notes.source import NotesSource
from common.files import write_text
from common.plan import StudyPlan, plan_to_toml
from server.record.place import PLACE_FILE, RECORD_FILE
from server.run_folder import PLAN_FILE, RunFolder, new_folder_of_run, no_run

SYNTHETIC_FILE, SITES, SITE_LOG = "synthetic-notes.jsonl", "sites", "sites.log"
PUBLIC_FILE = "public-text.jsonl"
SETUP_FILE = "simulation.json"

_RECORD = {PLACE_FILE, RECORD_FILE, f"{RECORD_FILE}-wal", f"{RECORD_FILE}-shm"}
_SET_UP = frozenset({".lock", SYNTHETIC_FILE, PUBLIC_FILE, SITES, PLAN_FILE}) | _RECORD

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


class Simulation(RunFolder):
    """Raises InputError where the folder is not one."""

    @property
    def setup(self) -> Setup:
        try:
            return Setup.model_validate_json((self.path / SETUP_FILE).read_text("utf-8"))
        except (OSError, ValidationError):
            no_run(self.path)

    @property
    def sites(self) -> dict[str, Path]:
        return {name: self.path / folder for name, folder in self.setup.site_folders.items()}

    def begin(self, plan: StudyPlan, setup: Setup) -> None:
        """Write what the run is to do; from here on it can be resumed."""
        write_text(self.path / PLAN_FILE, plan_to_toml(plan))
        write_text(self.path / SETUP_FILE, setup.model_dump_json(indent=2))

    def abandon(self) -> None:
        """Remove what a set-up that failed has written; there is no run to resume."""
        shutil.rmtree(self.path, ignore_errors=True)


def new_run(plan: StudyPlan, out: Path | None) -> Simulation:
    """Make the folder of a run: `out`, or `runs/<study>-<time>`. Raises InputError where `out` holds something."""
    return Simulation(new_folder_of_run(plan.study.name, out, _SET_UP))
