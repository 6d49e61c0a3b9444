"""Numbers and verdicts in plain words, computed from the summary."""

import math
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import get_args

from common.results import Comparison, Mode, ModelName, Summary, Verdict
from server.figures.privacy import private
from server.figures.style import MODE_TITLES, MODEL_LABELS, site_names
from server.figures.tasks import metric_words, modes, task_names

COMPARED: tuple[ModelName, ...] = ("base", "local-only", "centralised", "tf-idf")
OBJECTIVES = {
    "mlm": "masked language modelling",
    "declutr": "contrastive spans (DeCLUTR), and masked language modelling",
    "note-category": "note categories, and masked language modelling",
}
_USE: dict[Mode, str] = {
    "frozen": "a small probe learns the task from its embeddings",
    "fine-tuned": "the whole encoder learns the task",
    "lora": "small adapters in the encoder learn the task, and the rest of it stays as it was",
}
_MOST_NAMED = 5


def baselines(summary: Summary) -> list[ModelName]:
    """What the shared encoder can be compared with: over real servers no notes are ever in one place."""
    return [against for against in COMPARED if against != "centralised" or summary.engine != "servers"]


def count(number: int, noun: str, plural: str = "") -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def capitalised(text: str) -> str:
    """`Macro-F1`: unlike str.capitalize it leaves the rest as it is."""
    return text[:1].upper() + text[1:]


def listed(names: list[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def rounds_done(summary: Summary) -> int:
    return sum(1 for round_ in summary.rounds if round_.number > 0)


def first_and_last_held_out(summary: Summary, site: str) -> tuple[float, float] | None:
    """The held-out loss under the base and under the last shared weights; None where either is missing."""
    losses = [(r.number, r.held_out[site].loss) for r in summary.rounds if site in r.held_out]
    losses = sorted((number, loss) for number, loss in losses if math.isfinite(loss))
    if len(losses) < 2 or losses[0][0] != 0:
        return None
    return losses[0][1], losses[-1][1]


def lead(summary: Summary) -> list[str]:
    """What a reader should know first, a paragraph each."""
    paragraphs = [f"{rounds_sentence(summary)} {loss_sentence(summary)}", *comparison_sentences(summary)]
    if sentence := too_short_sentence(summary):
        paragraphs.append(sentence)
    gaps = []
    if summary.left_out_sites:
        gaps.append(f"{count(len(summary.left_out_sites), 'site')} left out of the study")
    if summary.not_scored:
        gaps.append(f"{count(len(summary.not_scored), 'task')} not scored at a site")
    return [*paragraphs, f"Not in these numbers: {listed(gaps)} (reasons under Sites)."] if gaps else paragraphs


def too_short_sentence(summary: Summary) -> str:
    """Training notes that the objective had to leave out; "" where there are none."""
    sites = [site for site in summary.sites if site.too_short]
    if not sites:
        return ""
    if len(sites) <= _MOST_NAMED:
        first, *others = sites
        clauses = [f"{first.too_short:,} of {count(first.train, 'training note')} at {first.name}"]
        clauses += [f"{site.too_short:,} of {site.train:,} at {site.name}" for site in others]
        where = listed(clauses)
    else:
        notes = count(sum(site.train for site in sites), "training note")
        where = f"{sum(site.too_short for site in sites):,} of {notes} at {len(sites)} sites"
    verb = "was" if sum(site.too_short for site in sites) == 1 else "were"
    return f"{where} {verb} too short for the objective."


def rounds_sentence(summary: Summary) -> str:
    done = rounds_done(summary)
    if summary.status == "stopped":
        return f"The study stopped after {done} of {count(summary.planned_rounds, 'round')}."
    return f"All {count(done, 'round')} done." if done > 1 else f"{count(done, 'round')} done."


def loss_sentence(summary: Summary) -> str:
    if private(summary) and summary.rounds and not any(round_.held_out for round_ in summary.rounds):
        return "The held-out loss was withheld."
    measured = {site: pair for site in site_names(summary) if (pair := first_and_last_held_out(summary, site))}
    if not measured:
        return "The held-out loss was not measured before and after training."
    kept_up = [site for site, (first, last) in measured.items() if last >= first]
    sentence = f"The held-out loss fell at {len(measured) - len(kept_up)} of {count(len(measured), 'site')}"
    return f"{sentence}; it did not fall at {listed(kept_up)}." if 0 < len(kept_up) <= _MOST_NAMED else f"{sentence}."


def comparison_sentences(summary: Summary) -> list[str]:
    """At how many sites the shared encoder is better than each baseline, worse, or not clearly different.

    A paragraph a baseline where all encoders are frozen, else a shorter one a mode, with the frozen encoder first.
    """
    compared = [c for c in summary.comparisons if c.against in COMPARED]
    if not compared and summary.engine == "servers":
        return [
            "Scores are the sites' own: `fednotes site report` says at each of them whether federation helped there."
        ]
    if not compared:
        return ["The encoder was not compared with any baseline, so this run cannot say whether federation helped."]
    cases = len({comparison.task for comparison in summary.comparisons}) > 1
    noun, at = ("case", "in") if cases else ("site", "at")
    verdicts: dict[Mode, dict[ModelName, list[Verdict]]] = {}
    for mode, against in product(modes(summary), COMPARED):
        if found := [c.verdict for c in compared if (c.mode, c.against) == (mode, against)]:
            verdicts.setdefault(mode, {})[against] = found
    if [*verdicts] == ["frozen"]:
        sentences = [
            f"Against {_the(against)} the shared encoder is better {at} {count(found.count('better'), noun)}, "
            f"worse {at} {found.count('worse')}, with no clear difference {at} {found.count('no clear difference')}."
            for against, found in verdicts["frozen"].items()
        ]
    else:
        clauses = {
            mode: [f"against {_the(against)}: {_tally(found, noun, at)}" for against, found in of_mode.items()]
            for mode, of_mode in verdicts.items()
        }
        sentences = [
            f"{MODE_TITLES[mode]}. The shared encoder {'; '.join(of_mode)}." for mode, of_mode in clauses.items()
        ]
    if cases:
        sentences[0] += " (A case is one task at one site.)"
    return sentences


def _tally(verdicts: list[Verdict], noun: str, at: str) -> str:
    """`better at 3 of 4 sites, no clear difference at 1`: what there is none of is left out."""
    clauses = [f"{verdict} {at} {verdicts.count(verdict)}" for verdict in get_args(Verdict) if verdict in verdicts]
    return ", ".join([f"{clauses[0]} of {count(len(verdicts), noun)}", *clauses[1:]])


def how_scored(summary: Summary) -> str:
    """What a score is, by the metrics of the run."""
    metric = metric_words(summary)
    if " or " in metric:
        metric = f"the task's own metric, {metric},"
    if modes(summary) in ([], ["frozen"]):
        how = f"{metric} of a small probe on the frozen encoder (TF-IDF has no encoder)"
        return f"Each score is {how}, on the site's own test notes."
    return f"Each score is {metric} on the site's own test notes."


def how_used(summary: Summary) -> list[tuple[str, str]]:
    """What each mode does with an encoder; nothing where all are frozen."""
    used = modes(summary)
    return [] if used in ([], ["frozen"]) else [(MODE_TITLES[mode], _USE[mode]) for mode in used]


def how_lost(summary: Summary) -> str:
    """What the loss is."""
    if summary.objective == "mlm":
        return "The loss is the objective's, in nats a masked token; lower is better."
    return "The loss is the objective's, in nats: the sum of its parts as the plan weighs them; lower is better."


def moment(stamp: str) -> str:
    """An ISO timestamp as people write it; any other text as it is."""
    try:
        when = datetime.fromisoformat(stamp)
    except ValueError:
        return stamp
    zone = f" {when.tzname()}" if when.tzinfo else ""
    return f"{when:%Y-%m-%d %H:%M:%S}{zone}"


def _the(model: ModelName) -> str:
    return f"the {MODEL_LABELS[model]}" if model == "base" else MODEL_LABELS[model]


@dataclass(frozen=True)
class Helped:
    """Whether federation helped one site on one task in one mode. `kind` is "better", "worse" or "unclear"."""

    site: str
    task: str
    mode: Mode
    kind: str
    verdict: str
    detail: str


def helped(summary: Summary) -> list[Helped]:
    """A verdict for each task, mode and site that was compared, worded from what a site could do on its own.

    On its own a site can take the public base as it is, or go on training it alone. Federation helped where the shared
    encoder is clearly better than both; being better than one of them is said as just that.
    """
    found: dict[tuple[str, Mode, str], dict[ModelName, Comparison]] = {}
    for comparison in summary.comparisons:
        at = comparison.task, comparison.mode, comparison.site
        found.setdefault(at, {})[comparison.against] = comparison
    order = product(task_names(summary), modes(summary), site_names(summary))
    return [Helped(at[2], at[0], at[1], *_verdict(found[at])) for at in order if at in found]


def _verdict(against: dict[ModelName, Comparison]) -> tuple[str, str, str]:
    alone: list[ModelName] = [model for model in ("base", "local-only") if model in against]
    better = [_the(m) for m in alone if against[m].verdict == "better"]
    worse = [_the(m) for m in alone if against[m].verdict == "worse"]
    same = [_the(m) for m in alone if against[m].verdict == "no clear difference"]
    clauses = [f"better than {listed(better)}"] if better else []
    clauses += [f"worse than {listed(worse)}"] if worse else []
    clauses += [f"no clear difference from {listed(same)}"] if same else []
    clauses += [f"{_the(model)} was not measured" for model in ("base", "local-only") if model not in alone]
    detail = "; ".join(clauses)
    if better and worse:
        return "unclear", "mixed", detail
    if worse:
        return "worse", "no", detail
    if better:
        return "better", "yes" if len(better) == 2 else "in part", detail
    return "unclear", "no clear difference" if alone else "cannot be said", detail
