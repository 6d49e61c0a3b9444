"""A page in a real browser, and what it did there."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)


@dataclass
class Window:
    """A page, what its console said, and every address that it asked for."""

    page: Page
    console: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


Open = Callable[..., Window]


def violations(page: Page) -> list[str]:
    """What axe finds wrong, best practices included."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['html'][:200]}" for one in found for node in one["nodes"]]


def all_drawn(page: Page) -> None:
    """Draws every chart of the page, as before it is printed: those far from the window are not, else."""
    page.locator("html.drawn").wait_for()
    page.wait_for_function("window.Plotly")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_function("[...document.querySelectorAll('.chart')].every(one => one.querySelector('.main-svg'))")
