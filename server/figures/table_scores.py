"""The scores of a table: few-shot curves, and each encoder frozen and tuned."""

from typing import Any

import plotly.graph_objects as go

from common.results import Mode
from common.table import Setting
from server.figures.curves import Curve, curves
from server.figures.rows import Column, Row, Rows, Value
from server.figures.style import (
    MODE_LABELS,
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
)

# The colour is the objective's, so that it is the fill that tells how the encoder was used.
MODE_FILLS: dict[Mode, str] = {"frozen": "-open", "fine-tuned": "", "lora": "-open-dot"}


def table_few_shot(rows: Rows, task: str, mode: Mode, setting: Setting) -> go.Figure:
    """A line an objective in one setting, beside the lines of what was not trained.

    The axes are the same for every setting.
    """
    shown = [*rows.untrained, *(row for row in rows.trained if row.setting == setting)]
    alike = [_curve(rows, row, task, mode) for row in rows.all]
    lines = [_curve(rows, row, task, mode) for row in shown]
    return curves(
        lines if any(row.trained and line.shots for row, line in zip(shown, lines, strict=True)) else [], alike
    )


def mode_dots(rows: Rows, task: str) -> go.Figure:
    """A row an encoder, a point a mode, with all labels: what tuning adds to a frozen encoder."""
    found = {
        (row, mode): value
        for row in rows.all
        for mode in rows.modes(task)
        if (value := rows.at(row, Column(task, mode), rows.place))
    }
    modes = [mode for mode in rows.modes(task) if any(there == mode for _, there in found)]
    encoders = [row for row in rows.all if any((row, mode) in found for mode in modes if mode != "frozen")]
    traces: list[Any] = []
    for arm in dict.fromkeys(row.arm for row in encoders):
        points = [
            (row, mode, value)
            for row in encoders
            for mode in modes
            if row.arm == arm and (value := found.get((row, mode)))
        ]
        look = rows.marks[arm]
        traces.append(
            go.Scatter(
                name=plain(points[0][0].name if not points[0][0].trained else arm, 40),
                legendgroup=arm,
                x=[value.estimate.value for _, _, value in points],
                y=[
                    encoders.index(row) + (modes.index(mode) - (len(modes) - 1) / 2) * 0.66 / len(modes)
                    for row, mode, _ in points
                ],
                mode="markers",
                marker={
                    "color": look.colour,
                    "symbol": [look.symbol + MODE_FILLS[mode] for _, mode, _ in points],
                    "size": marker_size(look, 9),
                    "line": {"color": look.colour, "width": 2},
                },
                error_x=error_bars([value.estimate for _, _, value in points], look.colour, 1.1),
                hovertext=[
                    f"{plain(row.name, 60)}, {MODE_LABELS[mode]}<br>macro-F1 {interval(value.estimate)}"
                    f"<br>{stands_on(value)}"
                    for row, mode, value in points
                ],
                hoverinfo="text",
            )
        )
    reach = bounds(found[row, mode].estimate for row in encoders for mode in modes if (row, mode) in found)
    return figure(
        traces if len(modes) > 1 else [],
        70 + 34 * max(len(encoders), 1),
        xaxis=axis("macro-F1", range=padded(*reach, 0, 1) if reach else None, nticks=8),
        yaxis=rows_axis([label(row.name, 26) for row in encoders]),
        shapes=arm_rules(encoders),
    )


def arm_rules(rows: list[Row]) -> list[dict[str, Any]]:
    """Lines between the rows of two arms."""
    return [rule(i + 0.5) for i in range(len(rows) - 1) if rows[i].arm != rows[i + 1].arm]


def stands_on(value: Value) -> str:
    """`mean over 2 seeds, interval over seeds; n = 412 test notes`."""
    seeds = f"mean over {value.seeds} seeds" if value.seeds > 1 else "one seed"
    over = f", interval over {value.over}" if value.over else ""
    sites = f" at {value.sites} sites" if value.sites > 1 else ""
    return f"{seeds}{over}; n = {value.n_test:,} test notes{sites}"


def _curve(rows: Rows, row: Row, task: str, mode: Mode) -> Curve:
    labels = [*rows.shots(task, mode), None]
    values = {n: value for n in labels if (value := rows.at(row, Column(task, mode, n), rows.place))}
    points = {n: (value.estimate, stands_on(value)) for n, value in values.items()}
    return Curve(plain(row.name, 60), row.arm, rows.marks[row.arm], points, strong=row.trained)
