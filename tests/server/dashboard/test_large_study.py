"""A study of 50 sites and 200 rounds: what its page weighs, and what it asks of the database. Seconds are measured by
benchmarks/dashboard.py."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dashboards import SECTION, Start, add_record
from example_summary import example_summary
from sqlalchemy import event, insert, literal, select
from sqlalchemy.orm import Session

from server.dashboard.library import Entry, Library
from server.dashboard.study import StudySource
from server.record.place import opened
from server.record.tables import HeldOutRow, RoundRow, SiteRoundRow

SITES, ROUNDS, WRITTEN = 50, 200, 4


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "large"
    run.mkdir()
    names = [f"Hospital {number:03d}" for number in range(SITES)]
    add_record(run, None, "large", False, example_summary(names, WRITTEN, metric="accuracy"))
    database, _ = opened(run)
    database.write(_more_rounds)
    database.close()
    return run.parent


def _more_rounds(session: Session) -> None:
    """The last that was written, again and again, with other losses."""
    for kind, name in ((RoundRow, "number"), (SiteRoundRow, "round"), (HeldOutRow, "round")):
        columns = kind.__table__.columns
        for number in range(WRITTEN + 1, ROUNDS + 1):
            instead = {name: literal(number)}
            if "loss" in columns:
                instead["loss"] = columns["loss"] * (1 + 0.001 * number)
            shown = [instead.get(one.name, one) for one in columns]
            session.execute(insert(kind).from_select(columns.keys(), select(*shown).where(columns[name] == WRITTEN)))


@pytest.fixture
def entry(runs: Path) -> Entry:
    found = Library(runs, None).entry("large")
    assert found
    return found


@contextmanager
def counted(entry: Entry) -> Iterator[list[str]]:
    """The statements that are sent to the database meanwhile."""
    said: list[str] = []

    def note(*given: object) -> None:
        if not str(given[2]).startswith("BEGIN"):
            said.append(str(given[2]))

    event.listen(entry.database.engine, "before_cursor_execute", note)
    yield said
    event.remove(entry.database.engine, "before_cursor_execute", note)


def test_few_questions_open_it_and_fewer_ask_whether_there_is_news(entry: Entry) -> None:
    source = StudySource(entry)
    with counted(entry) as opening:
        source.feed()
        source.sections()
    assert 5 < len(opening) <= 20, opening
    with counted(entry) as idle:
        source.feed()
    assert len(idle) <= 2, idle
    with counted(entry) as again:
        source.sections()
    assert len(again) <= len(opening) - 2, "rounds that have ended were read again"


def test_the_page_is_small_and_its_sections_are_bounded(start_dashboard: Start, runs: Path) -> None:
    dashboard = start_dashboard(runs)
    shown = dashboard.shown("/study/large")
    page = dashboard.get("/study/large")
    addresses = dict.fromkeys(SECTION.findall(page.text))
    zipped = [int(dashboard.get(one).headers["content-length"]) for one in addresses]
    print(f"page: {len(page.content):,} bytes, whole: {len(shown):,} characters; sections, zipped: {sum(zipped):,}")
    assert shown.count('class="cell returned"') >= 40 * (SITES - 1)
    assert len(page.content) < 20_000
    assert len(shown) < 1_200_000
    assert sum(zipped) < 350_000
