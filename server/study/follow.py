"""Carry a study over real servers to its end: start a Flower run for it, follow it, and start another where Flower
lost one.

Flower cannot resume a run. A study can: its rounds go on from the last checkpoint in a new Flower run.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from common.errors import MachineError, StudyError
from server.deployment.config import Server
from server.deployment.control import Control, RunStatus
from server.display import Display
from server.record.events import EventReader
from server.record.place import opened
from server.record.recorder import Recorder
from server.study.folder import Study

_Answer = TypeVar("_Answer")
_POLL = 0.5
_IN_VAIN = 3  # Flower runs in a row that are lost without a round between them
_AWAY = 180.0  # seconds without a SuperLink; one that hangs is noticed after a minute
_HANGS = 30.0  # seconds that a ServerApp may live on after Flower has ended its run
_GONE = 5.0  # seconds in which a ServerApp that was there holds its study no more, while Flower thinks it runs


def carry(server: Server, study: Study, display: Display) -> None:
    """Returns when all rounds are done. Raises StudyError where the study stops before; MachineError where there is no
    coordinator to run it. A study that another process carries is followed, and carried on if that one dies."""
    events = EventReader(study.path)
    with study.carried(lambda: _show(events, display)) as waited:
        if waited:
            _show(events, display)
            if (summary := study.summary()) and summary.status == "finished":
                return
            if reason := study.stop_reason():
                raise reason
        _carry(server, study, events, display)


def _carry(server: Server, study: Study, events: EventReader, display: Display) -> None:
    in_vain, done = 0, study.rounds_done()
    while True:
        ended = _follow(server, study, _flower_run(server, study), events, display)
        if ended.status == "completed":
            return
        if reason := study.stop_reason():
            raise reason
        if ended.status == "stopped":
            raise _stopped(study)
        in_vain = 0 if study.rounds_done() > done else in_vain + 1
        done = study.rounds_done()
        if in_vain >= _IN_VAIN:
            raise StudyError(
                "server-app-failed",
                f"The ServerApp ended {in_vain} times without a round: {ended.details}",
                "See logs/superexec.log in the coordinator's folder, then " + _RESUME.format(study.path),
            )
        display.say(f"Flower lost the run after round {max(0, done)}; the study goes on from there")


def _flower_run(server: Server, study: Study) -> int:
    """The Flower run that carries the study, or is about to; a new one where the last has ended."""
    numbers = study.record.flower_runs
    if numbers and not _insist(server, lambda control: control.run_status(numbers[-1])).finished:
        return numbers[-1]
    if not _wait_until(lambda: not study.busy(), _HANGS):
        study.kill_holder()  # its run has ended without it: it hangs, or cannot be told
        _wait_until(lambda: not study.busy(), _HANGS)
    study.forget_stop_reason()
    number = _insist(server, lambda control: control.start_run(study.path))
    study.add_flower_run(number)
    return number


def _insist(server: Server, ask: Callable[[Control], _Answer]) -> _Answer:
    """Ask the SuperLink, which may be away for a while."""
    end = time.monotonic() + _AWAY
    while True:
        try:
            with Control(server) as control:
                return ask(control)
        except MachineError:
            if time.monotonic() > end:
                raise
        time.sleep(_POLL)


def stop(server: Server, study: Study) -> bool:
    """Stop a study: its sites stop training, too. False where it was not running."""
    numbers = study.record.flower_runs
    if not numbers:
        return False
    with Control(server) as control:
        stopped = control.stop_run(numbers[-1])
    _wait_until(lambda: not study.busy(), 30.0)
    if stopped:
        Recorder(*opened(study.path)).stop(_stopped(study))
    return stopped


def _stopped(study: Study) -> StudyError:
    return StudyError("study-stopped", "The coordinator stopped the study.", _RESUME.format(study.path))


_RESUME = "resume it: fednotes server resume {}"


def _follow(server: Server, study: Study, number: int, events: EventReader, display: Display) -> RunStatus:
    """Until the Flower run ends; shows what happens meanwhile."""
    away_since = gone_since = None
    was_there = False
    while True:
        _show(events, display)
        now = time.monotonic()
        try:
            with Control(server) as control:
                status = control.run_status(number)
                away_since = None
                if status.finished:
                    _show(events, display)
                    return status
                there = study.busy()
                was_there = was_there or there
                gone_since = None if there or not was_there else gone_since or now
                if gone_since and now - gone_since > _GONE:
                    # It was killed. Flower would notice after a minute.
                    control.stop_run(number)
                    return RunStatus("failed", "the ServerApp was killed", status.bytes_up, status.bytes_down)
        except MachineError:
            away_since = away_since or now
            if now - away_since > _AWAY:
                raise
        time.sleep(_POLL)


def _show(events: EventReader, display: Display) -> None:
    for _, event in events.new():
        display.event(event)


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(_POLL)
    return found
