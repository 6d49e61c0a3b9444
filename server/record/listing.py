"""Many studies of a database, as a list of them shows each."""

from datetime import datetime
from pathlib import Path

from sqlalchemy import func, select

from common.errors import InputError
from server.record.database import Database
from server.record.reader import State, View, plan_of, state_of, study_row
from server.record.tables import EventRow, RoundRow, SiteRow, StudyRow


class Listed(View):
    """A study in a list of many; `problem`: why its plan cannot be read."""

    id: str
    name: str
    folder: str
    engine: str
    privacy: str
    objective: str
    started: datetime
    heartbeat: datetime
    state: State
    message: str
    round: int
    planned_rounds: int
    sites: int
    problem: str = ""


class Pulse(View):
    """Of a study: the number of its last event, and its state. Where neither changed, nothing did."""

    study: str
    version: int
    state: State


def pulses(database: Database) -> list[Pulse]:
    """Of every study of a database: cheap, and so what may be asked twice a second."""
    last = select(EventRow.study, func.max(EventRow.id).label("id")).group_by(EventRow.study).subquery()
    query = select(StudyRow.id, StudyRow.state, StudyRow.heartbeat, last.c.id).outerjoin(
        last, StudyRow.id == last.c.study
    )
    with database.read() as session:
        rows = session.execute(query.order_by(StudyRow.id)).all()
    return [Pulse(study=id_, version=number or 0, state=state_of(state, heard)) for id_, state, heard, number in rows]


def folder_of(database: Database, study: str) -> Path:
    """Where a study says that its run was made. Raises InputError `no-record`."""
    with database.read() as session:
        return Path(study_row(session, study).folder)


def names(database: Database, study: str) -> tuple[str, set[str]]:
    """What a study is called, and its sites. Raises InputError `no-record`."""
    with database.read() as session:
        sites = session.scalars(select(SiteRow.name).where(SiteRow.study == study, SiteRow.facts.is_not(None)))
        return study_row(session, study).name, set(sites)


def studies(database: Database) -> list[Listed]:
    """All studies of a database, the newest first."""
    with database.read() as session:
        done = dict(
            session.execute(
                select(RoundRow.study, func.max(RoundRow.number))
                .where(RoundRow.ended.is_not(None))
                .group_by(RoundRow.study)
            ).all()
        )
        sites = dict(
            session.execute(
                select(SiteRow.study, func.count()).where(SiteRow.facts.is_not(None)).group_by(SiteRow.study)
            ).all()
        )
        return [
            _listed(row, done.get(row.id, 0), sites.get(row.id, 0))
            for row in session.scalars(select(StudyRow).order_by(StudyRow.started.desc()))
        ]


def _listed(row: StudyRow, done: int, sites: int) -> Listed:
    plan, problem = None, ""
    try:
        plan = plan_of(row.plan)
    except InputError as error:  # which must not hide the others
        problem = str(error)
    return Listed(
        id=row.id,
        name=row.name,
        folder=row.folder,
        engine=row.engine,
        privacy=plan.privacy_words if plan else "",
        objective=plan.objective.kind if plan else "",
        started=row.started,
        heartbeat=row.heartbeat,
        state=state_of(row.state, row.heartbeat),
        message=row.message,
        round=done,
        planned_rounds=plan.federation.rounds if plan else 0,
        sites=sites,
        problem=problem,
    )
