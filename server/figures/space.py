"""The shape of the embedding spaces of a table: cosines, alignment and uniformity, and how far classes lie apart."""

import math
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from common.results import POOLED, Space
from common.table import Cell
from server.figures.rows import MEAN_OF_SITES, Place, Row, Rows
from server.figures.style import Mark, axis, figure, label, marker_size, padded, plain, rows_axis
from server.figures.table_scores import arm_rules

MEASURES: dict[str, str] = {
    "within": "within a class",
    "between": "between classes",
    "alignment": "alignment",
    "uniformity": "uniformity",
    "silhouette_label": "silhouette by label",
    "silhouette_category": "silhouette by category",
    "modularity_label": "modularity by label",
    "modularity_category": "modularity by category",
    "effective_rank": "effective rank",
    "cka_base": "CKA to the public base",
    "cka_local": "CKA to local-only training",
}
# In the one figure without a row for each encoder the fill tells the setting.
SETTING_FILLS: dict[str, str] = {"federated": "", "local-only": "-open", "centralised": "-open-dot", "as it is": ""}


@dataclass(frozen=True)
class RowSpace:
    """A row's embedding space: the mean over seeds, and over sites where that is asked."""

    row: Row
    notes: int
    seeds: int
    measures: dict[str, float]


def spaces(rows: Rows, place: Place) -> list[RowSpace]:
    """Of every row that has one, in the table's order."""
    found = []
    for row in rows.all:
        by_seed = [there for cell in rows.cells.get(row, {}).values() if (there := _of_cell(cell, place))]
        if by_seed:
            means = [{name: getattr(space, name) for name in MEASURES} for space in by_seed]
            found.append(RowSpace(row, by_seed[0].notes, len(by_seed), _mean(means)))
    return found


def space_place(rows: Rows) -> Place:
    """Where most rows have a space: over all notes, or at the sites (a local-only encoder knows no other)."""
    return max((POOLED, MEAN_OF_SITES), key=lambda place: len(spaces(rows, place)))


def alignment_uniformity(rows: Rows, found: list[RowSpace]) -> go.Figure:
    """A point a row: to the left notes of one class lie nearer, further down all notes are spread more evenly."""
    points = [space for space in found if {"alignment", "uniformity"} <= space.measures.keys()]
    traces = []
    for arm in dict.fromkeys(space.row.arm for space in points):
        look, of_arm = rows.marks[arm], [space for space in points if space.row.arm == arm]
        traces.append(
            go.Scatter(
                name=plain(arm, 40),
                legendgroup=arm,
                x=[space.measures["alignment"] for space in of_arm],
                y=[space.measures["uniformity"] for space in of_arm],
                mode="markers",
                marker=_marker(look, [SETTING_FILLS[space.row.setting] for space in of_arm], 11),
                hovertext=[_hover(space, ["alignment", "uniformity"]) for space in of_arm],
                hoverinfo="text",
            )
        )
    return figure(
        traces,
        360,
        xaxis=axis("alignment (lower: classes closer)", range=_reach(points, ["alignment"]), nticks=6),
        yaxis=axis("uniformity (lower: spread out)", range=_reach(points, ["uniformity"]), nticks=6),
    )


def space_dots(rows: Rows, found: list[RowSpace], filled: str, hollow: str, title: str) -> go.Figure:
    """A row an encoder, with two measures as a filled and a hollow point that a line joins."""
    shown = [space for space in found if {filled, hollow} & space.measures.keys()]
    traces: list[Any] = []
    for i, space in enumerate(shown):
        look = rows.marks[space.row.arm]
        there = [(name, fill) for name, fill in ((filled, ""), (hollow, "-open")) if name in space.measures]
        traces.append(
            go.Scatter(
                name=plain(space.row.name, 40),
                legendgroup=space.row.arm,
                x=[space.measures[name] for name, _ in there],
                y=[i] * len(there),
                mode="lines+markers",
                line={"color": look.colour, "width": 1.4},
                marker=_marker(look, [fill for _, fill in there], 9),
                hovertext=[_hover(space, [name for name, _ in there])] * len(there),
                hoverinfo="text",
            )
        )
    return figure(
        traces,
        70 + 28 * max(len(shown), 1),
        xaxis=axis(title, range=_reach(shown, [filled, hollow]), nticks=6),
        yaxis=rows_axis([label(space.row.name, 26) for space in shown]),
        shapes=arm_rules([space.row for space in shown]),
    )


def _of_cell(cell: Cell, place: Place) -> Space | None:
    if place is not MEAN_OF_SITES:
        return next((there.space for there in cell.space if there.site == place), None)
    at_sites = [there.space for there in cell.space if there.site != POOLED]
    if not at_sites:
        return None
    means = _mean([{name: getattr(space, name) for name in MEASURES} for space in at_sites])
    return Space(notes=sum(space.notes for space in at_sites), **means)


def _mean(measured: list[dict[str, float | None]]) -> dict[str, float]:
    """Of each measure, over those that have it."""
    found = {}
    for name in MEASURES:
        values = [v for one in measured if (v := one[name]) is not None and math.isfinite(v)]
        if values:
            found[name] = math.fsum(values) / len(values)
    return found


def _marker(look: Mark, fills: list[str], size: int) -> dict[str, Any]:
    return {
        "color": look.colour,
        "symbol": [look.symbol + fill for fill in fills],
        "size": marker_size(look, size),
        "line": {"color": look.colour, "width": 2},
    }


def _hover(space: RowSpace, names: list[str]) -> str:
    values = "<br>".join(f"{MEASURES[name]} {space.measures[name]:.3f}" for name in names)
    return f"{plain(space.row.name, 60)}<br>{values}<br>{space.notes:,} held-out notes"


def _reach(found: list[RowSpace], names: list[str]) -> list[float] | None:
    values = [space.measures[name] for space in found for name in names if name in space.measures]
    return padded(min(values), max(values)) if values else None
