"""The pages in a real browser: live, light and dark, with a keyboard, on a phone, and when the feed dies."""

import asyncio
import re
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
from browsing import Open, Window, all_drawn, violations
from dashboards import (
    PASSWORD,
    Dashboard,
    Start,
    add_record,
    add_round,
    add_run,
    eventually,
    next_round,
    recorder,
    run_apart,
    silent_for,
)
from example_summary import SITES, example_summary, site_facts
from page_tags import HOSTILE
from playwright.sync_api import Page, expect
from sqlalchemy import text, update
from sqlalchemy.orm import Session
from viewers import Viewer

from server.events import Event
from server.record.place import opened as opened_record
from server.record.tables import SiteRoundRow
from server.run_folder import RunFolder

NEW = "New Hospital"
BUSY = (
    6.0  # seconds until a change must be seen here, beside other tests; two on a quiet machine: benchmarks/dashboard.py
)


@pytest.fixture
def run(runs: Path, request: pytest.FixtureRequest) -> RunFolder:
    """A study of this test's own, in the folder that all look at."""
    return add_run(runs, request.node.originalname)


def opened(window: Window, dashboard: Dashboard, path: str | RunFolder) -> Page:
    """A page, or that of a study, when it has all its sections."""
    page, path = window.page, f"/study/{path.path.name}" if isinstance(path, RunFolder) else path
    page.goto(dashboard.address + path)
    page.wait_for_function("window.socket?.connected")
    page.locator(".feed .said").get_by_text(re.compile(".")).wait_for()
    page.wait_for_function(
        "document.querySelector('.sections > div') && !document.querySelector('.sections > div:empty')"
    )
    return page


def log_in(page: Page, dashboard: Dashboard) -> None:
    page.goto(dashboard.address)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Studies").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_are_accessible_quiet_and_ask_nobody_else(
    guarded: Dashboard, open_window: Open, screenshots: Path, scheme: str, width: int
) -> None:
    window = open_window(width, scheme)
    page = window.page
    page.goto(guarded.address)
    assert violations(page) == []
    page.screenshot(path=screenshots / f"login-{scheme}-{width}.png", full_page=True)
    log_in(page, guarded)
    paths = {"studies": "/", "study": "/study/first", "site": f"/study/first/site/{quote(SITES[0])}"}
    for name, path in (paths | {"compare": "/compare?study=first&study=second"}).items():
        opened(window, guarded, path)
        if name != "studies":
            all_drawn(page)
        assert any("plotly" in address for address in window.asked) == (name != "studies")
        assert violations(page) == []
        assert page.locator("html").get_attribute("lang") == "en-US"
        for landmark in ("banner", "main"):
            expect(page.get_by_role(landmark)).to_have_count(1)  # type: ignore[arg-type]
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "it scrolls sideways"
        page.screenshot(path=screenshots / f"{name}-{scheme}-{width}.png", full_page=True)
    assert window.console == []
    assert {address.split("/")[2] for address in window.asked if not address.startswith(("data:", "blob:"))} == {
        guarded.address.split("/")[2]
    }


def test_a_change_is_seen_within_two_seconds_and_disturbs_nobody(
    dashboard: Dashboard, run: RunFolder, open_window: Open
) -> None:
    window = open_window()
    page = opened(window, dashboard, run)
    all_drawn(page)
    table = page.locator("#training details").first
    table.locator("summary").click()
    page.get_by_role("button", name="Harbour Clinic").click()
    page.get_by_role("button", name="St Brigid's").focus()
    chart = page.locator("#training .chart").first
    chart.evaluate("chart => { chart.mark = 'the same' }")
    lines = chart.locator(".scatterlayer .trace")
    assert lines.count() == 3
    points = lines.first.locator(".point")
    before = points.count()
    with recorder(run.path) as record:
        add_round(record, next_round())
    began = time.monotonic()
    eventually(lambda: points.count() == before + 1)
    took = time.monotonic() - began
    print(f"a change was drawn after {took:.2f} s")
    assert took < BUSY
    assert table.get_attribute("open") is not None, "what was open was closed"
    assert page.evaluate("document.activeElement.textContent").strip() == "St Brigid's", "focus was lost"
    assert page.get_by_role("button", name="Harbour Clinic").get_attribute("aria-pressed") == "false"
    assert lines.count() == 3, "what was hidden came back"
    assert chart.evaluate("chart => chart.mark") == "the same", "the chart was made anew, not drawn again"
    assert window.console == []


def test_a_new_study_comes_into_the_list(dashboard: Dashboard, runs: Path, open_window: Open) -> None:
    page = opened(open_window(), dashboard, "/")
    add_run(runs, "third", study="the-third")
    page.get_by_role("link", name="the-third").click(timeout=2000)
    page.get_by_text("Study third").wait_for()


def test_the_page_says_that_nobody_works_on_a_study_and_that_one_is_silent(
    dashboard: Dashboard, run: RunFolder, open_window: Open, screenshots: Path
) -> None:
    page = opened(open_window(), dashboard, run)
    assert "The study has finished" in page.locator(".feed").inner_text()
    with recorder(run.path) as record:
        record(Event("began", 8))
    silent_for(run.path, 3)
    page.locator(".feed").get_by_text("Live.").wait_for()
    silent_for(run.path, 400)
    page.locator("html[data-feed=old]").wait_for()
    assert "may be out of date. Last news 6 min ago." in page.locator(".feed").inner_text()
    expect(page.locator(".verdict-line")).to_have_text("Interrupted after round 8 of 9: nobody works on it.")
    page.screenshot(path=screenshots / "study-old.png", full_page=True)
    assert violations(page) == []


def test_a_page_whose_server_died_says_so_and_turns_grey_until_it_is_back(
    start_dashboard: Start, run: RunFolder, open_window: Open, screenshots: Path
) -> None:
    dashboard = start_dashboard(run.path.parent)
    page = opened(open_window(), dashboard, run)
    page.locator("html[data-feed=still]").wait_for()
    page.wait_for_timeout(1500)  # it has met the server
    dashboard.process.kill()
    began = time.monotonic()
    page.locator("html[data-feed=lost]").wait_for(timeout=3000)
    print(f"a killed dashboard was noticed after {time.monotonic() - began:.2f} s")
    said = page.locator(".feed .said").inner_text()
    assert said.startswith("Connection lost. What is shown is as it was at ") and "may be out of date" in said
    assert "grayscale(1)" in page.locator(".sections").evaluate("part => getComputedStyle(part).filter")
    assert violations(page) == []
    page.screenshot(path=screenshots / "study-lost.png", full_page=True)
    dashboard.process.wait()
    start_dashboard(run.path.parent, "--port", dashboard.address.rpartition(":")[2])
    page.locator("html[data-feed=still]").wait_for(timeout=20_000)


def test_a_damaged_record_is_said(dashboard: Dashboard, run: RunFolder, open_window: Open) -> None:
    page = opened(open_window(), dashboard, run)
    database, _ = opened_record(run.path)
    database.write(lambda session: session.execute(text("alter table event rename to lost")))
    database.close()
    page.locator("html[data-feed=problem]").wait_for()
    assert page.locator(".feed .said").inner_text().startswith("No news. The record ")
    assert page.locator("#training .chart").count() == 2, "what was known is gone"


def test_a_wrong_password_is_refused_and_slowed(
    start_dashboard: Start, runs: Path, password_file: Path, open_window: Open, screenshots: Path
) -> None:
    guarded = start_dashboard(runs, "--password-file", str(password_file))
    page = open_window(java_script_enabled=False).page  # the login needs no script
    page.goto(guarded.address + "/study/first")
    for _ in range(6):
        page.keyboard.type("wrong")  # the field has the focus
        page.keyboard.press("Enter")
        page.wait_for_load_state()
    assert "Too many wrong passwords. Wait " in page.get_by_role("alert").inner_text()
    page.screenshot(path=screenshots / "login-slowed.png")
    wait = re.search(r"Wait (\d+) s", page.get_by_role("alert").inner_text())
    assert wait
    time.sleep(int(wait[1]) + 0.5)
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("That is not the password.")
    assert page.get_by_label("Password").get_attribute("aria-invalid") == "true"


def test_the_end_of_a_session_is_announced_and_leads_to_the_login_and_back(
    start_dashboard: Start, runs: Path, password_file: Path, open_window: Open, screenshots: Path
) -> None:
    guarded = start_dashboard(runs, "--password-file", str(password_file), "--idle-minutes", "0.14")
    page = open_window().page
    log_in(page, guarded)
    page.goto(guarded.address + "/study/first")
    warning = page.get_by_role("alertdialog", name=re.compile(r"^You will be logged out in \d s\.$"))
    link = page.get_by_role("link", name="Studies")
    link.focus()
    for _ in range(10):  # another page of the session keeps it: nobody is bothered in this one
        page.wait_for_timeout(300)
        assert page.request.post(f"{guarded.address}/session").ok
        expect(warning).to_be_hidden()
    warning.wait_for()
    expect(page.get_by_role("button", name="Stay")).to_be_focused()
    page.keyboard.press("Enter")
    warning.wait_for(state="hidden")
    expect(link).to_be_focused()
    warning.wait_for()  # later than the session would have ended
    assert page.url.endswith("/study/first")
    assert violations(page) == []
    page.screenshot(path=screenshots / "ending.png")
    page.wait_for_url("**/login?next=**", timeout=15_000)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/study/first")
    page.get_by_role("button", name="Log out").click()
    page.get_by_label("Password").wait_for()
    page.go_back()
    page.get_by_label("Password").wait_for()


def test_the_choice_of_colours_is_kept(dashboard: Dashboard, run: RunFolder, open_window: Open) -> None:
    page = opened(open_window(scheme="light"), dashboard, run)
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    all_drawn(page)
    page.get_by_label("Colours").select_option("Dark")
    dark = page.evaluate(ground)
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(20, 24, 29)")
    tick = "getComputedStyle(document.querySelector('#training .xtick text')).fill"
    eventually(lambda: page.evaluate(tick) == "rgb(231, 235, 239)")
    page.reload()
    assert page.evaluate(ground) == dark
    assert violations(page) == []
    page.get_by_label("Colours").select_option("As the system")
    assert page.evaluate(ground) == light
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(ground) == dark


def test_a_keyboard_is_enough(dashboard: Dashboard, open_window: Open) -> None:
    page = opened(open_window(), dashboard, "/")
    focused = "document.activeElement.textContent.trim()"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "Skip to the content"
    assert page.locator(".skip").evaluate("link => link.getBoundingClientRect().top") >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    seen = []
    for _ in range(4):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(focused))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        if seen[-1] == "test":
            break
    assert seen[-1] == "test"
    page.keyboard.press("Enter")
    page.wait_for_url("**/study/*")


def test_fifty_sites_with_long_names_and_late_ones_fit_on_a_phone(
    dashboard: Dashboard, runs: Path, open_window: Open, screenshots: Path
) -> None:
    study = "a-study-whose-name-is-as-long-as-a-name-can-be-and-not-a-letter"[:63]
    folder = runs / f"study-20261126-120000-{study}"
    folder.mkdir()
    names = [f"The Royal {number} Teaching Hospital of Obstetrics, Gynaecology and Paediatrics" for number in range(50)]
    add_record(folder, None, study, False, example_summary(names, 2))
    database, row = opened_record(folder)
    now = datetime.now(UTC)
    with recorder(folder) as record:
        record(Event("began", 2))
        record(Event("round-started", 3))
        for name in names[:10]:
            record(Event("asked", 3, name))
    for is_round, asked in ((SiteRoundRow.round < 3, 60), (SiteRoundRow.round == 3, 7200)):
        change = update(SiteRoundRow).where(SiteRoundRow.study == row, is_round, SiteRoundRow.site.in_(names[:8]))
        values = {"asked": now - timedelta(seconds=asked), "returned": now if asked == 60 else None}
        database.write(partial(Session.execute, statement=change.values(values)))
    database.close()
    page = opened(open_window(390), dashboard, RunFolder(folder))
    expect(page.locator(".late")).to_have_text(re.compile(r"^The Royal 0 .* and 3 more: longer than usual\.$"))
    now_slow = page.locator("#ladder td.now.slow")
    expect(now_slow).to_have_count(8)
    expect(now_slow.first).to_have_text("training since 2 h 0 min, longer than usual")
    assert page.locator("#ladder tbody th a").first.evaluate("link => link.offsetHeight") < 80, (
        "a name takes many lines"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "it scrolls sideways"
    assert violations(page) == []
    page.screenshot(path=screenshots / "study-fifty-390.png", full_page=True)


def test_scripts_in_names_do_nothing(dashboard: Dashboard, run: RunFolder, open_window: Open) -> None:
    window = open_window()
    page = opened(window, dashboard, run)
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    one = next_round()
    held_out = {HOSTILE if name == SITES[0] else name: it for name, it in one.held_out.items()}
    did = [each.model_copy(update={"site": HOSTILE}) if each.site == SITES[0] else each for each in one.sites]
    with recorder(run.path) as record:
        record(Event("joined", 0, HOSTILE, result=site_facts(HOSTILE, 200, 40, 0)))
        add_round(record, one.model_copy(update={"held_out": held_out, "sites": did}))
    page.get_by_role("button", name="Mercy</script>").wait_for()
    page.reload()
    page.get_by_role("button", name="Mercy</script>").wait_for()
    all_drawn(page)
    assert page.locator("img[src=x]").count() == 0
    page.goto(f"{dashboard.address}/study/{run.path.name}?x=<script>alert(1)</script>#<img src=x onerror=alert(2)>")
    page.locator("#training").wait_for()
    assert window.console == []


def test_an_attribute_that_got_into_a_page_could_not_run(
    dashboard: Dashboard, run: RunFolder, open_window: Open
) -> None:
    """What if something was not escaped? The policy of the page is the second wall."""
    window = open_window()
    page = opened(window, dashboard, run)
    page.evaluate("""() => {
        const part = document.createElement("div");
        part.innerHTML = "<img src='x:' onerror='window.ran = 1'><script>window.ran = 2</" + "script>";
        document.body.append(part);
        const script = document.createElement("script");
        script.textContent = "window.ran = 3";
        document.body.append(script);
    }""")
    page.wait_for_timeout(300)
    assert page.evaluate("window.ran") is None
    assert any("Content Security Policy" in said for said in window.console)


def test_twenty_viewers_at_once(start_dashboard: Start, run: RunFolder, open_window: Open, screenshots: Path) -> None:
    """Nineteen that only listen, and one that draws: twenty that draw would measure this machine's browser."""
    dashboard = start_dashboard(run.path.parent)
    alone = dashboard.memory()
    page = opened(open_window(), dashboard, run)
    page.evaluate("""() => new MutationObserver(() => {
        if (document.body.textContent.includes('New Hospital')) window.seen ??= Date.now();
    }).observe(document.body, { subtree: true, childList: true, characterData: true })""")

    async def watch() -> tuple[float, list[float]]:
        viewers = [Viewer() for _ in range(19)]
        await asyncio.gather(*(viewer.open(f"{dashboard.address}/study/{run.path.name}", NEW) for viewer in viewers))
        await asyncio.sleep(1)
        began = time.time()
        with recorder(run.path) as record:
            record(Event("joined", 0, NEW, result=site_facts(NEW, 200, 40, 0)))
        async with asyncio.timeout(30):
            while not all(viewer.seen for viewer in viewers):
                await asyncio.sleep(0.05)
        await asyncio.gather(*(viewer.close() for viewer in viewers))
        return began, [viewer.seen - began for viewer in viewers]

    began, took = run_apart(watch())
    eventually(lambda: page.evaluate("window.seen ?? 0"), 30)
    drawn = page.evaluate("window.seen") / 1000 - began
    memory = dashboard.memory()
    print(
        f"20 viewers: a change came after {min(took):.2f} to {max(took):.2f} s, was drawn after {drawn:.2f} s; "
        f"{memory / 1e6:.0f} MB, {alone / 1e6:.0f} MB before"
    )
    assert max(*took, drawn) < BUSY
    assert memory < 300e6
