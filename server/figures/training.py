"""Did training work: the loss by round and site."""

import math
from collections.abc import Mapping

import plotly.graph_objects as go

from common.results import Summary
from server.figures.style import axis, figure, marks, plain, site_names

Point = tuple[float, str]


def held_out_loss(summary: Summary) -> go.Figure:
    """One line a site; round 0 is the base before any training. A lower loss is better."""
    points: dict[str, dict[int, Point]] = {}
    for round_ in summary.rounds:
        for site, held_out in round_.held_out.items():
            if math.isfinite(held_out.loss):
                text = f"{held_out.notes:,} held-out notes, {held_out.tokens:,} tokens"
                points.setdefault(site, {})[round_.number] = (held_out.loss, text)
    return _lines(summary, points, "held-out loss (nats a masked token)")


def training_loss(summary: Summary) -> go.Figure:
    """One line a site, over the rounds from which it returned."""
    points: dict[str, dict[int, Point]] = {}
    for round_ in summary.rounds:
        for site in round_.sites:
            if site.state == "returned" and site.loss is not None and math.isfinite(site.loss):
                text = f"{site.notes:,} notes, {site.steps:,} steps, {site.tokens:,} tokens"
                points.setdefault(site.site, {})[round_.number] = (site.loss, text)
    return _lines(summary, points, "training loss (nats a masked token)")


def _lines(summary: Summary, points: Mapping[str, Mapping[int, Point]], y_title: str) -> go.Figure:
    names = site_names(summary)
    looks = marks(names)
    rounds = sorted({number for line in points.values() for number in line})
    traces = []
    for site in (name for name in names if name in points):
        look, line = looks[site], points[site]
        traces.append(
            go.Scatter(
                name=plain(site, 40),
                legendgroup=site,
                x=rounds,
                # a round without a value is a gap in the line, never drawn over
                y=[line[number][0] if number in line else None for number in rounds],
                mode="lines+markers",
                line={"color": look.colour, "dash": look.dash, "width": 2},
                marker={"symbol": look.symbol, "size": 8 if len(rounds) <= 12 else 4},
                hovertext=[
                    f"{plain(site, 60)}, round {number}<br>loss {line[number][0]:.4f}<br>{line[number][1]}"
                    if number in line
                    else ""
                    for number in rounds
                ],
                hoverinfo="text",
            )
        )
    ticks = {"dtick": 1} if len(rounds) <= 12 else {"nticks": 12, "tickformat": "d"}
    span = [rounds[0] - 0.3, rounds[-1] + 0.3] if rounds else None
    x_title = "round (0 is the base)" if rounds and rounds[0] == 0 else "round"
    return figure(traces, 380, xaxis=axis(x_title, showgrid=False, range=span, **ticks), yaxis=axis(y_title))
