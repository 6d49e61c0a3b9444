"""The verdict line: how a study is, in a sentence that a coordinator reads at a glance."""

from datetime import UTC, datetime
from statistics import median

from server.record.reader import SiteNow, State, StudyRecord
from server.report import words

LATE = 2.0  # times as long as usual
_USUAL = 20  # rounds


def verdict(record: StudyRecord, state: State, now: datetime | None = None) -> str:
    """ "Round 7 of 20, about 2 h 10 min left; waiting for Leeds (usually 12 min, now 31 min)" and the like.

    Args:
        state: of the study, where more is known than the record says.
        now: the present, by default the clock's.
    """
    now = now or datetime.now(UTC)
    planned = record.plan.federation.rounds
    done = max((one.number for one in record.rounds), default=0)
    if state == "finished":
        return f"Finished: all {planned} rounds are done."
    if state == "stopped":
        return f"Stopped after round {done} of {planned}."
    if state == "interrupted":
        return f"Interrupted after round {done} of {planned}: nobody works on it."
    if not record.begun:
        return "Waiting for the sites." if not record.sites else "Measuring the base at the sites."
    current = max(record.begun)
    if current <= done:
        return f"Round {done} of {planned} is done" + (f"; {record.phase}." if record.phase else ".")
    parts = [f"Round {current} of {planned}"]
    if (left := time_left(record, now)) is not None:
        parts.append(f"about {words.duration(left)} left" if left > 0 else "longer than usual")
    line = ", ".join(parts)
    waited = [_waited(record, one, now) for one in waiting(record)]
    if waited:
        more = f" and {len(waited) - 3} more" if len(waited) > 3 else ""
        line += f"; waiting for {', '.join(waited[:3])}{more}"
    return line + "."


def waiting(record: StudyRecord) -> list[SiteNow]:
    """The sites whose answer the round that goes on waits for, the one that was asked first at the front."""
    current = max(record.begun, default=0)
    open_ = [one for one in record.progress.get(current, []) if one.state in ("sending", "training")]
    return sorted(open_, key=lambda one: one.asked or one.since)


def usual_seconds(record: StudyRecord, site: str) -> float | None:
    """The median of what a site took to answer in its last rounds; None before its first answer."""
    took = [
        (one.returned - one.asked).total_seconds()
        for number in sorted(record.progress)[-_USUAL:]
        for one in record.progress[number]
        if one.site == site and one.returned and one.asked and one.state == "returned"
    ]
    return median(took) if took else None


def is_late(record: StudyRecord, one: SiteNow, now: datetime) -> bool:
    """Whether a site takes much longer than it usually does."""
    usual = usual_seconds(record, one.site)
    return usual is not None and one.asked is not None and (now - one.asked).total_seconds() > max(30.0, LATE * usual)


def time_left(record: StudyRecord, now: datetime) -> float | None:
    """Seconds until the last round will have ended, by the median round; None where none is done."""
    seconds = [one.seconds for one in record.rounds if one.number > 0]
    if not seconds:
        return None
    current, planned = max(record.begun), record.plan.federation.rounds
    rest = median(seconds) * (planned - current + 1)
    return max(0.0, rest - (now - record.begun[current]).total_seconds())


def _waited(record: StudyRecord, one: SiteNow, now: datetime) -> str:
    since = words.duration((now - (one.asked or one.since)).total_seconds())
    usual = usual_seconds(record, one.site)
    return f"{one.site} ({f'usually {words.duration(usual)}, ' if usual is not None else ''}now {since})"
