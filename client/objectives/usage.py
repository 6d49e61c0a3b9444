"""What an objective makes of notes of given lengths: which it uses, how, and how many tokens a step will read.

Pure arithmetic on the plan, so that a site can say it before anything is trained.
"""

import math
from dataclasses import dataclass

import numpy as np

from client.objectives.spans import LONG_MEAN, SHORT_MEAN
from common.plan import StudyPlan
from common.plan_sections import Declutr, NoteCategory


@dataclass(frozen=True)
class Usage:
    """How each of n notes is used: `used` [n] of bool, and in how many it is whole, shortened or too short.

    `tokens` [n]: what the encoder reads of a note on average each time it is drawn, special tokens included; 0 where it
    is not used.
    """

    used: np.ndarray
    whole: int
    shortened: int
    too_short: int
    tokens: np.ndarray


def usage(plan: StudyPlan, lengths: np.ndarray) -> Usage:
    """How the plan's objective uses notes of `lengths` [n] in tokens."""
    objective, room = plan.objective, plan.encoder.max_length - 2
    if isinstance(objective, Declutr):
        longest = np.minimum(objective.max_span, lengths // (2 * objective.anchors))
        used = longest >= objective.min_span
        full = longest == objective.max_span
        tokens = np.where(used, _declutr_tokens(objective, longest), 0.0)
    else:
        used = lengths > 0
        full = lengths <= room
        readings = 2 if isinstance(objective, NoteCategory) and not objective.masked else 1
        tokens = np.where(used, readings * (np.minimum(lengths, room) + 2.0), 0.0)
    return Usage(used, int((used & full).sum()), int((used & ~full).sum()), int((~used).sum()), tokens)


def _declutr_tokens(plan: Declutr, longest: np.ndarray) -> np.ndarray:
    """Expected tokens of a note's spans, two special ones each; a length is rounded down, so half a token goes."""
    spare = np.maximum(longest - plan.min_span, 0)
    rounded = 0.5 * (spare > 0)
    anchor = plan.min_span + LONG_MEAN * spare - rounded
    # A positive within its anchor is drawn up to the anchor's length.
    most = anchor - plan.min_span if plan.sampling == "subsuming" else spare
    positive = plan.min_span + SHORT_MEAN * most - rounded
    readings = (plan.mlm_weight > 0) + plan.plain_anchors
    positives = plan.positives if plan.contrastive_weight else 0
    return plan.anchors * (readings * (anchor + 2) + positives * (positive + 2))


def round_steps(plan: StudyPlan, lengths: np.ndarray) -> int:
    """Steps of one round at a site whose training notes have `lengths` [n] in tokens."""
    training = plan.training
    if training.steps_per_round is not None:
        return training.steps_per_round
    use = usage(plan, lengths)
    notes, batch = int(use.used.sum()), training.batch_size
    if isinstance(plan.objective, NoteCategory) and plan.objective.loss == "contrastive":
        batch = max(2, batch)  # of pairs
    if training.tokens_per_round is not None:
        # Over an epoch, for its last batch may be small, and with few notes it is the only one.
        epochs = training.tokens_per_round / max(1.0, float(use.tokens.sum()))
        return max(1, round(epochs * math.ceil(notes / batch)))
    assert training.epochs_per_round is not None  # the plan fills it in
    return max(1, math.ceil(training.epochs_per_round * notes / batch))
