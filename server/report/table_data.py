"""The data behind the figures of a table, and what each cell consumed: plain cells, which the template escapes."""

from common.results import POOLED, TOGETHER, Mode, TaskScore
from common.table import Cell, Difference, Setting
from server.figures.differences import against, labels_a_class, row_of
from server.figures.rows import Column, Rows
from server.figures.space import MEASURES, RowSpace
from server.figures.style import MODE_LABELS, interval
from server.report.tables import NOTHING, WITHHELD, Table, support_of
from server.report.words import duration


def few_shot_table(rows: Rows, task: str, mode: Mode, setting: Setting) -> Table:
    """The curves of one setting, beside what was not trained."""
    shown = [*rows.untrained, *(row for row in rows.trained if row.setting == setting)]
    labels = [*rows.shots(task, mode), None]
    found = [
        [row.name, "all" if n is None else str(n), interval(value.estimate), value.over or NOTHING, f"{value.seeds}"]
        for row in shown
        if any(rows.at(row, Column(task, mode, n), rows.place) for n in labels[:-1])
        for n in labels
        if (value := rows.at(row, Column(task, mode, n), rows.place))
    ]
    columns = ["row", "labels a class", "macro-F1", "interval over", "seeds"]
    return Table(f"Macro-F1 by labels, {MODE_LABELS[mode]}", columns, found, frozenset({0, 3}))


def mode_table(rows: Rows, task: str) -> Table:
    """Every encoder in every mode, with all labels."""
    modes = rows.modes(task)
    found = []
    for row in rows.all:
        values = [rows.at(row, Column(task, mode), rows.place) for mode in modes]
        if any(values):
            found.append([row.name, *(interval(value.estimate) if value else NOTHING for value in values)])
    return Table("Macro-F1 with all labels", ["row", *(MODE_LABELS[mode] for mode in modes)], found)


def difference_table(differences: list[Difference]) -> Table:
    found = [
        [
            row_of(d).name,
            against(d),
            labels_a_class(d.shots),
            interval(d.difference, signed=True),
            d.verdict,
            f"{d.n_test:,}",
            f"{d.seeds}",
        ]
        for d in differences
    ]
    columns = ["row", "against", "labels", "difference in macro-F1", "verdict", "test notes (n)", "seeds"]
    return Table("Differences with their 95 % intervals", columns, found, frozenset({0, 1, 2, 4}))


def space_table(found: list[RowSpace], names: list[str], caption: str) -> Table:
    """The measures of `names`, of every row that has one of them."""
    shown = [name for name in names if any(name in space.measures for space in found)]
    rows = [
        [
            space.row.name,
            *(f"{space.measures[name]:.3f}" if name in space.measures else NOTHING for name in shown),
            f"{space.notes:,}",
            f"{space.seeds}",
        ]
        for space in found
        if any(name in space.measures for name in shown)
    ]
    return Table(caption, ["row", *(MEASURES[name] for name in shown), "held-out notes", "seeds"], rows)


def consumed_table(rows: Rows) -> Table:
    """What each trained row took: means over its seeds."""
    columns = ["row", "seeds", "steps", "tokens", "notes in whole", "shortened", "too short", "time"]
    found = []
    for row in rows.trained:
        cells = list(rows.cells.get(row, {}).values())
        if cells:
            steps, tokens, *notes = [
                f"{_mean(cells, name):,.0f}" for name in ("steps", "tokens", "whole", "shortened", "too_short")
            ]
            if tokens == "0" and steps != "0":  # with private training no site says how many it read
                tokens = WITHHELD
            found.append([row.name, f"{len(cells)}", steps, tokens, *notes, duration(_mean(cells, "seconds"))])
    return Table("What training a cell consumed, over all sites; means over seeds", columns, found)


def support_tables(rows: Rows, task: str) -> Table:
    """What the scores of a task stand on, the pooled test notes first."""
    order = {site: i for i, site in enumerate([POOLED, TOGETHER, *rows.sites])}
    scores: list[TaskScore] = [s for cell in rows.table.cells for s in cell.scores if s.task == task]
    return support_of(sorted(scores, key=lambda score: order.get(score.site, len(order))))


def _mean(cells: list[Cell], name: str) -> float:
    return float(sum(getattr(cell.consumed, name) for cell in cells) / len(cells))
