"""Who gets in: without a session nobody, by no way; and a session ends."""

import asyncio
import re
import ssl
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import websockets
from dashboards import PASSWORD, Dashboard, Start, run_apart
from starlette.applications import Starlette
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server.dashboard import login, sessions
from server.dashboard.passwords import read_password
from server.deployment.certificates import make_certificates
from server.deployment.config import Server, make_config, make_folder

SOCKET = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"


def socket_says(dashboard: Dashboard, **options: Any) -> str:
    """What a websocket of NiceGUI's gets first; or the status with which it is refused."""

    async def ask() -> str:
        try:
            address = dashboard.address.replace("http", "ws") + SOCKET
            async with websockets.connect(address, proxy=None, **options) as connection:
                return str(await asyncio.wait_for(connection.recv(), 5))
        except InvalidStatus as refused:
            return str(refused.response.status_code)

    return run_apart(ask())


def cookie_of(client: httpx.Client) -> dict[str, str]:
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items())}


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/study/first",
        "/nowhere",
        "/_nicegui_ws/socket.io/?EIO=4&transport=polling",
        "/session",
        "/docs",
        "/section/0",
    ],
)
def test_without_a_session_there_is_nothing(guarded: Dashboard, path: str) -> None:
    assert guarded.get(path).status_code == 401
    page = guarded.get(path, headers={"Accept": "text/html"})
    assert page.status_code == 303 and page.headers["location"].startswith("/login?next=/")
    assert "first" not in page.text


def test_a_websocket_without_a_session_is_refused(guarded: Dashboard) -> None:
    assert socket_says(guarded) == "403"
    assert socket_says(guarded, additional_headers={"Cookie": f"{cookie_name(guarded)}=guessed"}) == "403"
    with guarded.log_in() as client:
        assert socket_says(guarded, additional_headers=cookie_of(client)).startswith("0{")


def test_a_websocket_of_another_page_is_refused(guarded: Dashboard, dashboard: Dashboard) -> None:
    with guarded.log_in() as client:
        headers = cookie_of(client)
        assert socket_says(guarded, additional_headers=headers, origin="http://evil.example") == "403"
        assert socket_says(guarded, additional_headers=headers, origin=guarded.address).startswith("0{")
    assert socket_says(dashboard, origin="http://evil.example") == "403"
    assert socket_says(dashboard, origin=dashboard.address).startswith("0{")


def cookie_name(dashboard: Dashboard) -> str:
    return f"fednotes-{dashboard.address.rpartition(':')[2]}"


def test_the_password_opens_and_the_cookie_is_for_the_browser_alone(guarded: Dashboard) -> None:
    with guarded.log_in() as client:
        page = client.get("/study/first")
        assert page.status_code == 200
        again = client.post("/login", data={"form": "x"})
        assert again.status_code == 403
    client = httpx.Client(base_url=guarded.address, trust_env=False, timeout=30)
    form = re.search(r'name="form" value="([^"]+)"', client.get("/login").text)
    assert form
    given = {"form": form[1], "password": PASSWORD, "next": "/study/first?x=1"}
    answer = client.post("/login", data=given)
    assert answer.status_code == 303 and answer.headers["location"] == "/study/first?x=1"
    cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith(f"{cookie_name(guarded)}="))
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "expires" not in cookie.lower()


@pytest.mark.parametrize(
    "wanted", ["//evil.example", "https://evil.example", "/\\evil.example", "/\t/evil.example", "", "/login?next=/"]
)
def test_a_login_leads_to_no_other_place(guarded: Dashboard, wanted: str) -> None:
    with httpx.Client(base_url=guarded.address, trust_env=False, timeout=30) as client:
        shown = client.get("/login", params={"next": wanted}).text
        form = re.search(r'name="form" value="([^"]+)"', shown)
        assert form and re.search(r'name="next" value="/"', shown)
        answer = client.post("/login", data={"form": form[1], "password": PASSWORD, "next": wanted})
        assert answer.status_code == 303 and answer.headers["location"] == "/"


def test_a_login_from_another_page_is_refused(guarded: Dashboard) -> None:
    given = {"password": PASSWORD, "form": "guessed"}
    assert httpx.post(guarded.address + "/login", data=given, trust_env=False, timeout=30).status_code == 403
    elsewhere = {"Origin": "http://evil.example"}
    assert (
        httpx.post(guarded.address + "/login", data=given, headers=elsewhere, trust_env=False, timeout=30).status_code
        == 403
    )
    big = {"password": "x" * 100_000}
    assert httpx.post(guarded.address + "/login", data=big, trust_env=False, timeout=30).status_code == 403


def test_log_out_ends_the_session_and_its_websocket(guarded: Dashboard) -> None:
    with guarded.log_in() as client:
        kept = cookie_of(client)

        async def closed_by_logging_out() -> int:
            address = guarded.address.replace("http", "ws") + SOCKET
            async with websockets.connect(address, proxy=None, additional_headers=kept) as connection:
                await connection.recv()
                assert client.post("/logout", data={"form": "guessed"}).status_code == 403
                form = re.search(r'name=\\*"form\\*" value=\\*"([^"\\]+)', client.get("/").text)
                assert form
                assert client.post("/logout", data={"form": form[1]}).status_code == 303
                try:
                    while True:
                        await asyncio.wait_for(connection.recv(), 5)
                except ConnectionClosed as end:
                    return end.rcvd.code if end.rcvd else 0

        assert run_apart(closed_by_logging_out()) == 4401
        assert guarded.get("/session", headers=kept).status_code == 401


def test_a_session_ends_when_nobody_is_there(start_dashboard: Start, runs: Path, password_file: Path) -> None:
    dashboard = start_dashboard(runs, "--password-file", str(password_file), "--idle-minutes", "0.05")
    with dashboard.log_in() as client:
        for _ in range(2):  # a person is there
            time.sleep(1.7)
            kept = client.post("/session").json()
            assert kept["lasts"] and 2.5 < kept["left"] <= 3
        for _ in range(2):  # the page alone asks
            time.sleep(1.2)
            left = client.get("/session").json()["left"]
        assert left < 0.7

        async def seconds_until_closed() -> float:
            began = time.monotonic()
            address = dashboard.address.replace("http", "ws") + SOCKET
            async with websockets.connect(address, proxy=None, additional_headers=cookie_of(client)) as connection:
                with pytest.raises(ConnectionClosed) as closed:
                    while True:
                        await asyncio.wait_for(connection.recv(), 10)
            assert closed.value.rcvd and closed.value.rcvd.code == 4401
            return time.monotonic() - began

        assert run_apart(seconds_until_closed()) < 4
        assert client.get("/session").status_code == 401


def test_a_session_ends_at_last(start_dashboard: Start, runs: Path, password_file: Path) -> None:
    dashboard = start_dashboard(runs, "--password-file", str(password_file), "--session-hours", "0.001")  # 3.6 s
    with dashboard.log_in() as client:
        for _ in range(2):
            time.sleep(1)
            found = client.post("/session").json()
        assert found["left"] < 2 and not found["lasts"]
        time.sleep(2)
        assert client.post("/session").status_code == 401


def test_guesses_are_slowed_and_then_refused(password_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, where time can be made short; test_live_pages guesses as a person does."""
    monkeypatch.setattr(login, "_ANSWER", 0.05)
    passes = [time.monotonic()]
    monkeypatch.setattr(sessions, "time", SimpleNamespace(monotonic=lambda: passes[0]))
    routes = login.Login(read_password(password_file), sessions.Sessions(60, 60), "cookie", False).routes()

    async def guess() -> None:
        transport = httpx.ASGITransport(Starlette(routes=routes))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            form = re.search(r'name="form" value="([^"]+)"', (await client.get("/login")).text)
            assert form
            statuses, seconds = [], []
            for _ in range(7):
                began = time.perf_counter()
                # that the guesser claims to be somebody else changes nothing
                claims = {"X-Forwarded-For": f"198.51.100.{len(statuses)}"}
                answer = await client.post("/login", data={"form": form[1], "password": "wrong"}, headers=claims)
                statuses.append(answer.status_code)
                seconds.append(time.perf_counter() - began)
            assert statuses == [403] * 5 + [429] * 2
            assert all(took >= 0.05 for took in seconds[:5])
            assert int(answer.headers["retry-after"]) >= 1
            right = {"form": form[1], "password": PASSWORD}
            assert (await client.post("/login", data=right)).status_code == 429  # not even the right one, meanwhile
            passes[0] += int(answer.headers["retry-after"]) + 0.2
            assert (await client.post("/login", data=right)).status_code == 303

    run_apart(guess())


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.0.2.1", "", "[::1"])
def test_a_name_that_was_made_to_point_here_is_refused(dashboard: Dashboard, host: str) -> None:
    assert dashboard.get("/", headers={"Host": host}).status_code in (400, 421)
    if host:
        assert socket_says(dashboard, additional_headers={"Host": host}) in ("400", "403")


def test_a_tunnel_with_another_port_is_let_in(dashboard: Dashboard) -> None:
    for host in ("localhost:9000", "127.0.0.1", "[::1]:9000"):
        assert dashboard.get("/", headers={"Host": host}).status_code == 200


def test_browsers_are_told_what_pages_may_do(guarded: Dashboard, dashboard: Dashboard) -> None:
    login, page = guarded.get("/login").headers, dashboard.get("/")
    assert "script-src 'self'; style-src 'self'" in login["content-security-policy"]
    policy = page.headers["content-security-policy"]
    nonce = re.search(r"'nonce-([^']+)'", policy)
    assert nonce and "unsafe-inline" not in policy.partition("style-src")[0]
    scripts = re.findall(r"<script[^>]*>", page.text)
    assert scripts and all(f'nonce="{nonce[1]}"' in script for script in scripts)
    assert nonce[1] not in dashboard.get("/").text
    for headers in (login, page.headers):
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers and "strict-transport-security" not in headers


def test_files_of_any_installation_are_zipped_and_kept_for_good(guarded: Dashboard, dashboard: Dashboard) -> None:
    login, page = guarded.get("/login").text, dashboard.get("/study/first").text
    own = re.findall(r'(?:href|src|data-plotly)="(/assets/[^"]+)"', login + page)
    theirs = re.findall(r'"(/_nicegui/[^"]+/static/[^"]+\.js)"', page)
    assert len(set(own)) >= 9 and len(theirs) >= 4
    for address in [*own, *theirs]:
        answer = dashboard.get(address)
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-encoding"] == "gzip" and len(answer.content) > 0
        plain = dashboard.get(address, headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers and plain.content == answer.content
    digest, name = own[0].split("/")[2:]
    assert guarded.get(own[0]).status_code == 200  # the login page needs them
    assert guarded.get(theirs[0]).status_code == 401
    assert dashboard.get(f"/assets/{digest[::-1]}/{name}").status_code == 404
    section = re.search(r"/section/[0-9a-f]{64}", dashboard.shown("/study/first"))
    assert section and dashboard.get(section[0]).headers["cache-control"] == "no-store"
    assert guarded.get(section[0]).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/study/..%2F..%2Fetc%2Fpasswd",
        "/study/%2e%2e",
        "/study/.",
        "/assets/..%2fcli.py",
        "/assets/%2e%2e/%2e%2e/etc/passwd",
        "/_nicegui/3.0.0/static/..%2f..%2fserver.py",
        "/study/%00",
        "/study/first%2F..%2Ffirst",
    ],
)
def test_no_path_leads_out_of_the_runs(dashboard: Dashboard, path: str) -> None:
    answer = dashboard.get(path)
    assert answer.status_code == 404
    assert "root:" not in answer.text and "import" not in answer.text


@pytest.mark.parametrize("path", ["/?x=", "/study/", "/study/first?x=", "/login?next=/"])
def test_a_script_in_an_address_is_not_in_the_page(dashboard: Dashboard, guarded: Dashboard, path: str) -> None:
    script = "%3Cscript%3Ealert(1)%3C/script%3E"
    for one in (dashboard, guarded):
        assert "<script>alert(1)" not in one.get(path + script, headers={"Accept": "text/html"}).text
    forged = {"X-Forwarded-Prefix": "/evil"}
    assert "/evil" not in dashboard.get("/", headers=forged).text


def test_on_another_address_it_speaks_tls_alone(
    start_dashboard: Start, runs: Path, password_file: Path, tmp_path: Path
) -> None:
    server, config = Server(tmp_path / "c"), make_config("trial", "localhost:8443", None, 9092)
    make_folder(server, config)
    make_certificates(server, config)
    authority, certificate, key = server.ca, server.certificate, server.key
    options = ("--host", "0.0.0.0", "--certificate", certificate, "--key", key, "--password-file", password_file)
    dashboard = start_dashboard(runs, *map(str, options), scheme="https")
    address = dashboard.address.replace("0.0.0.0", "localhost")
    context = ssl.create_default_context(cafile=str(authority))
    with httpx.Client(base_url=address, verify=context, trust_env=False, timeout=30) as client:
        form = re.search(r'name="form" value="([^"]+)"', client.get("/login").text)
        assert form
        answer = client.post("/login", data={"form": form[1], "password": PASSWORD})
        assert answer.status_code == 303
        cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith("__Host-fednotes-"))
        assert "Secure" in cookie and "Path=/" in cookie and "Domain" not in cookie
        page = client.get("/")
        assert page.status_code == 200 and page.headers["strict-transport-security"] == "max-age=31536000"
    with pytest.raises(httpx.HTTPError):
        httpx.get(address.replace("https", "http"), trust_env=False, timeout=30)
