"""The check is worth something only where it finds what is there: a small encoder that was made to learn its canaries
by heart shows it, and the site's veto stands; one that was not trained shows nothing."""

from collections.abc import Callable
from pathlib import Path

from client.receipt import receipts
from client.site import Policy
from common import memorisation, messages
from common.memorisation import EXPOSED, KIND
from common.plan import StudyPlan
from server.base import base_tensors


def test_what_was_learnt_by_heart_is_found_and_vetoed(
    ask: Callable, few: Callable[..., Path], overfitting: Callable[..., StudyPlan]
) -> None:
    plan, site = overfitting(), few(policy=Policy(require_approval=False, max_exposure=12.0))
    trained = ask(site, "train", plan)
    assert trained.content.metric_records["metrics"]["num-examples"] < 40  # canaries are no notes
    update = {k: v.copy() for k, v in messages.unpacked(trained.content.array_records["arrays"]).items()}

    found = memorisation.read_reply(ask(site, KIND, plan, 1, update), "northgate", plan)
    assert found.canaries is not None and found.veto == EXPOSED
    assert (found.canaries.planted, found.canaries.controls, found.canaries.repeats) == (8, 8, 20)
    assert found.canaries.planted_mean >= found.canaries.controls_mean + 5
    assert found.canaries.auc.value > 0.9 and (found.canaries.auc.low or 0) > 0.5

    untrained = memorisation.read_reply(ask(site, KIND, plan, 1, base_tensors(plan)), "northgate", plan)
    assert untrained.canaries is not None and untrained.veto == ""
    assert abs(untrained.canaries.planted_mean - untrained.canaries.controls_mean) < 3
    assert untrained.canaries.auc.low < 0.5

    left = [one for one in receipts(site) if one.kind == "memorisation"]
    assert len(left) == 2 and left[0].values["veto"].value == EXPOSED and not left[0].tensors
    assert all(isinstance(value.value, (int, float)) for name, value in left[1].values.items())
