"""Follows a record and writes what is new to sinks: once, or until the study is over. The study never waits for it."""

import time
from collections.abc import Callable

from common.errors import MachineError
from server.mirror.sink import Sink, Written
from server.record.database import Database
from server.record.reader import State, StudyRecord, beat, read_study, version

_PAUSE, _AWAY = 1.0, 30.0  # seconds between two looks, and where a server or a database is away
_PASSING = ("mlflow-unreachable", "record-unreachable")


def follow(
    database: Database,
    study: str,
    sinks: list[Sink],
    watch: bool,
    on_written: Callable[[StudyRecord, Written], None],
    on_away: Callable[[MachineError], None],
) -> None:
    """Tell `on_written` what went to a sink: at first, and then whenever values did, or another state.

    While it watches, a server that is away is told to `on_away` and waited for. Raises as `read_study`, `Sink.write`.
    """
    seen: tuple[int, State] | None = None
    while True:
        try:
            # A study that was interrupted writes no event: it only gives no sign of life any more.
            now = version(database, study), beat(database, study)[1]
            if now != seen:
                record = read_study(database, study)
                for sink in sinks:
                    written = sink.write(record)
                    if written.values or seen is None or seen[1] != record.state:
                        on_written(record, written)
                seen = now
            if not watch or record.state in ("stopped", "finished"):
                return
        except MachineError as error:
            if seen is None or error.code not in _PASSING:
                raise
            on_away(error)
            time.sleep(_AWAY)
        time.sleep(_PAUSE)
