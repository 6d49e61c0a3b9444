"""Few-shot curves: a score by labelled notes a class, and a point apart on the right for all labels."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from common.results import Estimate
from server.figures.style import Mark, axis, bounds, error_bars, figure, interval, marker_size, padded


@dataclass(frozen=True)
class Curve:
    """One line: by labels a class (None is all labels) a score and, in words, what it stands on.

    `metric` is the score's name in words.
    """

    name: str
    group: str
    mark: Mark
    points: dict[int | None, tuple[Estimate, str]]
    strong: bool = False
    metric: str = "macro-F1"

    @property
    def shots(self) -> list[int]:
        return sorted(n for n in self.points if n is not None)


def curves(lines: list[Curve], alike: Iterable[Curve]) -> go.Figure:
    """The curves that have few-shot scores, on axes that hold the curves `alike`, so that figures can be compared."""
    together = [curve for curve in [*alike, *lines] if curve.shots]
    shots = sorted({n for curve in together for n in curve.shots})
    last = math.log2(shots[-1]) + 1.2 if shots else 0.0
    lines = [curve for curve in lines if curve.shots]
    traces: list[Any] = []
    for slot, curve in enumerate(lines):
        # beside one another, so that no interval hides another
        offset = (slot - (len(lines) - 1) / 2) * 0.09
        traces.append(_trace(curve, {n: math.log2(n) + offset for n in curve.shots}))
        if None in curve.points:
            traces.append(_trace(curve, {None: last + offset}))
    metrics = dict.fromkeys(curve.metric for curve in together)
    reach = bounds(estimate for curve in together for estimate, _ in curve.points.values())
    ticks = {"tickvals": [*(math.log2(n) for n in shots), last], "ticktext": [*(str(n) for n in shots), "all"]}
    span = [math.log2(shots[0]) - 0.4, last + 0.4] if shots else None
    return figure(
        traces,
        300,
        xaxis=axis("labelled notes a class", showgrid=False, range=span, **ticks),
        yaxis=axis(" or ".join(metrics), range=padded(*reach, 0, 1) if reach else None, nticks=6),
    )


def _trace(curve: Curve, places: dict[int | None, float]) -> go.Scatter:
    look, whole = curve.mark, None in places
    points = [curve.points[n] for n in places]
    labels = ["all labels" if n is None else f"{n} labels a class" for n in places]
    line: dict[str, Any] = {"mode": "markers", "showlegend": False}
    if not whole:
        width = 2.6 if curve.strong else 1.6
        line = {"mode": "lines+markers", "line": {"color": look.colour, "dash": look.dash, "width": width}}
    return go.Scatter(
        name=f"{curve.name}, all labels" if whole else curve.name,
        legendgroup=curve.group,
        x=list(places.values()),
        y=[estimate.value for estimate, _ in points],
        marker={"color": look.colour, "symbol": look.symbol, "size": marker_size(look, 7)},
        error_y=error_bars([estimate for estimate, _ in points], look.colour, 1.6 if whole else 1.1),
        hovertext=[
            f"{curve.name}, {label}<br>{curve.metric} {interval(estimate)}<br>{stands_on}"
            for label, (estimate, stands_on) in zip(labels, points, strict=True)
        ],
        hoverinfo="text",
        **line,
    )
