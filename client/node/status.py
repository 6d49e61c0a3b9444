"""What the node does now, in the site's `status.json`: whole at any moment; progress is written once a second."""

import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import FednotesError, InputError
from common.files import write_text

log = logging.getLogger("fednotes.node")
STATUS = "status.json"
_EVERY = 1.0  # seconds


class Problem(BaseModel):
    """The last failure: its code, its sentence, and when (UTC)."""

    code: str
    message: str
    time: str


class Status(BaseModel):
    """Times are UTC. `step` of `steps`: of local training in `round`; `seconds_left`: an estimate of the rest."""

    model_config = ConfigDict(extra="ignore")

    state: Literal["connecting", "waiting", "working", "sending", "stopped"] = "connecting"
    coordinator: str
    connected_since: str | None = None
    run: str | None = None
    study: str | None = None
    message: str | None = None
    round: int | None = None
    step: int | None = None
    steps: int | None = None
    seconds_left: float | None = None
    served: int = 0
    error: Problem | None = None
    updated: str = ""


class StatusFile:
    """Keeps a `Status` and its file. A disk that is full does not stop the node."""

    def __init__(self, folder: Path, coordinator: str) -> None:
        self._path = folder / STATUS
        self.now = Status(coordinator=coordinator)
        self._written, self._changed = 0.0, True
        self._first: tuple[float, int] | None = None

    def update(self, **changes: object) -> None:
        """Note changes; without any, write what is still to be written."""
        turned = changes.get("state", self.now.state) != self.now.state
        if changes:
            self.now, self._changed = self.now.model_copy(update=changes), True
        if turned or (self._changed and time.monotonic() - self._written >= _EVERY):
            self.write()

    def write(self) -> None:
        self._written, self._changed = time.monotonic(), False
        self.now = self.now.model_copy(update={"updated": utc_now()})
        try:
            write_text(self._path, self.now.model_dump_json(indent=2) + "\n")
        except (FednotesError, OSError) as error:
            log.warning("%s", error)

    def idle(self, state: Literal["connecting", "waiting", "stopped"]) -> None:
        """Nothing is worked on."""
        self._first = None
        nothing = dict.fromkeys(("run", "study", "message", "round", "step", "steps", "seconds_left"))
        self.update(**nothing, state=state, connected_since=self.now.connected_since if state == "waiting" else None)

    def step(self, done: int, steps: int) -> None:
        """Local training has done `done` of `steps`."""
        if self._first is None or done < self._first[1]:
            self._first = time.monotonic(), done
        since, before = self._first
        left = (time.monotonic() - since) / (done - before) * (steps - done) if done > before else None
        self.update(step=done, steps=steps, seconds_left=left)

    def failed(self, error: FednotesError) -> None:
        problem = Problem(code=error.code, message=str(error), time=utc_now())
        log.error("%s: %s", error.code, error)
        self.update(error=problem)


def read_status(folder: Path) -> Status:
    """Raises InputError `no-status`."""
    try:
        return Status.model_validate_json((folder / STATUS).read_bytes())
    except (OSError, ValidationError):
        raise InputError(
            "no-status", f"{folder} has no {STATUS}: its node never ran.", "Start it: fednotes site start."
        ) from None


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
