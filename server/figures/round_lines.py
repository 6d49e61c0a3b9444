"""Lines over the rounds of a run, one a site; or over those of several runs, one a run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from common.results import Summary
from server.figures.style import axis, figure, marks, plain, site_names

Point = tuple[float, str]  # a value, and what it says when it is pointed at
_MANY = 60  # rounds: from there on a line has no marks, and a point says its value alone


def round_lines(
    summary: Summary, points: Mapping[str, Mapping[int, Point]], y_title: str, height: int = 380
) -> go.Figure:
    """Values by site and round."""
    return named_lines(site_names(summary), points, y_title, height)


def named_lines(
    names: Sequence[str], points: Mapping[str, Mapping[int, Point]], y_title: str, height: int = 380
) -> go.Figure:
    """A line a name. A round without a value is a gap in the line, never drawn over."""
    looks = marks(names)
    rounds = sorted({number for line in points.values() for number in line})
    traces = []
    for site in (name for name in names if name in points):
        look, line = looks[site], points[site]
        shown = plain(site, 60)
        said: dict[str, Any] = {"hovertemplate": f"{shown}, round %{{x}}<br>%{{y:.4f}}<extra></extra>", "mode": "lines"}
        if len(rounds) <= _MANY:
            texts = [f"{shown}, round {number}<br>{line[number][1]}" if number in line else "" for number in rounds]
            size = 8 if len(rounds) <= 12 else 4
            marker = {"symbol": look.symbol, "size": size}
            said = {"hovertext": texts, "hoverinfo": "text", "mode": "lines+markers", "marker": marker}
        traces.append(
            go.Scatter(
                name=plain(site, 40),
                legendgroup=site,
                x=np.array(rounds),
                y=np.array([line[number][0] if number in line else np.nan for number in rounds]),
                line={"color": look.colour, "dash": look.dash, "width": 2},
                **said,
            )
        )
    ticks = {"dtick": 1} if len(rounds) <= 12 else {"nticks": 12, "tickformat": "d"}
    span = [rounds[0] - 0.3, rounds[-1] + 0.3] if rounds else None
    x_title = "round (0 is the base)" if rounds and rounds[0] == 0 else "round"
    return figure(traces, height, xaxis=axis(x_title, showgrid=False, range=span, **ticks), yaxis=axis(y_title))
