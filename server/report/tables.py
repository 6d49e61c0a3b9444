"""What the report shows as tables: plain cells, which the template escapes."""

import math
from dataclasses import dataclass, field

from common.results import Comparison, EmbeddingMap, ModelName, SiteFacts, SiteRound, Summary, TaskScore
from server.figures.style import MODEL_LABELS, interval, site_names
from server.report.words import COMPARED, count, duration, listed, size

NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """`words` are the columns that hold words rather than numbers, and so stand on the left."""

    caption: str
    columns: list[str]
    rows: list[list[str]]
    words: frozenset[int] = field(default=frozenset({0}))


def loss_table(summary: Summary, kind: str) -> Table:
    """Rounds by sites; `kind` is "held-out" or "training"."""
    sites = site_names(summary)
    rows = []
    for round_ in summary.rounds:
        if kind == "held-out":
            losses: dict[str, float | None] = {site: held_out.loss for site, held_out in round_.held_out.items()}
        else:
            losses = {site.site: site.loss for site in round_.sites if site.state == "returned"}
        if losses:
            rows.append([str(round_.number), *(_loss(losses.get(site)) for site in sites)])
    return Table(f"{kind.capitalize()} loss, nats a masked token", ["round", *sites], rows)


def score_table(summary: Summary, task: str) -> Table:
    columns = ["site", "model", "macro-F1", "accuracy", "AUROC", "training notes", "test notes (n)", "of each class"]
    rows = [
        [
            score.site,
            MODEL_LABELS[score.model],
            interval(score.macro_f1),
            interval(score.accuracy),
            interval(score.auroc) if score.auroc else "undefined",
            f"{score.n_train:,}",
            f"{score.n_test:,}",
            _support(score),
        ]
        for score in _by_site(summary, task)
    ]
    return Table("Scores with their 95 % intervals", columns, rows, frozenset({0, 1, 7}))


def support_table(summary: Summary, task: str) -> Table:
    """What the scores of a task stand on."""
    return support_of(_by_site(summary, task))


def support_of(scores: list[TaskScore]) -> Table:
    """Test notes a class. Models at one site share their test notes, so most sites have one row."""
    classes = sorted({name for score in scores for name in score.support})
    rows = [
        [
            score.site,
            f"{score.n_train:,}",
            f"{score.n_test:,}",
            *(f"{score.support[name]:,}" if name in score.support else NOTHING for name in classes),
        ]
        for score in scores
    ]
    distinct = list(dict.fromkeys(map(tuple, rows)))
    columns = ["site", "training notes", "test notes (n)", *classes]
    return Table("What each score stands on: test notes a class", columns, [list(row) for row in distinct])


def forest_table(summary: Summary, task: str, against: ModelName) -> Table:
    rows = [
        [c.site, interval(c.difference, signed=True), c.verdict, f"{c.n_test:,}"]
        for c in summary.comparisons
        if c.task == task and c.against == against
    ]
    columns = ["site", "difference in macro-F1", "verdict", "test notes (n)"]
    return Table(f"Shared encoder minus {MODEL_LABELS[against]}", columns, rows, frozenset({0, 2}))


def few_shot_table(summary: Summary, task: str, site: str) -> Table:
    rows = []
    for score in (s for s in summary.scores if s.task == task and s.site == site and s.few_shot):
        stands_on = f"{score.n_test:,} ({_support(score)})"
        rows += [
            [
                MODEL_LABELS[score.model],
                f"{few.shots}",
                interval(few.macro_f1),
                f"{len(few.per_seed)}",
                f"{few.short_classes}",
                stands_on,
            ]
            for few in sorted(score.few_shot, key=lambda few: few.shots)
        ]
        whole = [MODEL_LABELS[score.model], f"all ({score.n_train:,})", interval(score.macro_f1)]
        rows.append([*whole, NOTHING, NOTHING, stands_on])
    columns = ["model", "labels a class", "macro-F1", "draws", "classes with fewer", "test notes (n) and their classes"]
    return Table(f"Macro-F1 by labels at {site}", columns, rows, frozenset({0, 5}))


def embedding_table(embedding: EmbeddingMap) -> Table:
    rows = [[p.site, p.category, p.label, f"{p.x:.3f}", f"{p.y:.3f}"] for p in embedding.points]
    columns = ["site", "category", "note", f"{embedding.method} 1", f"{embedding.method} 2"]
    return Table(f"The {count(len(rows), 'point')} of the map", columns, rows, frozenset({0, 1, 2}))


def rounds_table(summary: Summary) -> Table:
    columns = ["round", "site", "outcome", "notes", "steps", "tokens", "loss", "time", "down", "up", "change (L2 norm)"]
    rows = [
        [
            str(round_.number),
            site.site,
            "returned" if site.state == "returned" else f"left out: {site.reason or 'no reason given'}",
            f"{site.notes:,}",
            f"{site.steps:,}",
            f"{site.tokens:,}",
            _loss(site.loss),
            duration(site.seconds),
            size(site.bytes_down),
            size(site.bytes_up),
            NOTHING if site.update_norm is None else f"{site.update_norm:.4g}",
        ]
        for round_ in summary.rounds
        for site in round_.sites
    ]
    return Table("Every site in every round", columns, rows, frozenset({0, 1, 2}))


def sites_table(sites: list[SiteFacts]) -> Table:
    columns = ["site", "training notes", "held-out (dev) notes", "test notes", "set aside as duplicates", "tokens"]
    rows = [[s.name, f"{s.train:,}", f"{s.dev:,}", f"{s.test:,}", f"{s.set_aside:,}", f"{s.tokens:,}"] for s in sites]
    return Table("Notes and tokens of each site", columns, rows)


def comparison_cells(summary: Summary, task: str) -> list[tuple[str, list[Comparison | None]]]:
    """A row a site, a cell a baseline of `COMPARED`."""
    cells = {(c.site, c.against): c for c in summary.comparisons if c.task == task}
    sites = [name for name in site_names(summary) if any(site == name for site, _ in cells)]
    return [(site, [cells.get((site, against)) for against in COMPARED]) for site in sites]


@dataclass(frozen=True)
class LadderRow:
    site: str
    cells: list[SiteRound | None]
    totals: list[str]


def ladder(summary: Summary) -> list[LadderRow]:
    """A row a site, a cell a round, and what the site did over all rounds."""
    rounds = [r for r in summary.rounds if r.number > 0]
    rows = []
    for site in dict.fromkeys(s.site for r in rounds for s in r.sites):
        cells = [next((s for s in r.sites if s.site == site), None) for r in rounds]
        there = [cell for cell in cells if cell is not None]
        totals = [
            f"{sum(cell.state == 'returned' for cell in there)} of {len(rounds)}",
            duration(sum(cell.seconds for cell in there)),
            f"{sum(cell.steps for cell in there):,}",
            f"{sum(cell.tokens for cell in there):,}",
            size(sum(cell.bytes_down for cell in there)),
            size(sum(cell.bytes_up for cell in there)),
        ]
        rows.append(LadderRow(site, cells, totals))
    return rows


def left_out_of_rounds(summary: Summary) -> list[tuple[str, str, str]]:
    """Site, rounds and reason; the rounds that a site missed for one reason stand together."""
    missed: dict[tuple[str, str], list[str]] = {}
    for round_ in summary.rounds:
        for site in round_.sites:
            if site.state == "left-out":
                missed.setdefault((site.site, site.reason or "no reason given"), []).append(str(round_.number))
    return [
        (site, f"{'round' if len(rounds) == 1 else 'rounds'} {listed(rounds)}", reason)
        for (site, reason), rounds in missed.items()
    ]


def _by_site(summary: Summary, task: str) -> list[TaskScore]:
    order = {name: i for i, name in enumerate(site_names(summary))}
    return sorted((s for s in summary.scores if s.task == task), key=lambda s: order[s.site])


def _support(score: TaskScore) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in score.support.items())


def _loss(loss: float | None) -> str:
    return NOTHING if loss is None or not math.isfinite(loss) else f"{loss:.4f}"
