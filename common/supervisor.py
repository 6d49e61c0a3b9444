"""Keeping a handful of processes alive: they are started, started again when they end, and ended together.

A folder has at most one supervisor. Whatever ends it ends its children, too: on Linux even a kill -9 does.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import IO

from common.errors import FednotesError, MachineError
from common.files import explained, write_text

# What every process of Flower that we start is told: no telemetry, no search for updates, no installing at run time.
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}

PROCESSES, LOCK = "processes.json", "supervisor.lock"
_LONGEST_DELAY = 60.0  # seconds
_AT_ONCE = 10.0  # a process that lived for less seconds died at once
_GRACE = 15.0  # seconds from SIGTERM to SIGKILL
_LOG_BYTES, _LOGS = 10_000_000, 3
_TICK = 0.2
_ASK, _HANGS = 10.0, 60.0  # seconds between two questions whether a process lives, and until it is taken for dead
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded here: after a fork little is safe

Say = Callable[[str], None]


@dataclass(frozen=True)
class Child:
    """A process to keep alive. `delay`: seconds before it is started again; they double, up to a minute, while it keeps
    dying at once. `environment` is added to ours. One that has to run `once` is left alone when it ends with 0. `lives`
    says within seconds whether it answers: one that has not for a minute hangs, and is killed."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    delay: float
    once: bool = False
    lives: Callable[[], bool] | None = None


@dataclass
class _Kept:
    """A child and what became of it."""

    child: Child
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    started: float = 0.0
    due: float = 0.0  # when it is to be started, while it does not run
    asked: float = 0.0  # whether it lives
    lived: float = 0.0
    wait: float = field(init=False)
    done: bool = False

    def __post_init__(self) -> None:
        self.wait = self.child.delay

    def start(self) -> None:
        """Raises OSError where it cannot be started; its log is its standard output and error."""
        self.child.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, **self.child.environment, "PYTHONUNBUFFERED": "1"}
        parent, self.started = os.getpid(), time.monotonic()
        self.asked = self.lived = self.started
        with self.child.log.open("ab") as log:  # appending: a log can be cut while it is written
            self.process = subprocess.Popen(
                self.child.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches us alone, and we end them in order
                preexec_fn=lambda: _die_with(parent),
            )

    def end(self) -> None:
        """End it and what it has started: by SIGTERM, and after a grace by SIGKILL."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_GRACE)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None


def supervise(children: list[Child], folder: Path, say: Say) -> None:
    """Keep `children` alive until SIGTERM or SIGINT, then end them, the last first. Call it from the main thread.

    Args:
        children: started in this order.
        folder: holds the lock, and `processes.json` with all pids and counts of restarts.
        say: told in one line of every start and end.

    Raises:
        MachineError: `already-running`, where the folder has a supervisor.
    """
    kept = [_Kept(child) for child in children]
    with _locked(folder), _stop_signals() as stopped:
        try:
            looked = 0.0
            while not stopped:
                changed = [one for one in kept if _look_after(one, say)]
                if changed:
                    _note(folder, kept, say)
                if time.monotonic() - looked > 5:
                    looked = time.monotonic()
                    for one in kept:
                        _rotate(one.child.log)
                time.sleep(_TICK)
        finally:
            for one in reversed(kept):
                one.end()
            say("All processes have ended.")
            with contextlib.suppress(OSError):
                (folder / PROCESSES).unlink(missing_ok=True)


def running(folder: Path) -> int | None:
    """The pid of the folder's supervisor; None where it has none."""
    path = folder / LOCK
    with contextlib.suppress(FileNotFoundError), path.open("r") as lock:
        for _ in range(10):  # one that has just begun may not have written its pid
            if _take(lock, fcntl.LOCK_SH):
                return None
            lock.seek(0)
            if text := lock.read().strip():
                return int(text)
            time.sleep(_TICK)
    return None


def stop(folder: Path, seconds: float) -> bool:
    """End the folder's supervisor and all its children; after `seconds` by force. False where there was none."""
    pid = running(folder)
    if pid is None:
        return False
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, _GRACE)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if running(folder) != pid:
                return True
            time.sleep(_TICK)
    raise MachineError("unstoppable", f"Process {pid} does not end.", "See what the machine is waiting for.")


def _look_after(one: _Kept, say: Say) -> bool:
    """Start it where it is due, notice where it has ended. Returns whether anything changed."""
    name, now = one.child.name, time.monotonic()
    if one.process is None:
        if one.done or now < one.due:
            return False
        try:
            one.start()
            assert one.process is not None
            say(f"{name} runs (pid {one.process.pid}).")
        except (OSError, subprocess.SubprocessError) as error:
            one.due, one.wait = now + one.wait, min(2 * one.wait, _LONGEST_DELAY)
            say(f"{name} cannot be started: {error}.")
        return True
    code = one.process.poll()
    if code is None:
        _see_that_it_lives(one, now, say)
        return False
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(one.process.pid, signal.SIGKILL)  # what it has started
    one.process = None
    if one.child.once and code == 0:
        one.done = True
        say(f"{name} is done.")
        return True
    one.wait = min(2 * one.wait, _LONGEST_DELAY) if one.restarts and now - one.started < _AT_ONCE else one.child.delay
    one.due, one.restarts = now + one.wait, one.restarts + 1
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    say(f"{name} {how}; it is started again in {one.wait:g} s. Its log: {one.child.log}")
    return True


def _see_that_it_lives(one: _Kept, now: float, say: Say) -> None:
    """Ask it now and then; kill it where it has not answered for long."""
    if one.child.lives is None or one.process is None or now - one.asked < _ASK:
        return
    if one.child.lives():
        one.lived = time.monotonic()
    elif now - one.lived > _HANGS:
        say(f"{one.child.name} has not answered for {_HANGS:g} s; it is killed.")
        one.process.kill()
    one.asked = time.monotonic()


def _note(folder: Path, kept: list[_Kept], say: Say) -> None:
    """Write `processes.json`. A full disk must not end what runs."""
    found = {
        "pid": os.getpid(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "children": {
            one.child.name: {"pid": one.process.pid if one.process else None, "restarts": one.restarts} for one in kept
        },
    }
    try:
        write_text(folder / PROCESSES, json.dumps(found, indent=2) + "\n")
    except (FednotesError, OSError) as error:
        say(f"{PROCESSES} could not be written: {error}")


def _rotate(log: Path) -> None:
    """Keep a log and two older parts, each of about 10 MB. It is copied and cut, for its writer holds it open."""
    with contextlib.suppress(OSError):  # on a full disk it stays as it is
        if log.stat().st_size < _LOG_BYTES:
            return
        older = [log.with_name(f"{log.name}.{number}") for number in range(1, _LOGS)]
        for newer, old in zip(older[-2::-1], older[:0:-1], strict=True):
            if newer.exists():
                newer.replace(old)
        shutil.copyfile(log, older[0])
        os.truncate(log, 0)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, with our pid in it. A killed process holds none."""
    path = folder / LOCK
    with explained(path):
        folder.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+")
    with lock:
        for _ in range(5):  # somebody who only asks holds it for a moment
            if _take(lock, fcntl.LOCK_EX):
                break
            time.sleep(_TICK / 2)
        else:
            raise MachineError(
                "already-running",
                f"Process {running(folder)} keeps the processes of {folder} already.",
                "There is nothing to do; or stop that one first.",
            )
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
        lock.truncate(0)


def _take(lock: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that fills when we are told to stop."""
    told: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        told.append(number)

    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, remember) for number in numbers}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _die_with(parent: int) -> None:
    """In the child, before its program: the kernel kills it when our supervisor ends."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the line above
            os._exit(1)
