"""What a person sees while a simulation runs."""

import io
import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from common.plan import StudyPlan
from common.results import NO_DP
from server.display import Log, Page
from server.events import Event


def page_text(page: Page) -> str:
    console = Console(file=io.StringIO(), width=110)
    console.print(page._render())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_page_shows_round_sites_losses_and_why_a_site_is_out(make_plan: Callable[..., StudyPlan]) -> None:
    with Page(Console(file=io.StringIO(), force_terminal=True)) as page:
        page.study(make_plan(federation={"rounds": 9}), ["north", "south"], "Federation")
        for event in (Event("held-out", 0, "north", "9.100"), Event("round-started", 1), Event("round-ended", 1)):
            page.event(event)
        page.event(Event("round-started", 2))
        page.step("north", 3, 8)
        page.event(Event("held-out", 2, "north", "8.200"))
        page.event(Event("left-out", 2, "south", "no reply in time"))
        text = page_text(page)
    for part in ("round 2 of 9", NO_DP, "9.100 → 8.200", "3/8", "south", "no reply in time", "left"):
        assert part in text


def test_a_private_study_shows_its_guarantee_and_not_the_lack_of_one(make_plan: Callable[..., StudyPlan]) -> None:
    plan = make_plan(privacy={"unit": "note", "epsilon": 8.0, "delta": 1e-6})
    guarantee = "differential privacy for each note: epsilon at most 8 at delta 1e-06"
    page = Page(Console(file=io.StringIO(), force_terminal=True))
    page.study(plan, ["north"], "Federation")
    page.say("Scoring at north")  # the guarantee stays on the page between studies
    log = Log(Console(file=io.StringIO(), width=80))
    log.study(plan, ["north"], "Federation")
    assert isinstance(log.console.file, io.StringIO)
    assert len(log.console.file.getvalue().splitlines()) == 1
    for text in (page_text(page), log.console.file.getvalue()):
        assert guarantee in " ".join(text.split())
        assert NO_DP not in text


def test_what_is_promised_is_shown_before_the_first_study() -> None:
    page = Page(Console(file=io.StringIO(), force_terminal=True))
    page.promise(NO_DP)
    page.say("Reading the notes")
    assert NO_DP in page_text(page)


def test_a_page_of_many_sites_stays_short(make_plan: Callable[..., StudyPlan]) -> None:
    page = Page(Console(file=io.StringIO(), force_terminal=True))
    page.study(make_plan(), [f"site-{i}" for i in range(50)], "Federation")
    assert len(page_text(page).splitlines()) <= 16
    assert "and 38 more" in page_text(page)


def test_a_log_is_a_few_lines_however_many_rounds(make_plan: Callable[..., StudyPlan]) -> None:
    console = Console(file=io.StringIO(), width=110)
    log = Log(console)
    log.study(make_plan(), ["a"], "Federation")
    log.rounds = 100
    for number in range(1, 101):
        log.event(Event("round-ended", number, text="1.0 s"))
    assert isinstance(console.file, io.StringIO)
    assert len(console.file.getvalue().splitlines()) == 5


def test_on_a_real_terminal_few_lines_are_left(
    command: list[str],
    environment: dict[str, str],
    plan_file: Callable[..., Path],
    notes_file: str,
    tmp_path: Path,
) -> None:
    line = [*command, "simulate", str(plan_file()), "--notes", notes_file, "--sites", "2", "--out", str(tmp_path / "r")]
    master, slave = pty.openpty()
    process = subprocess.Popen(line, env=environment | {"TERM": "xterm"}, cwd=tmp_path, stdout=slave, stderr=slave)
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # Linux says so when the last writer has gone
            break
        if not part:
            break
        shown += part
    assert process.wait() == 0, shown[-2000:]
    assert b"round" in shown
    # The live page erases itself: what follows its last erasure is what stays.
    left = shown.rsplit(b"\x1b[2K", 1)[-1].decode()
    assert 4 <= len(left.strip().splitlines()) <= 15
    assert NO_DP in left


def test_the_progress_of_a_table_is_a_row_an_arm() -> None:
    progress: dict = {("mlm", "local-only"): (1, 2), ("mlm", "federated"): (0, 2), ("base", "as it is"): (1, 1)}
    page = Page(Console(file=io.StringIO(), force_terminal=True))
    page.cells(progress, "mlm, federated, seed 1")
    text = page_text(page)
    assert "1 of 2" in text and "0 of 2" in text and "federated" in text and "base" in text
    log = Log(Console(file=io.StringIO(), width=110))
    log.cells(progress, "mlm, federated, seed 1")
    assert isinstance(log.console.file, io.StringIO)
    assert log.console.file.getvalue() == "2 of 5 cells done; now mlm, federated, seed 1\n"
