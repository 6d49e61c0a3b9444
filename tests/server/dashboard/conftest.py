"""The dashboard as it is: the command in a process of its own, and a real Chromium that looks at it."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))  # example_summary, page_tags

from example_summary import example_summary

from common.plan import StudyPlan, plan_to_toml
from server.dashboard.passwords import write_password
from server.run_folder import PLAN_FILE, RunFolder

PASSWORD = "correct horse battery staple"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)


@dataclass
class Dashboard:
    """A dashboard that runs."""

    address: str
    runs: Path
    process: subprocess.Popen[str]

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.address + path, trust_env=False, timeout=30, **options)

    @contextlib.contextmanager
    def log_in(self) -> Iterator[httpx.Client]:
        """A client that has the session's cookie."""
        with httpx.Client(base_url=self.address, trust_env=False, timeout=30) as client:
            form = re.search(r'name="form" value="([^"]+)"', client.get("/login").text)
            assert form
            client.post("/login", data={"form": form[1], "password": PASSWORD, "next": "/"})
            yield client

    def memory(self) -> int:
        """Resident bytes."""
        import psutil

        return int(psutil.Process(self.process.pid).memory_info().rss)


Start = Callable[..., Dashboard]


@pytest.fixture(scope="session")
def start_dashboard(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start the command with options on a free port; every one that was started is ended."""
    started: list[Dashboard] = []

    def start(runs: Path, *options: str, scheme: str = "http") -> Dashboard:
        line = [sys.executable, "-m", "fednotes", "dashboard", "--runs", str(runs), *options]
        # NiceGUI behaves otherwise where it thinks that it is tested
        own = {name: value for name, value in environment.items() if not name.startswith(("PYTEST", "NICEGUI"))}
        process = subprocess.Popen(
            line,
            env=own,
            cwd=tmp_path_factory.mktemp("cwd"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout
        said = process.stdout.readline()
        found = re.search(rf"{scheme}://\S+?(?=/\s)", said)
        if not found:
            process.kill()
            pytest.fail(said + process.stdout.read())
        started.append(Dashboard(found[0], runs, process))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        # without its sandbox it starts as root, as in CI; it sees our own pages alone
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield opened
        opened.close()


@dataclass
class Window:
    """A page, what its console said, and every address that it asked for."""

    page: Page
    console: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def open_window(browser: Browser) -> Iterator[Callable[..., Window]]:
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


@pytest.fixture(scope="session")
def password_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secret") / "dashboard.password"
    write_password(PASSWORD, path)
    return path


def add_run(runs: Path, name: str, study: str = "test", **changes: Any) -> RunFolder:
    """The folder of a finished run."""
    plan = StudyPlan.model_validate({"study": {"name": study}})
    run = RunFolder(runs / name)
    run.path.mkdir(parents=True)
    (run.path / PLAN_FILE).write_text(plan_to_toml(plan), encoding="utf-8")
    run.write_summary(example_summary().model_copy(update=changes))
    return run


def eventually(holds: Callable[[], Any], seconds: float = 10.0) -> float:
    """Wait until it holds; the seconds that it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, "it never did"
        time.sleep(0.02)
    return time.monotonic() - began
