"""What the tests of the node share: a real SuperLink with TLS and node authentication, its executor, runs that a test
drives, and nodes as processes."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import Listener
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from flwr.app import Message
from flwr.cli.build import build_fab_from_files
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import ListRunsRequest, RegisterNodeRequest, StartRunRequest, StopRunRequest
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.constant import NOOP_FEDERATION_ID
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.task_identity import TaskIdentity

from client.node.keys import make_key, public_text
from client.node.status import Status, read_status
from client.site import Coordinator
from common.supervisor import QUIET

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PYPROJECT = """
[project]
name = "fednotes"
version = "0.1.0"
license = "Apache-2.0"
dependencies = ["flwr>=1.41"]

[tool.flwr.app]
publisher = "fednotes"

[tool.flwr.app.components]
serverapp = "driver_app:app"
clientapp = "{component}"

[tool.flwr.app.config]
socket = "{socket}"
"""


def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What `condition` gives, as soon as it is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return found


def write_certificates(folder: Path, days: float = 1.0) -> None:
    """`ca.crt`, and `server.crt` with `server.key` for the loopback, valid for so many days from yesterday's end."""
    now = datetime.now(UTC)

    def made(name: str, key: Any, issuer: x509.Name, signer: Any, authority: bool, until: datetime) -> x509.Certificate:
        builder = x509.CertificateBuilder().subject_name(_name(name)).issuer_name(issuer).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=2)).not_valid_after(until)
        builder = builder.add_extension(x509.BasicConstraints(authority, None), critical=True)
        if authority:
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
            identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
            builder = builder.add_extension(identifier, critical=False)
        else:
            place = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")])
            builder = builder.add_extension(place, critical=False)
            theirs = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
            builder = builder.add_extension(theirs, critical=False)
        return builder.sign(signer, hashes.SHA256())

    folder.mkdir(parents=True)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = made("tests' authority", ca_key, _name("tests' authority"), ca_key, True, now + timedelta(days=9))
    certificate = made("127.0.0.1", key, ca.subject, ca_key, False, now + timedelta(days=days))
    pem = serialization.Encoding.PEM
    (folder / "ca.crt").write_bytes(ca.public_bytes(pem))
    (folder / "server.crt").write_bytes(certificate.public_bytes(pem))
    form, nothing = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "server.key").write_bytes(key.private_bytes(pem, form, nothing))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Link:
    """A SuperLink on the loopback, in process isolation, and its executor."""

    def __init__(self, folder: Path, port: int | None = None, days: float = 1.0) -> None:
        self.folder, self.address = folder, f"127.0.0.1:{port or free_port()}"
        write_certificates(folder / "certificates", days)
        self.ca = folder / "certificates" / "ca.crt"
        (folder / "secret").write_bytes(os.urandom(32))
        self._environment = os.environ | QUIET | {"FLWR_HOME": str(folder / "flower"), "OMP_NUM_THREADS": "1"}
        self._environment |= {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2", "PYTHONPATH": f"{HERE}:{ROOT}"}
        self._environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # it starts flwr-serverapp
        self.start()
        self._executor = self._popen(
            "executor", "flower-superexec", "--runtime-api-address", self.address, "--root-certificates", self.ca
        )

    def start(self) -> None:
        certificates = self.ca.parent
        host, port = self.address.split(":")
        self._link = self._popen(
            "link", "flower-superlink", "--host", host, "--port", port, "--ssl-ca-certfile", self.ca,
            "--ssl-certfile", certificates / "server.crt", "--ssl-keyfile", certificates / "server.key",
            "--enable-supernode-auth", "--database", self.folder / "state.db", "--isolation", "process",
            "--disable-runtime-dependency-installation",
        )  # fmt: skip
        wait_for(self._listens)

    def kill(self) -> None:
        self._link.kill()
        self._link.wait()

    def end(self) -> None:
        for process in (self._executor, self._link):
            process.terminate()
        for process in (self._executor, self._link):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @contextmanager
    def control(self) -> Iterator[ControlHttpClient]:
        seen = [RuntimeVersionHttpInterceptor("flwr")]
        with ControlHttpClient.from_server_address(self.address, False, str(self.ca), seen) as client:
            yield client

    def register(self, public: str) -> int:
        """Let a site in, by its public key as the site gives it."""
        key = public_key_to_bytes(serialization.load_ssh_public_key(public.encode()))
        with self.control() as control:
            return int(control.RegisterNode(RegisterNodeRequest(public_key=key)).node_id)

    @contextmanager
    def run(self, component: str = "client.app:app", files: dict[str, bytes] | None = None) -> Iterator["Run"]:
        """A run that the test drives."""
        place = self.folder / f"socket-{time.monotonic_ns()}"
        with Listener(str(place)) as listener:
            project = PYPROJECT.format(component=component, socket=place)
            content, _ = build_fab_from_files({"pyproject.toml": project.encode()} | (files or {}))
            with self.control() as control:
                fab = fab_to_proto(Fab("", content, {}))
                number = control.StartRun(StartRunRequest(fab=fab, federation=NOOP_FEDERATION_ID)).run_id
            run = Run(self, number, listener.accept())
            try:
                yield run
            finally:
                run.end()

    def stop(self, run: int) -> None:
        with self.control() as control:
            control.StopRun(StopRunRequest(run_id=run))

    def status(self, run: int) -> str:
        with self.control() as control:
            return str(control.ListRuns(ListRunsRequest(run_id=run)).run_dict[run].status.status)

    def _listens(self) -> bool:
        assert self._link.poll() is None, (self.folder / "link.log").read_text()[-2000:]
        with socket.socket() as tried:
            host, port = self.address.split(":")
            return tried.connect_ex((host, int(port))) == 0

    def _popen(self, name: str, program: str, *arguments: object) -> "subprocess.Popen[bytes]":
        command = [str(Path(sys.executable).parent / program), *map(str, arguments)]
        command += ["--superexec-auth-secret-file", str(self.folder / "secret")]
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=self._environment, cwd=ROOT)


class Run:
    """Flower's grid of a run, as a ServerApp has it; its calls go through the ServerApp's process."""

    def __init__(self, link: Link, number: int, pipe: Pipe) -> None:
        self.link, self.number, self._pipe = link, number, pipe
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = pipe.recv()

    def get_nodes(self) -> list[NodeInfo]:
        return self._ask("get_nodes")

    def get_node_ids(self) -> list[int]:
        return self._ask("get_node_ids")

    def push_messages(self, messages: list[Message]) -> list[str]:
        sent = self._ask("push_messages", list(messages))
        for message, name in zip(messages, sent, strict=True):
            message.metadata.__dict__["_message_id"] = name
        return sent

    def pull_messages(self, names: list[str]) -> list[Message]:
        return self._ask("pull_messages", list(names))

    def reply(self, name: str, seconds: float = 60.0) -> Message:
        """The reply to a message that was pushed."""
        return wait_for(lambda: self.pull_messages([name]), seconds)[0]

    def end(self) -> None:
        with contextlib.suppress(OSError):  # a run that was stopped has ended
            self._pipe.send(None)
        self._pipe.close()

    def _ask(self, name: str, *arguments: Any) -> Any:
        self._pipe.send((name, arguments))
        return self._pipe.recv()


class NodeProcess:
    """`python -m client.node FOLDER`, with its log beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.start()

    def start(self) -> None:
        with (self.folder / "node.log").open("ab") as log:
            command = [sys.executable, "-m", "client.node", str(self.folder)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)

    @property
    def status(self) -> Status | None:
        try:
            return read_status(self.folder)
        except Exception:
            return None

    @property
    def log(self) -> str:
        return (self.folder / "node.log").read_text()

    def online(self, seconds: float = 30.0) -> None:
        wait_for(lambda: self.log.count("connected to"), seconds)

    @property
    def number(self) -> int:
        """The node's at the coordinator."""
        return int(self.log.rsplit("as node ", 1)[1].split()[0])

    def worker(self) -> int | None:
        """The pid of the worker, while it lives."""
        pids = [int(line.split("(pid ")[1].split(")")[0]) for line in self.log.splitlines() if "worker runs" in line]
        return pids[-1] if pids and alive(pids[-1]) else None

    def end(self) -> int:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            return self.process.wait(15)
        finally:
            self.process.kill()
            self.process.wait()


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def coordinator(link: Link, folder: Path, **settings: Any) -> Coordinator:
    """The section of a site's `site.toml`, and the site's key, which the coordinator knows."""
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / "site.key"
    if not key.exists():
        link.register(public_text(make_key(key)))
    return Coordinator(**{"address": link.address, "ca": link.ca, "key": key, "threads": 1} | settings)
