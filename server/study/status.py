"""How a run is, in a terminal: read from its record, while it runs and ever after."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from server.incidents import SiteState
from server.record.place import opened
from server.record.reader import Incident, State, StudyRecord, read_study
from server.run_folder import PLAN_FILE, RunFolder, no_run
from server.study.folder import STUDY_FILE, Study
from server.study.verdict import verdict


class SiteStatus(BaseModel):
    """A site in the latest round of which anything is known. `held_out`: the loss before and now; `epsilon`: spent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    site: str
    state: SiteState
    text: str = ""
    rounds: int = 0
    held_out: list[float] = []
    epsilon: float | None = None


class RunStatus(BaseModel):
    """`state`: "waiting" before the first measurement; "interrupted" where nobody works on it and it is not done.
    `heard`: when whoever works on it last gave a sign of life (ISO 8601)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: str
    state: State
    verdict: str
    message: str
    round: int
    planned_rounds: int
    privacy: str
    heard: str
    sites: list[SiteStatus]
    left_out_sites: dict[str, str]
    incidents: list[Incident]

    @property
    def over(self) -> bool:
        return self.state in ("stopped", "finished")


def status(path: Path) -> RunStatus:
    """Raises InputError `no-run` or `no-record`, MachineError `record-unreachable`."""
    if not (path / PLAN_FILE).exists():
        no_run(path)
    run = Study(path) if (path / STUDY_FILE).exists() else RunFolder(path)
    busy = run.worked_on() if isinstance(run, Study) else run.busy()  # first: where it is not, nothing changes below
    record = read_study(*opened(path))
    state, message = record.state, record.message
    if state in ("waiting", "running", "interrupted"):
        # On this machine the lock is known at once, and not after a silence.
        state = "interrupted" if not busy else "running" if record.rounds else "waiting"
    if state == "interrupted":
        message = "Nobody works on it. Go on: fednotes server resume, or fednotes simulate --resume."
    return RunStatus(
        study=record.plan.study.name,
        state=state,
        verdict=verdict(record, state),
        message=message,
        round=max((one.number for one in record.rounds), default=0),
        planned_rounds=record.plan.federation.rounds,
        privacy=record.plan.privacy_words,
        heard=record.heartbeat.isoformat(timespec="seconds"),
        sites=_sites(record),
        left_out_sites={site: reason for site, (reason, _) in record.left_out.items()},
        incidents=record.incidents,
    )


def _sites(record: StudyRecord) -> list[SiteStatus]:
    """Each site: its latest state, and what its rounds came to."""
    found = []
    for facts in record.sites:
        name = facts.name
        of_site = (one for number in sorted(record.progress, reverse=True) for one in record.progress[number])
        latest = next((one for one in of_site if one.site == name), None)
        did = [one for done in record.rounds for one in done.sites if one.site == name]
        losses = [done.held_out[name].loss for done in record.rounds if name in done.held_out]
        spent = [one.privacy.epsilon for one in did if one.privacy]
        found.append(
            SiteStatus(
                site=name,
                state=latest.state if latest else "waiting",
                text=latest.reason if latest else "",
                rounds=sum(one.state == "returned" for one in did),
                held_out=losses[:1] + losses[1:][-1:],
                epsilon=spent[-1] if spent else None,
            )
        )
    return found
