"""The tables that `fednotes evaluate` prints."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.results import Estimate, EvaluatedModel, EvaluationResult, Metric, Space

_METRICS: dict[Metric, str] = {"macro-f1": "macro-F1", "accuracy": "accuracy"}
_SPACE = {
    "within": "mean cosine, notes of one class",
    "between": "mean cosine, notes of two classes",
    "alignment": "alignment (lower: classes closer together)",
    "uniformity": "uniformity (lower: spread more evenly)",
    "silhouette_label": "silhouette by label",
    "silhouette_category": "silhouette by category",
    "modularity_label": "modularity by label",
    "modularity_category": "modularity by category",
    "effective_rank": "effective rank",
    "cka_base": "CKA to the other encoder",
}


def show(result: EvaluationResult, console: Console) -> None:
    """Prints an evaluation."""
    counts = (
        f"{result.train:,} train, {result.dev:,} dev and {result.test:,} test notes, {result.set_aside:,} set aside"
    )
    console.print(f"{escape(result.site)}: {counts}.", highlight=False, soft_wrap=True)
    for task in dict.fromkeys(score.task for score in result.scores):
        console.print(_scores(result, task))
        for line in _verdicts(result, task):
            console.print(f"  {line}", highlight=False, soft_wrap=True)
    for task in dict.fromkeys(of.task for of in result.space):
        console.print(_space(result, task))
    for missing in result.not_scored:
        console.print(f"{missing.task} was not scored. {escape(missing.reason)}", highlight=False, soft_wrap=True)


def _scores(result: EvaluationResult, task: str) -> Table:
    """A row for each model and mode. Few-shot columns are the mean over draws, by the task's metric."""
    scores = [score for score in result.scores if score.task == task]
    first = scores[0]
    shots = sorted({point.shots for score in scores for point in score.few_shot})
    curve = f"; few-shot: {_METRICS[first.metric]}, mean over draws" if shots else ""
    table = Table(
        title=f"{task}: {len(first.support)} classes, {first.n_train:,} train notes, n = {first.n_test:,} test notes",
        caption=f"With 95 % intervals over test notes{curve}.",
    )
    table.add_column("")
    for name in ("macro-F1", "accuracy", "AUROC", *(f"{number} a class" for number in shots)):
        table.add_column(name, justify="right")
    for score in scores:
        points = {
            point.shots: point.macro_f1 if score.metric == "macro-f1" else point.accuracy for point in score.few_shot
        }
        mode = "" if score.model in ("tf-idf", "majority") else f", {score.mode}"
        table.add_row(
            escape(_name(result, score.model)) + mode,
            *(_estimate(value) for value in (score.macro_f1, score.accuracy, score.auroc)),
            *(_estimate(points.get(number), interval=False) for number in shots),
        )
    return table


def _verdicts(result: EvaluationResult, task: str) -> list[str]:
    name = escape(_name(result, "model"))
    return [
        f"{name}, {one.mode}, against {escape(_name(result, one.against))}: {one.verdict} "
        f"({_METRICS[one.metric]} {_estimate(one.difference, signed=True)}, n = {one.n_test:,})"
        for one in result.comparisons
        if one.task == task
    ]


def _space(result: EvaluationResult, task: str) -> Table:
    spaces = {of.model: of.space for of in result.space if of.task == task}
    number = next(iter(spaces.values())).notes
    table = Table(title=f"Embedding space of {number:,} test notes, labels of {task}")
    table.add_column("")
    for model in spaces:
        table.add_column(escape(_name(result, model)), justify="right")
    for field, words in _SPACE.items():
        if any(getattr(space, field) is not None for space in spaces.values()):
            table.add_row(words, *(_figure(space, field) for space in spaces.values()))
    return table


def _figure(space: Space, field: str) -> str:
    value = getattr(space, field)
    return "" if value is None else f"{value:.1f}" if field == "effective_rank" else f"{value:.3f}"


def _name(result: EvaluationResult, model: EvaluatedModel) -> str:
    if model == "model":
        return result.encoder.name
    if model == "against" and result.against:
        return result.against.name
    return {"tf-idf": "TF-IDF", "majority": "most frequent class"}.get(model, model)


def _estimate(estimate: Estimate | None, interval: bool = True, signed: bool = False) -> str:
    if estimate is None:
        return ""
    form = "+.3f" if signed else ".3f"
    value = format(estimate.value, form)
    if not interval or estimate.low is None or estimate.high is None:
        return value
    return f"{value} ({estimate.low:{form}} to {estimate.high:{form}})"
