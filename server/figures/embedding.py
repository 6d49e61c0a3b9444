"""The map of the embedding space, for simulated notes only."""

from typing import Literal

import plotly.graph_objects as go

from common.results import EmbeddingMap, EmbeddingPoint
from server.figures.style import Mark, axis, figure, marker_size, marks, plain


def embedding_marks(
    embedding: EmbeddingMap, by: Literal["category", "site"], sites: list[str] | None = None
) -> dict[str, Mark]:
    """The marks of the map's groups; `sites` is the study's order, so that a site keeps its colour on the map."""
    found = sorted({getattr(point, by) for point in embedding.points})
    looks = marks([*(sites or []), *found] if by == "site" else found)
    return {name: look for name, look in looks.items() if name in found}


def embedding_map(
    embedding: EmbeddingMap, by: Literal["category", "site"], sites: list[str] | None = None
) -> go.Figure:
    """One point a note, coloured by `by`. Distances on one axis are as long as on the other."""
    groups: dict[str, list[EmbeddingPoint]] = {}
    for point in embedding.points:
        groups.setdefault(getattr(point, by), []).append(point)
    traces = [
        go.Scatter(
            name=plain(name, 40),
            legendgroup=name,
            x=[point.x for point in groups[name]],
            y=[point.y for point in groups[name]],
            mode="markers",
            marker={"color": look.colour, "symbol": look.symbol, "size": marker_size(look, 6), "opacity": 0.9},
            hovertext=[
                f"{plain(point.label, 80)}<br>{plain(point.category, 60)}; {plain(point.site, 60)}"
                for point in groups[name]
            ],
            hoverinfo="text",
        )
        for name, look in embedding_marks(embedding, by, sites).items()
    ]
    titles = [axis_title(embedding, i) for i in range(2)]
    hidden = {"showticklabels": False, "nticks": 8}
    return figure(
        traces,
        460,
        xaxis=axis(titles[0], **hidden),
        yaxis=axis(titles[1], scaleanchor="x", constrain="domain", **hidden),
    )


def axis_title(embedding: EmbeddingMap, index: int) -> str:
    name = plain(f"{embedding.method} {index + 1}")
    if index < len(embedding.explained):
        return f"{name} ({embedding.explained[index]:.0%} of the variance)"
    return name
