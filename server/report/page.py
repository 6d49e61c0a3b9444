"""The page of a run: figures, tables and words put into the template."""

from typing import Any

from common.results import EmbeddingMap, Mode, ModelName, Summary
from server import figures
from server.figures.privacy import spent, unit
from server.figures.round_space import GAP, released
from server.figures.style import MODE_TITLES, MODEL_LABELS, MODEL_MARKS, Mark, marks, site_names
from server.figures.tasks import MODELS, metric_words, modes, task_names
from server.figures.training import part_name, part_names
from server.report import memorisation, privacy_words, round_tables, study_tables, tables, words
from server.report.privacy_section import privacy_section
from server.report.shell import Chart, Charts, assemble, embedding_section

Legend = dict[ModelName, tuple[str, Mark]]


# measure, title, axis, and how to read it
SPACE = [
    (
        GAP,
        "Cosine within a class minus between classes",
        "gap in mean cosine",
        "Higher: notes of one class lie nearer to each other than to the rest.",
    ),
    ("alignment", "Alignment", "alignment", "Lower: notes of one class lie closer together."),
    ("uniformity", "Uniformity", "uniformity", "Lower: all notes are spread out more evenly."),
    ("silhouette_label", "Silhouette by label", "silhouette", "Higher: the classes of the label lie apart."),
    ("silhouette_category", "Silhouette by category", "silhouette", "Higher: note categories lie apart."),
    ("effective_rank", "Effective rank", "dimensions", "How many dimensions the notes fill."),
    (
        "cka_base",
        "CKA to the public base",
        "CKA",
        "1: the same space, up to rotation and scale; lower: less alike.",
    ),
]


class Page:
    """Builds the sections that have charts."""

    def __init__(self, summary: Summary, charts: Charts) -> None:
        self.summary, self.charts = summary, charts
        used = modes(summary)
        # where all encoders are frozen, as is usual, the page does not go on about it
        self.mode_titles = {mode: "" if used == ["frozen"] else MODE_TITLES[mode] for mode in used}

    def training(self) -> list[Chart | None]:
        summary = self.summary
        fell = words.loss_sentence(summary)
        noise = " with noise" if spent(summary) else ""
        return [
            self.charts.add(
                "Held-out loss by round and site",
                f"Line chart of the held-out loss by round, one line a site. {fell}",
                figures.held_out_loss(summary),
                round_tables.held_out_table(summary),
            ),
            self.charts.add(
                f"Training loss{noise} by round and site",
                f"Line chart of the training loss{noise} by round, one line a site. The table below holds its values.",
                figures.training_loss(summary),
                round_tables.training_table(summary),
            ),
        ]

    def parts(self) -> list[Chart]:
        charts = [
            self.charts.add(
                part_name(part),
                f"Line chart of a part of the held-out loss, {part_name(part).lower()}, by round, one line a site. "
                "The table below holds its values.",
                figures.held_out_part(self.summary, part),
                round_tables.part_table(self.summary, part),
            )
            for part in part_names(self.summary)
        ]
        return [chart for chart in charts if chart]

    def task(self, task: str) -> dict[str, Any]:
        summary = self.summary
        used = modes(summary, task)
        return {
            "name": task,
            "metric": metric_words(summary, task),
            "modes": [self.mode(task, mode) for mode in used],
            "support": tables.support_table(summary, task),
            "few_shot": [found for mode in used if (found := self.few_shot(task, mode))[2]],
            "few_shot_tests": {s.site: s for s in summary.scores if s.task == task},
        }

    def mode(self, task: str, mode: Mode) -> dict[str, Any]:
        summary, metric = self.summary, metric_words(self.summary, task)
        of = ", ".join(filter(None, (task, self.mode_titles[mode].lower())))
        forests = [
            self.charts.add(
                f"Against {MODEL_LABELS[against]}",
                f"Forest plot for {of}: {metric} of the shared encoder minus {MODEL_LABELS[against]}, a row a site, "
                "with 95 % intervals. The table above holds its values.",
                figures.forest(summary, task, against, mode),
                None,
            )
            for against in words.baselines(summary)
        ]
        dots = self.charts.add(
            f"{words.capitalised(metric)} by site and model",
            f"Dot plot for {of}: {metric} of each model, a row a site, with 95 % intervals.",
            figures.score_dots(summary, task, mode),
            tables.score_table(summary, task, mode),
        )
        return {
            "mode": mode,
            "title": self.mode_titles[mode],
            "compared": tables.comparison_cells(summary, task, mode),
            "forests": [chart for chart in forests if chart],
            "dots": dots,
            "legend": self.legend([dots]),
        }

    def few_shot(self, task: str, mode: Mode) -> tuple[str, Legend, list[Chart]]:
        summary, metric = self.summary, metric_words(self.summary, task)
        of = ", ".join(filter(None, (task, self.mode_titles[mode].lower())))
        charts = [
            self.charts.add(
                site,
                f"Few-shot curves for {of} at {site}: {metric} by labelled notes a class, one line a model.",
                figures.few_shot(summary, task, site, mode),
                tables.few_shot_table(summary, task, site, mode),
            )
            for site in site_names(summary)
        ]
        return self.mode_titles[mode], self.legend(charts), [chart for chart in charts if chart]

    def space(self) -> dict[str, Any] | None:
        """How the embedding space of held-out notes moved; None where no site released figures of it."""
        summary, names = self.summary, site_names(self.summary)
        sites = {site for _, site, _ in released(summary)}
        charts = [
            (
                self.charts.add(
                    title,
                    f"Line chart: {title[0].lower() if name == GAP else title[0]}{title[1:]} of held-out notes by "
                    "round, one line a site. The table below holds its values.",
                    figures.space_lines(summary, name, axis),
                    round_tables.space_table(summary, name, title),
                ),
                note,
            )
            for name, title, axis, note in SPACE
        ]
        if not any(chart for chart, _ in charts):
            return None
        return {
            "charts": [(chart, note) for chart, note in charts if chart],
            "legend": {name: (name, mark) for name, mark in marks(names).items() if name in sites},
            "without": words.listed([name for name in names if name not in sites]),
            "table": round_tables.all_space_table(summary),
        }

    def legend(self, charts: list[Chart | None]) -> Legend:
        """Of the models that the charts show."""
        shown = {trace.legendgroup for chart in charts if chart for trace in chart.figure.data}
        return {model: (MODEL_LABELS[model], MODEL_MARKS[model]) for model in MODELS if model in shown}


def training_context(summary: Summary, charts: Charts) -> dict[str, Any]:
    """What sections/training.html shows."""
    page = Page(summary, charts)
    return {
        "how_lost": words.how_lost(summary),
        "loss_notes": privacy_words.loss_notes(summary),
        "training": page.training(),
        "parts": page.parts(),
        "site_legend": {name: (name, mark) for name, mark in marks(site_names(summary)).items()},
    }


def federation_context(summary: Summary, charts: Charts) -> dict[str, Any]:
    """What sections/federation.html and sections/labels.html show."""
    page = Page(summary, charts)
    return {
        "tasks": [page.task(task) for task in task_names(summary)],
        "helped": {(h.task, h.mode, h.site): h for h in words.helped(summary)},
        "how_scored": words.how_scored(summary),
        "how_used": words.how_used(summary),
        "model_labels": MODEL_LABELS,
        "compared": words.baselines(summary),
    }


def study_context(summary: Summary) -> dict[str, Any]:
    """What the sections on contribution, time, governance and incidents show."""
    return {
        "summary": summary,
        "contribution": study_tables.contribution_table(summary),
        "times": study_tables.time_table(summary),
        "slowest": study_tables.slowest_sentence(summary),
        "governance": study_tables.governance_table(summary),
        "incidents": study_tables.incident_list(summary),
        "actions": [],
    }


def memorisation_context(summary: Summary) -> dict[str, Any]:
    """What sections/memorisation.html shows."""
    return {
        "memorisation": memorisation.memorisation_sentences(summary),
        "memorisation_table": memorisation.memorisation_table(summary),
        "memorisation_how": memorisation.HOW_TO_READ,
    }


def sites_context(summary: Summary) -> dict[str, Any]:
    """What the macro `sites_section` shows."""
    return {
        "sites_table": tables.sites_table(summary.sites, use=True, unit=unit(summary)),
        "counts_note": privacy_words.counts_note(summary),
    }


def render(summary: Summary, embedding_map: EmbeddingMap | None = None) -> str:
    charts = Charts()
    page = Page(summary, charts)
    training, federation = training_context(summary, charts), federation_context(summary, charts)
    space = page.space()
    embedding = embedding_section(charts, embedding_map, site_names(summary))
    privacy = privacy_section(charts, summary)
    moved = sum(s.bytes_down + s.bytes_up for r in summary.rounds for s in r.sites)
    contents = [
        ("training", "Did training work?"),
        ("federation", "Does federation help?"),
        ("labels", "Few labels"),
        *([("space", "Embedding space")] if space else []),
        *([("map", "Embedding map")] if embedding else []),
        *([("privacy", "Privacy")] if privacy else []),
        ("memorisation", "Memorisation"),
        ("rounds", "Rounds"),
        ("contribution", "Contribution"),
        ("time", "Time and bytes"),
        ("governance", "Governance"),
        ("incidents", "Incidents"),
        ("sites", "Sites"),
    ]
    return assemble(
        "page.html",
        summary,
        charts,
        kind="Fednotes report",
        source="summary.json",
        summary=summary,
        message=summary.message,
        lead=words.lead(summary),
        privacy_print=privacy_words.small_print(summary, bool(embedding)),
        facts=_facts(summary, moved),
        contents=contents,
        **training,
        **federation,
        **{name: value for name, value in study_context(summary).items() if name != "summary"},
        **sites_context(summary),
        space=space,
        embedding=embedding,
        privacy=privacy,
        **memorisation_context(summary),
        rounds=[round_ for round_ in summary.rounds if round_.number > 0],
        ladder=round_tables.ladder(summary),
        left_out_of_rounds=round_tables.left_out_of_rounds(summary),
        rounds_table=round_tables.rounds_table(summary),
    )


def _facts(summary: Summary, moved: int) -> list[tuple[str, str]]:
    engines = {"inprocess": "in one process", "flower": "Flower", "servers": "real servers"}
    return [
        ("Objective", words.OBJECTIVES.get(summary.objective, summary.objective)),
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
