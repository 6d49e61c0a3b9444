"""A real browser, for the tests of all pages."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import CHROMIUM, Open, Window
from playwright.sync_api import Browser, sync_playwright


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
