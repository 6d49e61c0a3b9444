"""What is let through from outside, and what is not; by the built-in gateway and by nginx, on the same requests."""

import contextlib
import json
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from behind_nginx import nginx
from deployed import Connect, Running, free_port, registered
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from common.supervisor import PROCESSES
from server.deployment import gateway
from server.deployment.certificates import client_context
from server.deployment.config import GatewayConfig, Server
from server.deployment.gateway import FLEET, Visitor, Visitors, connection_class
from server.deployment.processes import healthy

MIB = 1024 * 1024
ALLOWED = "/v1/fleet/pull-messages"


@pytest.fixture(scope="module")
def nginx_port(coordinator: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of nginx with the configuration that we write, over the coordinator's SuperLink."""
    port = free_port()
    with nginx(coordinator.server, tmp_path_factory.mktemp("nginx"), port):
        yield port


@pytest.fixture(params=["gateway", "nginx"])
def port(request: pytest.FixtureRequest, coordinator: Running) -> int:
    if request.param == "nginx":
        return int(request.getfixturevalue("nginx_port"))
    listener = coordinator.server.config().listener
    assert listener
    return listener[1]


def answers(port: int, server: Server, sent: bytes) -> list[tuple[int, bytes]]:
    """Send bytes over TLS, and read all answers until the other side closes: (status, body) of each."""
    context = client_context(server.ca)
    received = b""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
        contextlib.suppress(TimeoutError, ssl.SSLError, ConnectionResetError),
    ):
        connection.sendall(sent)
        connection.settimeout(1)
        while piece := connection.recv(65536):
            received += piece
    found = []
    for part in received.split(b"HTTP/1.1 ")[1:]:
        head, _, body = part.partition(b"\r\n\r\n")
        found.append((int(head[:3]), body))
    return found


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [line, "Host: localhost", *headers, f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


LINES = [
    *(f"POST /v1/control/{call} HTTP/1.1" for call in ("list-nodes", "start-run", "stop-run", "unregister-node")),
    "POST /v1/runtime/acquire-task HTTP/1.1",
    "POST /v1/runtime/responses HTTP/1.1",
    *(f"GET {path} HTTP/1.1" for path in ("/", "/docs", "/openapi.json", "/redoc", "/v1", "/v1/fleet", "/v1/fleet/")),
    "POST /v1/fleet/register-node HTTP/1.1",
    "POST /v1/fleet/unregister-node HTTP/1.1",
    "POST /v1/fleet/unheard-of HTTP/1.1",
    *(f"{method} {ALLOWED} HTTP/1.1" for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")),
    f"post {ALLOWED} HTTP/1.1",
    *(f"{method} /health HTTP/1.1" for method in ("POST", "HEAD", "OPTIONS")),
    "GET /health?a=1 HTTP/1.1",
    "GET /health/ HTTP/1.1",
    "GET /HEALTH HTTP/1.1",
    "GET /health%00 HTTP/1.1",
    "GET /health/../docs HTTP/1.1",
    *(
        f"POST {path} HTTP/1.1"
        for path in (
            "//v1/control/list-nodes",
            "/v1//control/list-nodes",
            "//v1/fleet/pull-messages",
            "/v1/fleet//pull-messages",
            "/./v1/fleet/pull-messages",
            "/v1/fleet/../control/list-nodes",
            "/v1/fleet/..%2fcontrol/list-nodes",
            "/v1/fleet/%2e%2e/control/list-nodes",
            "/v1/fleet/%252e%252e/control/list-nodes",
            "/v1/fleet/pull-messages/../../control/list-nodes",
            "/v1/fleet/pull-messages/..;/..;/control/list-nodes",
            "/v1%2fcontrol%2flist-nodes",
            "/%76%31/control/list-nodes",
            "/v1/fleet/%70ull-messages",
            "/v1/Fleet/pull-messages",
            "/v1/fleet/pull-messages/",
            "/v1/fleet/pull-messages?x=/v1/control/list-nodes",
            "/v1/fleet/pull-messages;x",
            "/v1/fleet/pull-messages%20",
            "/v1/fleet/pull-messages%00",
            "/v1/fleet/pull-messages%0d%0aX:1",
            "/v1/fleet/pull-messages#/../../control/list-nodes",
            "\\v1\\control\\list-nodes",
            "/v1/fleet\\..\\control\\list-nodes",
            "http://localhost/v1/control/list-nodes",
            "https://127.0.0.1/v1/fleet/pull-messages",
            "http://127.0.0.1:9092/docs",
            "localhost:443",
            "*",
        )
    ),
    "CONNECT 127.0.0.1:9092 HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "PRI * HTTP/2.0",
    "GET /docs HTTP/1.0",
    "GET /docs",
]


@pytest.mark.parametrize("line", LINES)
def test_everything_else_is_refused_without_a_word(line: str, port: int, coordinator: Running) -> None:
    found = answers(port, coordinator.server, request(line))
    assert found == [] or len(found) == 1  # closed at once, or refused
    for status, body in found:
        assert status in (400, 403, 405, 501, 505), (status, body)
        assert body == b"" or status == 400 or body.startswith(b"<html>")  # nginx's own page, which says the status
        assert b"SuperLink" not in body and b"detail" not in body


def test_nothing_of_it_has_reached_the_superlink(coordinator: Running) -> None:
    """After the requests above. The coordinator itself lists nodes; whatever else of these came from outside."""
    log = (coordinator.server.logs / "superlink.log").read_text()
    for path in (
        "/docs",
        "/openapi",
        "start-run",
        "stop-run",
        "/v1/fleet/register",
        "/v1/fleet/unreg",
        "unheard",
        "..",
    ):
        assert not any("uvicorn.access" in line and path in line for line in log.splitlines()), path


def test_an_upgrade_is_refused(port: int, coordinator: Running) -> None:
    for upgrade in ("websocket", "h2c", "TLS/1.0"):
        for line in (f"POST {ALLOWED} HTTP/1.1", "GET /health HTTP/1.1"):
            sent = "\r\n".join(
                [
                    line,
                    "Host: localhost",
                    "Connection: Upgrade, close",
                    f"Upgrade: {upgrade}",
                    "Content-Length: 0",
                    "",
                    "",
                ]
            )
            assert [status for status, _ in answers(port, coordinator.server, sent.encode())] == [403]


def test_what_hides_behind_an_allowed_request_is_refused(port: int, coordinator: Running) -> None:
    """Pipelining, two lengths, a length beside chunks: never is a part of a body taken for a request."""
    hidden = b"POST /v1/control/list-nodes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    first = f"POST {ALLOWED} HTTP/1.1\r\nHost: localhost\r\n".encode()
    cases = [
        first + b"Content-Length: 0\r\n\r\n" + hidden,
        first + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n" + hidden,
        first + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
        first + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + hidden,
        first + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + hidden,
        first + b"Content-Length: +0\r\n\r\n" + hidden,
        first + b"X-Original-URL: /v1/control/list-nodes\r\nX-Rewrite-URL: /docs\r\nContent-Length: 0\r\n\r\n",
    ]
    before = (coordinator.server.logs / "superlink.log").read_text().count("/v1/control/")
    for sent in cases:
        for status, body in answers(port, coordinator.server, sent):
            assert status not in range(200, 300), (status, body)
    assert (coordinator.server.logs / "superlink.log").read_text().count("/v1/control/") == before


def test_health_and_the_calls_of_sites_pass(port: int, coordinator: Running) -> None:
    assert [status for status, _ in answers(port, coordinator.server, request("GET /health HTTP/1.1"))] == [200]
    for path in FLEET:  # Flower itself turns away what is not its own; 403 would be ours
        statuses = [status for status, _ in answers(port, coordinator.server, request(f"POST {path} HTTP/1.1"))]
        assert statuses and statuses[0] not in (403, 404, 502), path


def test_a_site_works_through_it(port: int, coordinator: Running, connect: Connect) -> None:
    site = connect(registered(coordinator.server, f"through-{port}"), address=f"localhost:{port}")
    node = site.activate()
    assert site.pull(node) == 0


def test_older_tls_and_plain_text_are_refused(port: int, coordinator: Running) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(coordinator.server.ca)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(plain, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        plain.settimeout(5)
        with contextlib.suppress(OSError):  # reset
            assert b" 200 " not in plain.recv(1000)


def test_a_body_that_is_too_large_is_refused_however_it_is_sent(port: int, coordinator: Running) -> None:
    context = client_context(coordinator.server.ca)
    pieces = (b"x" * MIB for _ in range(17))
    with httpx.Client(verify=context, base_url=f"https://localhost:{port}", trust_env=False) as client:
        with contextlib.suppress(httpx.TransportError):  # closed while it was sending
            assert client.post(ALLOWED, content=b"x" * 17 * MIB).status_code == 413
        with contextlib.suppress(
            httpx.TransportError
        ):  # in chunks: the SuperLink may turn it away before it is all sent
            assert client.post(ALLOWED, content=pieces).is_client_error


def test_uploads_of_a_model_meet_no_limit(port: int, coordinator: Running) -> None:
    """90 MB in chunks of 5 MiB, two in flight; the SuperLink turns each away, for it is not signed."""
    statuses: list[int] = []

    def upload(number: int) -> None:
        with httpx.Client(verify=client_context(coordinator.server.ca), trust_env=False) as client:
            for _ in range(number):
                url = f"https://localhost:{port}/v1/fleet/push-object"
                answer = client.post(url, content=b"\0" * 5 * MIB, headers={"content-type": "application/protobuf"})
                statuses.append(answer.status_code)

    threads = [threading.Thread(target=upload, args=(9,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(statuses) == 18 and not {403, 413, 429, 502, 503} & set(statuses)


def test_one_address_cannot_take_all_connections(coordinator: Running) -> None:
    listener = coordinator.server.config().listener
    assert listener
    context, most = client_context(coordinator.server.ca), coordinator.server.config().gateway.connections
    held: list[ssl.SSLSocket] = []
    refused = 0
    try:
        for _ in range(most + 10):
            try:
                plain = socket.create_connection(listener, timeout=10)
                held.append(context.wrap_socket(plain, server_hostname="localhost"))
                held[-1].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                if not held[-1].recv(1000):
                    refused += 1
            except OSError:
                refused += 1
    finally:
        for one in held:
            one.close()
    assert refused >= 10
    assert healthy(coordinator.server, seconds=10)  # and it is let in again, once the others are gone


def test_a_head_that_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte after byte, on a new connection and after a whole request; with half a second in place of thirty."""
    monkeypatch.setattr(gateway, "_IDLE", 0.5)

    async def health(scope: Scope, receive: Receive, send: Send) -> None:
        await Response()(scope, receive, send)

    port = free_port()
    kind = connection_class(Visitors(GatewayConfig()))
    config = uvicorn.Config(health, port=port, http=kind, ws="none", lifespan="off", log_config=None, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.02)
        for whole in (b"", b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as slow:
                slow.sendall(whole)
                if whole:
                    assert b" 200 " in slow.recv(1000)
                began = time.monotonic()
                with pytest.raises(OSError):
                    while time.monotonic() - began < 5:
                        slow.sendall(b"G")
                        time.sleep(0.05)
                assert 0.3 < time.monotonic() - began < 3
    finally:
        server.should_exit = True
        thread.join()


def test_requests_beyond_the_rate_wait_and_are_not_lost() -> None:
    visitor = Visitor(tokens=20)
    assert [visitor.wait(rate=2) for _ in range(20)] == [0.0] * 20
    waits = [visitor.wait(rate=2) for _ in range(4)]
    assert waits == pytest.approx([0.5, 1.0, 1.5, 2.0], abs=0.05)


def test_visitors_are_forgotten_before_they_fill_the_memory() -> None:
    visitors = Visitors(GatewayConfig())
    visitors.of("10.0.0.1").connections = 1
    for number in range(30_000):
        visitors.of(str(number))
    assert len(visitors._known) < 10_100 and visitors.of("10.0.0.1").connections == 1


@pytest.mark.parametrize("name", ["superlink", "gateway", "superexec"])
def test_what_is_killed_comes_back(name: str, coordinator: Running, connect: Connect) -> None:
    server = coordinator.server
    key = registered(server, f"killed-{name}")
    before = json.loads((server.state / PROCESSES).read_text())["children"][name]
    os.kill(before["pid"], signal.SIGKILL)
    if name == "superlink":
        context = client_context(server.ca)
        with httpx.Client(verify=context, base_url=f"https://{coordinator.address}", trust_env=False) as client:
            answer = client.get("/health")
        assert (answer.status_code, answer.content) == (502, b"")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        after = json.loads((server.state / PROCESSES).read_text())["children"][name]
        if after["pid"] not in (None, before["pid"]):
            break
        time.sleep(0.1)
    assert after["restarts"] == before["restarts"] + 1
    assert healthy(server, seconds=30)
    site = connect(key)
    assert site.pull(site.activate()) == 0  # what was registered before is so still


def test_no_body_and_no_path_is_logged(coordinator: Running) -> None:
    secret = "the-words-of-a-note"
    listener = coordinator.server.config().listener
    assert listener
    answers(listener[1], coordinator.server, request(f"POST /{secret} HTTP/1.1", body=secret.encode()))
    answers(listener[1], coordinator.server, request(f"POST {ALLOWED} HTTP/1.1", f"X: {secret}", body=secret.encode()))
    for log in Path(coordinator.server.logs).iterdir():
        assert secret not in log.read_text()
