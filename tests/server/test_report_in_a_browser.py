"""The report as a file on a disk, opened in a real browser: its figures are drawn, and it asks nobody for anything."""

from pathlib import Path

import pytest
from browsing import Open, all_drawn, violations
from example_summary import example_map, example_summary
from example_table import example_table

from server.report import write_report, write_table_report


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_draws_itself_without_a_network(
    tmp_path: Path, open_window: Open, screenshots: Path, scheme: str
) -> None:
    path = tmp_path / "report.html"
    write_report(example_summary(), path, example_map())
    window = open_window(scheme=scheme)
    page = window.page
    page.goto(path.as_uri())
    page.locator("html.drawn").wait_for()
    assert 0 < page.locator(".main-svg").count() < page.locator(".chart").count(), "what is far away is drawn at once"
    page.locator(".chart").last.scroll_into_view_if_needed()
    page.locator(".chart").last.locator(".main-svg").first.wait_for()
    all_drawn(page)
    assert page.locator(".chart").count() == page.locator(".chart > .plot-container").count() > 5
    ink = {"light": "rgb(29, 36, 44)", "dark": "rgb(231, 235, 239)"}[scheme]
    assert page.evaluate("getComputedStyle(document.querySelector('.xtick text')).fill") == ink
    assert violations(page) == []
    assert window.console == [] and window.asked == [path.as_uri()]
    page.screenshot(path=screenshots / f"report-{scheme}.png")


def test_the_legend_hides_in_all_figures_of_its_section(tmp_path: Path, open_window: Open) -> None:
    path = tmp_path / "report.html"
    write_report(example_summary(), path)
    page = open_window().page
    page.goto(path.as_uri())
    page.locator("html.drawn").wait_for()
    lines = page.locator("#training .scatterlayer .trace")
    before, button = lines.count(), page.locator("#training .legend button").first
    charts = page.locator("#training .chart").count()
    button.click()
    page.wait_for_function(
        "n => document.querySelectorAll('#training .scatterlayer .trace').length == n", arg=before - charts
    )
    button.click()
    page.wait_for_function("n => document.querySelectorAll('#training .scatterlayer .trace').length == n", arg=before)


def test_the_report_of_a_table_draws_itself(tmp_path: Path, open_window: Open) -> None:
    path = tmp_path / "table.html"
    write_table_report(example_table(), path)
    window = open_window(390)
    window.page.goto(path.as_uri())
    all_drawn(window.page)
    assert violations(window.page) == []
    assert window.console == [] and window.asked == [path.as_uri()]
