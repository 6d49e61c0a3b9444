"""What `fednotes server start` keeps alive: the SuperLink, its executor of ServerApps, and the gateway."""

import contextlib
import errno
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from common.errors import InputError, MachineError
from common.supervisor import QUIET, Child, Say, running, supervise
from server.deployment.certificates import client_context
from server.deployment.config import LOOPBACK, Server

_POLL = "0.2"  # seconds between two looks of the executor for a study to run


def children(server: Server) -> list[Child]:
    """The processes in the order in which they are started."""
    binaries = Path(sys.executable).parent
    config = server.config()
    environment = QUIET | {
        "PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', os.defpath)}",  # Flower starts its programs by name
        "FLWR_HOME": str(server.flower_home),
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": _POLL,
        "NO_PROXY": ",".join(filter(None, (os.environ.get("NO_PROXY"), LOOPBACK))),
        "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"),  # a base is a folder, packaged, or was fetched before
    }

    def child(name: str, command: list[str], once: bool = False, lives: Callable[[], bool] | None = None) -> Child:
        # A run survives if the SuperLink is back within a minute.
        return Child(name, command, environment, server.logs / f"{name}.log", delay=1.0, once=once, lives=lives)

    def module(name: str) -> list[str]:
        return [sys.executable, "-m", f"server.deployment.{name}", str(server.folder)]

    executor = [
        str(binaries / "flower-superexec"),
        *("--runtime-api-address", f"{LOOPBACK}:{config.flower_port}"),
        *("--root-certificates", str(server.inside)),
        *("--superexec-auth-secret-file", str(server.executor_secret)),
    ]
    found = [
        child("superlink", module("superlink"), lives=lambda: _answers(LOOPBACK, config.flower_port, server.inside)),
        child("sites", module("sync"), once=True),
        child("superexec", executor),
    ]
    if listener := config.listener:
        found.append(child("gateway", module("gateway"), lives=lambda: _answers(*listener, server.ca)))
    return found


def start(server: Server, say: Say) -> None:
    """Keep everything alive until told to stop; `say` hears of every start and end, and when sites can connect.

    Raises:
        InputError: `address-foreign`, where the gateway is to listen on an address that this machine does not have.
        MachineError: `already-running`; `port-taken`.
    """
    if pid := running(server.state):  # before its ports are found taken
        message = f"Process {pid} keeps the processes of {server.folder} already."
        raise MachineError("already-running", message, "There is nothing to do; or stop that one first.")
    check_ports(server)
    supervise(children(server), server.state, say)


def check_ports(server: Server) -> list[int]:
    """The ports that are to be ours, which are free.

    Raises InputError `address-foreign` or MachineError `port-taken`.
    """
    config = server.config()
    wanted = [one for one in ((LOOPBACK, config.flower_port), config.listener) if one]
    for host, port in wanted:
        _check_port(host, port)
    return [port for _, port in wanted]


def _check_port(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            message = f"This machine does not have the address {host}."
            raise InputError("address-foreign", message, "Mend `listen` in server.toml.") from None
        why = "is in use by another process" if error.errno == errno.EADDRINUSE else f"is refused: {error.strerror}"
        message = f"Port {port} on {host} {why}."
        raise MachineError("port-taken", message, "End that process, or name another port in server.toml.") from None


def healthy(server: Server, seconds: float = 0.0) -> bool:
    """Whether the gateway, and the SuperLink behind it, answer; asked until they do, for at most `seconds`."""
    config = server.config()
    inside, outside = (LOOPBACK, config.flower_port), config.listener
    (host, port), authority = (outside, server.ca) if outside else (inside, server.inside)
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, ValueError):
            if _health(host, port, authority) == 200:
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)


def _answers(host: str, port: int, authority: Path) -> bool:
    """Whether a process on this machine says anything at all when it is asked for its health."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return _health(host, port, authority) > 0
    return False


def _health(host: str, port: int, authority: Path) -> int:
    """The status that a process on this machine gives."""
    context = client_context(authority)
    context.check_hostname = False  # the gateway's certificate is for elsewhere; `server check` looks at that
    with (
        socket.create_connection((LOOPBACK if host == "0.0.0.0" else host, port), timeout=5) as plain,
        context.wrap_socket(plain) as connection,
    ):
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
        return int(connection.recv(64).split(b" ")[1])
