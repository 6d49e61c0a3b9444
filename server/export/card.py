"""The model's card, `README.md`: written from the run's summary, and from nothing else."""

import json
import re
from pathlib import Path
from typing import Any

from common.results import FLOOR, Mode, SiteFacts, Summary
from server.export.counts import floored, number
from server.export.licence import base_licence
from server.export.markdown import render
from server.figures.privacy import epsilon_words, last_reports, private, spent, unit
from server.figures.style import MODE_LABELS, MODEL_LABELS, interval, site_names
from server.figures.tasks import MODELS, metric_words, mode_scores, modes, own, task_names
from server.report import words
from server.report.memorisation import HOW_TO_READ, memorisation_sentences, memorisation_table
from server.report.privacy_words import hospital_sentence, silent_sentence, spent_sentence
from server.report.tables import NOTHING, WITHHELD, Table, counts_withheld

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def model_card(summary: Summary, pooling: str, max_length: int) -> str:
    """The card in Markdown, with the front matter that model hubs read.

    Args:
        pooling, max_length: of the plan.
    """
    licence = base_licence(summary.base)
    return _front_matter(summary, licence) + render(
        "card.md.jinja",
        summary=summary,
        base=base_name(summary.base),
        pooling=pooling,
        max_length=max_length,
        done=words.rounds_done(summary),
        objective=words.OBJECTIVES[summary.objective],
        licence=licence,
        sites=sites_table(summary),
        left_out=[(site, floored(reason)) for site, reason in summary.left_out_sites.items()],
        not_scored=[(one.task, one.site, floored(one.reason)) for one in summary.not_scored],
        held_out=held_out_table(summary),
        how_lost=words.how_lost(summary),
        scores=[score_table(summary, task, mode) for task in task_names(summary) for mode in modes(summary, task)],
        how_scored=words.how_scored(summary),
        compared=words.comparison_sentences(summary),
        private=private(summary),
        unit=unit(summary),
        spent=[spent_sentence(summary), *filter(None, [silent_sentence(summary)])],
        privacy_table=privacy_table(summary),
        hospital=hospital_sentence(summary),
        memorisation=memorisation_sentences(summary),
        memorisation_table=memorisation_table(summary),
        how_to_read=HOW_TO_READ,
        withheld=any(counts_withheld(site) for site in summary.sites),
        floor=FLOOR,
    )


def base_name(base: str) -> str:
    """What a base is called outside the coordinator's machine: of a folder its last part."""
    return f"the folder {Path(base).name}" if Path(base).is_absolute() or Path(base).is_dir() else base


def _front_matter(summary: Summary, licence: str) -> str:
    """YAML, of which JSON is a part: no name can leave its quotes."""
    known: dict[str, Any] = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "feature-extraction",
        "tags": ["sentence-transformers", "feature-extraction", "clinical", "federated-learning", "fednotes"],
    }
    if licence:
        known["license"] = licence
    if base_name(summary.base) == summary.base and _HUB_NAME.fullmatch(summary.base):
        known["base_model"] = summary.base
    return "".join(["---\n", *(f"{key}: {json.dumps(value)}\n" for key, value in known.items()), "---\n\n"])


def sites_table(summary: Summary) -> Table:
    columns = ["site", "rounds returned", "training notes", "held-out (dev) notes", "test notes"]
    columns += [f"{unit(summary)}s in training"] if private(summary) else []
    returned = {
        name: sum(did.site == name and did.state == "returned" for one in summary.rounds for did in one.sites)
        for name in (site.name for site in summary.sites)
    }
    rows = []
    for site in summary.sites:
        row = [site.name, f"{returned[site.name]:,} of {words.rounds_done(summary):,}", *_counts(site)]
        if private(summary):
            row.append(number(site.units) if site.units is not None else NOTHING)
        rows.append(row)
    return Table("", columns, rows)


def _counts(site: SiteFacts) -> list[str]:
    counts = (site.train, site.dev, site.test)
    return [WITHHELD] * len(counts) if counts_withheld(site) else [number(count) for count in counts]


def held_out_table(summary: Summary) -> Table:
    """The loss on notes that were never trained on, under the base and at the end."""
    last = {name: held_out for one in summary.rounds for name, held_out in one.held_out.items()}
    rows = []
    for site in site_names(summary):
        if site in last and (pair := words.first_and_last_held_out(summary, site)):
            rows.append([site, f"{pair[0]:.3f}", f"{pair[1]:.3f}", number(last[site].notes)])
    return Table("", ["site", "under the base", "at the end", "notes (n)"], rows)


def score_table(summary: Summary, task: str, mode: Mode) -> Table:
    """A row a site, with all models beside."""
    scores = mode_scores(summary, task, mode)
    models = [model for model in MODELS if any(score.model == model for score in scores)]
    rows = []
    for site in dict.fromkeys(score.site for score in scores):
        own_scores = {score.model: score for score in scores if score.site == site}
        n = number(max(score.n_test for score in own_scores.values()))
        cells = [interval(own(own_scores[model])) if model in own_scores else NOTHING for model in models]
        rows.append([site, n, *cells])
    caption = f"Task {task}, {MODE_LABELS[mode]}: {metric_words(summary, task)} with 95 % intervals"
    return Table(caption, ["site", "test notes (n)", *(MODEL_LABELS[model] for model in models)], rows)


def privacy_table(summary: Summary) -> Table:
    reported, last = spent(summary), last_reports(summary)
    rows = [
        [
            name,
            epsilon_words(report.epsilon),
            f"{report.delta:g}",
            f"{report.noise_multiplier:g}",
            f"{sum(one.steps for one in reported[name].values()):,}",
        ]
        for name, report in last.items()
    ]
    return Table("", ["site", "epsilon", "delta", "noise multiplier", "steps"], rows)
