"""`fednotes site inspect`, `approve`, `withdraw`, `approvals`: what a person sees before deciding, and what is kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from client.approval import approvals
from client.receipt import receipts
from client.site import open_site
from common import messages
from common.errors import FednotesError
from common.plan import load_plan
from server.base import base_tensors
from tests.client.test_ledger import charged

Run = Callable[..., str]
MakeSite = Callable[..., Path]
PRIVATE = {"privacy": {"epsilon": 8.0, "delta": 1e-3}, "federation": {"rounds": 3, "share": "encoder"}}


@pytest.fixture
def inspected(site_command: Run) -> Callable[..., dict[str, Any]]:
    return lambda plan, folder: json.loads(site_command("inspect", plan, folder, "--json"))


Inspected = Callable[..., dict[str, Any]]


def test_the_page_says_what_a_round_then_does(
    inspected: Inspected, site_command: Run, real_site: MakeSite, plan_file: Callable[..., Path],
    ask: Callable[..., Message],
) -> None:  # fmt: skip
    """What is foretold is held against the receipts of what left."""
    folder, file = real_site(), plan_file(federation={"rounds": 2})
    plan, page = load_plan(file), inspected(file, folder)
    site_command("approve", file, folder, "--yes")
    ask(folder, "query", plan)
    ask(folder, "train", plan)
    ask(folder, "evaluate", plan, 1)
    sent = {one.kind: one for one in receipts(folder)}
    foretold = {(one["message"], one["noised"]): one for one in page["leaves"] if one["bytes"]}
    assert foretold["train", False]["bytes"] == sent["train"].bytes
    assert [(one.name, one.shape) for one in sent["train"].tensors] == [
        (one["name"], one["shape"]) for one in page["tensors"]
    ]
    assert page["steps_per_round"] == sent["train"].values["steps"].value and page["rounds"] == 2
    assert page["notes"]["train"] == sent["describe"].values["train"].value
    assert {one["message"] for one in page["leaves"]} == {*sent, "error"}
    assert page["plan_hash"] == plan.hash() and page["refusals"] == [] and page["hours"] is None
    assert page["approval"]["code"] == "plan-not-approved" and page["privacy"] == "no differential privacy"


def test_a_private_page_says_what_is_spent_and_what_has_noise(
    inspected: Inspected, site_command: Run, real_site: MakeSite, plan_file: Callable[..., Path],
    ask: Callable[..., Message],
) -> None:  # fmt: skip
    folder, file = real_site(max_epsilon=10.0), plan_file(**PRIVATE)
    plan, page = load_plan(file), inspected(file, folder)
    assert 7 < page["budget"]["study"] <= 8 and page["budget"]["spent"] == 0 and page["budget"]["most"] == 10
    assert page["budget"]["after"] == pytest.approx(page["budget"]["study"])
    assert "evaluate" not in {one["message"] for one in page["leaves"]}
    site_command("approve", file, folder, "--yes")
    facts = messages.read_facts(ask(folder, "query", plan))
    assert facts.units == page["notes"]["units"]
    reply = ask(folder, "train", plan)
    did, _ = messages.read_train_reply(reply, {n: v.shape for n, v in base_tensors(plan).items()}, 10_000, plan)
    assert did.privacy and did.privacy.noise_multiplier == page["budget"]["noise_multiplier"]
    after = inspected(file, folder)
    assert after["budget"]["spent"] == pytest.approx(did.privacy.epsilon)
    printed = site_command("inspect", file, folder)
    assert "with noise" in printed and "NO DIFFERENTIAL" not in printed and page["plan_hash"] in printed


@pytest.mark.parametrize(
    ("policy", "sections", "leaves"),
    [
        ({"release_scores": True}, {}, True),
        ({}, {}, False),
        ({"release_scores": True}, PRIVATE, False),
        ({"release_scores": True, "release_uncovered": True}, PRIVATE, True),
    ],
)
def test_the_page_says_whether_scores_would_leave(
    inspected: Inspected,
    real_site: MakeSite,
    plan_file: Callable[..., Path],
    policy: dict,
    sections: dict,
    leaves: bool,
) -> None:
    folder, file = (
        real_site(**policy),
        plan_file(evaluation={"release_scores": True, "tasks": ["severity"]}, **sections),
    )
    page = inspected(file, folder)
    (told,) = (one["what"] for one in page["leaves"] if one["message"] == "scores")
    assert ("on severity: macro-F1" in told) == leaves and ("a code: the policy keeps" in told) == (not leaves)
    assert ("scores on the site's own tasks" in "; ".join(page["stays"])) == (not leaves)
    silent = inspected(plan_file("silent.toml", **sections), folder)
    assert "scores" not in {one["message"] for one in silent["leaves"]}


def test_the_terminal_says_no_privacy_in_plain_sight(
    site_command: Run, real_site: MakeSite, plan_file: Callable[..., Path]
) -> None:
    printed = site_command("inspect", plan_file(), real_site())
    for words in ("NO DIFFERENTIAL PRIVACY", "site check", "What would not leave", "Compare these", "within this site"):
        assert words in printed
    assert "Traceback" not in printed and "fever" not in printed


def test_the_measured_speed_gives_hours(
    inspected: Inspected, site_command: Run, real_site: MakeSite, plan_file: Callable[..., Path]
) -> None:
    folder, file = real_site(), plan_file()
    site_command("check", folder, "--plan", file, exit_code=3)  # no coordinator
    page = inspected(file, folder)
    assert 0 < page["hours"] < 0.1 and page["memory"] > 1e8
    assert inspected(plan_file("other.toml", training={"batch_size": 5}), folder)["hours"] is None


@pytest.mark.parametrize(
    ("policy", "sections", "codes"),
    [
        (
            {"objectives": ["declutr"], "max_rounds": 1, "require_privacy": True},
            {},
            ["objective-beyond-policy", "rounds-beyond-policy", "privacy-required"],
        ),
        (
            {"unit": "patient", "max_epsilon": 4.0},
            {"privacy": {"epsilon": 8.0, "delta": 1e-3, "unit": "note"}},
            ["unit-beyond-policy", "epsilon-beyond-policy"],
        ),
        ({}, {"privacy": {"epsilon": 8.0, "delta": 9e-3, "unit": "note"}}, ["delta-too-large"]),
        ({}, {"objective": {"kind": "note-category", "categories": ["no", "such"]}}, ["too-few-categories"]),
        ({}, PRIVATE | {"objective": {"kind": "declutr", "min_span": 2, "max_span": 14}}, ["no-public-text"]),
        ({}, {"objective": {"kind": "declutr", "min_span": 30, "max_span": 30, "anchors": 16}}, ["too-few-notes"]),
    ],
)
def test_each_violation_is_named_and_cannot_be_approved(
    inspected: Inspected, site_command: Run, real_site: MakeSite, plan_file: Callable[..., Path], policy: dict,
    sections: dict, codes: list[str],
) -> None:  # fmt: skip
    folder, file = real_site(**policy), plan_file(**sections)
    assert [one["code"] for one in inspected(file, folder)["refusals"]] == codes
    with pytest.raises(FednotesError) as caught:
        site_command("approve", file, folder, "--yes")
    assert caught.value.code == codes[0] and approvals(open_site(folder)) == []


def test_a_study_that_the_ledger_has_no_room_for_is_told_before(
    inspected: Inspected, real_site: MakeSite, plan_file: Callable[..., Path]
) -> None:
    folder = real_site(max_epsilon=8.1)
    charged(folder, 1, delta=1e-3, noise_multiplier=0.6, steps=200)
    page = inspected(plan_file(**PRIVATE), folder)
    assert [one["code"] for one in page["refusals"]] == ["budget-spent"]
    assert page["budget"]["after"] > page["budget"]["most"] > page["budget"]["study"]
    other = PRIVATE | {"privacy": {"epsilon": 4.0, "delta": 1e-4}}
    assert [one["code"] for one in inspected(plan_file(**other), folder)["refusals"]] == ["delta-changed"]


def test_who_decides_is_asked_and_kept(site_command: Run, real_site: MakeSite, plan_file: Callable[..., Path]) -> None:
    folder, file = real_site(), plan_file()
    assert "Nothing was approved" in site_command("approvals", folder)
    assert "Nothing was done" in site_command("approve", file, folder, exit_code=130, text="n\n")
    with pytest.raises(FednotesError) as caught:
        site_command("approve", file, folder, text="")
    assert caught.value.code == "usage" and approvals(open_site(folder)) == []
    printed = site_command("approve", file, folder, "--by", "Kari [bold]Nordmann", text="y\n")
    assert "Kari [bold]Nordmann" in printed and load_plan(file).hash() in printed
    assert "approved already" in site_command("approve", file, folder, "--yes")
    assert "Withdrawn" in site_command("withdraw", file, folder, "--by", "Ola", text="y\n")
    site_command("approve", file, folder, "--yes")
    kept = json.loads(site_command("approvals", folder, "--json"))
    assert [one["decision"] for one in kept] == ["approved", "withdrawn", "approved"]
    assert [one["by"] for one in kept[:2]] == ["Kari [bold]Nordmann", "Ola"]
    assert kept[2]["by"] and "Kari [bold]Nordmann" in site_command("approvals", folder)


def test_wrong_input_is_refused(site_command: Run, real_site: MakeSite, plan_file: Callable[..., Path]) -> None:
    folder, file = real_site(), plan_file()
    for line, code in (
        (["inspect", file, folder / "nowhere"], "site-missing"),
        (["inspect", folder / "nothing.toml", folder], "plan-unreadable"),
        (["approve", folder / "site.toml", folder, "--yes"], "plan-invalid"),
        (["approve", file, folder, "--yes", "--by", "two\nlines"], "usage"),
    ):
        with pytest.raises(FednotesError) as caught:
            site_command(*line)
        assert caught.value.code == code
    (folder / "approvals.jsonl").write_text("x\n")
    with pytest.raises(FednotesError) as caught:
        site_command("approvals", folder)
    assert caught.value.code == "approvals-damaged"


def test_numbers_are_those_of_the_notes(
    inspected: Inspected, real_site: MakeSite, plan_file: Callable[..., Path], notes: Any
) -> None:
    counts = inspected(plan_file(), real_site())["notes"]
    assert sum(counts[split] for split in ("train", "dev", "test")) <= len(notes)
    assert counts["whole"] + counts["shortened"] + counts["too_short"] == counts["train"] and np.all(notes.lengths > 0)
