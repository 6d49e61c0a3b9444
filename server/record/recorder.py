"""Writes the record of a study: each event in a transaction of its own, on the disk before the study goes on."""

import contextlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from common.errors import FednotesError, StudyError
from common.results import HeldOut, Result, Round, SiteFacts, SiteRound, Summary
from server import incidents
from server.events import Event
from server.record.database import Database
from server.record.place import find
from server.record.tables import (
    Base,
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

BEAT = 5.0  # seconds between two signs of life


@contextlib.contextmanager
def recording(run: Path) -> "Iterator[Recorder | None]":
    """The recorder of a run, with its sign of life; None where the run keeps no record, as a baseline does not."""
    found = find(run)
    if found is None:
        yield None
        return
    recorder = Recorder(*found)
    with contextlib.closing(found[0]), recorder.alive():
        yield recorder


class Recorder:
    """The record of one study. Called with an event, it returns when that is on the disk.

    Raises MachineError `record-unreachable` or `disk-full`.
    """

    def __init__(self, database: Database, study: str) -> None:
        self._database, self._study = database, study

    def __call__(self, event: Event) -> None:
        now = datetime.now(UTC)
        self._database.write(lambda session: self._take(session, event, now))

    def end(self, summary: Summary, stopped: StudyError | None) -> None:
        """What the study came to; `stopped` says why it ended before its last round."""
        now = datetime.now(UTC)

        def write(session: Session) -> None:
            for kind in (ScoreRow, ComparisonRow, NotScoredRow, MemorisationRow):
                session.execute(delete(kind).where(kind.study == self._study))
            for score in summary.scores:
                value = score.macro_f1 if score.metric == "macro-f1" else score.accuracy
                rest = score.model_dump(mode="json", include={"support", "macro_f1", "accuracy", "auroc", "few_shot"})
                session.add(self._row(ScoreRow, score, value=value.value, low=value.low, high=value.high, details=rest))
            for one in summary.comparisons:
                given = one.difference.model_dump()
                session.add(self._row(ComparisonRow, one, **given))
            for missing in summary.not_scored:
                session.add(self._row(NotScoredRow, missing))
            for found in summary.memorisation:
                details = found.model_dump(mode="json", include={"canaries", "identifiers"})
                session.add(self._row(MemorisationRow, found, details=details))
            counts = {"parameters": summary.parameters, "shared_parameters": summary.shared_parameters}
            self._study_is(session, **counts)
            round_ = max((one.number for one in summary.rounds), default=0)
            self._take(session, _stopped(stopped, round_) if stopped else Event("finished", round_), now)

        self._database.write(write)

    def stop(self, why: StudyError) -> None:
        """The study ended before anything was measured, or by a command."""
        self(_stopped(why, 0))

    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        """Say every few seconds that somebody works on the study: whoever looks on can tell when nobody does."""
        over = threading.Event()

        def beat() -> None:
            while not over.is_set():
                with contextlib.suppress(FednotesError):  # the study itself will say it
                    self._database.write(lambda session: self._study_is(session, heartbeat=datetime.now(UTC)))
                over.wait(BEAT)

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _take(self, session: Session, event: Event, now: datetime) -> None:
        # What stops a whole study says in its own text what to do.
        step = incidents.next_step(event.code) if event.code and event.site else ""
        session.add(
            EventRow(
                study=self._study,
                time=now,
                kind=event.kind,
                round=event.round,
                site=event.site,
                text=event.text,
                code=event.code,
                next_step=step,
            )
        )
        match event.kind:
            case "began":
                self._study_is(session, state="running", code="", message="", phase="", finished=None)
                if isinstance(event.result, Round):
                    self._round(session, event.result, now, event.digest)
            case "phase":
                self._study_is(session, phase=event.text)
            case "joined" if isinstance(event.result, SiteFacts):
                facts = event.result.model_dump(mode="json")
                session.merge(SiteRow(study=self._study, name=event.site, facts=facts, reason="", code=""))
            case "left-out" if event.round == 0:
                if (row := session.get(SiteRow, (self._study, event.site))) is None:
                    row = SiteRow(study=self._study, name=event.site)
                    session.add(row)
                row.reason, row.code = event.text, event.code
            case "round-started":
                self._start_round(session, event.round, now)
            case "sending":
                self._site_is(session, event, "sending", now)
            case "asked":
                self._site_is(session, event, "training", now, asked=now)
            case "returned":
                self._site_is(session, event, "returned", now, returned=now)
            case "left-out":
                state = incidents.site_state(event.code)
                self._site_is(session, event, state, now, reason=event.text, code=event.code)
            case "held-out" if isinstance(event.result, HeldOut):
                self._held_out(session, event.round, event.site, event.result)
            case "round-ended" if isinstance(event.result, Round):
                self._round(session, event.result, now, event.digest)
            case "stopped" | "finished":
                self._study_is(session, state=event.kind, code=event.code, message=event.text, finished=now, phase="")

    def _start_round(self, session: Session, number: int, now: datetime) -> None:
        """Anew, where it was begun before and not ended."""
        for kind in (SiteRoundRow, HeldOutRow):
            session.execute(delete(kind).where(kind.study == self._study, kind.round >= number))
        session.execute(delete(RoundRow).where(RoundRow.study == self._study, RoundRow.number >= number))
        session.add(RoundRow(study=self._study, number=number, started=now, attempts=1))
        sites = select(SiteRow.name).where(SiteRow.study == self._study, SiteRow.facts.is_not(None))
        for name in session.scalars(sites):
            session.add(SiteRoundRow(study=self._study, round=number, site=name, state="waiting", since=now))

    def _site_is(self, session: Session, event: Event, state: str, now: datetime, **more: Any) -> None:
        key = {"study": self._study, "round": event.round, "site": event.site}
        session.merge(SiteRoundRow(**key, state=state, since=now, **more))

    def _round(self, session: Session, done: Round, now: datetime, digest: str) -> None:
        """All of a round, as its checkpoint has it: what a kill kept from being written is written now."""
        row = session.get(RoundRow, (self._study, done.number))
        started = row.started if row else now
        ended = row.ended if row and row.ended else now
        session.merge(self._row(RoundRow, done, started=started, ended=ended))
        for one in done.sites:
            session.merge(self._site_round(session, done.number, one, now))
        for site, measured in done.held_out.items():
            self._held_out(session, done.number, site, measured)
        if digest:
            session.merge(CheckpointRow(study=self._study, round=done.number, time=ended, digest=digest))

    def _site_round(self, session: Session, number: int, did: SiteRound, now: datetime) -> SiteRoundRow:
        before = session.get(SiteRoundRow, (self._study, number, did.site))
        state = "returned" if did.state == "returned" else incidents.site_state(did.code)
        details = did.model_dump(mode="json", include={"parts", "privacy"})
        epsilon = did.privacy.epsilon if did.privacy else None
        since = before.since if before and before.state == state else now
        given = {"round": number, "state": state, "since": since, "epsilon": epsilon, "details": details}
        return self._row(SiteRoundRow, did, **given)

    def _held_out(self, session: Session, number: int, site: str, measured: HeldOut) -> None:
        details = measured.model_dump(mode="json", include={"parts", "space"})
        session.merge(self._row(HeldOutRow, measured, round=number, site=site, details=details))

    def _row(self, kind: type[Base], result: Result, **given: Any) -> Any:
        """A row with the fields of a result that are columns, and what is given beside."""
        columns = set(kind.__table__.columns.keys()) - given.keys()
        values = {name: getattr(result, name) for name in columns & type(result).model_fields.keys()}
        return kind(study=self._study, **values, **given)

    def _study_is(self, session: Session, **values: Any) -> None:
        session.execute(update(StudyRow).where(StudyRow.id == self._study).values(**values))


def _stopped(why: StudyError, number: int) -> Event:
    return Event("stopped", number, text=str(why), code=why.code)
