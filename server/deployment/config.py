"""The coordinator's folder: what lies where, and `server.toml`, which a person may edit."""

import ipaddress
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from common.errors import InputError
from common.files import explained, write_text
from common.kit import host_and_port

SERVER_FILE = "server.toml"
LOOPBACK = "127.0.0.1"

_TEXT = """\
# The coordinator of a federation. `fednotes server check` says what is wrong with it.
# Changes take effect when `fednotes server start` is started again.

# What the federation is called.
name = "{name}"

# Where sites reach this coordinator: a name (or address) and a port. Kits carry it, and the certificate is made for it:
# after a change, `fednotes server renew`, and give each site a new kit.
address = "{address}"

# Where the gateway listens on this machine. 0.0.0.0 is every network that it has; "" is no gateway, for a reverse proxy
# of your own in its place (`fednotes server templates` writes one for nginx).
listen = "{listen}"

# The port on 127.0.0.1 of Flower's SuperLink, which nothing outside this machine reaches.
flower_port = {flower_port}

# What the gateway allows one address. A site sends and gets a model in pieces of 5 MiB, two at a time, and asks for
# work about once a second; several sites may share an address.
[gateway]
connections = {connections}  # at a time
requests_per_second = {requests_per_second}  # beyond a first burst of ten seconds' worth; what is more has to wait
body_mib = {body_mib}  # the largest request
"""


class GatewayConfig(BaseModel):
    """What the gateway allows one address; see `server.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connections: int = Field(64, ge=4, le=10_000)
    requests_per_second: int = Field(200, ge=10, le=100_000)
    body_mib: int = Field(16, ge=6, le=1024)


class ServerConfig(BaseModel):
    """The contents of `server.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,59}$")
    address: str
    listen: str
    flower_port: int = Field(9092, ge=1, le=65535)
    gateway: GatewayConfig = GatewayConfig()

    @field_validator("address")
    @classmethod
    def _reachable(cls, value: str) -> str:
        return host_and_port(value)

    @field_validator("listen")
    @classmethod
    def _bindable(cls, value: str) -> str:
        if not value:
            return value
        host_and_port(value)
        try:
            ipaddress.IPv4Address(value.rpartition(":")[0])
        except ValueError:
            raise ValueError("the gateway listens on an IPv4 address of this machine, such as 0.0.0.0:8443") from None
        return value

    @property
    def host(self) -> str:
        """The host of `address`, by which sites know the coordinator."""
        return self.address.rpartition(":")[0]

    @property
    def listener(self) -> tuple[str, int] | None:
        """Address and port of the gateway; None without one."""
        host, _, port = self.listen.rpartition(":")
        return (host, int(port)) if port else None

    def text(self) -> str:
        """As `server.toml`, with its comments."""
        return _TEXT.format(**self.model_dump(exclude={"gateway"}), **self.gateway.model_dump())


@dataclass(frozen=True)
class Server:
    """A coordinator's folder. Paths in it are made absolute, for they end up in units and commands."""

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.folder.absolute())

    @property
    def config_file(self) -> Path:
        return self.folder / SERVER_FILE

    @property
    def certificates(self) -> Path:
        return self.folder / "certificates"

    @property
    def ca(self) -> Path:
        """The authority by which sites know the gateway."""
        return self.certificates / "ca.crt"

    @property
    def certificate(self) -> Path:
        return self.certificates / "server.crt"

    @property
    def key(self) -> Path:
        return self.certificates / "server.key"

    @property
    def inside(self) -> Path:
        """The certificate of the SuperLink on loopback, its own authority."""
        return self.certificates / "inside.crt"

    @property
    def inside_key(self) -> Path:
        return self.certificates / "inside.key"

    @property
    def executor_secret(self) -> Path:
        return self.folder / "secrets" / "superexec.key"

    @property
    def sites(self) -> Path:
        return self.folder / "sites.json"

    @property
    def kits(self) -> Path:
        return self.folder / "kits"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def database(self) -> Path:
        return self.state / "superlink.db"

    @property
    def flower_home(self) -> Path:
        return self.folder / "flower"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def config(self) -> ServerConfig:
        """Read `server.toml`. Raises InputError that lists every violation."""
        path = self.config_file
        try:
            return ServerConfig.model_validate(tomllib.loads(path.read_text("utf-8")))
        except OSError as error:
            message = f"{path} cannot be read: {error.strerror}."
            raise InputError("server-missing", message, "Make the folder with `fednotes server init`.") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError("server-invalid", f"{path} is not TOML: {error}.", "Mend the file.") from None
        except ValidationError as error:
            raise InputError("server-invalid", f"{path} is not valid:\n{violations(error)}", "Mend the file.") from None


def violations(error: ValidationError) -> str:
    """Every violation, a line each."""
    found = error.errors(include_url=False)
    return "\n".join(f"  {'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}" for one in found)


def make_config(name: str, address: str, listen: str | None, flower_port: int) -> ServerConfig:
    """The settings of a new coordinator. Raises InputError `server-invalid`."""
    if listen is None:
        listen = f"0.0.0.0:{address.rpartition(':')[2]}"
    try:
        return ServerConfig(name=name, address=address, listen=listen, flower_port=flower_port)
    except ValidationError as error:
        message = f"A coordinator cannot have these settings:\n{violations(error)}"
        raise InputError("server-invalid", message, "See `fednotes server init --help`.") from None


def make_folder(server: Server, config: ServerConfig) -> None:
    """Make the folder, for this user only, with `server.toml`. Raises InputError where it holds something."""
    with explained(server.folder):
        if server.folder.exists() and (not server.folder.is_dir() or any(server.folder.iterdir())):
            raise InputError("out-exists", f"{server.folder} holds something.", "Name a new or empty folder.")
        server.folder.mkdir(parents=True, exist_ok=True)
        server.folder.chmod(0o700)
        inside = (server.certificates, server.executor_secret.parent, server.kits, server.state, server.flower_home)
        for folder in (*inside, server.logs, server.runs):
            folder.mkdir(mode=0o700)
    write_text(server.config_file, config.text())
