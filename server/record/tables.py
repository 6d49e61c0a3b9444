"""The tables of the record. A change here needs a migration (server/record/migrations/versions).

Times are UTC. What a query may want to filter or sort by is a column; the rest of a result is in `details` (JSON), as
`common.results` has it.
"""

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Float, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator


class Utc(TypeDecorator[datetime]):
    """A moment. Databases without time zones keep it in UTC."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    type_annotation_map: ClassVar = {datetime: Utc, dict[str, Any]: JSON, float: Float, int: BigInteger}


_STUDY = "study.id"


class StudyRow(Base):
    """A study. `state`: waiting, running, stopped, finished. `heartbeat`: when whoever runs it last said so."""

    __tablename__ = "study"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    folder: Mapped[str] = mapped_column(Text)
    plan: Mapped[str] = mapped_column(Text)
    plan_hash: Mapped[str] = mapped_column(String(64))
    engine: Mapped[str] = mapped_column(String(20))
    versions: Mapped[dict[str, Any]]
    started: Mapped[datetime]
    state: Mapped[str] = mapped_column(String(20))
    phase: Mapped[str] = mapped_column(Text, default="")
    code: Mapped[str] = mapped_column(String(100), default="")
    message: Mapped[str] = mapped_column(Text, default="")
    heartbeat: Mapped[datetime]
    finished: Mapped[datetime | None]
    parameters: Mapped[int | None]
    shared_parameters: Mapped[int | None]


class SiteRow(Base):
    """A site of a study: what it brings and who approved the plan there, or why it cannot take part."""

    __tablename__ = "site"

    study: Mapped[str] = mapped_column(ForeignKey(_STUDY), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    facts: Mapped[dict[str, Any] | None]
    reason: Mapped[str] = mapped_column(Text, default="")
    code: Mapped[str] = mapped_column(String(100), default="")


class RoundRow(Base):
    """A round. `ended` is empty while it goes on, and of one that was cut off."""

    __tablename__ = "round"

    study: Mapped[str] = mapped_column(ForeignKey(_STUDY), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    started: Mapped[datetime]
    ended: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=1)
    seconds: Mapped[float | None]
    hospital_epsilon: Mapped[float | None]


class SiteRoundRow(Base):
    """A site in a round. `state`: as `server.incidents.SiteState` has it; `since`: when it began."""

    __tablename__ = "site_round"

    study: Mapped[str] = mapped_column(ForeignKey(_STUDY), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True)
    site: Mapped[str] = mapped_column(String(200), primary_key=True)
    state: Mapped[str] = mapped_column(String(20))
    since: Mapped[datetime]
    asked: Mapped[datetime | None]
    returned: Mapped[datetime | None]
    reason: Mapped[str] = mapped_column(Text, default="")
    code: Mapped[str] = mapped_column(String(100), default="")
    notes: Mapped[int | None]
    tokens: Mapped[int | None]
    steps: Mapped[int | None]
    seconds: Mapped[float | None]
    bytes_down: Mapped[int | None]
    bytes_up: Mapped[int | None]
    loss: Mapped[float | None]
    update_norm: Mapped[float | None]
    cosine: Mapped[float | None]
    weight: Mapped[float | None]
    epsilon: Mapped[float | None]
    details: Mapped[dict[str, Any] | None]


class HeldOutRow(Base):
    __tablename__ = "held_out"

    study: Mapped[str] = mapped_column(ForeignKey(_STUDY), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True)
    site: Mapped[str] = mapped_column(String(200), primary_key=True)
    loss: Mapped[float]
    notes: Mapped[int]
    tokens: Mapped[int]
    details: Mapped[dict[str, Any] | None]


class ScoreRow(Base):
    """`value` with its interval is of the task's own metric; `details` holds the others and the few-shot curves."""

    __tablename__ = "score"

    study: Mapped[str] = mapped_column(ForeignKey(_STUDY), primary_key=True)
    site: Mapped[str] = mapped_column(String(200), primary_key=True)
    task: Mapped[str] = mapped_column(String(200), primary_key=True)
    model: Mapped[str] = mapped_column(String(40), primary_key=True)
    mode: Mapped[str] = mapped_column(String(20), primary_key=True)
    metric: Mapped[str] = mapped_column(String(20))
    n_train: Mapped[int]
    n_test: Mapped[int]
    value: Mapped[float]
    low: Mapped[float | None]
    high: Mapped[float | None]
    details: Mapped[dict[str, Any]]


class ComparisonRow(Base):
    """The metric of the shared encoder minus that of `against`."""

    __tablename__ = "comparison"

    study: Mapped[str] = mapped_column(ForeignKey(_STUDY), primary_key=True)
    site: Mapped[str] = mapped_column(String(200), primary_key=True)
    task: Mapped[str] = mapped_column(String(200), primary_key=True)
    against: Mapped[str] = mapped_column(String(40), primary_key=True)
    mode: Mapped[str] = mapped_column(String(20), primary_key=True)
    metric: Mapped[str] = mapped_column(String(20))
    value: Mapped[float]
    low: Mapped[float | None]
    high: Mapped[float | None]
    n_test: Mapped[int]
    verdict: Mapped[str] = mapped_column(String(40))


class NotScoredRow(Base):
    __tablename__ = "not_scored"

    study: Mapped[str] = mapped_column(ForeignKey(_STUDY), primary_key=True)
    site: Mapped[str] = mapped_column(String(200), primary_key=True)
    task: Mapped[str] = mapped_column(String(200), primary_key=True)
    reason: Mapped[str] = mapped_column(Text)


class MemorisationRow(Base):
    """What a site found when it asked the final encoder for what it should not know; `veto` is empty, or a code."""

    __tablename__ = "memorisation"

    study: Mapped[str] = mapped_column(ForeignKey(_STUDY), primary_key=True)
    site: Mapped[str] = mapped_column(String(200), primary_key=True)
    veto: Mapped[str] = mapped_column(String(100), default="")
    reason: Mapped[str] = mapped_column(Text, default="")
    details: Mapped[dict[str, Any]]


class CheckpointRow(Base):
    """`digest`: SHA-256 (hex) of the shared tensors' file."""

    __tablename__ = "checkpoint"

    study: Mapped[str] = mapped_column(ForeignKey(_STUDY), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True)
    time: Mapped[datetime]
    digest: Mapped[str] = mapped_column(String(64))


class EventRow(Base):
    """Everything that happened, in order. One with a code is an incident, and `next_step` says what to do."""

    __tablename__ = "event"
    __table_args__ = (Index("event_of_study", "study", "id"),)

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    study: Mapped[str] = mapped_column(ForeignKey(_STUDY))
    time: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(20))
    round: Mapped[int]
    site: Mapped[str] = mapped_column(String(200), default="")
    text: Mapped[str] = mapped_column(Text, default="")
    code: Mapped[str] = mapped_column(String(100), default="")
    next_step: Mapped[str] = mapped_column(Text, default="")
