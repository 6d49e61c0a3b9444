"""What of a record goes to a sink: parameters, what is said of the study, and values by name, round by round.

Nothing else does. A value that a site withheld has no name here: it is not a zero.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from common.results import Comparison, Estimate, HeldOut, Round, SiteRound, TaskScore
from server.record.reader import StudyRecord

_MOST = 60  # characters of a part of a name: MLflow allows 250 for the whole


@dataclass(frozen=True)
class Step:
    """Values of a round. `time`: when it began; of scores, when the study ended."""

    round: int
    time: datetime
    values: dict[str, float]


def steps(record: StudyRecord) -> list[Step]:
    """Every round that has ended, in order, and then the scores."""
    found = [Step(one.number, record.begun[one.number], dict(_of_round(one))) for one in record.rounds]
    if record.finished and (record.scores or record.comparisons):
        last = max((one.number for one in record.rounds), default=0)
        found.append(Step(last, record.finished, dict(_of_scores(record))))
    return found


def parameters(record: StudyRecord) -> dict[str, str]:
    """What does not change: the plan's keys (those that are set), its hash, the privacy in words, versions."""
    plan = record.plan.model_dump(mode="json", exclude_none=True)
    flat = {f"{section}.{key}": _text(value) for section, keys in plan.items() for key, value in keys.items()}
    versions = {f"versions.{name}": version for name, version in record.versions.items()}
    return flat | {"plan_hash": record.plan_hash, "privacy": record.plan.privacy_words} | versions


def tags(record: StudyRecord) -> dict[str, str]:
    """What is said of the study as it is now. A site whose name a metric cannot have is named here in full."""
    said = {
        "study": record.id,
        "state": record.state,
        "message": record.message,
        "privacy": record.plan.privacy_words,
        "engine": record.engine,
    }
    names = [site.name for site in record.sites]
    said |= {name("site", site): site for site in names if part(site) != site}
    said |= {name("left out", site): f"{site}: {reason}" for site, (reason, _) in record.left_out.items()}
    return said | {name("not scored", one.site, one.task): one.reason for one in record.not_scored}


def name(*parts: str) -> str:
    """A name that both sinks take, in the same groups: `held-out loss/northgate`."""
    return "/".join(part(one) for one in parts)


def part(text: str) -> str:
    """`text` itself where MLflow allows it. Else what is readable of it, a colon and a piece of its SHA-256: no text
    that stays itself has a colon, so that no two texts meet."""
    if re.fullmatch(rf"[A-Za-z0-9_. -]{{1,{_MOST}}}", text) and text.strip(". ") == text:
        return text
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    readable = re.sub(r"[^A-Za-z0-9-]+", "_", letters)[: _MOST - 9].strip("_")
    return f"{readable}:{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _of_round(done: Round) -> Iterator[tuple[str, float]]:
    yield "round/seconds", done.seconds
    if done.sites:
        yield "round/sites that returned", sum(one.state == "returned" for one in done.sites)
    if done.hospital_epsilon is not None:
        yield "round/hospital epsilon", done.hospital_epsilon
    for one in done.sites:
        if one.state == "returned":
            yield from _of_site(one)
    for site, measured in done.held_out.items():
        yield from _of_held_out(site, measured)


def _of_site(did: SiteRound) -> Iterator[tuple[str, float]]:
    values: dict[str, float | None] = {
        "training loss": did.loss,
        "seconds": None if did.privacy else did.seconds,  # withheld with private training
        "bytes down": did.bytes_down,
        "bytes up": did.bytes_up,
        "update norm": did.update_norm,
        "cosine to the mean update": did.cosine,
        "weight": did.weight,
        "epsilon": did.privacy.epsilon if did.privacy else None,
    }
    values |= {f"training loss {loss}": value for loss, value in did.parts.items()}
    yield from ((name(what, did.site), value) for what, value in values.items() if value is not None)


def _of_held_out(site: str, measured: HeldOut) -> Iterator[tuple[str, float]]:
    yield name("held-out loss", site), measured.loss
    for loss, value in measured.parts.items():
        yield name(f"held-out loss {loss}", site), value


def _of_scores(record: StudyRecord) -> Iterator[tuple[str, float]]:
    for score in record.scores:
        value = score.macro_f1 if score.metric == "macro-f1" else score.accuracy
        yield from _interval(("score", score.model, *_of_task(score)), value)
    for one in record.comparisons:
        yield from _interval(("score minus", one.against, *_of_task(one)), one.difference)


def _of_task(one: TaskScore | Comparison) -> tuple[str, ...]:
    """A score never stands without the test notes that it is of."""
    return one.mode, one.metric, one.task, one.site, f"n {one.n_test}"


def _interval(parts: tuple[str, ...], estimate: Estimate) -> Iterator[tuple[str, float]]:
    yield name(*parts), estimate.value
    for bound, value in (("low", estimate.low), ("high", estimate.high)):
        if value is not None:
            yield name(*parts, bound), value


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
