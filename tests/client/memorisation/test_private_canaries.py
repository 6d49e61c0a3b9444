"""Canaries in private training: units like any other, and in no count that leaves; and what fixes the ledger."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.ledger import Ledger
from client.receipt import receipts
from client.site import open_site
from client.units import count_units
from common import messages
from common.encoder import load_tokenizer
from common.plan import StudyPlan
from server.base import base_tensors

PRIVACY = {"epsilon": 8.0, "delta": 1e-3}


def train_reply(reply: Any, plan: StudyPlan) -> tuple[messages.TrainReply, dict[str, np.ndarray]]:
    expected = {name: value.shape for name, value in base_tensors(plan).items()}
    said, update = messages.read_train_reply(reply, expected, 10_000, plan)
    return said, {name: value.copy() for name, value in update.items()}


@pytest.mark.parametrize("unit", ["patient", "note"])
def test_they_are_in_no_count_and_the_budget_is_the_same(
    ask: Callable, sites: dict[str, Path], make_plan: Callable[..., StudyPlan], unit: Any
) -> None:
    with_them = make_plan(privacy=PRIVACY | {"unit": unit}, release={"canaries": 40, "repeats": 2})
    without = make_plan(privacy=PRIVACY | {"unit": unit})
    said, update = train_reply(ask(sites["northgate"], "train", with_them), with_them)
    plainly, _ = train_reply(ask(sites["millbrook"], "train", without), without)
    site = open_site(sites["northgate"])
    assert said.privacy is not None and plainly.privacy is not None
    assert said.privacy.units == count_units(site.notes(load_tokenizer(with_them.encoder.base)), unit)
    assert said.notes == 1 and said.tokens == 0 and said.privacy.epsilon <= 8.0
    again, same = train_reply(ask(sites["northgate"], "train", with_them), with_them)
    assert again.privacy == said.privacy and all(np.array_equal(update[name], same[name]) for name in update)


def test_the_reply_fixes_the_ledger(ask: Callable, sites: dict[str, Path], make_plan: Callable[..., StudyPlan]) -> None:
    plan = make_plan(privacy=PRIVACY)
    digests = [train_reply(ask(sites["northgate"], "train", plan, n), plan)[0].privacy.ledger for n in (1, 2)]
    entries = Ledger(sites["northgate"]).entries()
    assert digests == [entry.hash for entry in entries] and entries[1].previous == digests[0]
    assert receipts(sites["northgate"])[-1].values["ledger"].value == digests[1]
