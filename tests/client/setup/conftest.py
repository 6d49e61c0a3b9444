"""A real site as `fednotes site init` makes it: with a kit, a key, and notes of its own."""

import datetime
import http.server
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from flwr.app import Context, Message, RecordDict
from typer.testing import CliRunner

import client.app
import fednotes as command_line
from client.notes.source import NotesSource
from client.setup.init import Wish, make_site
from client.site import SITE_FILE, Policy
from common import messages
from common.kit import Kit, write_kit
from common.messages import Tensors
from common.plan import StudyPlan, plan_to_toml
from server.base import base_tensors
from tests.conftest import SPLIT_KEY

RUN = "0123456789abcdef" * 2
OPEN = {"require_privacy": False, "unit": "note"}


@dataclass(frozen=True)
class Authority:
    """A certificate authority, and how it signs."""

    name: x509.Name
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls) -> "Authority":
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the tests' authority")])
        return cls(name, ec.generate_private_key(ec.SECP256R1()))

    def sign(self, key: ec.EllipticCurvePrivateKey, days: float, *, is_ca: bool) -> str:
        now = datetime.datetime.now(datetime.UTC)
        built = (
            x509.CertificateBuilder()
            .subject_name(self.name if is_ca else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]))
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=400))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        return built.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    @property
    def certificate(self) -> str:
        return self.sign(self.key, 90, is_ca=True)


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority.make()


@pytest.fixture
def make_kit(tmp_path: Path, authority: Authority) -> Callable[..., Path]:
    def make(name: str = "north", address: str = "localhost:8443") -> Path:
        path = tmp_path / f"{name}.zip"
        write_kit(path, Kit(name=name, address=address, challenge="ab" * 32, ca=authority.certificate))
        return path

    return make


@pytest.fixture
def real_site(tmp_path: Path, authority: Authority, source: NotesSource) -> Callable[..., Path]:
    """Make a site in a folder of its own, with a policy that lets plain plans in once they are approved."""

    def make(name: str = "north", folder: str = "", address: str = "localhost:8443", **policy: object) -> Path:
        kit = Kit(name=name, address=address, challenge="ab" * 32, ca=authority.certificate)
        made = tmp_path / "real" / (folder or name)
        make_site(kit, Wish(source, None, Policy.model_validate(OPEN | policy)), made)
        file = made / SITE_FILE  # its own key of the split is random; that of the tests gives the same each time
        file.write_text(re.sub('split_key = ".*"', f'split_key = "{SPLIT_KEY.hex()}"', file.read_text()))
        return made

    return make


@pytest.fixture
def plan_file(tmp_path: Path, make_plan: Callable[..., StudyPlan]) -> Callable[..., Path]:
    def write(name: str = "plan.toml", **sections: dict) -> Path:
        path = tmp_path / name
        path.write_text(plan_to_toml(make_plan(**sections)), encoding="utf-8")
        return path

    return write


@pytest.fixture
def site_command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`fednotes site ...` in this process: what it prints; a foreseen failure comes through as its error."""
    monkeypatch.setenv("COLUMNS", "160")

    def invoke(*arguments: object, exit_code: int = 0, text: str | None = None) -> str:
        done = CliRunner().invoke(command_line.app, ["site", *map(str, arguments)], input=text, catch_exceptions=False)
        assert done.exit_code == exit_code, done.output
        return done.output

    return invoke


@pytest.fixture
def ask(make_message: Callable[..., Message], site_context: Callable[[Path], Context]) -> Callable[..., Message]:
    """Send a site a request of some kind and return its reply."""

    def send(
        folder: Path, kind: str, plan: StudyPlan, number: int = 1, arrays: Tensors | None = None, run: str = RUN
    ) -> Message:
        if kind == "query":
            content = messages.query_content(plan, run)
        else:
            config = messages.request_config(plan, run)
            config["server-round"] = number
            sent = base_tensors(plan) if arrays is None else arrays
            content = RecordDict({"arrays": messages.packed(sent), "config": config})
        return client.app.app(make_message(content, kind), site_context(folder))

    return send


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Serve `/health` over TLS, with a certificate of an authority, by a clock that may differ; gives its address."""
    servers = []

    def serve(authority: Authority, days: float = 60, clock: float = 0.0, status: int = 200) -> str:
        class Health(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status if self.path == "/health" else 404)
                self.end_headers()

            def date_time_string(self, timestamp: float | None = None) -> str:
                now = datetime.datetime.now(datetime.UTC).timestamp()
                return super().date_time_string(int(now + clock))

            def log_message(self, *_: object) -> None: ...

        key = ec.generate_private_key(ec.SECP256R1())
        pem = tmp_path / f"server-{len(servers)}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        pem.write_bytes(private + authority.sign(key, days, is_ca=False).encode())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return f"localhost:{server.server_address[1]}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()
