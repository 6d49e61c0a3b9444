"""Does federation help, and how many labels does it take: scores and differences with their 95 % intervals."""

from collections.abc import Iterable

import plotly.graph_objects as go

from common.results import Estimate, FewShot, Mode, ModelName, Summary, TaskScore
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
from server.figures.tasks import METRIC_LABELS, MODELS, metric_words, mode_scores, own, own_few

AUROC = "AUROC (macro, one class against the rest)"


def support_text(score: TaskScore) -> str:
    """`n = 120 test notes: cardiology 40, surgery 80`; what every score stands on, as far as it left the site."""
    if not score.support:
        return f"n = {score.n_test:,} test notes; the classes stay at the site"
    classes = ", ".join(f"{name} {count}" for name, count in score.support.items())
    return f"n = {score.n_test:,} test notes: {classes}"


def score_dots(summary: Summary, task: str, mode: Mode = "frozen", auroc: bool = False) -> go.Figure:
    """A row a site, a point a model, with intervals; all on the site's own test notes.

    The axis is the same for every mode of a task.

    Args:
        auroc: show that, in place of the task's metric.
    """

    def values(scores: Iterable[TaskScore]) -> list[tuple[TaskScore, Estimate]]:
        found = ((s, s.auroc if auroc else own(s)) for s in scores)
        return [(s, value) for s, value in found if value is not None]

    scores = values(mode_scores(summary, task, mode))
    sites = [name for name in site_names(summary) if any(s.site == name for s, _ in scores)]
    models = [name for name in MODELS if any(s.model == name for s, _ in scores)]
    traces = []
    for slot, model in enumerate(models):
        rows = [(s, value) for s, value in scores if s.model == model]
        look = MODEL_MARKS[model]
        # the models of a site stand below one another in its row, so that no interval hides another
        offset = (slot - (len(models) - 1) / 2) * 0.72 / max(len(models), 1)
        traces.append(
            go.Scatter(
                name=MODEL_LABELS[model],
                legendgroup=model,
                x=[value.value for _, value in rows],
                y=[sites.index(s.site) + offset for s, _ in rows],
                mode="markers",
                marker={"color": look.colour, "symbol": look.symbol, "size": marker_size(look, 9)},
                error_x=error_bars([value for _, value in rows], look.colour),
                hovertext=[
                    f"{plain(s.site, 60)}: {MODEL_LABELS[model]}"
                    f"<br>{'AUROC' if auroc else METRIC_LABELS[s.metric]} {interval(value)}"
                    f"<br>{plain(support_text(s), 160)}"
                    for s, value in rows
                ],
                hoverinfo="text",
            )
        )
    reach = bounds(value for _, value in values(s for s in summary.scores if s.task == task))
    stands_on = {s.site: _stands_on(s, [other for other, _ in scores]) for s, _ in scores}
    labels = [f"{label(site)}<br>{stands_on[site]}" for site in sites]
    title = AUROC if auroc else metric_words(summary, task)
    return figure(
        traces,
        70 + max(56, 17 * len(models)) * max(len(sites), 1),
        xaxis=axis(title, range=padded(*reach, 0, 1) if reach else None),
        yaxis=rows_axis(labels),
        shapes=[rule(i + 0.5) for i in range(len(sites) - 1)],
    )


def forest(summary: Summary, task: str, against: ModelName, mode: Mode = "frozen") -> go.Figure:
    """A row a site: the metric of the shared encoder minus that of `against`; filled where the difference is clear.

    The axis is the same for every `against` and mode of a task, so that figures beside one another can be compared.
    """
    of_task = [c for c in summary.comparisons if c.task == task]
    sites = [name for name in site_names(summary) if any(c.site == name and c.mode == mode for c in of_task)]
    rows = [c for c in of_task if c.against == against and c.mode == mode]
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
            f"{plain(c.site, 60)}, against {MODEL_LABELS[against]}"
            f"<br>{METRIC_LABELS[c.metric]} {interval(c.difference, signed=True)}"
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
        xaxis=axis(f"difference in {metric_words(summary, task)}", range=padded(*reach) if reach else None, nticks=6),
        yaxis=rows_axis(labels),
        shapes=[zero_line()],
        showlegend=False,
    )


def few_shot(summary: Summary, task: str, site: str, mode: Mode = "frozen") -> go.Figure:
    """The task's metric by labelled notes a class at one site; nothing where no encoder has a curve in the mode.

    The axes are the same for every site and mode of a task. Intervals of the curves are over draws, that of the last
    point over test notes.
    """
    of_task = [s for s in summary.scores if s.task == task]
    rows = [s for s in mode_scores(summary, task, mode) if s.site == site]
    if not any(_curve(s).shots for s in rows if s.mode == mode):
        rows = []
    rows = sorted(rows, key=lambda s: MODELS.index(s.model))
    return curves([_curve(score) for score in rows], [_curve(score) for score in of_task])


def _stands_on(score: TaskScore, scores: list[TaskScore]) -> str:
    """The test notes of a site, and its metric where sites differ in that."""
    metric = f"; {METRIC_LABELS[score.metric]}" if len({s.metric for s in scores}) > 1 else ""
    return f"n = {score.n_test:,}{metric}"


def _draws(few: FewShot) -> str:
    """Nothing where it stayed at a site."""
    return "" if few.short_classes is None else f"{len(few.per_seed)} draws; {few.short_classes} classes had fewer<br>"


def _curve(score: TaskScore) -> Curve:
    stands_on = plain(support_text(score), 160)
    points: dict[int | None, tuple[Estimate, str]] = {
        f.shots: (estimate, f"{_draws(f)}{stands_on}")
        for f in sorted(score.few_shot, key=lambda f: f.shots)
        if (estimate := own_few(f, score.metric))
    }
    points[None] = (own(score), f"{score.n_train:,} training notes<br>{stands_on}")
    return Curve(
        MODEL_LABELS[score.model],
        score.model,
        MODEL_MARKS[score.model],
        points,
        strong=score.model == "federated",
        metric=METRIC_LABELS[score.metric],
    )
