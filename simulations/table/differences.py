"""What is better than what, in pairs: the same test notes, and the same draws of labelled notes, over all seeds."""

import numpy as np

from client.evaluation.compare import verdict
from client.evaluation.metrics import paired_difference
from client.evaluation.score import Predicted
from client.tasks import LABEL
from common.results import POOLED, TOGETHER
from common.table import Difference, Setting
from simulations.table.plan import TablePlan
from simulations.table.score import Key, Scored, TableScorer

Row = tuple[str, Setting]


def differences(table: TablePlan, scorer: TableScorer, done: dict[Row, dict[int, Scored]]) -> list[Difference]:
    """Every federated arm against base, TF-IDF, itself trained alone and centrally, and the arm that it starts from.

    Args:
        done: the finished cells of each row, by seed.
    """
    found: list[Difference] = []
    for arm in table.arms:
        row: Row = (arm.name, "federated")
        others: list[Row] = [("base", "as it is"), ("tf-idf", "as it is")]
        others += [(arm.name, "local-only"), (arm.name, "centralised")]
        others += [(arm.start, "federated")] if arm.start else []
        for other in others:
            if row not in done or other not in done:
                continue
            for place in [POOLED, TOGETHER, *scorer.notes]:
                found += _at(place, row, other, done, scorer, table.common.study.seed)
    return found


def _at(
    place: str, row: Row, other: Row, done: dict[Row, dict[int, Scored]], scorer: TableScorer, seed: int
) -> list[Difference]:
    """The differences at one place, in every mode and at every number of labels that both were scored with."""
    untrained = other[1] == "as it is"
    seeds = [s for s in done[row] if untrained or s in done[other]]
    pairs = [(done[row][s], next(iter(done[other].values())) if untrained else done[other][s]) for s in seeds]
    found = []
    for mode in ("frozen", "fine-tuned", "lora"):
        key: Key = (place, mode)
        both = [(a.predicted[key], b.predicted[key]) for a, b in pairs if key in a.predicted and key in b.predicted]
        if not both:
            continue
        shots = set.intersection(*({*one.draws} & {*two.draws} for one, two in both))
        for n in [None, *sorted(shots)]:
            mine, theirs = (np.concatenate([_labels(pair[side], n) for pair in both]) for side in (0, 1))
            estimate = paired_difference(scorer.truth(place), mine, theirs, seed)
            found.append(
                Difference(
                    site=place,
                    task=LABEL,
                    mode=key[1],
                    shots=n,
                    arm=row[0],
                    setting=row[1],
                    against_arm=other[0],
                    against_setting=other[1],
                    difference=estimate,
                    n_test=mine.shape[1],
                    seeds=len(both),
                    verdict=verdict(estimate),
                )
            )
    return found


def _labels(predicted: Predicted, shots: int | None) -> np.ndarray:
    """[draws, n_test] labels: of all train labels (one row), or of each draw."""
    return predicted.full[None] if shots is None else predicted.draws[shots]
