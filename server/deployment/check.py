"""What is wrong with a coordinator, before a study finds out: findings, each with what to do."""

import platform
import shutil
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from common.errors import FednotesError
from common.supervisor import running
from server.deployment.certificates import client_context, expiry, problems
from server.deployment.config import LOOPBACK, Server
from server.deployment.control import Control, Node, pem
from server.deployment.processes import check_ports, healthy
from server.deployment.registry import load_registry

_SOON = 30  # days before a certificate's end
_DISK, _LITTLE_DISK = 1, 10  # GB
_LARGE_DATABASE = 5_000_000_000


@dataclass(frozen=True)
class Finding:
    """One line of the check. `fix` is empty where all is well."""

    level: Literal["ok", "warning", "error"]
    what: str
    text: str
    fix: str = ""


@dataclass(frozen=True)
class SiteState:
    """A site of the registry. `state`: invited, registered (and the coordinator does not run), online, offline, or
    never seen."""

    name: str
    state: Literal["invited", "registered", "online", "offline", "never seen"]
    since: datetime | None
    node: int | None


def check(server: Server) -> list[Finding]:
    """Everything that can be found out without a study. Raises InputError where `server.toml` cannot be read."""
    server.config()
    parts: list[Callable[[Server], Iterator[Finding]]] = [
        _certificates,
        _clock,
        _secrets,
        _processes,
        _address,
        _disk,
        _database,
        _sites,
        _versions,
    ]
    found: list[Finding] = []
    for part in parts:
        try:
            found += part(server)
        except FednotesError as error:
            found.append(Finding("error", part.__name__.strip("_"), error.message, error.next_step))
        except OSError as error:
            found.append(Finding("error", part.__name__.strip("_"), str(error), "See that it is there and readable."))
    return found


def site_states(server: Server) -> tuple[list[SiteState], bool]:
    """All sites of the registry, by name; and whether the coordinator runs."""
    registry, nodes, runs = load_registry(server), {}, False
    if running(server.state):
        try:
            with Control(server) as control:
                nodes, runs = {node.key: node for node in control.nodes()}, True
        except FednotesError as error:
            if error.code != "superlink-unreachable":
                raise
    found = []
    for name, entry in sorted(registry.sites.items()):
        if not entry.public_key:
            found.append(SiteState(name, "invited", datetime.fromisoformat(entry.invited), None))
        elif node := nodes.get(pem(entry.public_key)):
            found.append(_seen(name, node))
        else:
            found.append(SiteState(name, "registered", datetime.fromisoformat(entry.registered), None))
    return found, runs


def _seen(name: str, node: Node) -> SiteState:
    if node.online:
        return SiteState(name, "online", node.since, node.node)
    return SiteState(name, "offline" if node.since else "never seen", node.since, node.node)


def _certificates(server: Server) -> Iterator[Finding]:
    host, what = server.config().host, "certificate"
    renew = f"`fednotes server renew {server.folder}`, with the issuer's files where it is not the coordinator's own."
    if wrong := problems(server.certificate, server.key, server.ca, host):
        yield from (Finding("error", what, line, renew) for line in wrong)
        return
    if wrong := problems(server.inside, server.inside_key, server.inside, LOOPBACK):
        yield from (
            Finding("error", what, f"Inside: {line}", "Make a new folder, and add the sites.") for line in wrong
        )
        return
    until = expiry(server.certificate)
    days = (until - datetime.now(UTC)).days
    text = f"It is for {host}, and valid until {until:%Y-%m-%d}: {days} days."
    yield Finding("warning", what, text, renew) if days < _SOON else Finding("ok", what, text)


def _clock(server: Server) -> Iterator[Finding]:
    """Sites sign the time, and the SuperLink takes what is from 5 seconds ahead to 5 minutes old."""
    what = "clock"
    newest = max(path.stat().st_mtime for path in (server.config_file, server.sites, server.certificate))
    if newest > datetime.now(UTC).timestamp() + 5:
        text = "It is behind the time at which this folder was last written."
        yield Finding("error", what, text, "Set the clock, and keep it by NTP.")
        return
    try:
        words = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
        said = subprocess.run(words, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        said = ""
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if said == "yes":
        yield Finding("ok", what, f"{now}, kept by NTP.")
    elif said == "no":
        text = f"{now}, and not kept by NTP. A site whose clock differs by more than seconds is refused."
        yield Finding("warning", what, text, "Keep it by NTP: `timedatectl set-ntp true`.")
    else:
        yield Finding("ok", what, f"{now}. Whether NTP keeps it cannot be seen here.")


def _secrets(server: Server) -> Iterator[Finding]:
    what, wrong = "secrets", False
    secret = [server.folder, server.key, server.inside_key, server.executor_secret, server.certificates / "ca.key"]
    for path in secret:
        if not path.exists():
            if path.name != "ca.key":  # another authority's stays with it
                wrong = True
                yield Finding("error", what, f"{path} is missing.", "Put it back from a backup.")
        elif stat.S_IMODE(path.stat().st_mode) & 0o077:
            wrong = True
            yield Finding("error", what, f"{path} can be read by others.", f"`chmod go-rwx {path}`")
    if not wrong:
        yield Finding("ok", what, "Only this user can read them.")


def _processes(server: Server) -> Iterator[Finding]:
    config, what = server.config(), "processes"
    if pid := running(server.state):
        if healthy(server, seconds=5):
            yield Finding("ok", what, f"They run (pid {pid}), and answer on {config.listen or config.flower_port}.")
        else:
            text = f"They are to run (pid {pid}), and the gateway or the SuperLink does not answer."
            yield Finding("error", what, text, f"See the logs in {server.logs}.")
        return
    yield Finding("ok", what, f"Nothing runs. Free ports: {', '.join(map(str, check_ports(server)))}.")


def _address(server: Server) -> Iterator[Finding]:
    """Whether the address that sites use leads here. The only name that is ever looked up."""
    config, what = server.config(), "address"
    try:
        socket.getaddrinfo(config.host, None)
    except OSError:
        text = f"{config.host} is not known to this machine's name service."
        yield Finding("warning", what, text, "Sites must know it: see to its DNS entry, or mend `address`.")
        return
    if not running(server.state):
        yield Finding("ok", what, f"{config.host} is a known name; whether it leads here shows once the gateway runs.")
        return
    try:
        with (
            socket.create_connection((config.host, int(config.address.rpartition(":")[2])), timeout=5) as plain,
            client_context(server.ca).wrap_socket(plain, server_hostname=config.host),
        ):
            yield Finding("ok", what, f"{config.address} is answered with our certificate.")
    except ssl.SSLError as error:
        text = f"{config.address} is answered with another certificate: {error.reason}."
        yield Finding("error", what, text, "Something else answers there, or TLS is ended before the gateway.")
    except OSError as error:
        text = f"{config.address} cannot be reached from here: {error.strerror or error}."
        yield Finding("warning", what, text, "From outside it may be; else see to the firewall and `listen`.")


def _disk(server: Server) -> Iterator[Finding]:
    free = shutil.disk_usage(server.folder).free / 1e9
    text = f"{free:.1f} GB are free."
    if free < _LITTLE_DISK:
        level: Literal["warning", "error"] = "error" if free < _DISK else "warning"
        yield Finding(level, "disk", text, "Free some: a study takes some three times its model, and its checkpoints.")
    else:
        yield Finding("ok", "disk", text)


def _database(server: Server) -> Iterator[Finding]:
    files = [path for path in server.state.glob(f"{server.database.name}*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    text = f"{size / 1e6:,.1f} MB."
    if size > _LARGE_DATABASE:
        yield Finding("warning", "database", text, "It shrinks when `fednotes server start` is started again.")
    else:
        yield Finding("ok", "database", text)


def _sites(server: Server) -> Iterator[Finding]:
    states, _ = site_states(server)
    if not states:
        yield Finding("warning", "site", "There are none.", f"`fednotes server add-site {server.folder} NAME`")
    for one in states:
        since = f" since {one.since:%Y-%m-%d %H:%M} UTC" if one.since else ""
        text = f"{one.name}: {one.state}{since}."
        if one.state == "invited":
            command = f"`fednotes server add-site {server.folder} {one.name} --key {one.name}.key.json`"
            yield Finding("warning", "site", text, f"Its answer is to come: {command}")
        elif one.state in ("offline", "never seen"):
            yield Finding("warning", "site", text, "Ask it whether `fednotes site start` runs, and what its log says.")
        else:
            yield Finding("ok", "site", text)


def _versions(server: Server) -> Iterator[Finding]:
    from common.package import package_digest

    binaries = Path(sys.executable).parent
    missing = [
        name for name in ("flower-superlink", "flower-superexec", "flwr-serverapp") if not (binaries / name).exists()
    ]
    if missing:
        text = f"{', '.join(missing)} not found beside {sys.executable}."
        yield Finding(
            "error", "versions", text, "Install Fednotes in an environment of its own, with its dependencies."
        )
        return
    text = f"Fednotes {version('fednotes')}, Flower {version('flwr')}, Python {platform.python_version()}."
    yield Finding("ok", "versions", f"{text} Package digest {package_digest()[:12]}.")
