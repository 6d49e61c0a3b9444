"""A coordinator who uses the page alone: a study over real hospitals is started, stopped, resumed and exported from it.

Run by `make servers`."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from browsing import CHROMIUM, violations
from conftest import SITES, approve
from playwright.sync_api import Page, expect, sync_playwright
from real_federation import RealFederation

from common.plan import StudyPlan, plan_to_toml


@contextmanager
def coordinators_page(federation: RealFederation) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    # NiceGUI behaves otherwise where it thinks that it is tested
    federation.environment = {key: value for key, value in federation.environment.items() if "PYTEST" not in key}
    process = federation.begin("dashboard", "--coordinator", federation.server.folder)
    try:
        assert process.stdout
        address = process.stdout.readline().split()[-1]
        with sync_playwright() as playwright:
            options = ["--no-sandbox", "--disable-dev-shm-usage"]
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
            page = browser.new_page()
            page.set_default_timeout(60_000)
            page.goto(address)
            page.wait_for_function("window.socket?.connected")
            yield page
            browser.close()
    finally:
        process.terminate()
        process.wait(30)


def yes(page: Page, button: str) -> None:
    page.get_by_role("button", name=button).click()
    page.get_by_role("alertdialog").get_by_role("button", name="Yes").click()


def test_a_study_over_real_hospitals_is_carried_by_the_page(
    federation: RealFederation, study_plan: Callable[..., StudyPlan]
) -> None:
    plan = study_plan("from-the-page", training={"steps_per_round": 60}, federation={"rounds": 4})
    approve(federation, plan)
    with coordinators_page(federation) as page:
        page.get_by_text("Start a study").click()
        page.get_by_label("The plan, as TOML").fill(plan_to_toml(plan))
        page.get_by_role("button", name="Check the plan").click()
        yes(page, "Start it")
        page.get_by_role("link", name="from-the-page").click(timeout=120_000)
        page.locator("#ladder td.returned").first.wait_for(timeout=120_000)
        page.locator("#ladder td.training").first.wait_for(timeout=120_000)
        expect(page.locator("#ladder tbody tr")).to_have_count(len(SITES))

        yes(page, "Stop the study")
        expect(page.locator("#notice")).to_have_text("The study is stopped.", timeout=60_000)
        expect(page.locator(".verdict-line")).to_have_text(re.compile(r"^Stopped after round \d of 4\.$"))
        yes(page, "Resume the study")
        expect(page.locator(".verdict-line")).to_have_text("Finished: all 4 rounds are done.", timeout=180_000)
        expect(page.locator("#notice")).to_have_text("The study has run to its end.", timeout=60_000)
        yes(page, "Export the model")
        expect(page.locator("#notice")).to_contain_text("The model is exported: to ", timeout=120_000)
        done = [line.partition(": ")[2] for line in page.locator("#governance li").all_inner_texts()]
        who = "from the dashboard, by 127.0.0.1"
        assert done == [f"The study was {what} {who}" for what in ("started", "stopped", "resumed", "exported")]
        assert violations(page) == []
    study = federation.studies()[-1]
    assert study.rounds_done() == 4
    assert (study.path / "export" / "config.json").exists()
