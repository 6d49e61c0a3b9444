"""The dashboard's templates, which use the macros of the report's; and the charts of a section."""

from pathlib import Path
from typing import Any

from server.dashboard import static
from server.report.shell import Charts, environment

HERE = Path(__file__).parent
_ENVIRONMENT = environment(HERE / "templates")
_ENVIRONMENT.globals["asset"] = static.address


def rendered(template: str, charts: Charts | None = None, **context: Any) -> str:
    """A template, escaped, and the data of the charts that it placed, which the page draws."""
    html = _ENVIRONMENT.get_template(template).render(context)
    if charts and charts.drawn:
        html += _ENVIRONMENT.get_template("figures.html").render(figures=charts.figures())
    return html
