"""What a site answers when it is asked what the encoder knows by heart; and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from client.receipt import receipts
from client.site import Policy, open_site
from common import memorisation
from common.memorisation import EXPOSED, KIND
from common.messages import site_code
from common.plan import StudyPlan
from common.results import Memorisation

Plans = Callable[..., StudyPlan]
PRIVATE = {"noise_multiplier": 1.0, "delta": 1e-4}


def answer(reply: Message, plan: StudyPlan) -> Memorisation:
    return memorisation.read_reply(reply, "northgate", plan)


def test_without_privacy_canaries_and_identifiers_are_told(ask: Callable, make_plan: Plans, sites: Any) -> None:
    plan = make_plan(release={"canaries": 8}, evaluation={"held_out_notes": 256})
    found = answer(ask(sites["northgate"], KIND, plan), plan)
    assert found.canaries is not None and found.canaries.references == 10**6 and not found.veto


def test_under_privacy_only_canaries_are_told_unless_the_policy_says_so(
    ask: Callable, make_plan: Plans, numbered: Callable[..., Path]
) -> None:
    private = make_plan(release={"canaries": 8}, privacy=PRIVATE, evaluation={"held_out_notes": 100})
    plain = make_plan(release={"canaries": 8}, evaluation={"held_out_notes": 100})
    strict = numbered("strict", Policy(require_approval=False))
    released = numbered("released", Policy(require_approval=False, release_uncovered=True))
    assert answer(ask(strict, KIND, plain), plain).identifiers is not None
    assert answer(ask(released, KIND, private), private).identifiers is not None
    found = answer(ask(strict, KIND, private), private)
    assert found.identifiers is None and found.canaries is not None
    assert not any(name.startswith("identifiers") for name in receipts(strict)[-1].values)


def test_private_and_without_canaries_there_is_nothing_to_tell(ask: Callable, make_plan: Plans, sites: Any) -> None:
    plan = make_plan(release={}, privacy=PRIVATE)
    reply = ask(sites["northgate"], KIND, plan)
    assert site_code(reply) == "nothing-asked" and answer(reply, plan).veto == ""
    assert not receipts(sites["northgate"])  # a code is no figure


@pytest.mark.parametrize(
    ("sections", "code"),
    [
        ({}, "no-check"),
        ({"release": {"memorisation": False}}, "no-check"),
    ],
)
def test_a_plan_without_the_check_is_not_asked(
    ask: Callable, make_plan: Plans, sites: Any, sections: dict, code: str
) -> None:
    assert site_code(ask(sites["northgate"], KIND, make_plan(**sections))) == code


def test_where_nothing_trains_the_head_it_cannot_be_asked(
    ask: Callable, make_plan: Plans, sites: Any, tmp_path: Path, make_base: Callable[..., Path]
) -> None:
    base = str(make_base(tmp_path / "headless", "bert", head=False))
    objective = {"kind": "declutr", "mlm_weight": 0.0, "max_span": 30}
    plan = make_plan(encoder={"base": base}, objective=objective, release={"canaries": 8})
    assert site_code(ask(sites["northgate"], KIND, plan)) == "no-mlm-head"
    learns = make_plan(encoder={"base": base}, release={"canaries": 8})
    assert answer(ask(sites["northgate"], KIND, learns), learns).canaries is not None


def test_the_site_s_own_head_is_asked_where_the_plan_shares_none(ask: Callable, make_plan: Plans, sites: Any) -> None:
    """Another head gives other figures; the shared tensors are the same."""
    plan = make_plan(
        federation={"share": "encoder", "rounds": 1}, training={"learning_rate": 0.05}, release={"canaries": 8}
    )
    before = answer(ask(sites["northgate"], KIND, plan), plan)
    assert not ask(sites["northgate"], "train", plan).has_error()
    after = answer(ask(sites["northgate"], KIND, plan), plan)
    assert before.canaries != after.canaries


def test_a_policy_that_bounds_exposure_asks_for_canaries(
    ask: Callable, make_plan: Plans, few: Callable[..., Path]
) -> None:
    site = few(policy=Policy(require_approval=False, max_exposure=0.0))
    reply = ask(site, "train", make_plan(release={}))
    assert site_code(reply) == "canaries-required"
    assert memorisation.refuses("canaries-required")
    plan = make_plan(release={"canaries": 8})
    found = answer(ask(site, KIND, plan), plan)
    assert found.veto == EXPOSED and found.canaries is not None  # above nothing at all: the figures come along


def test_a_policy_that_was_tightened_after_the_last_round_refuses(
    ask: Callable, make_plan: Plans, few: Callable[..., Path]
) -> None:
    plan = make_plan(release={"canaries": 8})
    found = answer(ask(few(policy=Policy(require_approval=False, objectives=["declutr"])), KIND, plan), plan)
    assert found.veto == "objective-beyond-policy" and found.canaries is None


def test_nobody_s_approval_is_a_refusal(ask: Callable, make_plan: Plans, few: Callable[..., Path]) -> None:
    plan = make_plan(release={"canaries": 8})
    found = answer(ask(few(policy=Policy(require_approval=True)), KIND, plan), plan)
    assert found.veto == "plan-not-approved" and "plan-not-approved" in found.reason


def test_only_figures_leave(ask: Callable, make_plan: Plans, sites: Any, bases: dict[str, str]) -> None:
    plan = make_plan(release={"canaries": 8}, evaluation={"held_out_notes": 256})
    reply = ask(sites["northgate"], KIND, plan)
    assert set(reply.content.config_records) == {"config"} and not reply.content.array_records
    assert all(isinstance(value, (int, float)) for value in reply.content.config_records["config"].values())
    site = open_site(sites["northgate"])
    receipt = receipts(site.folder)[-1]
    assert receipt.kind == "memorisation" and receipt.round == 1 and json.loads(receipt.model_dump_json())
    assert set(receipt.values) == set(reply.content.config_records["config"])
