"""Whether federation helped: two models on the same test notes of one site."""

import numpy as np

from client.evaluation.metrics import paired_difference
from client.evaluation.task import TaskData
from common.results import Comparison, Estimate, Mode, ModelName, Verdict


def compare(
    data: TaskData,
    against: ModelName,
    federated_predictions: np.ndarray,
    other_predictions: np.ndarray,
    seed: int = 0,
    mode: Mode = "frozen",
) -> Comparison:
    """Whether the federated encoder does better than `against` by the task's metric.

    Args:
        data: the task.
        against: the other model.
        federated_predictions: [n_test] labels, or [k, n_test] of k trainings (draws or seeds), whose mean counts.
        other_predictions: labels of the other model, likewise.
        seed: of the resamples.
        mode: how both models were scored.
    """
    difference = paired_difference(data.test_labels, federated_predictions, other_predictions, seed, metric=data.metric)
    return Comparison(
        site=data.site,
        task=data.task,
        against=against,
        mode=mode,
        metric=data.metric,
        difference=difference,
        n_test=len(data.test_labels),
        verdict=verdict(difference),
    )


def verdict(difference: Estimate) -> Verdict:
    """ "better" or "worse" only where the interval of the difference excludes 0.

    It is one site's verdict at the 95 % level: of twenty comparisons between equals, one or two will be called
    different by chance.
    """
    if difference.low is not None and difference.low > 0:
        return "better"
    if difference.high is not None and difference.high < 0:
        return "worse"
    return "no clear difference"
