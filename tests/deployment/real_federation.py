"""A federation as people run one: a coordinator and sites as processes, with TLS and keys, on free ports."""

import contextlib
import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from name_spy import NameSpy
from needles import files_in, values_of
from recording_proxy import RecordingProxy
from typer.testing import CliRunner

import fednotes as command_line
from client.node.status import Status, read_status
from common.messages import Tensors
from common.plan import StudyPlan, plan_to_toml
from common.results import Summary
from common.supervisor import QUIET
from server.checkpoint import State, load_checkpoint
from server.deployment.config import Server
from server.deployment.processes import healthy
from server.record.events import events as recorded
from server.record.place import find
from server.run_folder import RunFolder
from server.study.folder import Study

TRAFFIC = ("up", "down", "bodies up", "bodies down")  # of what escaped
DATABASE = ("database, ", "state/", "tables of state/")  # names of the rest begin so, where it is a database's
PAGE = 4096  # bytes of a page of the SuperLink's database


def wait_for(condition: Callable[[], Any], seconds: float = 60.0, words: str = "") -> Any:
    """What `condition` gives, as soon as it is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain: {words}"
        time.sleep(0.05)
    return found


def gone(process: psutil.Process) -> bool:
    """Killed; its parent may still have to take notice."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def here(*words: object) -> str:
    """A command of `fednotes` in this process, for those that start nothing; what it prints."""
    done = CliRunner().invoke(command_line.app, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@dataclass(eq=False)
class RealSite:
    """A hospital: its folder, and its node where it runs."""

    name: str
    folder: Path
    environment: dict[str, str]
    process: "subprocess.Popen[bytes] | None" = None

    def start(self, **environment: str) -> None:
        """Start its node, and come back at once."""
        words = [sys.executable, "-m", "fednotes", "site", "start", str(self.folder)]
        with (self.folder / "start.log").open("ab") as log:
            there = self.environment | environment
            self.process = subprocess.Popen(words, env=there, cwd=self.folder, stdout=log, stderr=log)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None

    def status(self) -> Status:
        return read_status(self.folder)

    def online(self, seconds: float = 60.0) -> None:
        """Wait until it is connected."""
        node = self.folder / "status.json"
        wait_for(lambda: node.exists() and self.status().connected_since, seconds, f"{self.name} is not online")

    def worker(self) -> psutil.Process | None:
        """The process that trains."""
        file = self.folder / "processes.json"
        if not file.exists():
            return None
        node = json.loads(file.read_text())["children"]["node"]["pid"]
        try:
            found = [one for one in psutil.Process(node).children() if "spawn_main" in " ".join(one.cmdline())]
        except psutil.NoSuchProcess:
            return None
        return found[0] if found else None

    @property
    def file(self) -> Path:
        return self.folder / "site.toml"

    def edit(self, pattern: str, replacement: str) -> None:
        """Mend its site.toml, as a person would: a regular expression that has to match once."""
        text, count = re.subn(pattern, lambda _: replacement, self.file.read_text(), flags=re.MULTILINE)
        assert count == 1, f"{pattern} is there {count} times"
        self.write(text)

    def write(self, text: str) -> None:
        """Put another site.toml in its place, whole: the node may read it at any moment."""
        scratch = self.file.with_name("edited.toml")
        scratch.write_text(text)
        scratch.replace(self.file)


@dataclass
class Finished:
    """A study, as its folder has it, and what the command said."""

    study: RunFolder
    output: str

    @property
    def path(self) -> Path:
        return self.study.path

    @property
    def state(self) -> State:
        return self._kept[0]

    @property
    def weights(self) -> Tensors:
        return self._kept[1]

    @property
    def summary(self) -> Summary:
        found = self.study.summary()
        assert found is not None, self.output
        return found

    @property
    def _kept(self) -> tuple[State, Tensors, Tensors]:
        found = load_checkpoint(self.study.checkpoints, self.study.plan.hash())
        assert found is not None, self.output
        return found


@dataclass
class RealFederation:
    """The coordinator runs from `start` to `end`; sites reach it through a proxy that writes everything down.

    `said` is all that commands of the coordinator printed. Its database is read again and again: what lies there for a
    moment only is in `pages`, as bytes, and in `values`.
    """

    root: Path
    environment: dict[str, str]
    server: Server = field(init=False)
    names: NameSpy = field(init=False)
    proxy: RecordingProxy = field(default_factory=RecordingProxy)
    sites: dict[str, RealSite] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    pages: set[bytes] = field(default_factory=set)
    values: set[bytes] = field(default_factory=set)
    _process: "subprocess.Popen[bytes] | None" = None
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.names = NameSpy(self.root / "spy")
        # That nothing calls home is for the processes themselves to see to: QUIET is not set here.
        self.environment = {key: value for key, value in self.environment.items() if key not in QUIET}
        self.environment |= self.names.environment | {"OMP_NUM_THREADS": "1"}
        self.environment.pop("HF_HUB_OFFLINE", None)
        self.server = Server(self.root / "coordinator")

    def start(self, gateway: bool = True) -> int:
        """Returns the port on which the gateway listens, or without one whatever is to be in its place."""
        port, flower = _free_port(), _free_port()
        address = f"localhost:{self.proxy.port}"
        listen = ("--listen", f"127.0.0.1:{port}" if gateway else "", "--flower-port", flower)
        here("server", "init", self.server.folder, "--address", address, "--name", "test", *listen)
        self.proxy.start(port, self.server.certificate, self.server.key, self.server.ca)
        words = [sys.executable, "-m", "fednotes", "server", "start", str(self.server.folder)]
        with (self.root / "start.log").open("wb") as log:
            self._process = subprocess.Popen(words, env=self.environment, cwd=self.root, stdout=log, stderr=log)
        threading.Thread(target=self._read_database, daemon=True).start()
        return port

    def ready(self) -> None:
        assert healthy(self.server, seconds=60), (self.root / "start.log").read_text()

    def end(self) -> None:
        self._over.set()
        for site in self.sites.values():
            site.stop()
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
        self.proxy.end()

    def add(self, name: str, folder: Path, *notes: object, registered_as: str = "") -> RealSite:
        """A new site by its kit, its key registered. `notes`: what `fednotes site init` is told of them."""
        kit = self.server.kits / f"{name}.zip"
        here("server", "add-site", self.server.folder, name)
        here("site", "init", kit, "--to", folder, *notes, "--allow-no-privacy", "--max-epsilon", 100, "--yes")
        here("server", "add-site", self.server.folder, name, "--key", folder / f"{name}.key.json")
        self.sites[name] = RealSite(name, folder, self.environment)
        return self.sites[name]

    def write(self, plan: StudyPlan) -> Path:
        path = self.root / f"{plan.study.name}-{plan.hash()[:8]}.toml"
        path.write_text(plan_to_toml(plan), encoding="utf-8")
        return path

    def begin(self, *words: object) -> "subprocess.Popen[str]":
        """A command of `fednotes` in a process of its own."""
        command = [sys.executable, "-m", "fednotes", *map(str, words)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self.environment, cwd=self.root, stdout=pipe, stderr=pipe, text=True)

    def command(self, *words: object, code: int = 0) -> str:
        """The same, to its end: its output."""
        return self.ended(self.begin(*words), code)

    def ended(self, process: "subprocess.Popen[str]", code: int = 0) -> str:
        try:
            output, errors = process.communicate(timeout=200)
        finally:
            process.kill()
        self.said += [output, errors]
        assert process.returncode == code, f"exit code {process.returncode}\n{output}\n{errors}\n{self.logs()}"
        return output if code == 0 and output else output + errors

    def status(self, study: RunFolder) -> dict[str, Any]:
        """What `fednotes status` says of it."""
        self.said.append(here("status", study.path, "--json"))
        found: dict[str, Any] = json.loads(self.said[-1])
        return found

    def studies(self) -> list[Study]:
        return [Study(path) for path in sorted(self.server.runs.iterdir(), key=lambda path: path.stat().st_ctime_ns)]

    def run(self, plan: StudyPlan, code: int = 0) -> Finished:
        """`fednotes server run`, to its end."""
        output = self.command("server", "run", self.server.folder, self.write(plan), code=code)
        return Finished(self.studies()[-1], output)

    @contextmanager
    def running(self, plan: StudyPlan) -> "Iterator[tuple[subprocess.Popen[str], Study]]":
        """`fednotes server run` that has made its folder and goes on."""
        before = len(self.studies())
        process = self.begin("server", "run", self.server.folder, self.write(plan))
        try:
            wait_for(lambda: len(self.studies()) > before or process.poll() is not None, words="no study began")
            if process.poll() is not None:
                self.ended(process)
            yield process, self.studies()[-1]
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()

    def escaped(self) -> dict[str, bytes]:
        """All that left the hospitals, and all that lies at the coordinator: what must hold no secret."""
        for study in self.studies():
            self.status(study)
        exchanges = self.proxy.exchanges()
        contents = {
            "up": self.proxy.raw("up"),
            "down": self.proxy.raw("down"),
            "bodies up": b"\n".join(one.request for one in exchanges),
            "bodies down": b"\n".join(one.answer for one in exchanges),
            "database, as it was": b"\n".join(self.pages),
            "database, values": b"\n".join(self.values),
            "what commands printed": "\n".join(self.said).encode(),
        }
        return contents | files_in(self.server.folder)

    def logs(self) -> str:
        """The ends of all logs, for whoever has to find out why a test failed."""
        files = [*self.server.logs.glob("*.log"), *(site.folder / "logs" / "node.log" for site in self.sites.values())]
        return "\n".join(f"--- {file}\n{file.read_text(errors='replace')[-2000:]}" for file in files if file.exists())

    def _read_database(self) -> None:
        """As it lies on the disk while it is written, and what its tables hold: a long value is in pieces on its
        pages."""
        log = self.server.database.with_name(self.server.database.name + "-wal")
        while not self._over.wait(0.5):
            for file, header, frame in ((self.server.database, 0, PAGE), (log, 32, PAGE + 24)):
                content = file.read_bytes() if file.exists() else b""
                self.pages.update(content[at : at + frame] for at in range(header, len(content), frame))
            with contextlib.suppress(sqlite3.OperationalError):  # before its tables are made
                self.values.update(values_of(self.server.database))


def events(study: RunFolder) -> list[dict[str, Any]]:
    """What has happened in a study so far."""
    found = find(study.path)
    return recorded(*found) if found else []


def happened(study: Study, kind: str, number: int) -> Callable[[], bool]:
    """Whether an event of a round has come."""
    return lambda: any(one["kind"] == kind and one["round"] == number for one in events(study))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])
