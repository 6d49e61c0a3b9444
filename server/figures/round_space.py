"""How the embedding space of the held-out notes changes over the rounds of a run, at the sites that release figures."""

import math

import plotly.graph_objects as go

from common.results import Space, Summary
from server.figures.round_lines import Point, round_lines
from server.figures.space import MEASURES

GAP = "gap"  # between the cosines within a class and between classes: the gap counts, not their level


def measure(space: Space, name: str) -> float | None:
    """A field of `Space`, or `GAP`; None where it is undefined."""
    if name == GAP:
        value = space.within - space.between if space.within is not None and space.between is not None else None
    else:
        value = getattr(space, name)
    return value if value is not None and math.isfinite(value) else None


def space_lines(summary: Summary, name: str, axis: str) -> go.Figure:
    """One line a site; round 0 is the base before any training.

    Args:
        name: a field of `Space`, or `GAP`.
        axis: its title.
    """
    points: dict[str, dict[int, Point]] = {}
    for number, site, space in released(summary):
        if (value := measure(space, name)) is not None:
            shown = [key for key in ("within", "between") if measure(space, key) is not None] if name == GAP else []
            lines = [f"{axis} {_number(value)}", *(f"{MEASURES[key]} {getattr(space, key):.3f}" for key in shown)]
            text = "<br>".join([*lines, f"{space.notes:,} held-out notes"])
            points.setdefault(site, {})[number] = (value, text)
    return round_lines(summary, points, axis, 280)


def released(summary: Summary) -> list[tuple[int, str, Space]]:
    """Round, site and figures, wherever a site released them."""
    return [
        (round_.number, site, held_out.space)
        for round_ in summary.rounds
        for site, held_out in round_.held_out.items()
        if held_out.space is not None
    ]


def _number(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")
