"""What tests of the server share: a study whose record is in SQLite or a real PostgreSQL, and a real browser."""

import getpass
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import CHROMIUM, Open, Window
from playwright.sync_api import Browser, sync_playwright

from common.plan import StudyPlan
from server.record.database import Database
from server.record.place import create, opened
from server.record.recorder import Recorder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.fixture
def record(run: Path, make_plan: Callable[..., StudyPlan]) -> Iterator[tuple[Database, str]]:
    """A database and a study in it, of three rounds."""
    create(run, make_plan(federation={"rounds": 3}), "inprocess", None)
    found = opened(run)
    yield found
    found[0].close()


@pytest.fixture
def recorder(record: tuple[Database, str]) -> Recorder:
    return Recorder(*record)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server of Debian's packages, which runs for these tests alone."""
    folders = os.pathsep.join(
        [*map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), os.environ["PATH"]]
    )
    programs = {name: shutil.which(name, path=folders) for name in ("initdb", "postgres")}
    if None in programs.values():
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    place = Path(tempfile.mkdtemp(prefix="fednotes-postgresql-"))  # pytest's own folders are closed to other users
    user = getpass.getuser()
    if os.getuid() == 0:  # which PostgreSQL refuses to be
        user = "nobody"
        known = pwd.getpwnam(user)
        os.chown(place, known.pw_uid, known.pw_gid)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = place / "data"
    initdb = [programs["initdb"], "-D", str(data), "-A", "trust", "-U", "fednotes", "-E", "UTF8", "--no-sync"]
    as_user = {"user": user} if os.getuid() == 0 else {}
    subprocess.run(initdb, check=True, capture_output=True, cwd=place, **as_user)  # type: ignore[call-overload]
    server = subprocess.Popen(
        [programs["postgres"], "-D", data, "-p", str(port), "-k", place, "-c", "listen_addresses=127.0.0.1"],
        cwd=place,
        stderr=subprocess.PIPE,
        text=True,
        **as_user,  # type: ignore[call-overload]
    )
    assert server.stderr is not None
    said = []
    for line in server.stderr:
        said.append(line)
        if "ready to accept connections" in line:
            break
    else:
        pytest.fail(f"PostgreSQL did not start: {said}")
    yield f"postgresql+psycopg://fednotes@127.0.0.1:{port}/postgres"
    server.send_signal(signal.SIGINT)  # whoever is still connected is thrown out
    server.communicate(timeout=30)
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        # without its sandbox it starts as root, as in CI; it sees our own pages alone
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield opened
        opened.close()


@pytest.fixture
def open_window(browser: Browser) -> Iterator[Open]:
    """Open a window: `width`, `scheme` ("light" or "dark")."""
    contexts = []

    def opened(width: int = 1280, scheme: Any = "light", **options: Any) -> Window:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        contexts.append(context)
        window = Window(context.new_page())
        window.page.set_default_timeout(20_000)
        window.page.on("console", lambda said: window.console.append(f"{said.type}: {said.text}"))
        window.page.on("pageerror", lambda error: window.console.append(f"error: {error}"))
        window.page.on("request", lambda request: window.asked.append(request.url))
        return window

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots are left to be looked at."""
    folder = Path(os.environ.get("FEDNOTES_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
