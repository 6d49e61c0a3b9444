"""How a run is: read from its folder alone, while it runs and ever after."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from server.checkpoint import State, load_checkpoint
from server.run_folder import PLAN_FILE, RunFolder, no_run
from server.study.events import EventReader
from server.study.folder import STUDY_FILE, Study


class SiteStatus(BaseModel):
    """A site in the latest round of which anything is known. `held_out`: the loss before and now; `epsilon`: spent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    site: str
    state: Literal["asked", "returned", "left-out", "waiting"]
    text: str = ""
    rounds: int = 0
    held_out: list[float] = []
    epsilon: float | None = None


class RunStatus(BaseModel):
    """`state`: "waiting" before the first measurement; "interrupted" where nobody works on it and it is not done.
    `heard`: when anything last happened (ISO 8601)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: str
    state: Literal["waiting", "running", "interrupted", "stopped", "finished"]
    message: str
    round: int
    planned_rounds: int
    privacy: str
    heard: str | None
    sites: list[SiteStatus]
    left_out_sites: dict[str, str]

    @property
    def over(self) -> bool:
        return self.state in ("stopped", "finished")


def status(path: Path) -> RunStatus:
    """Raises InputError `no-run`."""
    if not (path / PLAN_FILE).exists():
        no_run(path)
    run = Study(path) if (path / STUDY_FILE).exists() else RunFolder(path)
    plan = run.plan
    busy = run.worked_on() if isinstance(run, Study) else run.busy()  # first: where it is not, nothing changes below
    kept = load_checkpoint(run.checkpoints, plan.hash())
    record = kept[0] if kept else None
    summary = run.summary()
    stopped = run.stop_reason() if isinstance(run, Study) else None
    message = ""
    state: Literal["waiting", "running", "interrupted", "stopped", "finished"]
    if busy:
        state = "running" if record else "waiting"
    elif stopped:
        state, message = "stopped", str(stopped)
    elif summary:
        state, message = summary.status, summary.message
    else:
        state = "interrupted"
        message = "Nobody works on it. Go on: fednotes server resume, or fednotes simulate --resume."
    sites, heard = _sites(path, record)
    return RunStatus(
        study=plan.study.name,
        state=state,
        message=message,
        round=record.round if record else 0,
        planned_rounds=plan.federation.rounds,
        privacy=plan.privacy_words,
        heard=heard,
        sites=sites,
        left_out_sites=record.left_out_sites if record else {},
    )


def _sites(path: Path, record: State | None) -> tuple[list[SiteStatus], str | None]:
    """Each site, as the rounds that are done and the events since have it; and when anything last happened."""
    found = {facts.name: SiteStatus(site=facts.name, state="waiting") for facts in (record.sites if record else ())}
    for one in record.rounds if record else ():
        for did in one.sites:
            known = found.get(did.site) or SiteStatus(site=did.site, state="waiting")
            spent = did.privacy.epsilon if did.privacy else known.epsilon
            rounds = known.rounds + (did.state == "returned")
            change = {"state": did.state, "text": did.reason, "epsilon": spent, "rounds": rounds}
            found[did.site] = known.model_copy(update=change)
        for name, held_out in one.held_out.items():
            if name in found:
                losses = [*found[name].held_out[:1], held_out.loss]
                found[name] = found[name].model_copy(update={"held_out": losses})
    heard = None
    for time, event in EventReader(path).new():
        heard = time
        if event.kind in ("asked", "returned", "left-out") and event.site in found:
            found[event.site] = found[event.site].model_copy(update={"state": event.kind, "text": event.text})
    return [found[name] for name in sorted(found)], heard
