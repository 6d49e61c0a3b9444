"""The exchange of scores: after the last round shared tensors go down, and how they do on the plan's tasks comes up.

No class is named, and how many notes each has is not said. So the model that always says the most frequent class is
not among them, for its accuracy is such a number; and figures have three digits: from more, such numbers could be
computed. Why a task has no score is a word out of a list.
"""

from typing import Literal, Self, get_args

from flwr.app import ConfigRecord, Message, RecordDict
from pydantic import BaseModel, ConfigDict, Field, model_validator

from common import messages
from common.messages import CONFIG, BadReply
from common.plan import StudyPlan
from common.results import (
    FLOOR,
    Comparison,
    Estimate,
    FewShot,
    Metric,
    Mode,
    NotScored,
    SiteFacts,
    TaskScore,
    Verdict,
)

ACTION = "scores"
KIND = f"query.{ACTION}"  # of the message, as Flower names an action
WITHHELD = "withheld"  # the code of a site that keeps its scores
KEPT = "The site keeps its scores."
Released = Literal["federated", "base", "local-only", "tf-idf"]
Against = Literal["base", "local-only", "tf-idf"]
Reason = Literal["no-task", "too-few", "failed"]
REASONS: dict[Reason, str] = {
    "no-task": "The site has no task of this name.",
    "too-few": f"The site has too few labelled notes for it (fewer than {FLOOR} for the test), or all of one class.",
    "failed": "Not every model could be scored there: the site's own log says why.",
}
_DIGITS = 3
_ROUNDED = 0.002  # how far a difference may be from that of two figures, all three of so many digits
_DEEPEST = 8  # parts of a figure's name

Flat = dict[str, float | int | str]


class SiteScores(BaseModel):
    """What a site says of the final encoder. `answered`: with figures, or that it keeps them; it is not asked again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    site: str
    answered: bool
    scores: list[TaskScore] = []
    comparisons: list[Comparison] = []
    not_scored: list[NotScored] = []


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _Interval(_Said):
    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = getattr(self, "low", None), getattr(self, "high", None)
        if (low is None) != (high is None) or (low is not None and high is not None and low > high):
            raise ValueError("no interval")
        return self

    @property
    def estimate(self) -> Estimate:
        return Estimate.model_validate(self.model_dump(include={"value", "low", "high"}))


class _Share(_Interval):
    value: float = Field(ge=0.0, le=1.0)
    low: float | None = Field(None, ge=0.0, le=1.0)
    high: float | None = Field(None, ge=0.0, le=1.0)


class _Difference(_Interval):
    value: float = Field(ge=-1.0, le=1.0)
    low: float | None = Field(None, ge=-1.0, le=1.0)
    high: float | None = Field(None, ge=-1.0, le=1.0)
    verdict: Verdict


class _Few(_Said):
    macro_f1: _Share
    accuracy: _Share | None = None


class _Score(_Said):
    macro_f1: _Share
    accuracy: _Share
    auroc: _Share | None = None
    few_shot: dict[str, _Few] = {}


class _Task(_Said):
    metric: Metric
    n_train: int = Field(ge=1)
    n_test: int = Field(ge=FLOOR)


class _Reply(_Said):
    """The figures by task, mode and model."""

    task: dict[str, _Task] = {}
    score: dict[str, dict[Mode, dict[Released, _Score]]] = {}
    minus: dict[str, dict[Mode, dict[Against, _Difference]]] = {}
    not_scored: dict[str, Reason] = {}


def figures(found: SiteScores) -> Flat:
    """What leaves the site, by name: `score/label/frozen/base/auroc/low`. The only gate: all else is dropped here.

    Raises KeyError where a reason is none of `REASONS`.
    """
    said: Flat = {}
    for score in found.scores:
        if score.model not in get_args(Released):
            continue
        said[f"task/{score.task}/metric"] = score.metric
        said[f"task/{score.task}/n_train"] = score.n_train
        said[f"task/{score.task}/n_test"] = score.n_test
        at = f"score/{score.task}/{score.mode}/{score.model}"
        said |= _flat(f"{at}/macro_f1", score.macro_f1) | _flat(f"{at}/accuracy", score.accuracy)
        said |= _flat(f"{at}/auroc", score.auroc)
        for few in score.few_shot:
            said |= _flat(f"{at}/few_shot/{few.shots}/macro_f1", few.macro_f1)
            if score.metric == "accuracy":
                said |= _flat(f"{at}/few_shot/{few.shots}/accuracy", few.accuracy)
    for one in found.comparisons:
        at = f"minus/{one.task}/{one.mode}/{one.against}"
        said |= _flat(at, one.difference) | {f"{at}/verdict": one.verdict}
    codes = {sentence: code for code, sentence in REASONS.items()}
    return said | {f"not_scored/{one.task}": codes[one.reason] for one in found.not_scored}


def reply(found: SiteScores, message: Message) -> Message:
    return Message(RecordDict({CONFIG: ConfigRecord({**figures(found)})}), reply_to=message)


def read_reply(message: Message, facts: SiteFacts, plan: StudyPlan) -> SiteScores:
    """What a site answers, checked against the plan and against what it said of itself. That it keeps its scores is an
    answer, too. Raises BadReply."""
    if messages.site_code(message) == WITHHELD:
        return without(facts.name, plan, KEPT, answered=True)
    messages.refuse_error(message)
    try:
        if set(message.content) != {CONFIG}:
            raise ValueError
        said = _Reply.model_validate(_nested(dict(message.content.config_records[CONFIG])))
    except (KeyError, TypeError, ValueError):
        raise BadReply("its scores are malformed") from None
    if wrong := _beyond(said, facts, plan):
        raise BadReply(f"its scores are not what it was asked for: {wrong}")
    return _read(said, facts.name, plan)


def without(site: str, plan: StudyPlan, reason: str, answered: bool = False) -> SiteScores:
    """No score of a site, and one reason for all of its tasks."""
    missing = [NotScored(site=site, task=task, reason=reason) for task in dict.fromkeys(plan.evaluation.tasks)]
    return SiteScores(site=site, answered=answered, not_scored=missing)


def _beyond(said: _Reply, facts: SiteFacts, plan: StudyPlan) -> str:
    """What is not as the plan and the site's own counts have it; "" where all is."""
    evaluation = plan.evaluation
    if set(said.task) | set(said.not_scored) != set(evaluation.tasks):
        return "a task is missing, or is none of the plan's"
    if set(said.task) != set(said.score) or not set(said.minus) <= set(said.score):
        return "a task has n and no score, or a score and no n"
    if any(said.not_scored[task] != "failed" for task in set(said.task) & set(said.not_scored)):
        return "a task has a score, and a reason why it has none"
    for task, of_task in said.task.items():
        # a count of 0 is withheld
        if of_task.n_test > (facts.test or of_task.n_test) or of_task.n_train > (facts.train or of_task.n_train):
            return "more notes than the site has"
        for mode, models in said.score[task].items():
            shots = {str(one) for one in (evaluation.shots if mode == "frozen" else evaluation.tuned_shots)}
            for model, score in models.items():
                if mode not in (["frozen"] if model == "tf-idf" else evaluation.modes):
                    return "a mode that the plan does not have"
                if not set(score.few_shot) <= shots:
                    return "a number of labels that the plan does not have"
        for mode, others in said.minus.get(task, {}).items():
            if mode not in evaluation.modes:
                return "a mode that the plan does not have"
            for against, one in others.items():
                theirs = said.score[task].get("frozen" if against == "tf-idf" else mode, {}).get(against)
                ours = said.score[task].get(mode, {}).get("federated")
                if ours is None or theirs is None or not _fits(one, ours, theirs, of_task.metric):
                    return "a difference that is not that of its scores"
    return ""


def _fits(one: _Difference, ours: _Score, theirs: _Score, metric: Metric) -> bool:
    mine, other = (score.accuracy if metric == "accuracy" else score.macro_f1 for score in (ours, theirs))
    clear = (one.low is not None and one.low > 0) or (one.high is not None and one.high < 0)
    may = {
        "better": one.low is not None and one.low >= 0,
        "worse": one.high is not None and one.high <= 0,
        "no clear difference": not clear,
    }
    return may[one.verdict] and abs(one.value - (mine.value - other.value)) <= _ROUNDED


def _read(said: _Reply, site: str, plan: StudyPlan) -> SiteScores:
    """In the order of the plan: a message keeps none."""
    found = SiteScores(site=site, answered=True)
    for task in dict.fromkeys(plan.evaluation.tasks):
        if task in said.not_scored:
            found.not_scored.append(NotScored(site=site, task=task, reason=REASONS[said.not_scored[task]]))
        if task not in said.task:
            continue
        of_task = said.task[task].model_dump()
        for mode in get_args(Mode):
            scores, differences = said.score[task].get(mode, {}), said.minus.get(task, {}).get(mode, {})
            for model in get_args(Released):
                if score := scores.get(model):
                    found.scores.append(
                        TaskScore(
                            site=site,
                            task=task,
                            model=model,
                            mode=mode,
                            **of_task,
                            support={},
                            macro_f1=score.macro_f1.estimate,
                            accuracy=score.accuracy.estimate,
                            auroc=score.auroc and score.auroc.estimate,
                            few_shot=[_few(int(n), score.few_shot[n]) for n in sorted(score.few_shot, key=int)],
                        )
                    )
            for against in get_args(Against):
                if one := differences.get(against):
                    found.comparisons.append(
                        Comparison(
                            site=site,
                            task=task,
                            against=against,
                            mode=mode,
                            metric=said.task[task].metric,
                            difference=one.estimate,
                            n_test=said.task[task].n_test,
                            verdict=one.verdict,
                        )
                    )
    return found


def _few(shots: int, few: _Few) -> FewShot:
    accuracy = few.accuracy and few.accuracy.estimate
    return FewShot(shots=shots, macro_f1=few.macro_f1.estimate, accuracy=accuracy, per_seed=[], short_classes=None)


def _flat(name: str, value: Estimate | None) -> Flat:
    given = value.model_dump(exclude_none=True) if value else {}
    return {f"{name}/{bound}": round(number, _DIGITS) for bound, number in given.items()}


def _nested(said: dict[str, object]) -> dict[str, object]:
    """`{"a/b": 1}` as `{"a": {"b": 1}}`. Raises ValueError where one name is the beginning of another."""
    found: dict[str, object] = {}
    for name, value in said.items():
        *path, last = parts = name.split("/")
        if len(parts) > _DEEPEST:
            raise ValueError
        place = found
        for part in path:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ValueError
            place = inner
        if last in place:
            raise ValueError
        place[last] = value
    return found
