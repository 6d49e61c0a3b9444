"""The page: figures, tables and words put into the template."""

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
from server import figures
from server.figures.embedding import axis_title, embedding_marks
from server.figures.scores import MODELS
from server.figures.style import MODEL_LABELS, MODEL_MARKS, marks, site_names
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


class Page:
    """Collects the charts while the sections are built, so that the page knows every figure it has to draw."""

    def __init__(self, summary: Summary) -> None:
        self.summary = summary
        self.charts: list[Chart] = []

    def chart(
        self, title: str, label: str, figure: go.Figure, table: tables.Table | None, square: bool = False
    ) -> Chart | None:
        if not figure.data:
            return None
        # the page has one legend a section, in HTML: it wraps on a phone and serves all figures of the section
        figure.update_layout(showlegend=False)
        if square:
            # as high as it is wide on every screen: the page gives the height
            figure.layout.height = None
        chart = Chart(f"figure-{len(self.charts) + 1}", title, label, figure, table, square)
        self.charts.append(chart)
        return chart

    def training(self) -> list[Chart | None]:
        summary = self.summary
        fell = words.loss_sentence(summary)
        return [
            self.chart(
                "Held-out loss by round and site",
                f"Line chart of the held-out loss by round, one line a site. {fell}",
                figures.held_out_loss(summary),
                tables.loss_table(summary, "held-out"),
            ),
            self.chart(
                "Training loss by round and site",
                "Line chart of the training loss by round, one line a site. The table below holds its values.",
                figures.training_loss(summary),
                tables.loss_table(summary, "training"),
            ),
        ]

    def task(self, task: str) -> dict[str, Any]:
        summary = self.summary
        forests = [
            self.chart(
                f"Against {MODEL_LABELS[against]}",
                f"Forest plot for {task}: macro-F1 of the shared encoder minus {MODEL_LABELS[against]}, a row a site, "
                "with 95 % intervals. The table above holds its values.",
                figures.forest(summary, task, against),
                None,
            )
            for against in words.COMPARED
        ]
        dots = self.chart(
            "Macro-F1 by site and model",
            f"Dot plot for {task}: macro-F1 of each model, a row a site, with 95 % intervals.",
            figures.score_dots(summary, task),
            tables.score_table(summary, task),
        )
        sites = [name for name in site_names(summary) if any(s.task == task and s.site == name for s in summary.scores)]
        few_shot = [
            self.chart(
                site,
                f"Few-shot curves for {task} at {site}: macro-F1 by labelled notes a class, one line a model.",
                figures.few_shot(summary, task, site),
                tables.few_shot_table(summary, task, site),
            )
            for site in sites
        ]
        return {
            "name": task,
            "compared": tables.comparison_cells(summary, task),
            "forests": [chart for chart in forests if chart],
            "dots": dots,
            "support": tables.support_table(summary, task),
            "few_shot": [chart for chart in few_shot if chart],
            "few_shot_tests": {s.site: s for s in summary.scores if s.task == task},
            "legend": {
                model: (MODEL_LABELS[model], MODEL_MARKS[model])
                for model in MODELS
                if any(s.task == task and s.model == model for s in summary.scores)
            },
        }

    def embedding(self, embedding: EmbeddingMap | None) -> dict[str, Any] | None:
        if embedding is None or not embedding.points:
            return None
        sites = site_names(self.summary)
        axes = " and ".join(axis_title(embedding, i) for i in range(2))
        views = [
            {
                "chart": self.chart(
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


def render(summary: Summary, embedding_map: EmbeddingMap | None = None) -> str:
    page = Page(summary)
    training = page.training()
    compared_or_scored = [*(s.task for s in summary.scores), *(c.task for c in summary.comparisons)]
    tasks = [page.task(task) for task in dict.fromkeys(compared_or_scored)]
    embedding = page.embedding(embedding_map)
    script = (HERE / "page.js").read_text(encoding="utf-8")
    moved = sum(s.bytes_down + s.bytes_up for r in summary.rounds for s in r.sites)
    context = {
        "summary": summary,
        "no_dp": summary.privacy == NO_DP,
        "lead": words.lead(summary),
        "facts": _facts(summary, moved),
        "helped": {(h.task, h.site): h for h in words.helped(summary)},
        "training": training,
        "site_legend": {name: (name, mark) for name, mark in marks(site_names(summary)).items()},
        "model_labels": MODEL_LABELS,
        "compared": words.COMPARED,
        "tasks": tasks,
        "embedding": embedding,
        "rounds": [round_ for round_ in summary.rounds if round_.number > 0],
        "ladder": tables.ladder(summary),
        "left_out_of_rounds": tables.left_out_of_rounds(summary),
        "rounds_table": tables.rounds_table(summary),
        "sites_table": tables.sites_table(summary),
        "figures": {chart.id: json.loads(chart.figure.to_json()) for chart in page.charts},
        "style": Markup((HERE / "style.css").read_text(encoding="utf-8")),
        "plotly_js": Markup(_plotly_js()),
        "page_js": Markup(script),
        # only these two scripts may run, whatever a name or a category holds, and nothing may be fetched
        "script_hashes": Markup(" ".join(f"'sha256-{_digest(code)}'" for code in (_plotly_js(), script))),
    }
    return _environment().get_template("page.html").render(context).lstrip()


def _facts(summary: Summary, moved: int) -> list[tuple[str, str]]:
    engines = {"inprocess": "in one process", "flower": "Flower"}
    return [
        ("Base encoder", summary.base),
        ("Parameters", f"{summary.parameters:,}"),
        ("Shared parameters", f"{summary.shared_parameters:,}"),
        ("Sites", f"{len(summary.sites):,}"),
        ("Rounds done", f"{words.rounds_done(summary):,}"),
        ("Weights moved", words.size(moved)),
        ("Duration", words.duration(summary.seconds)),
        ("Started", words.moment(summary.started)),
        ("Finished", words.moment(summary.finished)),
        ("Engine", engines[summary.engine]),
        ("Seed", str(summary.seed)),
        ("Plan hash", summary.plan_hash),
        ("Versions", ", ".join(f"{name} {version}" for name, version in summary.versions.items())),
    ]


@cache
def _plotly_js() -> str:
    return get_plotlyjs()


def _digest(code: str) -> str:
    return base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"duration": words.duration, "counted": words.count, "signed": words.signed}
    return environment
