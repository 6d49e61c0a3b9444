"""Scores on their way: what comes back is what was sent without its classes, and nothing else gets in."""

from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from common import scores
from common.errors import InputError
from common.messages import SITE_ERROR, BadReply
from common.plan import StudyPlan, parse_plan, plan_to_toml
from common.results import Comparison, Estimate, FewShot, Mode, ModelName, NotScored, SiteFacts, TaskScore
from common.scores import REASONS, SiteScores

SECRET = "Zebrafinch"
FACTS = SiteFacts(
    name="north", train=200, dev=30, test=60, set_aside=0, tokens=9000, whole=200, shortened=0, too_short=0
)
Make = Callable[..., StudyPlan]


def score(model: ModelName, value: float = 0.612, mode: Mode = "frozen", task: str = "label") -> TaskScore:
    estimate = Estimate(value=value, low=round(value - 0.1, 3), high=round(value + 0.1, 3))
    few = FewShot(shots=16, macro_f1=estimate, accuracy=None, per_seed=[], short_classes=None)
    return TaskScore(
        site="north",
        task=task,
        model=model,
        mode=mode,
        n_train=160,
        n_test=42,
        support={},
        macro_f1=estimate,
        accuracy=Estimate(value=0.7),
        auroc=None if model == "tf-idf" else estimate,
        few_shot=[few] if mode == "frozen" else [],
    )


def minus(against: ModelName, value: float, mode: Mode = "frozen") -> Comparison:
    return Comparison(
        site="north",
        task="label",
        against=against,
        mode=mode,
        difference=Estimate(value=value, low=round(value - 0.05, 3), high=round(value + 0.05, 3)),
        n_test=42,
        verdict="better" if value > 0.05 else "no clear difference",
    )


@pytest.fixture
def plan(make_plan: Make) -> StudyPlan:
    evaluation = {"release_scores": True, "tasks": ["label", "severity"], "modes": ["frozen", "lora"]}
    return make_plan(evaluation=evaluation)


@pytest.fixture
def sent() -> SiteScores:
    return SiteScores(
        site="north",
        answered=True,
        scores=[
            score("federated"), score("base", 0.5), score("local-only", 0.59), score("tf-idf", 0.4),
            score("federated", 0.65, "lora"),
        ],
        comparisons=[
            minus("base", 0.112), minus("local-only", 0.022), minus("tf-idf", 0.212), minus("tf-idf", 0.25, "lora"),
        ],
        not_scored=[NotScored(site="north", task="severity", reason=REASONS["too-few"])],
    )  # fmt: skip


def answer(make_message: Callable[..., Message], said: dict[str, Any]) -> Message:
    return Message(RecordDict({"config": ConfigRecord(said)}), reply_to=make_message(kind=scores.KIND))


def test_what_comes_back_is_what_was_sent(
    plan: StudyPlan, sent: SiteScores, make_message: Callable[..., Message]
) -> None:
    came = scores.read_reply(scores.reply(sent, make_message(kind=scores.KIND)), FACTS, plan)
    by = lambda one: (one.task, one.mode, getattr(one, "model", getattr(one, "against", "")))
    assert sorted(came.scores, key=by) == sorted(sent.scores, key=by)
    assert sorted(came.comparisons, key=by) == sorted(sent.comparisons, key=by)
    assert came.not_scored == sent.not_scored and came.answered


def test_classes_and_what_counts_them_stay(plan: StudyPlan, sent: SiteScores) -> None:
    long = 0.123456789
    full = score("base").model_copy(
        update={
            "support": {SECRET: 40, "other": 2},
            "macro_f1": Estimate(value=long, low=long, high=long),
            "few_shot": [FewShot(shots=16, macro_f1=Estimate(value=long), per_seed=[long] * 5, short_classes=3)],
        }
    )
    said = scores.figures(sent.model_copy(update={"scores": [full, score("majority", 0.3)]}))
    assert SECRET not in str(said) and "majority" not in str(said) and "0.1234" not in str(said)
    assert said["score/label/frozen/base/macro_f1/value"] == 0.123
    assert not any("seed" in name or "class" in name or "support" in name for name in said)


def test_no_other_sentence_can_leave(sent: SiteScores) -> None:
    own = [NotScored(site="north", task="label", reason=f"Only 12 notes have {SECRET}.")]
    with pytest.raises(KeyError):
        scores.figures(sent.model_copy(update={"not_scored": own}))


F, B = "score/label/frozen/federated", "score/label/frozen/base"


@pytest.mark.parametrize(
    "change",
    [
        {f"{F}/macro_f1/value": 1.01},
        {f"{F}/macro_f1/value": -0.1},
        {f"{F}/macro_f1/value": float("nan")},
        {f"{F}/macro_f1/value": float("inf")},
        {f"{F}/macro_f1/value": "0.612"},
        {f"{F}/macro_f1/value": True},
        {f"{F}/macro_f1/value": [0.6]},
        {f"{F}/macro_f1/low": 0.9},
        {f"{F}/macro_f1/low": None},
        {f"{F}/macro_f1": 0.6},
        {f"{F}/macro_f1/middle": 0.6},
        {f"{F}/recall/value": 0.6},
        {f"{F}/support/{SECRET}": 12},
        {f"{F}/few_shot/32/macro_f1/value": 0.4, f"{F}/few_shot/016/macro_f1/value": 0.4},
        {f"{F}/few_shot/17/macro_f1/value": 0.4},
        {"score/label/lora/federated/few_shot/16/macro_f1/value": 0.4},
        {"score/label/frozen/majority/macro_f1/value": 0.4},
        {"score/label/fine-tuned/base/macro_f1/value": 0.4, "score/label/fine-tuned/base/accuracy/value": 0.4},
        {"score/label/lora/tf-idf/macro_f1/value": 0.4, "score/label/lora/tf-idf/accuracy/value": 0.4},
        {f"score/{SECRET}/frozen/base/macro_f1/value": 0.4, f"score/{SECRET}/frozen/base/accuracy/value": 0.4},
        {f"task/{SECRET}/n_test": 42, f"task/{SECRET}/n_train": 160, f"task/{SECRET}/metric": "macro-f1"},
        {"task/label/n_test": 19},
        {"task/label/n_test": 61},
        {"task/label/n_test": 42.5},
        {"task/label/n_train": 201},
        {"task/label/n_train": 0},
        {"task/label/metric": SECRET},
        {"task/label/metric": None},
        {"minus/label/frozen/base/value": 0.2},
        {"minus/label/frozen/base/verdict": "worse"},
        {"minus/label/frozen/base/verdict": "no clear difference"},
        {"minus/label/frozen/base/verdict": SECRET},
        {"minus/label/frozen/federated/value": 0.0, "minus/label/frozen/federated/verdict": "no clear difference"},
        {"minus/label/lora/base/value": 0.15, "minus/label/lora/base/verdict": "no clear difference"},
        {"not_scored/severity": f"Only 12 notes have {SECRET}."},
        {"not_scored/severity": None},
        {"not_scored/label": "too-few"},
        {f"not_scored/{SECRET}": "no-task"},
        {"words": SECRET},
        {"/" * 10: 1},
        {"": 1},
    ],
)  # fmt: skip
def test_anything_else_is_refused(
    plan: StudyPlan, sent: SiteScores, make_message: Callable[..., Message], change: dict[str, Any]
) -> None:
    said = {name: value for name, value in (scores.figures(sent) | change).items() if value is not None}
    with pytest.raises(BadReply) as caught:
        scores.read_reply(answer(make_message, said), FACTS, plan)
    assert SECRET not in str(caught.value) and caught.value.code == "reply-invalid"


@pytest.mark.parametrize(
    "content", [RecordDict(), RecordDict({"config": ConfigRecord({})}), RecordDict({"other": ConfigRecord({})})]
)
def test_no_figures_are_no_answer(plan: StudyPlan, make_message: Callable[..., Message], content: RecordDict) -> None:
    with pytest.raises(BadReply):
        scores.read_reply(Message(content, reply_to=make_message()), FACTS, plan)


def test_a_count_that_is_withheld_bounds_nothing(
    plan: StudyPlan, sent: SiteScores, make_message: Callable[..., Message]
) -> None:
    withheld = FACTS.model_copy(update={"train": 0, "test": 0, "units": 30})
    assert scores.read_reply(answer(make_message, scores.figures(sent)), withheld, plan).scores


def test_a_site_that_keeps_its_scores_has_answered(plan: StudyPlan, make_message: Callable[..., Message]) -> None:
    found = scores.read_reply(Message(Error(SITE_ERROR, "withheld"), reply_to=make_message()), FACTS, plan)
    assert found.answered and {(one.task, one.reason) for one in found.not_scored} == {
        ("label", scores.KEPT),
        ("severity", scores.KEPT),
    }


@pytest.mark.parametrize(("reason", "code"), [("out-of-memory", "out-of-memory"), (f"Mrs {SECRET}", "site-failed")])
def test_any_other_error_is_a_reason(
    plan: StudyPlan, make_message: Callable[..., Message], reason: str, code: str
) -> None:
    with pytest.raises(BadReply) as caught:
        scores.read_reply(Message(Error(SITE_ERROR, reason), reply_to=make_message()), FACTS, plan)
    assert caught.value.code == code and SECRET not in str(caught.value)


def test_a_plan_without_the_key_has_the_hash_that_it_had(make_plan: Make) -> None:
    """Sites have approved it."""
    plan = make_plan()
    assert "release_scores = false" in plan_to_toml(plan) and parse_plan(plan_to_toml(plan)).hash() == plan.hash()
    asks = make_plan(evaluation={"release_scores": True})
    assert asks.hash() != plan.hash() and parse_plan(plan_to_toml(asks)).hash() == asks.hash()


def test_scores_of_no_task_are_refused(make_plan: Make) -> None:
    text = plan_to_toml(make_plan(evaluation={"tasks": []})).replace("release_scores = false", "release_scores = true")
    with pytest.raises(InputError, match="tasks names none"):
        parse_plan(text)
