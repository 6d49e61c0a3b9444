"""The page of a table: objectives x settings x seeds, as a grid of scores and the figures of the paper."""

from collections.abc import Iterable
from typing import Any

from common.results import POOLED, TOGETHER, EmbeddingMap
from common.table import Table
from server.figures.differences import difference_forest, pooled_differences
from server.figures.rows import MEAN_OF_SITES, Rows, model_label
from server.figures.space import MEASURES, alignment_uniformity, space_dots, space_place, spaces
from server.figures.style import MODE_LABELS, Mark
from server.figures.table_scores import mode_dots, table_few_shot
from server.report import privacy_words, table_data, table_words, tables, words
from server.report.grids import grids
from server.report.shell import Chart, Charts, assemble, embedding_section

Legend = dict[str, tuple[str, Mark]]
# title, axis, the measure of the filled points and that of the hollow ones
SPACE_DOTS = [
    ("Cosine within a class and between classes", "mean cosine", "within", "between"),
    ("Silhouette by label and by category", "silhouette", "silhouette_label", "silhouette_category"),
    ("Modularity by label and by category", "modularity", "modularity_label", "modularity_category"),
]
SPACE_NOTES = {
    "Alignment against uniformity": "Filled: federated or base; hollow: local-only; hollow with a dot: centralised. "
    "Low on both axes: notes of a class together, and all notes spread out.",
    SPACE_DOTS[0][0]: "Filled: within a class; hollow: between classes. The gap counts, not the level.",
    SPACE_DOTS[1][0]: "Filled: by the task's label; hollow: by note category. Higher: groups lie apart.",
    SPACE_DOTS[2][0]: "Filled: by the task's label; hollow: by note category. Higher: nearest notes are of one group.",
}


class TablePage:
    """Builds the sections that have charts."""

    def __init__(self, table: Table) -> None:
        self.rows = Rows(table)
        self.charts = Charts()

    def legend(self, charts: Iterable[Chart | None]) -> Legend:
        """Of the arms that the charts show, in the table's order."""
        shown = {trace.legendgroup for chart in charts if chart for trace in chart.figure.data}
        return {arm: (model_label(arm), mark) for arm, mark in self.rows.marks.items() if arm in shown}

    def scores(self, task: str) -> dict[str, Any]:
        rows = self.rows
        return {
            "name": task,
            "grids": [grid for place in (POOLED, TOGETHER, MEAN_OF_SITES) for grid in grids(rows, task, place)],
            "sites": [(site, grids(rows, task, site)) for site in rows.sites],
            "support": table_data.support_tables(rows, task),
        }

    def few_labels(self, task: str) -> dict[str, Any]:
        rows = self.rows
        modes = []
        for mode in rows.modes(task):
            charts = [
                self.charts.add(
                    setting,
                    f"Few-shot curves for {task}, {MODE_LABELS[mode]}, {setting} {table_words.where(rows)}: macro-F1 "
                    "by labelled notes a class, one line an objective.",
                    table_few_shot(rows, task, mode, setting),
                    table_data.few_shot_table(rows, task, mode, setting),
                )
                for setting in rows.settings
            ]
            if any(charts):
                modes.append((MODE_LABELS[mode], self.legend(charts), [chart for chart in charts if chart]))
        return {"name": task, "modes": modes}

    def tuning(self, task: str) -> dict[str, Any]:
        chart = self.charts.add(
            "Macro-F1 with all labels, by how the encoder was used",
            f"Dot plot for {task}: macro-F1 of each encoder, frozen and tuned, {table_words.where(self.rows)}.",
            mode_dots(self.rows, task),
            table_data.mode_table(self.rows, task),
        )
        return {"name": task, "chart": chart, "legend": self.legend([chart])}

    def differences(self, task: str) -> dict[str, Any]:
        rows = self.rows
        by_mode = {mode: pooled_differences(rows.table, task, mode) for mode in MODE_LABELS}
        alike = [d for found in by_mode.values() for of in found.values() for d in of]
        modes = []
        for mode, found in by_mode.items():
            charts = [
                self.charts.add(
                    f"Against {table_words.the(name)}",
                    f"Forest plot for {task}, {MODE_LABELS[mode]}: macro-F1 minus that of {table_words.the(name)} "
                    "on the pooled test notes, with 95 % intervals.",
                    difference_forest(rows, differences, alike),
                    table_data.difference_table(differences),
                )
                for name, differences in found.items()
            ]
            if any(charts):
                modes.append((MODE_LABELS[mode], self.legend(charts), charts))
        return {"name": task, "modes": modes}

    def space(self) -> dict[str, Any] | None:
        rows = self.rows
        place = space_place(rows)
        found = spaces(rows, place)
        if not found:
            return None

        charts = [
            self.charts.add(
                "Alignment against uniformity",
                "Scatter plot of alignment and uniformity, a point an encoder. The table below holds its values.",
                alignment_uniformity(rows, found),
                table_data.space_table(found, ["alignment", "uniformity"], "Alignment and uniformity"),
            ),
            *(
                self.charts.add(
                    title,
                    f"{title}: a row an encoder, a point each. The table below holds its values.",
                    space_dots(rows, found, filled, hollow, axis),
                    table_data.space_table(found, [filled, hollow], title),
                )
                for title, axis, filled, hollow in SPACE_DOTS
            ),
        ]
        names = {POOLED: "Over the notes of all sites", MEAN_OF_SITES: "Mean over the sites"}
        return {
            "where": names[place].lower(),
            "charts": [(chart, SPACE_NOTES[chart.title]) for chart in charts if chart],
            "legend": self.legend(charts),
            "rank": table_data.space_table(
                found, ["effective_rank", "cka_base", "cka_local"], f"Effective rank and CKA, {names[place].lower()}"
            ),
            "tables": [
                table_data.space_table(there, list(MEASURES), name)
                for at, name in names.items()
                if (there := spaces(rows, at))
            ],
        }


def render_table(table: Table, map: EmbeddingMap | None = None) -> str:
    page = TablePage(table)
    rows = page.rows
    scores = [page.scores(task) for task in rows.tasks]
    few_labels = [found for task in rows.tasks if (found := page.few_labels(task))["modes"]]
    tuning = [found for task in rows.tasks if (found := page.tuning(task))["chart"]]
    differences = [found for task in rows.tasks if (found := page.differences(task))["modes"]]
    space = page.space()
    embedding = embedding_section(page.charts, map, rows.sites)
    contents = [
        ("table", "The table"),
        ("labels", "Few labels"),
        ("tuning", "Frozen or tuned"),
        ("differences", "Differences"),
        ("space", "Embedding space"),
        *([("map", "Embedding map")] if embedding else []),
        ("consumed", "What each consumed"),
        ("sites", "Sites"),
    ]
    return assemble(
        "table.html",
        table,
        page.charts,
        kind="Fednotes table",
        source="table.json",
        table=table,
        message="",
        lead=table_words.lead(rows),
        privacy_print=privacy_words.table_small_print(table),
        verdicts=table_words.verdicts(rows),
        facts=_facts(table),
        contents=contents,
        several=len(rows.tasks) > 1,
        where=table_words.where(rows),
        scores=scores,
        few_labels=few_labels,
        tuning=tuning,
        differences=differences,
        false_alarms=table_words.false_alarms(table),
        space=space,
        embedding=embedding,
        budget=table_words.budget_sentence(rows),
        consumed=table_data.consumed_table(rows),
        sites_table=tables.sites_table(table.sites),
    )


def _facts(table: Table) -> list[tuple[str, str]]:
    return [
        ("Base encoder", table.base),
        ("Parameters", f"{table.parameters:,}"),
        ("Sites", f"{len(table.sites):,}"),
        ("Rounds", f"{table.rounds:,}"),
        ("Tokens a site and round", "no budget" if table.token_budget is None else f"{table.token_budget:,}"),
        ("Seeds", ", ".join(str(seed) for seed in table.seeds)),
        ("Cells", f"{len(table.cells):,} of {max(table.planned, len(table.cells)):,}"),
        ("Duration", words.duration(table.seconds)),
        ("Started", words.moment(table.started)),
        ("Finished" if table.status == "finished" else "Last written", words.moment(table.finished)),
        ("Plan hash", table.plan_hash),
        ("Versions", ", ".join(f"{name} {version}" for name, version in table.versions.items())),
    ]
