"""What a run scored on a task: in which modes, by which metric, and what stands beside an encoder in each mode."""

from typing import get_args

from common.results import Comparison, Estimate, FewShot, Metric, Mode, ModelName, Summary, TaskScore

METRIC_LABELS: dict[Metric, str] = {"macro-f1": "macro-F1", "accuracy": "accuracy"}
MODELS: tuple[ModelName, ...] = get_args(ModelName)
# No encoders: they are scored in one way, and stand beside the encoders in every mode.
WORDS: tuple[ModelName, ...] = ("tf-idf", "majority")


def task_names(summary: Summary) -> list[str]:
    """Every task that was scored or compared, in the order of the scores."""
    return list(dict.fromkeys([*(s.task for s in summary.scores), *(c.task for c in summary.comparisons)]))


def modes(summary: Summary, task: str | None = None) -> list[Mode]:
    """How encoders were used on a task (None: on any), frozen first. What has no encoder counts as frozen."""
    scores = [s for s in summary.scores if task in (None, s.task)]
    found = {s.mode for s in scores if s.model not in WORDS}
    found |= {c.mode for c in summary.comparisons if task in (None, c.task)}
    return [mode for mode in get_args(Mode) if mode in (found or {s.mode for s in scores})]


def metric_words(summary: Summary, task: str | None = None) -> str:
    """`macro-F1`; sites declare the metric of a task themselves, and where they do not agree it is both."""
    results: list[TaskScore | Comparison] = [*summary.scores, *summary.comparisons]
    found = {result.metric for result in results if task in (None, result.task)}
    return " or ".join(label for metric, label in METRIC_LABELS.items() if metric in (found or {"macro-f1"}))


def mode_scores(summary: Summary, task: str, mode: Mode) -> list[TaskScore]:
    """The scores of a task in a mode, with what stands beside every mode."""
    return [s for s in summary.scores if s.task == task and (s.mode == mode or s.model in WORDS)]


def own(score: TaskScore) -> Estimate:
    """By the task's metric."""
    return score.accuracy if score.metric == "accuracy" else score.macro_f1


def own_few(few: FewShot, metric: Metric) -> Estimate | None:
    return few.accuracy if metric == "accuracy" else few.macro_f1
