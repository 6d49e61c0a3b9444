"""What a hospital's notes look like, in numbers: what `fednotes notes inspect` prints. Nothing here repeats a note."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from client.notes.intake import Intake
from client.notes.split import SET_ASIDE
from client.notes.store import NoteStore
from client.objectives.usage import usage
from common.plan import StudyPlan

# Every note is read between two special tokens.
SPECIAL_TOKENS = 2
QUANTILES = {"least": 0.0, "p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "most": 1.0}


class Spread(BaseModel):
    """How a length is distributed over the notes, and its total."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    total: int
    mean: float
    quantiles: dict[str, float]


class Use(BaseModel):
    """How a plan's objective would use the training notes: whole, in part, or not at all, for they are too short."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    objective: str
    whole: int
    shortened: int
    too_short: int


class Inspection(BaseModel):
    """Lengths and tokens are of the notes that were not set aside, counts of categories and labels too (None: `none`).

    `truncated_notes` have more tokens than a sequence of `max_length` has room for; `truncated_share` is the share of
    all tokens that falls behind the cut. `use` is there where a plan was given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    intake: Intake
    words: Spread
    tokens: Spread
    max_length: int
    truncated_notes: int
    truncated_share: float
    use: Use | None
    categories: dict[str, int]
    labels: dict[str, int]
    sites: dict[str, int]


def inspect(store: NoteStore, max_length: int, plan: StudyPlan | None = None) -> Inspection:
    """The figures of a whole store, for sequences of at most `max_length` tokens, and under a plan."""
    kept = store.view(np.flatnonzero(store.column("split") != SET_ASIDE))
    room = max_length - SPECIAL_TOKENS
    cut = np.maximum(kept.lengths - room, 0)
    return Inspection(
        intake=store.intake,
        words=_spread(kept.column("words")),
        tokens=_spread(kept.lengths),
        max_length=max_length,
        truncated_notes=int((cut > 0).sum()),
        truncated_share=float(cut.sum() / max(int(kept.lengths.sum()), 1)),
        use=_use(store, plan) if plan else None,
        categories=_count(kept.column("category")),
        labels=_count(kept.column("label")),
        sites=_count(kept.column("site")),
    )


def _use(store: NoteStore, plan: StudyPlan) -> Use:
    found = usage(plan, store.lengths[store.split_indices("train")])
    kind = plan.objective.kind
    return Use(objective=kind, whole=found.whole, shortened=found.shortened, too_short=found.too_short)


def _spread(lengths: NDArray[np.integer]) -> Spread:
    if not len(lengths):
        return Spread(total=0, mean=0.0, quantiles=dict.fromkeys(QUANTILES, 0.0))
    values = np.quantile(lengths, list(QUANTILES.values()))
    return Spread(
        total=int(lengths.sum()),
        mean=float(lengths.mean()),
        quantiles=dict(zip(QUANTILES, values.tolist(), strict=True)),
    )


def _count(values: NDArray[np.object_]) -> dict[str, int]:
    """How often each value occurs, the most frequent first; a note without one counts for none."""
    return dict(Counter(value for value in values.tolist() if value is not None).most_common())
