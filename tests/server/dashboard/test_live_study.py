"""A real simulated study, watched, killed, resumed, and taken home in a browser, as a coordinator would."""

import re
import signal
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browsing import Open, violations
from dashboards import Dashboard, Start, eventually, silent_for
from playwright.sync_api import Page, expect

from client.notes.source import NotesSource
from common.encoder import load_encoder
from common.plan import StudyPlan, plan_to_toml
from server.record.reader import SILENT

ROUNDS = 8


@pytest.fixture
def simulation(
    tmp_path: Path,
    make_plan: Callable[..., StudyPlan],
    source: NotesSource,
    command: list[str],
    environment: dict[str, str],
) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Start a study in runs/watched; rounds are long enough to be seen."""
    plan = tmp_path / "plan.toml"
    sections = {"study": {"name": "watched", "seed": 3}, "federation": {"rounds": ROUNDS}}
    plan.write_text(plan_to_toml(make_plan(**sections, training={"steps_per_round": 30})), encoding="utf-8")
    (tmp_path / "runs").mkdir()
    started = []

    def start() -> subprocess.Popen[bytes]:
        words = ["simulate", str(plan), "--notes", source.source, "--split-by", "site", "--quiet"]
        line = [*command, *words, "--out", str(tmp_path / "runs" / "watched")]
        started.append(subprocess.Popen(line, env=environment, cwd=tmp_path, start_new_session=True))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()


def returned(page: Page) -> int:
    return page.locator("#ladder td.returned.cell").count()


@pytest.mark.parametrize("silence", ["written", pytest.param("real", marks=pytest.mark.slow)])
def test_a_study_is_watched_killed_resumed_exported_and_taken_home(
    silence: str,
    start_dashboard: Start,
    simulation: Callable[[], subprocess.Popen[bytes]],
    tmp_path: Path,
    open_window: Open,
    screenshots: Path,
) -> None:
    dashboard: Dashboard = start_dashboard(tmp_path / "runs")
    window = open_window()
    page = window.page
    page.goto(dashboard.address)
    expect(page.locator("#studies")).to_contain_text("No study in")
    process = simulation()
    page.get_by_role("link", name="watched").click(timeout=60_000)

    # the ladder fills while it runs, and the verdict names who is waited for
    page.locator("#ladder td.training").first.wait_for(timeout=60_000)
    named = re.compile(r"^Round \d+ of 8.*waiting for \w.*now [\d.]+ s")
    expect(page.locator(".verdict-line")).to_have_text(named, timeout=20_000)
    expect(page.locator(".feed")).to_contain_text("Live.")
    some = eventually(lambda: returned(page), 60)
    eventually(lambda: returned(page) > some, 60)
    page.screenshot(path=screenshots / "watched-running.png", full_page=True)

    # it is killed: the page says so in words, and turns grey
    process.send_signal(signal.SIGKILL)
    process.wait()
    if silence == "written":  # or nobody is heard of for twenty seconds
        silent_for(tmp_path / "runs" / "watched", 400)
    page.locator("html[data-feed=old]").wait_for(timeout=(SILENT + 8) * 1000)
    expect(page.locator(".verdict-line")).to_have_text(re.compile(r"^Interrupted after round \d+ of 8: nobody works"))
    assert "grayscale(1)" in page.locator(".sections").evaluate("part => getComputedStyle(part).filter")
    assert violations(page) == []
    page.screenshot(path=screenshots / "watched-killed.png", full_page=True)

    # it is resumed by the page: not by No, nor by Escape
    resume = page.get_by_role("button", name="Resume the study")
    for no in (
        lambda: page.get_by_role("button", name="No", exact=True).click(),
        lambda: page.keyboard.press("Escape"),
    ):
        resume.click()
        dialog = page.get_by_role("alertdialog", name="Resume the study?")
        dialog.wait_for()
        expect(page.get_by_role("button", name="No", exact=True)).to_be_focused()
        assert violations(page) == []
        page.screenshot(path=screenshots / "watched-asked.png")
        no()
        dialog.wait_for(state="hidden")
        expect(resume).to_be_focused()
    assert not (tmp_path / "runs" / "watched" / "dashboard.log").exists()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Yes").press("Enter")
    expect(page.locator("#notice")).to_contain_text("It is being done.")
    expect(page.locator(".verdict-line")).to_have_text("Finished: all 8 rounds are done.", timeout=120_000)
    expect(page.locator("#notice")).to_contain_text("The study has run to its end.", timeout=30_000)
    expect(page.locator("#governance")).to_contain_text("The study was resumed from the dashboard, by 127.0.0.1")
    assert returned(page) == 3 * ROUNDS
    assert violations(page) == []
    page.screenshot(path=screenshots / "watched-finished.png", full_page=True)

    # its model is exported, and the page says where to
    page.get_by_role("button", name="Export the model").click()
    page.get_by_role("alertdialog", name="Export the model?").wait_for()
    page.get_by_role("button", name="Yes").press("Enter")
    expect(page.locator("#notice")).to_contain_text("The model is exported: to ", timeout=60_000)
    expect(page.locator("#notice")).to_contain_text(str(tmp_path / "runs" / "watched" / "export"))
    expect(page.locator("#governance")).to_contain_text("The study was exported from the dashboard, by 127.0.0.1")
    page.screenshot(path=screenshots / "watched-exported.png", full_page=True)
    assert violations(page) == [] and window.console == []

    # and taken home
    for name in ("report.html", "summary.json", "plan.toml", "model.zip", "export.zip"):
        with page.expect_download() as taken:
            page.get_by_role("link", name=name).click()
        taken.value.save_as(tmp_path / "home" / name)
    assert (tmp_path / "home" / "report.html").read_bytes() == (
        tmp_path / "runs" / "watched" / "report.html"
    ).read_bytes()
    for name, folder in (("model.zip", "model"), ("export.zip", "export")):
        zipfile.ZipFile(tmp_path / "home" / name).extractall(tmp_path / "home")
        assert load_encoder(str(tmp_path / "home" / folder)).shared("encoder")
