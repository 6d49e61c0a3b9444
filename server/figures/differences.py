"""The differences of a table on the pooled test notes, as forests: right of zero the row is better than the other."""

from typing import Any

import plotly.graph_objects as go

from common.results import POOLED, Estimate, Mode, ModelName
from common.table import Difference, Table
from server.figures.rows import AS_IT_IS, Row, Rows, finite, model_label
from server.figures.style import (
    axis,
    bounds,
    error_bars,
    figure,
    interval,
    label,
    marker_size,
    padded,
    plain,
    rows_axis,
    rule,
    zero_line,
)

COMPARED: tuple[ModelName, ...] = ("base", "tf-idf", "majority", "local-only", "centralised", "federated")


def row_of(difference: Difference) -> Row:
    return Row(difference.arm, difference.setting)


def against(difference: Difference) -> str:
    """What the row is compared with, in words: its own self in another setting is named by the setting alone."""
    other = Row(difference.against_arm, difference.against_setting)
    if other.trained and other.arm == difference.arm:
        return "federated training" if other.setting == "federated" else model_label(other.setting)
    return other.name


def pooled_differences(table: Table, task: str, mode: Mode) -> dict[str, list[Difference]]:
    """By what they are against, in the order of a run's report; other objectives come last."""
    chosen = [
        d.model_copy(update={"difference": difference})
        for d in table.differences
        if (d.site, d.task, d.mode) == (POOLED, task, mode) and (difference := finite(d.difference))
    ]
    found: dict[str, list[Difference]] = {}
    for d in sorted(chosen, key=_order):
        found.setdefault(against(d), []).append(d)
    return found


def difference_forest(rows: Rows, differences: list[Difference], alike: list[Difference]) -> go.Figure:
    """A row a difference, under the name of what is compared; filled where the difference is clear.

    Args:
        alike: the differences of the figures that share the axis.
    """
    order = {row: i for i, row in enumerate(rows.all)}
    chosen = sorted(differences, key=lambda d: (order.get(row_of(d), len(order)), d.shots is not None, d.shots or 0))
    few_labels = any(d.shots is not None for d in chosen)
    names: list[str] = []
    places: list[int] = []
    rules: list[dict[str, Any]] = []
    for i, difference in enumerate(chosen):
        name = label(_name(row_of(difference)))
        if few_labels and (i == 0 or row_of(chosen[i - 1]) != row_of(difference)):
            if names:
                rules.append(rule(len(names) - 0.5))
            names.append(f"<b>{name}</b>")
        places.append(len(names))
        names.append(labels_a_class(difference.shots) if few_labels else name)
    traces = []
    for arm in dict.fromkeys(d.arm for d in chosen):
        look = rows.marks[arm]
        points = [(d, y) for d, y in zip(chosen, places, strict=True) if d.arm == arm]
        estimates = [d.difference for d, _ in points]
        traces.append(
            go.Scatter(
                name=plain(arm, 40),
                legendgroup=arm,
                x=[estimate.value for estimate in estimates],
                y=[y for _, y in points],
                mode="markers",
                marker={
                    "color": look.colour,
                    "symbol": [
                        look.symbol + ("-open" if d.verdict == "no clear difference" else "") for d, _ in points
                    ],
                    "size": marker_size(look, 10),
                    "line": {"color": look.colour, "width": 2},
                },
                error_x=error_bars(estimates, look.colour),
                hovertext=[
                    f"{plain(row_of(d).name, 60)}, against {plain(against(d), 60)}; {labels_a_class(d.shots)}"
                    f"<br>{interval(estimate, signed=True)}<br>{d.verdict}; n = {d.n_test:,} test notes"
                    for (d, _), estimate in zip(points, estimates, strict=True)
                ],
                hoverinfo="text",
            )
        )
    reach = bounds([*(d.difference for d in alike), Estimate(value=0)])
    return figure(
        traces,
        80 + 26 * max(len(names), 1),
        xaxis=axis("difference in macro-F1", range=padded(*reach) if reach else None, nticks=6),
        yaxis=rows_axis(names),
        shapes=[zero_line(), *rules],
    )


def labels_a_class(shots: int | None) -> str:
    return "all labels" if shots is None else f"{shots} a class"


def _name(row: Row) -> str:
    # what is compared is the federated encoder, unless it says otherwise
    return row.arm if row.setting == "federated" else row.name


def _order(difference: Difference) -> int:
    kind = difference.against_arm if difference.against_setting == AS_IT_IS else difference.against_setting
    own = difference.against_setting == AS_IT_IS or difference.against_arm == difference.arm
    names: list[str] = [*COMPARED]
    return names.index(kind) if own and kind in names else len(names)
