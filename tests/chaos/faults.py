"""What may happen to a federation: processes that die or hang, networks that are cut, disks that fill."""

import contextlib
import errno
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil
from surviving_federation import Federation, StudyUnderWay, wait_for

Act = Callable[[Federation, StudyUnderWay], None]


@dataclass(frozen=True)
class Fault:
    """`resumes`: how often a person may have to say `fednotes server resume` because of it."""

    name: str
    act: Act
    resumes: int = 0


def kill(role: str, resumes: int = 0) -> Fault:
    """kill -9."""
    return Fault(f"kill -9 {role}", lambda federation, study: _signal(federation, study, role, signal.SIGKILL), resumes)


def hang(role: str, seconds: float | None) -> Fault:
    """SIGSTOP, and SIGCONT after so many seconds, or never."""

    def act(federation: Federation, study: StudyUnderWay) -> None:
        pid = _signal(federation, study, role, signal.SIGSTOP)
        if seconds is not None:
            time.sleep(seconds)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    return Fault(f"hang {role} " + ("for ever" if seconds is None else f"for {seconds:g} s"), act)


class Cable(Protocol):
    """What joins a site to the coordinator."""

    site: str

    def cut(self) -> None: ...
    def mend(self) -> None: ...


def cut(network: Cable, seconds: float) -> Fault:
    """Packets to and from a site are lost, without a word to either end."""

    def act(federation: Federation, study: StudyUnderWay) -> None:
        network.cut()
        time.sleep(seconds)
        network.mend()

    return Fault(f"cut the network of {network.site} for {seconds:g} s", act)


def fill(name: str, folder: Path, seconds: float, resumes: int = 1) -> Fault:
    """No byte is left on the disk of a folder for so many seconds."""

    def act(federation: Federation, study: StudyUnderWay) -> None:
        file = folder / "filler"
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                _fill(file)  # again and again, for others free some
                time.sleep(0.2)
        finally:
            file.unlink()

    return Fault(f"fill the disk of {name} for {seconds:g} s", act, resumes)


def both(first: Fault, second: Fault, apart: float = 0.5) -> Fault:
    def act(federation: Federation, study: StudyUnderWay) -> None:
        first.act(federation, study)
        time.sleep(apart)
        second.act(federation, study)

    return Fault(f"{first.name}, and {second.name}", act, first.resumes + second.resumes)


@dataclass(frozen=True)
class Harm:
    """What a fault did: the round that it hit, and by how many seconds (`cost`) that lasted longer than usual.
    `resumes`: how often the study was resumed by hand."""

    fault: str
    round: int
    after: float
    cost: float
    resumes: int

    def __str__(self) -> str:
        return (
            f"{self.fault:66} round {self.round:2}, after {self.after:4.1f} s: cost {self.cost:6.1f} s"
            f"{f', {self.resumes} resume' if self.resumes else ''}"
        )


def carry_out(
    federation: Federation, study: StudyUnderWay, faults: list[Fault], rng: random.Random, usual: float
) -> list[Harm]:
    """One fault a round, at a random moment of it; returns when all are over and the study has ended.

    Args:
        usual: seconds of a round that nothing happens to.
    """
    found, number = [], 0
    for fault in faults:
        number, before = max(number + 1, study.newest_round()), study.resumes
        study.wait_for_round(number)
        time.sleep(rng.uniform(0.0, 0.8 * usual))
        number = study.newest_round()
        after = study.seconds_in(number)
        fault.act(federation, study)
        study.wait_for_end_of(number, fault.resumes)
        found.append(Harm(fault.name, number, after, study.seconds_of(number) - usual, study.resumes - before))
        print(found[-1], flush=True)
    study.finish(0, 300.0)
    return found


def _signal(federation: Federation, study: StudyUnderWay, role: str, number: int) -> int:
    if role.startswith("worker of "):
        wait_for(lambda: federation.trains(role.removeprefix("worker of ")), 60.0, f"the {role} to train")
    pid: int = study.process.pid if role == "run" else wait_for(lambda: federation.pid(role), 60.0, role)
    os.kill(pid, number)
    return pid


def let_go(federation: Federation) -> None:
    """End what hangs for ever."""
    for process in federation.ours():
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_STOPPED:
                process.kill()


def _fill(file: Path) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    size = 1 << 20
    try:
        while size:
            try:
                os.write(descriptor, bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path | None]:
    """A disk of its own at `folder`; None where this user may not mount one."""
    folder.mkdir()
    if not _allowed("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)):
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


class Network:
    """A network of a site's own, joined to ours by one cable. None of it is seen outside."""

    def __init__(self, site: str) -> None:
        self.site, self.name = site, f"chaos{os.getpid()}"
        net = f"10.213.{os.getpid() % 256}"
        self.here, self.there = f"{net}.1", f"{net}.2"
        self.prefix = ["ip", "netns", "exec", self.name]

    def lay(self) -> bool:
        """False where this user may not."""
        ours, theirs = f"va{os.getpid()}", f"vb{os.getpid()}"
        inside = ["ip", "-n", self.name]
        return all(
            _allowed(*words)
            for words in (
                ["ip", "netns", "add", self.name],
                ["ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", self.name],
                ["ip", "addr", "add", f"{self.here}/30", "dev", ours],
                ["ip", "link", "set", ours, "up"],
                [*inside, "addr", "add", f"{self.there}/30", "dev", theirs],
                [*inside, "link", "set", theirs, "up"],
                [*inside, "link", "set", "lo", "up"],
            )
        )

    def cut(self) -> None:
        assert _allowed("ip", "route", "add", "blackhole", f"{self.there}/32")

    def mend(self) -> None:
        assert _allowed("ip", "route", "del", "blackhole", f"{self.there}/32")

    def remove(self) -> None:
        _allowed("ip", "netns", "del", self.name)


def _allowed(*words: str) -> bool:
    try:
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
