"""Where the dashboard may listen, and its life from start to Ctrl-C."""

import asyncio
import contextlib
import errno
import ipaddress
import os
import signal
import socket
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import InputError, MachineError

if TYPE_CHECKING:
    import uvicorn

    from server.dashboard.passwords import Password

PORT = 8600
_FAREWELL = 2  # seconds that open connections get at the end


def check_exposure(host: str, tls: bool, password: bool) -> bool:
    """Whether `host` is this machine alone. Raises InputError `dashboard-exposed` where it is not, and not both are
    given."""
    try:
        alone = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        alone = False
    if not alone and not (tls and password):
        lacks = " and ".join([*([] if tls else ["TLS"]), *([] if password else ["a password"])])
        message = f"On {host} others could reach the dashboard, without {lacks}."
        step = (
            "Give --certificate, --key and --password-file; or stay on 127.0.0.1, and look on from elsewhere through "
            f"a tunnel: ssh -L {PORT}:127.0.0.1:{PORT} THIS-MACHINE"
        )
        raise InputError("dashboard-exposed", message, step)
    return alone


def check_certificate(certificate: Path, key: Path) -> None:
    """Raises InputError `certificate-unreadable` or `certificate-wrong`."""
    try:
        for path in (certificate, key):
            path.read_bytes()
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, password="")
    except ssl.SSLError:
        message = f"{certificate} and {key} are not a certificate and its key, in PEM and without a passphrase."
        raise InputError("certificate-wrong", message, "Ask whoever issued them.") from None
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}."
        raise InputError("certificate-unreadable", message, "Correct the path or its permissions.") from None


def listener(host: str, port: int | None) -> socket.socket:
    """A bound socket: on `port`, or where that is not given on 8600 or else on a free one.

    Raises InputError `address-foreign` or MachineError `port-taken`.
    """
    for wanted in (port,) if port is not None else (PORT, 0):
        try:
            family, kind, _, _, address = socket.getaddrinfo(host, wanted, type=socket.SOCK_STREAM)[0]
            found = socket.socket(family, kind)
        except socket.gaierror:
            break
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            found.listen()  # two that start at once may both bind a port, and only one of them can listen there
            return found
        except OSError as error:
            found.close()
            if error.errno == errno.EADDRNOTAVAIL:
                break
            if port is not None:
                taken = error.errno == errno.EADDRINUSE
                why = "is in use by another process" if taken else f"is refused: {error.strerror}"
                step = "End that process, or name another --port; without --port a free one is found."
                raise MachineError("port-taken", f"Port {port} on {host} {why}.", step) from None
    message = f"{host} is no address of this machine."
    raise InputError("address-foreign", message, "Give another --host; 127.0.0.1 is this machine alone.")


def serve(
    runs: Path,
    database: str | None,
    coordinator: Path | None,
    host: str,
    port: int | None,
    tls: tuple[Path, Path] | None,
    password: "Password | None",
    idle: float,
    longest: float,
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        runs: the folder of runs; not looked at where there is a `database` (a URL).
        coordinator: the folder of a coordinator, for which studies can be started.
        idle, longest: seconds after which a session ends.
    """
    loopback = check_exposure(host, tls is not None, password is not None)
    if tls:
        check_certificate(*tls)
    with listener(host, port) as bound, _own_storage():
        import uvicorn

        from server.dashboard.actions import Actions
        from server.dashboard.app import application
        from server.dashboard.library import Library

        library = Library(None if database else runs, database)
        actions = Actions(coordinator, database)
        number = bound.getsockname()[1]
        app = application(library, actions, password, number, loopback, tls is not None, idle, longest)
        options = {"ssl_certfile": tls[0], "ssl_keyfile": tls[1]} if tls else {}
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # or whoever guesses passwords could say that he is somebody else
            timeout_graceful_shutdown=_FAREWELL,
            ws_max_size=2**20,
            **options,  # type: ignore[arg-type]
        )
        shown = f"[{host}]" if ":" in host else host
        asyncio.run(_until_stopped(uvicorn.Server(config), bound, f"http{'s' if tls else ''}://{shown}:{number}/"))


async def _until_stopped(server: "uvicorn.Server", bound: socket.socket, address: str) -> None:
    # the server passes a signal on when it has ended; that one must not end us a second time, with another exit code
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, lambda *_: None)
    serving = asyncio.create_task(server.serve([bound]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.02)
    if server.started:
        print(f"Fednotes dashboard: {address}\nCtrl-C ends it.", flush=True)
    await serving


@contextlib.contextmanager
def _own_storage() -> Iterator[None]:
    """NiceGUI keeps files where it is started, unless it is told where before it is imported. We keep none."""
    with tempfile.TemporaryDirectory(prefix="fednotes-dashboard-") as folder:
        os.environ["NICEGUI_STORAGE_PATH"] = folder
        yield
