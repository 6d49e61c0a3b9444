"""Does federation help, and how many labels does it take: scores and differences with their 95 % intervals."""

from typing import Literal, get_args

import plotly.graph_objects as go

from common.results import Estimate, ModelName, Summary, TaskScore
from server.figures.curves import Curve, curves
from server.figures.style import (
    MODEL_LABELS,
    MODEL_MARKS,
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
    site_names,
    zero_line,
)

Metric = Literal["macro_f1", "accuracy", "auroc"]
METRIC_LABELS: dict[Metric, str] = {
    "macro_f1": "macro-F1",
    "accuracy": "accuracy",
    "auroc": "AUROC (macro, one class against the rest)",
}
MODELS: tuple[ModelName, ...] = get_args(ModelName)


def support_text(score: TaskScore) -> str:
    """`n = 120 test notes: cardiology 40, surgery 80`; what every score stands on."""
    classes = ", ".join(f"{name} {count}" for name, count in score.support.items())
    return f"n = {score.n_test:,} test notes: {classes}"


def score_dots(summary: Summary, task: str, metric: Metric = "macro_f1") -> go.Figure:
    """A row a site, a point a model, with intervals; all on the site's own test notes."""
    scores = [s for s in summary.scores if s.task == task and getattr(s, metric) is not None]
    sites = [name for name in site_names(summary) if any(s.site == name for s in scores)]
    models = [name for name in MODELS if any(s.model == name for s in scores)]
    traces = []
    for slot, model in enumerate(models):
        rows = [s for s in scores if s.model == model]
        values: list[Estimate] = [getattr(s, metric) for s in rows]
        look = MODEL_MARKS[model]
        # the models of a site stand below one another in its row, so that no interval hides another
        offset = (slot - (len(models) - 1) / 2) * 0.72 / max(len(models), 1)
        traces.append(
            go.Scatter(
                name=MODEL_LABELS[model],
                legendgroup=model,
                x=[value.value for value in values],
                y=[sites.index(s.site) + offset for s in rows],
                mode="markers",
                marker={"color": look.colour, "symbol": look.symbol, "size": marker_size(look, 9)},
                error_x=error_bars(values, look.colour),
                hovertext=[
                    f"{plain(s.site, 60)}: {MODEL_LABELS[model]}<br>{METRIC_LABELS[metric]} {interval(value)}"
                    f"<br>{plain(support_text(s), 160)}"
                    for s, value in zip(rows, values, strict=True)
                ],
                hoverinfo="text",
            )
        )
    reach = bounds(getattr(s, metric) for s in scores)
    tests = {s.site: s.n_test for s in scores}
    labels = [f"{label(site)}<br>n = {tests[site]:,}" for site in sites]
    return figure(
        traces,
        70 + max(56, 17 * len(models)) * max(len(sites), 1),
        xaxis=axis(METRIC_LABELS[metric], range=padded(*reach, 0, 1) if reach else None),
        yaxis=rows_axis(labels),
        shapes=[rule(i + 0.5) for i in range(len(sites) - 1)],
    )


def forest(summary: Summary, task: str, against: ModelName) -> go.Figure:
    """A row a site: macro-F1 of the shared encoder minus that of `against`; filled where the difference is clear.

    The axis is the same for every `against` of a task, so that figures beside one another can be compared.
    """
    of_task = [c for c in summary.comparisons if c.task == task]
    sites = [name for name in site_names(summary) if any(c.site == name for c in of_task)]
    rows = [c for c in of_task if c.against == against]
    look = MODEL_MARKS[against]
    trace = go.Scatter(
        name=MODEL_LABELS[against],
        legendgroup=against,
        x=[c.difference.value for c in rows],
        y=[sites.index(c.site) for c in rows],
        mode="markers",
        marker={
            "color": look.colour,
            "symbol": [look.symbol + ("-open" if c.verdict == "no clear difference" else "") for c in rows],
            "size": marker_size(look, 10),
            "line": {"color": look.colour, "width": 2},
        },
        error_x=error_bars([c.difference for c in rows], look.colour),
        hovertext=[
            f"{plain(c.site, 60)}, against {MODEL_LABELS[against]}<br>{interval(c.difference, signed=True)}"
            f"<br>{c.verdict}; n = {c.n_test:,} test notes"
            for c in rows
        ],
        hoverinfo="text",
    )
    reach = bounds([*(c.difference for c in of_task), Estimate(value=0)])
    labels = [label(site) for site in sites]
    return figure(
        [trace] if rows else [],
        80 + 38 * max(len(sites), 1),
        xaxis=axis("difference in macro-F1", range=padded(*reach) if reach else None, nticks=6),
        yaxis=rows_axis(labels),
        shapes=[zero_line()],
        showlegend=False,
    )


def few_shot(summary: Summary, task: str, site: str) -> go.Figure:
    """Macro-F1 by labelled notes a class at one site.

    The axes are the same for every site of a task. Intervals of the curves are over draws, that of the last point over
    test notes.
    """
    of_task = [s for s in summary.scores if s.task == task and s.few_shot]
    rows = sorted((s for s in of_task if s.site == site), key=lambda s: MODELS.index(s.model))
    return curves([_curve(score) for score in rows], [_curve(score) for score in of_task])


def _curve(score: TaskScore) -> Curve:
    stands_on = plain(support_text(score), 160)
    points: dict[int | None, tuple[Estimate, str]] = {
        f.shots: (f.macro_f1, f"{len(f.per_seed)} draws; {f.short_classes} classes had fewer<br>{stands_on}")
        for f in sorted(score.few_shot, key=lambda f: f.shots)
    }
    points[None] = (score.macro_f1, f"{score.n_train:,} training notes<br>{stands_on}")
    model = score.model
    return Curve(MODEL_LABELS[model], model, MODEL_MARKS[model], points, strong=model == "federated")
