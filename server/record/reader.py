"""Reads the record of a study: all that a page or a terminal shows of it, as one consistent view."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from common.errors import InputError
from common.plan import StudyPlan, parse_plan
from common.results import (
    Comparison,
    Estimate,
    HeldOut,
    Memorisation,
    NotScored,
    PrivacySpent,
    Round,
    SiteFacts,
    SiteRound,
    Summary,
    TaskScore,
)
from server.incidents import SiteState, sentence
from server.record.database import Database
from server.record.recorder import BEAT
from server.record.tables import (
    CheckpointRow,
    ComparisonRow,
    EventRow,
    HeldOutRow,
    MemorisationRow,
    NotScoredRow,
    RoundRow,
    ScoreRow,
    SiteRoundRow,
    SiteRow,
    StudyRow,
)

State = Literal["waiting", "running", "interrupted", "stopped", "finished"]
SILENT = 4 * BEAT  # seconds without a sign of life after which nobody works on a study


_OF_SITE_ROUND = SiteRound.model_fields.keys() - {"state", "parts", "privacy"}


class View(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SiteNow(View):
    """A site in a round: its state since when, when it was asked and when it answered."""

    site: str
    round: int
    state: SiteState
    since: datetime
    asked: datetime | None
    returned: datetime | None
    reason: str
    code: str
    weight: float | None
    cosine: float | None


class Incident(View):
    """Something that went wrong, or that somebody did: a sentence and a next step."""

    time: datetime
    round: int
    site: str
    code: str
    sentence: str
    next_step: str


class Checkpoint(View):
    round: int
    time: datetime
    digest: str


class StudyRecord(View):
    """A study as its record has it. `version` grows with every event; `heartbeat` is the last sign of life.

    `progress` holds every site of every round, the one that goes on included; `rounds` those that have ended.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    id: str
    folder: str
    plan: StudyPlan
    plan_hash: str
    engine: Literal["inprocess", "flower", "servers"]
    versions: dict[str, str]
    started: datetime
    finished: datetime | None
    state: State
    phase: str
    code: str
    message: str
    heartbeat: datetime
    version: int
    parameters: int | None
    shared_parameters: int | None
    sites: list[SiteFacts]
    left_out: dict[str, tuple[str, str]]  # site -> reason, code
    rounds: list[Round]
    begun: dict[int, datetime]  # rounds that began -> when
    progress: dict[int, list[SiteNow]]
    scores: list[TaskScore]
    comparisons: list[Comparison]
    not_scored: list[NotScored]
    memorisation: list[Memorisation]
    incidents: list[Incident]
    actions: list[Incident]
    checkpoints: list[Checkpoint]

    def summary(self) -> "LiveSummary":
        """As the report has it, at any moment of the study."""
        plan = self.plan
        end = self.finished or self.heartbeat
        return LiveSummary(
            study=plan.study.name,
            status=self.state,
            message=self.message,
            privacy=plan.privacy_words,
            epsilon_cap=plan.privacy.epsilon if plan.privacy else None,
            plan_hash=self.plan_hash,
            objective=plan.objective.kind,
            seed=plan.study.seed,
            engine=self.engine,
            started=self.started.isoformat(timespec="seconds"),
            finished=end.isoformat(timespec="seconds"),
            seconds=max(0.0, (end - self.started).total_seconds()),
            versions=self.versions,
            base=plan.encoder.base,
            parameters=self.parameters or 0,
            shared_parameters=self.shared_parameters or 0,
            sites=self.sites,
            left_out_sites={site: reason for site, (reason, _) in self.left_out.items()},
            planned_rounds=plan.federation.rounds,
            rounds=self.rounds,
            scores=self.scores,
            comparisons=self.comparisons,
            not_scored=self.not_scored,
            memorisation=self.memorisation,
        )


class LiveSummary(Summary):
    """A summary of a study that may still go on."""

    status: State  # type: ignore[assignment]


def version(database: Database, study: str) -> int:
    """A number that grows with every event: whether there is anything to read anew."""
    with database.read() as session:
        return session.scalar(select(func.max(EventRow.id)).where(EventRow.study == study)) or 0


def beat(database: Database, study: str) -> tuple[datetime, State]:
    """When whoever works on the study last said so, and its state. Raises InputError `no-record`."""
    with database.read() as session:
        row = study_row(session, study)
        return row.heartbeat, state_of(row.state, row.heartbeat)


class Ended(NamedTuple):
    """A round that has ended: it does not change any more, unless it is begun anew."""

    started: datetime
    ended: datetime
    result: Round
    progress: list[SiteNow]


def read_study(database: Database, study: str, known: dict[int, Ended] | None = None) -> StudyRecord:
    """Raises InputError `no-record`, MachineError `record-unreachable`.

    Args:
        known: rounds that were read before, by number; new ones are added. With it a study of many sites and rounds is
            read in the time that its last round takes.
    """
    known = {} if known is None else known
    with database.read() as session:
        row = study_row(session, study)
        sites = _all(session, SiteRow, study, SiteRow.name)
        rounds = _all(session, RoundRow, study, RoundRow.number)
        same = {one.number for one in rounds if (had := known.get(one.number)) and had[:2] == (one.started, one.ended)}
        for number in known.keys() - same:
            del known[number]
        new = [one for one in rounds if one.number not in same]
        did = _of_rounds(session, SiteRoundRow, study, new)
        held_out = _of_rounds(session, HeldOutRow, study, new)
        events = select(EventRow).where(EventRow.study == study, (EventRow.code != "") | (EventRow.kind == "action"))
        said = list(session.scalars(events.order_by(EventRow.id)))
        for one in new:
            if ended := _ended(one, did[one.number], held_out[one.number]):
                known[one.number] = ended
        progress = {number: one.progress for number, one in known.items()}
        progress |= {number: [_now(one) for one in found] for number, found in did.items() if number not in known}
        return StudyRecord(
            id=row.id,
            folder=row.folder,
            plan=plan_of(row.plan),
            plan_hash=row.plan_hash,
            engine=row.engine,
            versions=row.versions,
            started=row.started,
            finished=row.finished,
            state=state_of(row.state, row.heartbeat),
            phase=row.phase,
            code=row.code,
            message=row.message,
            heartbeat=row.heartbeat,
            version=session.scalar(select(func.max(EventRow.id)).where(EventRow.study == study)) or 0,
            parameters=row.parameters,
            shared_parameters=row.shared_parameters,
            sites=[SiteFacts.model_validate(one.facts) for one in sites if one.facts],
            left_out={one.name: (one.reason, one.code) for one in sites if one.facts is None},
            rounds=[known[one.number].result for one in rounds if one.ended],
            begun={one.number: one.started for one in rounds},
            progress=progress,
            scores=[_score(one) for one in _all(session, ScoreRow, study, ScoreRow.site, ScoreRow.task)],
            comparisons=[_comparison(one) for one in _all(session, ComparisonRow, study, ComparisonRow.site)],
            not_scored=[
                NotScored(site=one.site, task=one.task, reason=one.reason)
                for one in _all(session, NotScoredRow, study, NotScoredRow.site)
            ],
            memorisation=[
                Memorisation.model_validate({"site": one.site, "reason": one.reason, "veto": one.veto} | one.details)
                for one in _all(session, MemorisationRow, study, MemorisationRow.site)
            ],
            incidents=[_incident(one) for one in said if one.code],
            actions=[_incident(one) for one in said if one.kind == "action"],
            checkpoints=[
                Checkpoint(round=one.round, time=one.time, digest=one.digest)
                for one in _all(session, CheckpointRow, study, CheckpointRow.round)
            ],
        )


def study_row(session: Session, study: str) -> StudyRow:
    row = session.get(StudyRow, study)
    if row is None:
        raise InputError("no-record", f"The database has no study {study}.", "Is it the database of another run?")
    return row


def state_of(said: str, heartbeat: datetime) -> State:
    """A study that should go on and gives no sign of life was interrupted."""
    if said in ("waiting", "running") and (datetime.now(UTC) - heartbeat).total_seconds() > SILENT:
        return "interrupted"
    return said  # type: ignore[return-value]


@lru_cache(maxsize=256)
def plan_of(toml: str) -> StudyPlan:
    return parse_plan(toml)


def _all(session: Session, kind: Any, study: str, *order: Any) -> list[Any]:
    return list(session.scalars(select(kind).where(kind.study == study).order_by(*order)))


def _now(row: SiteRoundRow) -> SiteNow:
    return SiteNow.model_construct(**{name: getattr(row, name) for name in SiteNow.model_fields})


def _of_rounds(session: Session, kind: Any, study: str, rounds: list[RoundRow]) -> dict[int, list[Any]]:
    """Rows of those rounds alone, by round, in the order of the sites."""
    if not rounds:
        return {}
    numbers = [one.number for one in rounds]
    of_them = kind.round.between(min(numbers), max(numbers))  # a database takes no list of any length
    found: dict[int, list[Any]] = {number: [] for number in numbers}
    # rows, not objects: of many sites and rounds there are ten thousand
    query = select(*kind.__table__.columns).where(kind.study == study, of_them).order_by(kind.round, kind.site)
    for row in session.execute(query):
        if row.round in found:
            found[row.round].append(row)
    return found


def _ended(row: RoundRow, did: list[SiteRoundRow], held_out: list[HeldOutRow]) -> Ended | None:
    """None where the round goes on, or was cut off."""
    if row.ended is None:
        return None
    measured = {
        one.site: HeldOut.model_validate(
            {"loss": one.loss, "notes": one.notes, "tokens": one.tokens, **(one.details or {})}
        )
        for one in held_out
    }
    result = Round(
        number=row.number,
        attempts=row.attempts,
        seconds=row.seconds or 0.0,
        sites=[_site_round(one) for one in did if one.bytes_down is not None],
        held_out=measured,
        hospital_epsilon=row.hospital_epsilon,
    )
    return Ended(row.started, row.ended, result, [_now(one) for one in did])


def _site_round(row: SiteRoundRow) -> SiteRound:
    """What was checked when it was written is not checked again."""
    given = {name: getattr(row, name) for name in _OF_SITE_ROUND} | (row.details or {})
    if given.get("privacy"):
        given["privacy"] = PrivacySpent.model_validate(given["privacy"])
    return SiteRound.model_construct(**given | {"state": "returned" if row.state == "returned" else "left-out"})


def _score(row: ScoreRow) -> TaskScore:
    names = TaskScore.model_fields.keys() - row.details.keys()
    return TaskScore.model_validate({name: getattr(row, name) for name in names} | row.details)


def _comparison(row: ComparisonRow) -> Comparison:
    names = Comparison.model_fields.keys() - {"difference"}
    difference = Estimate(value=row.value, low=row.low, high=row.high)
    return Comparison.model_validate({name: getattr(row, name) for name in names} | {"difference": difference})


def _incident(row: EventRow) -> Incident:
    said = sentence(row.site, row.code) if row.site and row.code else row.text
    return Incident(
        time=row.time, round=row.round, site=row.site, code=row.code, sentence=said, next_step=row.next_step
    )
