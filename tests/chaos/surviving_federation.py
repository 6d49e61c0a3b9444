"""A federation of real processes on this machine, TLS and keys and all: a coordinator and three sites, each kept alive
as systemd would keep it, and the studies that a person runs there."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psutil

from client.node.status import read_status
from common.kit import read_answer
from common.plan import StudyPlan, plan_to_toml
from common.results import Summary
from common.supervisor import PROCESSES, QUIET
from server.checkpoint import load_checkpoint
from server.deployment.config import Server
from server.deployment.control import Control
from server.deployment.processes import healthy
from server.deployment.registry import accept, invite
from server.deployment.setup import initialise
from server.record.events import EventReader
from server.study.status import RunStatus, status
from simulations.synthetic_notes import synthetic_notes

FEDNOTES = [sys.executable, "-m", "fednotes"]
SITES = ("alpha", "bravo", "charlie")
Somebody = Literal["works", "begins", "nobody"]
MARK = "FEDNOTES_CHAOS"  # in the environment of every process that is ours


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """What `condition` gives, as soon as it is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.1)
    return found


@dataclass
class Service:
    """A command that is started again some seconds after it has ended, until it is stopped."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    rest: float
    process: "subprocess.Popen[bytes] | None" = None
    wanted: bool = False
    due: float = 0.0

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.wanted = True

    def look(self) -> None:
        if not self.wanted or self.process is None or self.process.poll() is None:
            self.due = 0.0
        elif not self.due:
            self.due = time.monotonic() + self.rest
        elif time.monotonic() > self.due:
            self.due = 0.0
            self.start()

    def stop(self) -> None:
        """As `systemctl stop` does: SIGTERM, and after a while SIGKILL."""
        self.wanted = False
        if self.process is None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class Federation:
    """Its folders and services.

    Args:
        places: where the folder of the coordinator or of a site is to be, if not in `folder`.
        prefixes: what a site's service is started through, such as another network namespace.
        ways: site -> "host:port" by which it reaches the coordinator, where that is another than `host`.
    """

    folder: Path
    host: str = "localhost"
    places: dict[str, Path] = field(default_factory=dict)
    prefixes: dict[str, list[str]] = field(default_factory=dict)
    port: int = 0
    flower_port: int = 0

    def __post_init__(self) -> None:
        self.mark = secrets.token_hex(8)
        self.environment = os.environ | QUIET | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", MARK: self.mark}
        self.environment["FEDNOTES_CACHE"] = str(self.folder / "cache")
        self.server = Server(self.places.get("coordinator", self.folder / "coordinator"))
        self.sites = {name: self.places.get(name, self.folder / name) for name in SITES}
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self.services: dict[str, Service] = {}

    def set_up(self, ways: dict[str, str] | None = None) -> None:
        """The folders, and who may take part. Sites ask for no approval here.

        Args:
            ways: site -> "host:port" by which it reaches the coordinator, if not by its address.
        """
        address = f"{self.host}:{self.port}"
        initialise(self.server.folder, "trial", address, f"0.0.0.0:{self.port}", self.flower_port, None)
        rows = list(synthetic_notes(notes=360, hospitals=len(SITES)))
        hospitals = sorted({row["site"] for row in rows})
        for name, hospital in zip(SITES, hospitals, strict=True):
            lines = [json.dumps(row) + "\n" for row in rows if row["site"] == hospital]
            (self.folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
            invite(self.server, name)
        together(self._join, SITES)
        for name, way in (ways or {}).items():
            edit(self.sites[name] / "site.toml", f'address = "{address}"', f'address = "{way}"')
        self._service("coordinator", ["server", "start", str(self.server.folder)], 5.0)
        for name, folder in self.sites.items():
            self._service(name, ["site", "start", str(folder)], 5.0)

    def _join(self, name: str) -> None:
        folder, kit = self.sites[name], self.server.kits / f"{name}.zip"
        words = ["site", "init", kit, "--to", folder, "--notes", self.folder / f"{name}.jsonl"]
        self.run(*words, "--unit", "note", "--max-epsilon", "1000", "--allow-no-privacy", "--yes")
        edit(folder / "site.toml", "require_approval = true", "require_approval = false")
        edit(folder / "site.toml", "max_hours_per_message = 24.0", "max_hours_per_message = 0.01\nthreads = 1")
        accept(self.server, name, read_answer(folder / f"{name}.key.json"))

    def _service(self, name: str, words: list[str], rest: float) -> None:
        command = [*self.prefixes.get(name, []), *FEDNOTES, *words]
        log = self.folder / f"{name}.log"
        self.services[name] = Service(name, command, self.environment, log, rest)

    def start(self) -> None:
        for service in self.services.values():
            service.start()
        self._keeper.start()
        self.wait_for_sites()

    def wait_for_sites(self, seconds: float = 120.0) -> None:
        """Until every site is online, and its node lives."""
        wait_for(lambda: self._online() >= set(SITES), seconds, "all sites to be online")

    def _online(self) -> set[str]:
        with contextlib.suppress(Exception), Control(self.server) as control:
            there = {node.name for node in control.nodes() if node.online}
            return {name for name in there if self.pid(f"node of {name}")}
        return set()

    def _keep(self) -> None:
        while not self._over.wait(0.2):
            for service in self.services.values():
                service.look()

    def stop(self) -> None:
        self._over.set()
        for service in self.services.values():
            service.wanted = False
        together(lambda name: self.services[name].stop(), list(self.services))

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """At the end it is stopped, and nothing of it is left. Raises AssertionError else; then it is killed."""
        try:
            yield
        finally:
            self.stop()
            left = self.ours()
            for process in left:
                process.kill()
            assert not left, [process.cmdline() for process in left]

    def ours(self) -> list[psutil.Process]:
        """Every process of the federation that lives, wherever its parent may be."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def run(self, *words: object) -> str:
        """A command that has to succeed; what it prints."""
        done = subprocess.run(
            [*FEDNOTES, *map(str, words)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def pid(self, role: str) -> int | None:
        """Of a process: "coordinator", "superlink", "superexec", "gateway", "serverapp", "supervisor of alpha",
        "node of alpha", "worker of alpha"; None where there is none."""
        what, _, name = role.partition(" of ")
        if what in ("coordinator", "supervisor"):
            service = self.services[name or "coordinator"].process
            return service.pid if service and service.poll() is None else None
        if what == "serverapp":
            return next((one.pid for one in self.ours() if _is_server_app(one)), None)
        if what == "worker":
            return self._worker(name)
        with contextlib.suppress(OSError, ValueError, KeyError):
            folder = self.sites[name] if name else self.server.state
            pid = _children(folder)[what]
            return pid if pid and psutil.pid_exists(pid) else None
        return None

    def trains(self, name: str) -> bool:
        now = read_status(self.sites[name])
        return now.state == "working" and now.message == "train"

    def _worker(self, name: str) -> int | None:
        with contextlib.suppress(psutil.Error):
            node = self.pid(f"node of {name}")
            for child in psutil.Process(node).children() if node else ():
                if "spawn_main" in " ".join(child.cmdline()):
                    return child.pid
        return None

    def logs(self) -> str:
        """The ends of all logs, for whoever has to find out what went wrong."""
        files = [*self.folder.glob("*.log"), *self.server.logs.glob("*.log")]
        files += [file for site in self.sites.values() for file in (site / "logs").glob("*.log")]
        return "\n".join(f"--- {file}\n{file.read_text(errors='replace')[-3000:]}" for file in files)


class StudyUnderWay:
    """`fednotes server run` in a process of its own, and its run's folder."""

    def __init__(self, federation: Federation, plan: StudyPlan) -> None:
        self.federation, self.plan = federation, plan
        self.log = federation.folder / f"{plan.study.name}.run.log"
        file = federation.folder / f"{plan.study.name}.toml"
        file.write_text(plan_to_toml(plan), encoding="utf-8")
        before = set(federation.server.runs.iterdir())
        self.began, self.resumes = time.monotonic(), 0
        self.process = self._start("run", str(federation.server.folder), str(file))
        new = lambda: set(federation.server.runs.iterdir()) - before
        wait_for(lambda: new() or self._ended(), 150.0, "the study's folder")
        assert new(), self.said()
        self.path: Path = new().pop()

    def _start(self, *words: str) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            line = [*FEDNOTES, "server", *words]
            return subprocess.Popen(line, env=self.federation.environment, stdout=log, stderr=log)

    def newest_round(self) -> int:
        """The latest round in which sites were asked to train; 0 before the first."""
        return max(self._times("asked"), default=0)

    def wait_for_round(self, number: int) -> None:
        wait_for(lambda: self.newest_round() >= number or self._ended(), 200.0, f"round {number}")
        assert not self._ended(), f"ended before round {number}: {self.said()}"

    def wait_for_end_of(self, number: int, resumes: int) -> None:
        """Until a round is done; where the study stops before, it is resumed, at most so many times."""
        end = time.monotonic() + 600.0
        while number not in self._times("round-ended"):
            assert time.monotonic() < end, f"round {number} does not end: {self.said()}"
            if self._ended():
                assert resumes > 0, f"exit code {self.process.returncode} in round {number}: {self.said()}"
                resumes -= 1
                self.resume()
            time.sleep(0.1)

    def seconds_of(self, number: int) -> float:
        """From the first request to the end of a round, whatever came between."""
        return (self._times("round-ended")[number] - self._times("asked")[number]).total_seconds()

    def seconds_in(self, number: int) -> float:
        """Since a round began."""
        return (datetime.now(UTC) - self._times("asked")[number]).total_seconds()

    def _times(self, kind: str) -> dict[int, datetime]:
        """Round -> when it first happened."""
        found: dict[int, datetime] = {}
        for said, event in EventReader(self.path).new():
            if event.kind == kind:
                found.setdefault(event.round, datetime.fromisoformat(said))
        return found

    def _ended(self) -> bool:
        return self.process.poll() is not None

    def finish(self, resumes: int, seconds: float) -> None:
        """Wait for its end; where it stopped before, resume it at most so many times."""
        end = time.monotonic() + seconds
        while True:
            code = self.process.wait(max(1.0, end - time.monotonic()))
            if code == 0:
                self.seconds = time.monotonic() - self.began
                return
            assert self.resumes < resumes, f"exit code {code} after {self.resumes} resumes: {self.said()}"
            self.resume()

    def resume(self) -> None:
        self.resumes += 1
        time.sleep(2.0)  # a person is no quicker, and sees that the coordinator runs
        assert healthy(self.federation.server, 120.0), self.federation.logs()
        self.process = self._start("resume", str(self.path))

    def give_up(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    @property
    def summary(self) -> Summary:
        return Summary.model_validate_json((self.path / "summary.json").read_text("utf-8"))

    def weights(self) -> dict[str, bytes]:
        return weights_of(self.path / "checkpoints", self.plan)


def weights_of(checkpoints: Path, plan: StudyPlan) -> dict[str, bytes]:
    """The newest shared tensors, bit for bit."""
    kept = load_checkpoint(checkpoints, plan.hash())
    assert kept is not None
    return {name: value.tobytes() for name, value in kept[1].items()}


class Truth:
    """Asks for a study's status all the time, and compares it with what can be seen of its processes."""

    def __init__(self, study: StudyUnderWay) -> None:
        self.lies: list[str] = []
        self.seen: list[str] = []
        self._study, self._over = study, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            try:
                before = self._somebody()
                now = status(self._study.path)
                self._judge(before, now, self._somebody())
            except Exception as error:  # one that asks no more would find nothing wrong
                self.lies.append(f"status could not be asked: {type(error).__name__}: {error}")

    def _judge(self, before: Somebody, now: RunStatus, after: Somebody) -> None:
        if now.state not in self.seen[-1:]:
            self.seen.append(now.state)
        if now.state == "finished" and now.round < now.planned_rounds:
            self.lies.append(f"finished after {now.round} of {now.planned_rounds} rounds")
        if now.state in ("running", "waiting") and before == after == "nobody":
            self.lies.append(f"{now.state}, and nobody works on it")
        if now.state == "interrupted" and before == after == "works":
            self.lies.append(f"interrupted, and somebody works on it: {self._evidence()}")

    def _somebody(self) -> Somebody:
        """By the kernel's list of locks, not by ours. A ServerApp whose coordinator was killed lives on for a while and
        holds nothing; one that has just begun looks for sites first, or loads its modules."""
        study = self._study
        if any(_holder(study.path / name) for name in (".lock", ".carrier.lock")):
            return "works"
        carries = study.process.poll() is None
        return "begins" if carries or study.federation.pid("serverapp") else "nobody"

    def _evidence(self) -> str:
        """What the kernel says, for whoever has to find out."""
        study, apps = self._study, []
        for one in study.federation.ours():
            if _is_server_app(one):
                with contextlib.suppress(psutil.Error):
                    apps.append(
                        f"{one.pid} (parent {one.ppid()}, {time.time() - one.create_time():.0f} s, {one.status()})"
                    )
        held = {name: _holder(study.path / name) for name in (".lock", ".carrier.lock")}
        return f"{datetime.now(UTC):%H:%M:%S} ServerApps {apps}, locks {held}, resumes {study.resumes}"


def _holder(file: Path) -> str:
    """The pid that holds a lock file, by the kernel's own list."""
    with contextlib.suppress(OSError):
        number = str(file.stat().st_ino)
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[5].rpartition(":")[2] == number and "->" not in words:
                return words[4]
    return ""


def together(work: Callable[[str], None], names: Sequence[str]) -> None:
    """Do it for all names at once; the first failure is raised."""
    failed: list[BaseException] = []

    def one(name: str) -> None:
        try:
            work(name)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=one, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert old in text, f"{file} has no {old!r}:\n{text}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def _is_server_app(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):  # it has just ended
        return any(Path(word).name == "flwr-serverapp" for word in process.cmdline()[:2])
    return False


def _children(folder: Path) -> dict[str, int | None]:
    said = json.loads((folder / PROCESSES).read_text("utf-8"))
    return {name: one["pid"] for name, one in said["children"].items()}
