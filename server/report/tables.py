"""What the report shows as tables: plain cells, which the template escapes."""

from dataclasses import dataclass, field

from common.results import Comparison, EmbeddingMap, Mode, SiteFacts, Summary, TaskScore
from server.figures.style import MODEL_LABELS, interval, site_names
from server.figures.tasks import metric_words, mode_scores, own, own_few
from server.report.words import baselines, capitalised, count

NOTHING, WITHHELD = "–", "withheld"


@dataclass(frozen=True)
class Table:
    """`words` are the columns that hold words rather than numbers, and so stand on the left."""

    caption: str
    columns: list[str]
    rows: list[list[str]]
    words: frozenset[int] = field(default=frozenset({0}))


def score_table(summary: Summary, task: str, mode: Mode = "frozen") -> Table:
    """Every metric, whichever the task goes by."""
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
        for score in _by_site(summary, mode_scores(summary, task, mode))
    ]
    return Table("Scores with their 95 % intervals", columns, rows, frozenset({0, 1, 7}))


def support_table(summary: Summary, task: str) -> Table:
    """What the scores of a task stand on."""
    return support_of(_by_site(summary, [s for s in summary.scores if s.task == task]))


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
    caption = "test notes a class" if classes else "the classes, and how many notes each has, stay at the site"
    return Table(f"What each score stands on: {caption}", columns, [list(row) for row in distinct])


def few_shot_table(summary: Summary, task: str, site: str, mode: Mode = "frozen") -> Table:
    """By the task's metric."""
    rows = []
    for score in (s for s in mode_scores(summary, task, mode) if s.site == site and s.few_shot):
        stands_on = f"{score.n_test:,} ({_support(score)})"
        rows += [
            [
                MODEL_LABELS[score.model],
                f"{few.shots}",
                interval(estimate) if (estimate := own_few(few, score.metric)) else NOTHING,
                f"{len(few.per_seed)}" if few.per_seed else NOTHING,
                NOTHING if few.short_classes is None else f"{few.short_classes}",
                stands_on,
            ]
            for few in sorted(score.few_shot, key=lambda few: few.shots)
        ]
        whole = [MODEL_LABELS[score.model], f"all ({score.n_train:,})", interval(own(score))]
        rows.append([*whole, NOTHING, NOTHING, stands_on])
    metric = metric_words(summary, task)
    columns = ["model", "labels a class", metric, "draws", "classes with fewer", "test notes (n) and their classes"]
    return Table(f"{capitalised(metric)} by labels at {site}", columns, rows, frozenset({0, 5}))


def embedding_table(embedding: EmbeddingMap) -> Table:
    rows = [[p.site, p.category, p.label, f"{p.x:.3f}", f"{p.y:.3f}"] for p in embedding.points]
    columns = ["site", "category", "note", f"{embedding.method} 1", f"{embedding.method} 2"]
    return Table(f"The {count(len(rows), 'point')} of the map", columns, rows, frozenset({0, 1, 2}))


def sites_table(sites: list[SiteFacts], use: bool = False, unit: str = "unit") -> Table:
    """Notes and tokens.

    Args:
        use: and how the objective uses the training notes; for results of one objective.
        unit: what private training protects, where it does.
    """
    columns = ["site", "training notes", "held-out (dev) notes", "test notes", "set aside as duplicates", "tokens"]
    rows = [[s.name, *_counts(s, s.train, s.dev, s.test, s.set_aside, s.tokens)] for s in sites]
    if use:
        columns[2:2] = ["used whole", "shortened", "too short"]
        for row, site in zip(rows, sites, strict=True):
            row[2:2] = _counts(site, site.whole, site.shortened, site.too_short)
    if any(site.units is not None for site in sites):
        columns[1:1] = [f"{unit}s in training"]
        for row, site in zip(rows, sites, strict=True):
            row[1:1] = [NOTHING if site.units is None else f"{site.units:,}"]
    return Table("Notes and tokens of each site", columns, rows)


def counts_withheld(site: SiteFacts) -> bool:
    """Whether a site that trains privately says only how many units train."""
    return site.units is not None and not (site.train or site.dev or site.test)


def _counts(site: SiteFacts, *numbers: int) -> list[str]:
    return [WITHHELD if counts_withheld(site) else f"{number:,}" for number in numbers]


def comparison_cells(summary: Summary, task: str, mode: Mode) -> list[tuple[str, list[Comparison | None]]]:
    """A row a site, a cell a baseline of `words.baselines`."""
    cells = {(c.site, c.against): c for c in summary.comparisons if (c.task, c.mode) == (task, mode)}
    sites = [name for name in site_names(summary) if any(site == name for site, _ in cells)]
    return [(site, [cells.get((site, against)) for against in baselines(summary)]) for site in sites]


def _by_site(summary: Summary, scores: list[TaskScore]) -> list[TaskScore]:
    order = {name: i for i, name in enumerate(site_names(summary))}
    return sorted(scores, key=lambda s: order[s.site])


def _support(score: TaskScore) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in score.support.items()) or "stay at the site"
