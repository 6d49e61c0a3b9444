"""Numbers and verdicts in plain words, computed from the summary."""

import math
from dataclasses import dataclass
from datetime import datetime

from common.results import Comparison, ModelName, Summary
from server.figures.style import MODEL_LABELS, site_names

COMPARED: tuple[ModelName, ...] = ("base", "local-only", "centralised", "tf-idf")


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
    gaps = []
    if summary.left_out_sites:
        gaps.append(f"{count(len(summary.left_out_sites), 'site')} left out of the study")
    if summary.not_scored:
        gaps.append(f"{count(len(summary.not_scored), 'task')} not scored at a site")
    return [*paragraphs, f"Not in these numbers: {listed(gaps)} (reasons under Sites)."] if gaps else paragraphs


def rounds_sentence(summary: Summary) -> str:
    done = rounds_done(summary)
    if summary.status == "stopped":
        return f"The study stopped after {done} of {count(summary.planned_rounds, 'round')}."
    return f"All {count(done, 'round')} done." if done > 1 else f"{count(done, 'round')} done."


def loss_sentence(summary: Summary) -> str:
    measured = {site: pair for site in site_names(summary) if (pair := first_and_last_held_out(summary, site))}
    if not measured:
        return "The held-out loss was not measured before and after training."
    kept_up = [site for site, (first, last) in measured.items() if last >= first]
    sentence = f"The held-out loss fell at {len(measured) - len(kept_up)} of {count(len(measured), 'site')}"
    return f"{sentence}; it did not fall at {listed(kept_up)}." if 0 < len(kept_up) <= 5 else f"{sentence}."


def comparison_sentences(summary: Summary) -> list[str]:
    """Against each baseline: at how many sites the shared encoder is better, worse, or not clearly different."""
    several = len({comparison.task for comparison in summary.comparisons}) > 1
    noun, at = ("case", "in") if several else ("site", "at")
    sentences = []
    for against in COMPARED:
        verdicts = [c.verdict for c in summary.comparisons if c.against == against]
        if not verdicts:
            continue
        better, worse = verdicts.count("better"), verdicts.count("worse")
        same = len(verdicts) - better - worse
        sentences.append(
            f"Against {_the(against)} the shared encoder is better {at} {count(better, noun)}, worse {at} {worse}, "
            f"with no clear difference {at} {same}."
        )
    if several:
        sentences[0] += " (A case is one task at one site.)"
    if sentences:
        return sentences
    return ["The encoder was not compared with any baseline, so this run cannot say whether federation helped."]


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
    """Whether federation helped one site on one task. `kind` is "better", "worse" or "unclear"."""

    site: str
    task: str
    kind: str
    verdict: str
    detail: str


def helped(summary: Summary) -> list[Helped]:
    """A verdict for each site and task that was compared, worded from what a site could do on its own.

    On its own a site can take the public base as it is, or go on training it alone. Federation helped where the shared
    encoder is clearly better than both; being better than one of them is said as just that.
    """
    found: dict[tuple[str, str], dict[ModelName, Comparison]] = {}
    for comparison in summary.comparisons:
        found.setdefault((comparison.task, comparison.site), {})[comparison.against] = comparison
    tasks = list(dict.fromkeys(task for task, _ in found))
    order = [(task, site) for task in tasks for site in site_names(summary) if (task, site) in found]
    return [Helped(site, task, *_verdict(found[task, site])) for task, site in order]


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
