"""The frame of every page: its charts, its scripts and their hashes, the environment of the templates."""

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from common.results import NO_DP, EmbeddingMap, Summary
from common.table import Table
from server import figures
from server.figures.embedding import axis_title, embedding_marks
from server.report import tables, words

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Chart:
    """A figure of the page, the sentence that stands for it where it cannot be seen, and its data as a table."""

    id: str
    title: str
    label: str
    figure: go.Figure
    table: tables.Table | None
    square: bool = False


class Charts:
    """Collects the charts while the sections are built, so that the page knows every figure it has to draw."""

    def __init__(self, prefix: str = "figure") -> None:
        """`prefix`: of the charts' ids; sections of one page that collect their own charts differ in it."""
        self.prefix = prefix
        self.drawn: list[Chart] = []

    def add(
        self, title: str, label: str, figure: go.Figure, table: tables.Table | None, square: bool = False
    ) -> Chart | None:
        """The chart, with a place on the page; None where the figure has nothing to show."""
        if not figure.data:
            return None
        # the page has one legend a section, in HTML: it wraps on a phone and serves all figures of the section
        figure.update_layout(showlegend=False)
        if square:
            # as high as it is wide on every screen: the page gives the height
            figure.layout.height = None
        chart = Chart(f"{self.prefix}-{len(self.drawn) + 1}", title, label, figure, table, square)
        self.drawn.append(chart)
        return chart

    def figures(self) -> dict[str, Any]:
        """What Plotly is to draw, by the place on the page."""
        return {chart.id: json.loads(chart.figure.to_json()) for chart in self.drawn}


def embedding_section(charts: Charts, embedding: EmbeddingMap | None, sites: list[str]) -> dict[str, Any] | None:
    """The two views of the map, by category and by site; None without a map."""
    if embedding is None or not embedding.points:
        return None
    axes = " and ".join(axis_title(embedding, i) for i in range(2))
    views = [
        {
            "chart": charts.add(
                f"By {by}",
                f"Scatter plot of {len(embedding.points)} simulated notes on {axes}, coloured by {by}.",
                figures.embedding_map(embedding, by, sites),
                None,
                square=True,
            ),
            "legend": {name: (name, mark) for name, mark in embedding_marks(embedding, by, sites).items()},
        }
        for by in ("category", "site")
    ]
    return {"map": embedding, "views": views, "table": tables.embedding_table(embedding)}


def assemble(template: str, result: Summary | Table, charts: Charts, **context: Any) -> str:
    """A whole page from a template that extends base.html."""
    script = "".join((HERE / name).read_text(encoding="utf-8") for name in ("charts.js", "page.js"))
    frame = {
        "result": result,
        "no_dp": NO_DP in result.privacy,  # a table says it of some of its arms, perhaps
        "figures": charts.figures(),
        "style": Markup((HERE / "style.css").read_text(encoding="utf-8")),
        "dark_style": Markup((HERE / "dark.css").read_text(encoding="utf-8")),
        "plotly_js": Markup(plotly_js()),
        "page_js": Markup(script),
        # only these two scripts may run, whatever a name or a category holds, and nothing may be fetched
        "script_hashes": Markup(" ".join(f"'sha256-{_digest(code)}'" for code in (plotly_js(), script))),
    }
    return environment().get_template(template).render(frame | context).lstrip()


@cache
def plotly_js() -> str:
    return get_plotlyjs()


def _digest(code: str) -> str:
    return base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()


@cache
def environment(*more: Path) -> Environment:
    """Of the report's templates, and of those in `more` folders that use its macros: everything is escaped."""
    made = Environment(
        loader=FileSystemLoader([*more, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"duration": words.duration, "counted": words.count, "signed": words.signed}
    return made
