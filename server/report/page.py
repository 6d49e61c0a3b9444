"""The page of a run: figures, tables and words put into the template."""

from typing import Any

from common.results import EmbeddingMap, Summary
from server import figures
from server.figures.scores import MODELS
from server.figures.style import MODEL_LABELS, MODEL_MARKS, marks, site_names
from server.report import tables, words
from server.report.shell import Chart, Charts, assemble, embedding_section


class Page:
    """Builds the sections that have charts."""

    def __init__(self, summary: Summary) -> None:
        self.summary = summary
        self.charts = Charts()

    def training(self) -> list[Chart | None]:
        summary = self.summary
        fell = words.loss_sentence(summary)
        return [
            self.charts.add(
                "Held-out loss by round and site",
                f"Line chart of the held-out loss by round, one line a site. {fell}",
                figures.held_out_loss(summary),
                tables.loss_table(summary, "held-out"),
            ),
            self.charts.add(
                "Training loss by round and site",
                "Line chart of the training loss by round, one line a site. The table below holds its values.",
                figures.training_loss(summary),
                tables.loss_table(summary, "training"),
            ),
        ]

    def task(self, task: str) -> dict[str, Any]:
        summary = self.summary
        forests = [
            self.charts.add(
                f"Against {MODEL_LABELS[against]}",
                f"Forest plot for {task}: macro-F1 of the shared encoder minus {MODEL_LABELS[against]}, a row a site, "
                "with 95 % intervals. The table above holds its values.",
                figures.forest(summary, task, against),
                None,
            )
            for against in words.COMPARED
        ]
        dots = self.charts.add(
            "Macro-F1 by site and model",
            f"Dot plot for {task}: macro-F1 of each model, a row a site, with 95 % intervals.",
            figures.score_dots(summary, task),
            tables.score_table(summary, task),
        )
        sites = [name for name in site_names(summary) if any(s.task == task and s.site == name for s in summary.scores)]
        few_shot = [
            self.charts.add(
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


def render(summary: Summary, embedding_map: EmbeddingMap | None = None) -> str:
    page = Page(summary)
    training = page.training()
    compared_or_scored = [*(s.task for s in summary.scores), *(c.task for c in summary.comparisons)]
    tasks = [page.task(task) for task in dict.fromkeys(compared_or_scored)]
    embedding = embedding_section(page.charts, embedding_map, site_names(summary))
    moved = sum(s.bytes_down + s.bytes_up for r in summary.rounds for s in r.sites)
    contents = [
        ("training", "Did training work?"),
        ("federation", "Does federation help?"),
        ("labels", "Few labels"),
        *([("map", "Embedding map")] if embedding else []),
        ("rounds", "Rounds"),
        ("sites", "Sites"),
    ]
    return assemble(
        "page.html",
        summary,
        page.charts,
        kind="Fednotes report",
        source="summary.json",
        summary=summary,
        message=summary.message,
        lead=words.lead(summary),
        facts=_facts(summary, moved),
        contents=contents,
        helped={(h.task, h.site): h for h in words.helped(summary)},
        training=training,
        site_legend={name: (name, mark) for name, mark in marks(site_names(summary)).items()},
        model_labels=MODEL_LABELS,
        compared=words.COMPARED,
        tasks=tasks,
        embedding=embedding,
        rounds=[round_ for round_ in summary.rounds if round_.number > 0],
        ladder=tables.ladder(summary),
        left_out_of_rounds=tables.left_out_of_rounds(summary),
        rounds_table=tables.rounds_table(summary),
        sites_table=tables.sites_table(summary.sites),
    )


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
