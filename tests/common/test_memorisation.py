"""The figures of memorisation on their way: what comes back is what was sent, and nothing else gets in."""

from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from common import memorisation
from common.messages import SITE_ERROR, BadReply
from common.plan import StudyPlan
from common.results import CanaryExposure, Estimate, IdentifierCompletion, Memorisation

CANARIES = CanaryExposure(
    planted=4,
    controls=4,
    repeats=2,
    references=10**6,
    planted_mean=3.25,
    planted_max=7.5,
    controls_mean=1.5,
    auc=Estimate(value=0.75, low=0.4, high=0.9),
)
IDENTIFIERS = IdentifierCompletion(
    train_notes=40,
    held_out_notes=22,
    train_completed=0.25,
    held_out_completed=0.125,
    completed=Estimate(value=0.125),
    likelihood=Estimate(value=0.5, low=-0.1, high=1.1),
)


@pytest.fixture
def plan(make_plan: Callable[..., StudyPlan]) -> StudyPlan:
    return make_plan(release={"canaries": 8})


@pytest.mark.parametrize("veto", ["", memorisation.EXPOSED])
@pytest.mark.parametrize(("canaries", "identifiers"), [(CANARIES, None), (None, IDENTIFIERS), (CANARIES, IDENTIFIERS)])
def test_what_comes_back_is_what_was_sent(
    plan: StudyPlan, make_message: Callable[..., Message], canaries: Any, identifiers: Any, veto: str
) -> None:
    sent = Memorisation(site="north", veto=veto, canaries=canaries, identifiers=identifiers)
    reply = memorisation.reply(sent, make_message(kind=memorisation.KIND))
    assert memorisation.read_reply(reply, "north", plan) == sent


@pytest.mark.parametrize(
    "change",
    [
        {"canaries-planted": 3},
        {"canaries-planted": "four"},
        {"canaries-planted_mean": float("nan")},
        {"canaries-text": 1},
        {"canaries-auc-middle": 0.5},
        {"canaries-auc": 0.5},
        {"identifiers-train_notes": 19},
        {"veto": "because"},
        {"veto": memorisation.EXPOSED, "words": "of a note"},
    ],
)
def test_anything_else_is_refused(plan: StudyPlan, make_message: Callable[..., Message], change: dict) -> None:
    said = memorisation.figures(Memorisation(site="north", canaries=CANARIES, identifiers=IDENTIFIERS)) | change
    message = make_message(kind=memorisation.KIND)
    reply = Message(RecordDict({"config": ConfigRecord(said)}), reply_to=message)
    with pytest.raises(BadReply):
        memorisation.read_reply(reply, "north", plan)


@pytest.mark.parametrize("content", [RecordDict(), RecordDict({"config": ConfigRecord({})})])
def test_no_figures_are_no_answer(plan: StudyPlan, make_message: Callable[..., Message], content: RecordDict) -> None:
    with pytest.raises(BadReply):
        memorisation.read_reply(Message(content, reply_to=make_message()), "north", plan)


@pytest.mark.parametrize(
    ("reason", "veto"),
    [
        ("plan-not-approved", "plan-not-approved"),
        ("rounds-beyond-policy", "rounds-beyond-policy"),
        ("privacy-required", "privacy-required"),
        ("no-mlm-head", ""),
        ("out-of-memory", ""),
        ("Mrs Zebrafinch, 4 Elm Street", ""),
    ],
)
def test_an_error_is_a_reason_and_perhaps_a_veto(
    plan: StudyPlan, make_message: Callable[..., Message], reason: str, veto: str
) -> None:
    found = memorisation.read_reply(Message(Error(SITE_ERROR, reason), reply_to=make_message()), "north", plan)
    assert found.veto == veto and "Zebrafinch" not in found.reason and found.reason
