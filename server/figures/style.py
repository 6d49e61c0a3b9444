"""One colour and one symbol a model, and one a site, in every figure; and the layout that all figures share."""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from common.results import Estimate, Mode, ModelName, Summary

# Okabe and Ito's palette, which people with the common colour-vision deficiencies can tell apart. Yellow is left out
# (it vanishes on white) and grey stands for black (which vanishes on a dark page). The strongest come first.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, GREY = "#E69F00", "#56B4E9", "#7F858C"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, GREY)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross")
DASHES = ("solid", "dash", "dot")

GRID = "rgba(127,133,140,0.28)"
AXIS = "rgba(127,133,140,0.9)"
CLEAR = "rgba(0,0,0,0)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True)
class Mark:
    """How one model, site or category looks wherever it is drawn; no two of up to 21 look the same."""

    colour: str
    symbol: str
    dash: str = "solid"


MODEL_MARKS: dict[ModelName, Mark] = {
    "federated": Mark(BLUE, "circle"),
    "base": Mark(GREY, "square"),
    "local-only": Mark(VERMILION, "diamond"),
    "centralised": Mark(GREEN, "triangle-up"),
    "tf-idf": Mark(PURPLE, "triangle-down"),
    "majority": Mark(ORANGE, "cross"),
}
MODEL_LABELS: dict[ModelName, str] = {
    "federated": "shared (federated)",
    "base": "public base",
    "local-only": "local-only training",
    "centralised": "centralised training",
    "tf-idf": "TF-IDF",
    "majority": "majority class",
}
MODE_LABELS: dict[Mode, str] = {"frozen": "frozen encoder", "fine-tuned": "fine-tuned", "lora": "tuned with LoRA"}
MODE_TITLES: dict[Mode, str] = {
    "frozen": "Encoder frozen",
    "fine-tuned": "Encoder fine-tuned",
    "lora": "Adapters (LoRA)",
}


def marks(names: Iterable[str], palette: tuple[str, ...] = PALETTE) -> dict[str, Mark]:
    """A mark a name, in the order given."""
    return {
        name: Mark(
            palette[i % len(palette)],
            # 6 symbols and 7 (or 5) colours share no divisor, so names that share a colour differ in symbol
            SYMBOLS[i % len(SYMBOLS)],
            DASHES[i // len(palette) % len(DASHES)],
        )
        for i, name in enumerate(dict.fromkeys(names))
    }


def marker_size(mark: Mark, size: int) -> int:
    """A triangle covers less than a circle of the same size, so it is drawn larger."""
    return size + 2 if mark.symbol.startswith("triangle") else size


def site_names(summary: Summary) -> list[str]:
    """Every site that took part, in the study's order; one that only a round or a score names comes after."""
    names = [site.name for site in summary.sites]
    names += [site.site for round_ in summary.rounds for site in round_.sites]
    names += [site for round_ in summary.rounds for site in round_.held_out]
    names += [score.site for score in summary.scores]
    names += [comparison.site for comparison in summary.comparisons]
    return list(dict.fromkeys(names))


def plain(text: str, limit: int = 0) -> str:
    """Text that Plotly shows as it is: Plotly reads some HTML in labels, so none is let through."""
    text = " ".join(text.split())
    if limit and len(text) > limit:
        text = text[: limit - 1].rstrip() + "…"
    return _escaped(text)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def label(text: str, width: int = 20) -> str:
    """A name beside an axis: on two lines at most, so that a long one leaves room for the figure."""
    lines = textwrap.wrap(text, width, max_lines=2, placeholder="…") or [""]
    return "<br>".join(_escaped(line) for line in lines)


def interval(estimate: Estimate, digits: int = 3, signed: bool = False) -> str:
    """`0.712 (0.655 to 0.769)`; a difference carries its sign."""

    def number(value: float) -> str:
        return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")

    if estimate.low is None or estimate.high is None:
        return f"{number(estimate.value)} (no interval)"
    return f"{number(estimate.value)} ({number(estimate.low)} to {number(estimate.high)})"


def error_bars(estimates: list[Estimate], colour: str, thickness: float = 1.6) -> dict[str, Any]:
    """Plotly's asymmetric error bars for 95 % intervals; none where an estimate has no interval."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [0.0 if e.high is None else max(0.0, e.high - e.value) for e in estimates],
        "arrayminus": [0.0 if e.low is None else max(0.0, e.value - e.low) for e in estimates],
        "color": colour,
        "thickness": thickness,
        "width": 3,
    }


def bounds(estimates: Iterable[Estimate]) -> tuple[float, float] | None:
    """The least and the greatest value that the estimates and their intervals reach; None without estimates."""
    values = [v for e in estimates for v in (e.value, e.low, e.high) if v is not None]
    return (min(values), max(values)) if values else None


def padded(low: float, high: float, floor: float | None = None, ceiling: float | None = None) -> list[float]:
    """A range for an axis with room for the markers at both ends."""
    room = 0.06 * (high - low) or 0.05
    low, high = low - room, high + room
    # a little beyond the limit, so that a marker on it is not cut
    low = low if floor is None else max(low, floor - room / 2)
    high = high if ceiling is None else min(high, ceiling + room / 2)
    return [low, high]


def axis(title: str, **options: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "title": {"text": title, "standoff": 10, "font": {"size": 13}},
        "gridcolor": GRID,
        "linecolor": AXIS,
        "zeroline": False,
        "automargin": True,
        "ticks": "",
        "fixedrange": True,
    }
    return base | options


def rows_axis(labels: list[str]) -> dict[str, Any]:
    """A vertical axis of named rows, the first on top. Positions are numbers, so two equal labels stay two rows."""
    ticks = {"tickmode": "array", "tickvals": list(range(len(labels))), "ticktext": labels}
    return axis("", range=[len(labels) - 0.5, -0.5], showgrid=False, **ticks)


def rule(y: float) -> dict[str, Any]:
    """A thin line between two rows."""
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": {"color": GRID, "width": 1}}


def zero_line() -> dict[str, Any]:
    return {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": AXIS}}


def figure(traces: list[Any], height: int, **options: Any) -> go.Figure:
    layout: dict[str, Any] = {
        "template": go.layout.Template(),
        "height": height,
        "margin": {"l": 8, "r": 16, "t": 12, "b": 8},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "font": {"family": FONT, "size": 13, "color": "#1d242c"},
        "hoverlabel": {"align": "left", "font": {"family": FONT, "size": 13}},
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        # dragging on a phone scrolls the page, it does not zoom the figure
        "dragmode": False,
    }
    return go.Figure(traces, go.Layout(layout | options))
