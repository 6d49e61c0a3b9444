"""What a coordinator does from the page: stop a study, start one from a plan, and see what became of it."""

from collections.abc import Callable
from pathlib import Path

from browsing import Open, violations
from dashboards import Start, add_run, next_round, recorder
from playwright.sync_api import expect

from common.plan import StudyPlan, plan_to_toml
from server.deployment.certificates import make_certificates
from server.deployment.config import Server, make_config, make_folder
from server.events import Event


def test_a_site_that_failed_is_red_and_a_study_is_stopped(
    start_dashboard: Start, tmp_path: Path, open_window: Open, screenshots: Path
) -> None:
    run = add_run(tmp_path, "first", finished=False)
    window = open_window()
    page = window.page
    page.goto(start_dashboard(tmp_path).address + "/study/first")
    site = next_round().sites[0].site
    with recorder(run.path) as record:
        record(Event("round-started", 9))
        record(Event("asked", 9, site))
        record(Event("left-out", 9, site, "it has not approved the plan", "plan-not-approved"))
    now = page.locator("#ladder tr", has_text=site).locator("td.now.refused")
    expect(now).to_have_text("out since round 9: the site has not approved the plan, or withdrew.")
    expect(page.locator("#incidents")).to_contain_text("Ask the site to inspect and approve it.")
    red = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--worse').trim()")
    assert now.evaluate(
        "(cell, red) => { const x = document.createElement('i'); x.style.color = red; "
        "document.body.append(x); return getComputedStyle(cell).color === getComputedStyle(x).color }",
        red,
    )
    page.screenshot(path=screenshots / "study-refused.png", full_page=True)
    page.get_by_role("button", name="Stop the study").click()
    page.get_by_role("button", name="Yes").click()
    expect(page.locator("#notice")).to_have_text("The study is stopped.")
    expect(page.locator(".verdict-line")).to_have_text("Stopped after round 8 of 9.")
    expect(page.locator("#governance")).to_contain_text("The study was stopped from the dashboard, by 127.0.0.1")
    assert violations(page) == [] and window.console == []


def test_a_plan_is_checked_and_its_start_is_asked_for(
    start_dashboard: Start,
    make_plan: Callable[..., StudyPlan],
    tmp_path: Path,
    open_window: Open,
    screenshots: Path,
) -> None:
    server, config = Server(tmp_path / "c"), make_config("trial", "localhost:8443", None, 9092)
    make_folder(server, config)
    make_certificates(server, config)
    server.runs.mkdir(exist_ok=True)
    window, plan = open_window(), make_plan()
    page = window.page
    page.goto(start_dashboard(None, "--coordinator", str(server.folder)).address)
    page.wait_for_function("window.socket?.connected")
    page.get_by_text("Start a study").click()
    page.get_by_label("The plan, as TOML").fill("[study]\nname = '<b>No'")
    page.get_by_role("button", name="Check the plan").press("Enter")
    expect(page.locator("#plan-said")).to_contain_text("wrong in the plan")
    assert page.locator("#plan-said b").count() == 0
    assert violations(page) == []
    page.get_by_label("The plan, as TOML").fill(plan_to_toml(plan))
    page.get_by_role("button", name="Check the plan").press("Enter")
    expect(page.locator("#plan-said")).to_contain_text(plan.hash())
    page.get_by_role("button", name="Start it").press("Enter")
    page.get_by_role("alertdialog", name="Start test?").wait_for()
    page.screenshot(path=screenshots / "start-asked.png")
    page.get_by_role("button", name="Yes").press("Enter")
    notice = page.locator("#notice")
    expect(notice).to_contain_text("It failed: error (server-not-running)", timeout=30_000)
    assert "server-not-running" in (server.folder / "dashboard.log").read_text()
    assert violations(page) == [] and window.console == []
    page.screenshot(path=screenshots / "start-failed.png", full_page=True)
