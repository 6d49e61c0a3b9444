"""Rounds of private training: what is recorded, what is withheld, and how a site leaves when its budget is spent."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message
from scripted_sites import NAMES, NOTES, START, Scripted, killed, moved, refuse, spent

from common import messages
from common.errors import StudyError
from common.messages import Tensors
from common.plan import StudyPlan
from server.rounds import HAS_LEFT
from server.strategies import distance

PRIVATE = {"epsilon": 3.0}
STEPS = {"eastholme": 1.0, "millbrook": 2.0, "northgate": 6.0}

MakeStudy = Callable[..., Scripted]


@pytest.fixture
def make_study(tmp_path: Path, make_plan: Callable[..., StudyPlan]) -> MakeStudy:
    def make(where: str = "a", privacy: dict[str, Any] | None = PRIVATE, **sections: Any) -> Scripted:
        plan = make_plan(**sections, **({"privacy": privacy} if privacy else {}))
        return Scripted(plan, tmp_path / where, update=lambda site, number, arrays: moved(arrays, STEPS[site]))

    return make


# The run's id.


def test_every_request_of_a_run_carries_one_id(make_study: MakeStudy) -> None:
    study, other = make_study("a"), make_study("b")
    state, second = study.run(), other.run()
    assert re.fullmatch(r"[0-9a-f]{32}", state.run) and state.run != second.run
    assert {kind for _, kind, _ in study.asked} == {"query", "train", "evaluate"}
    assert {messages.read_run(message) for message in study.sent} == {state.run}


def test_a_resumed_run_has_the_id_that_it_had(make_study: MakeStudy) -> None:
    study = make_study()
    study.answers["northgate", "train", 2] = killed
    with pytest.raises(KeyboardInterrupt):
        study.run()
    before = study.kept[0].run
    study.answers.clear()
    assert study.run().run == before and {messages.read_run(message) for message in study.sent} == {before}


# What is recorded.


def test_sites_weigh_the_same_whatever_they_say_of_their_size(make_study: MakeStudy) -> None:
    study = make_study()
    state = study.run()
    assert study.kept[1]["bias"] == pytest.approx([1 + 2 * 3.0, -1])  # the mean of 1, 2 and 6, twice
    weighed = make_study("b", privacy=None)
    weighed.run()
    mean = sum(STEPS[name] * NOTES[name] for name in NAMES) / sum(NOTES.values())
    assert weighed.kept[1]["bias"] == pytest.approx([1 + 2 * mean, -1])
    assert [(f.train, f.units) for f in state.sites] == [(0, 25)] * 3


def test_the_record_holds_what_was_spent_and_nothing_that_is_withheld(make_study: MakeStudy) -> None:
    study = make_study()
    # A site that says more than it should: it is not written down.
    talkative = dataclasses.replace(study.reply("millbrook", 1), tokens=77, seconds=1.5)
    study.answers["millbrook", "train", 1] = lambda message: messages.train_reply(talkative, START, message)
    state = study.run()
    assert study.kept[0] == state
    for one in state.rounds[1:]:
        for site in one.sites:
            assert site.state == "returned" and (site.notes, site.tokens, site.seconds) == (0, 0, 0.0)
            assert (site.steps, site.loss, site.privacy) == (2, 1.5, spent(one.number))


def test_a_loss_may_stay_at_the_site(make_study: MakeStudy) -> None:
    state = make_study(privacy=PRIVATE | {"release_loss": False}).run()
    assert [s.loss for r in state.rounds for s in r.sites] == [None] * 6
    assert all(s.privacy and s.update_norm for r in state.rounds for s in r.sites)


@pytest.mark.parametrize(
    "hospitals", [{}, {"hospital_privacy": {"noise_multiplier": 1, "clipping_norm": 1, "epsilon": 99}}]
)
def test_the_loss_of_one_site_may_be_drowned(make_study: MakeStudy, hospitals: dict[str, Any]) -> None:
    """Flower's strategies want the same metrics of all sites."""
    study = make_study(**hospitals)
    drowned = dataclasses.replace(study.reply("millbrook", 1), loss=None)
    study.answers["millbrook", "train", 1] = lambda message: messages.train_reply(drowned, START, message)
    first, second = study.run().rounds[1:]
    assert [s.loss for s in first.sites] == [1.5, None, 1.5] and [s.loss for s in second.sites] == [1.5] * 3
    assert all(s.state == "returned" for s in first.sites)


def test_a_reply_that_is_not_private_is_left_out(make_study: MakeStudy) -> None:
    study = make_study()
    plain = dataclasses.replace(study.reply("millbrook", 1), privacy=None)
    study.answers["millbrook", "train", 1] = lambda message: messages.train_reply(plain, START, message)
    first, second = study.run().rounds[1:]
    assert first.sites[1].reason == "what it says of its privacy is missing or malformed"
    assert second.sites[1].state == "returned"


# Held-out losses.


def test_a_withheld_loss_is_no_failure(make_study: MakeStudy) -> None:
    study = make_study()
    study.answers["millbrook", "evaluate", None] = refuse("withheld")
    state = study.run()
    assert [set(r.held_out) for r in state.rounds] == [{"eastholme", "northgate"}] * 3
    assert not [event for event in study.events if event.kind == "unmeasured"]
    assert [e.site for e in study.events if e.kind == "held-out" and e.round == 1] == ["eastholme", "northgate"]


@pytest.mark.parametrize("case", ["plain study", "another code", "a foreign error"])
def test_any_other_missing_loss_is_told(make_study: MakeStudy, case: str) -> None:
    study = make_study(privacy=None if case == "plain study" else PRIVATE)
    study.answers["millbrook", "evaluate", 1] = {
        "plain study": refuse("withheld"),
        "another code": refuse("out-of-memory"),
        "a foreign error": lambda message: Message(Error(7, "withheld"), reply_to=message),
    }[case]
    study.run()
    (event,) = [event for event in study.events if event.kind == "unmeasured"]
    assert (event.round, event.site) == (1, "millbrook") and event.text.startswith("held-out loss: ")


# Updates that are too large.


@pytest.mark.parametrize("privacy", [None, PRIVATE])
def test_a_large_update_is_left_out_with_both_numbers(make_study: MakeStudy, privacy: dict[str, Any] | None) -> None:
    study = make_study(privacy=privacy, federation={"max_update_norm": 5.5})
    first = study.run().rounds[1]
    out = first.sites[2]
    assert (out.site, out.state, out.bytes_up, out.privacy) == ("northgate", "left-out", 0, None)
    assert out.reason == "its update has an L2 norm of 6, more than federation.max_update_norm = 5.5"
    assert [s.update_norm for s in first.sites[:2]] == pytest.approx([1, 2])
    assert study.trained(2) == NAMES  # it may come back


def test_the_norm_is_that_of_the_whole_update(make_study: MakeStudy) -> None:
    """No tensor alone is too large, nor is the update on the weights' own scale."""

    def spread(site: str, number: int, arrays: Tensors) -> Tensors:
        return {name: value + np.float32(1) for name, value in arrays.items()}

    def shrunk(site: str, number: int, arrays: Tensors) -> Tensors:
        return {name: np.zeros_like(value) for name, value in arrays.items()}

    size = sum(value.size for value in START.values()) ** 0.5
    nothing = {name: np.zeros_like(value) for name, value in START.items()}
    for update, norm in ((spread, size), (shrunk, distance(START, nothing))):
        for most, state in ((norm * 1.001, "returned"), (norm * 0.999, "left-out")):
            study = make_study(f"{update.__name__}-{state}", federation={"max_update_norm": most, "rounds": 1})
            study.update = lambda site, number, arrays, update=update: (  # type: ignore[misc]
                update(site, number, arrays) if site == "millbrook" else arrays
            )
            assert study.run().rounds[1].sites[1].state == state


def test_an_update_that_overflows_is_too_large(make_study: MakeStudy) -> None:
    study = make_study(federation={"max_update_norm": 1e30, "rounds": 1})
    study.update = lambda site, number, arrays: moved(arrays, 3e38 if site == "millbrook" else 1.0)
    out = study.run().rounds[1].sites[1]
    assert out.reason.startswith("its update has an L2 norm of 3e+38")


# A site whose budget is spent.


def test_a_site_leaves_and_the_others_go_on(make_study: MakeStudy) -> None:
    study = make_study(federation={"rounds": 4})
    study.answers["millbrook", "train", 2] = refuse("budget-spent")
    state = study.run()
    assert [study.trained(number) for number in (1, 2, 3, 4)] == [NAMES, NAMES, *[["eastholme", "northgate"]] * 2]
    size = sum(value.nbytes for value in START.values())
    gone = [one.sites[1] for one in state.rounds[2:]]
    assert [(s.site, s.state, s.reason, s.bytes_down) for s in gone] == [
        ("millbrook", "left-out", HAS_LEFT, size),
        ("millbrook", "left-out", HAS_LEFT, 0),
        ("millbrook", "left-out", HAS_LEFT, 0),
    ]
    assert [set(r.held_out) for r in state.rounds[2:]] == [{"eastholme", "northgate"}] * 3
    assert not [a for a in study.asked if a[:2] == ("millbrook", "evaluate") and a[2] >= 2]
    told = [(e.round, e.site, e.text) for e in study.events if e.kind == "left-out"]
    assert told == [(2, "millbrook", HAS_LEFT)]  # once
    assert study.kept[1]["bias"] == pytest.approx([1 + 3.0 + 3 * 3.5, -1])


@pytest.mark.parametrize("left_in", [1, 2])
def test_a_site_that_left_is_not_asked_after_a_restart(make_study: MakeStudy, left_in: int) -> None:
    study = make_study(federation={"rounds": 5})
    study.answers = {("millbrook", "train", left_in): refuse("budget-spent"), ("northgate", "train", 4): killed}
    with pytest.raises(KeyboardInterrupt):
        study.run()
    study.asked.clear()
    study.answers.clear()
    state = study.run()
    assert {kind for name, kind, _ in study.asked if name == "millbrook"} == {"query"}
    assert [one.sites[1].reason for one in state.rounds[left_in:]] == [HAS_LEFT] * (6 - left_in)
    assert all(one.sites[0].state == "returned" for one in state.rounds[1:])


def test_a_site_that_fails_otherwise_is_asked_again(make_study: MakeStudy) -> None:
    study = make_study(federation={"rounds": 4})
    study.answers["millbrook", "train", 1] = refuse("ledger-locked")
    study.answers["millbrook", "train", 2] = lambda message: Message(Error(7, "budget-spent"), reply_to=message)
    state = study.run()
    assert [one.sites[1].reason for one in state.rounds[1:]] == [
        "the site reports ledger-locked",
        "it failed (Flower error 7)",
        "it rests after failing twice or more: 1 more round",
        "",
    ]


def test_with_too_few_sites_left_nobody_trains_in_vain(make_study: MakeStudy) -> None:
    """Each attempt costs the others some of their own privacy."""
    study = make_study(federation={"rounds": 3, "min_sites": 3})
    study.answers["millbrook", "train", 2] = refuse("budget-spent")
    with pytest.raises(StudyError) as caught:
        study.run()
    assert caught.value.code == "round-failed" and "Round 2 had 2 good replies" in caught.value.message
    assert f"\n  millbrook: {HAS_LEFT}" in caught.value.message and "northgate" not in caught.value.message
    assert study.trained(2) == NAMES and study.kept[0].round == 1


def test_with_too_few_sites_left_a_later_round_is_not_begun(make_study: MakeStudy) -> None:
    study = make_study(federation={"rounds": 4, "min_sites": 2})
    study.answers["millbrook", "train", 1] = refuse("budget-spent")
    study.answers["northgate", "train", 3] = refuse("budget-spent")
    for restart in (False, True):
        with pytest.raises(StudyError) as caught:
            study.run()
        assert caught.value.code == "round-failed" and f"\n  millbrook: {HAS_LEFT}" in caught.value.message
        # Round 3 did not end, so that after a restart northgate is asked once more; nobody knows that it left.
        assert study.trained(3) == ["eastholme", "northgate"] * (1 + restart) and study.kept[0].round == 2
    assert f"\n  northgate: {HAS_LEFT}" in caught.value.message


def test_the_last_site_leaves(make_study: MakeStudy) -> None:
    study = make_study(federation={"rounds": 3})
    for name in NAMES:
        study.answers[name, "train", 2] = refuse("budget-spent")
    with pytest.raises(StudyError, match="Round 2 had 0 good replies") as caught:
        study.run()
    assert all(f"\n  {name}: {HAS_LEFT}" in caught.value.message for name in NAMES) and study.kept[0].round == 1


def test_a_second_attempt_asks_only_for_what_is_missing(make_study: MakeStudy) -> None:
    """One site leaves and another fails: the third is not asked again, and counts once."""
    study = make_study(federation={"rounds": 1, "min_sites": 2})
    study.answers["eastholme", "train", 1] = refuse("budget-spent")
    honest = study.reply("northgate", 1)

    def once(message: Message) -> Message:
        study.answers["northgate", "train", 1] = lambda m: messages.train_reply(honest, moved(START, 6.0), m)
        return messages.error_reply("out-of-memory", message)

    study.answers["northgate", "train", 1] = once
    state = study.run()
    assert study.trained(1) == [*NAMES, "northgate"] and state.rounds[1].attempts == 2
    assert [s.reason for s in state.rounds[1].sites] == [HAS_LEFT, "", ""]
    assert study.kept[1]["bias"] == pytest.approx([1 + 4.0, -1])
