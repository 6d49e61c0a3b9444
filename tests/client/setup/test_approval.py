"""Approvals: nothing of a study happens without one, and none can be forged by who has not the site's key."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import Message

import client.approval
from client.approval import APPROVALS_FILE, HEAD_FILE, approvals, approved, record
from client.receipt import receipts
from client.site import open_site
from common.errors import FednotesError
from common.plan import StudyPlan

MakeSite = Callable[..., Path]
MakePlan = Callable[..., StudyPlan]
Ask = Callable[..., Message]
KINDS = ["query", "train", "evaluate"]


def code(reply: Message) -> str:
    return str(reply.error.reason) if reply.has_error() else "done"


def refusal(folder: Path, plan: StudyPlan) -> str:
    try:
        approved(open_site(folder), plan)
    except FednotesError as error:
        return error.code
    return "approved"


@pytest.fixture
def decided(real_site: MakeSite, make_plan: MakePlan) -> Path:
    """A site that approved a plan, withdrew it, and approved another."""
    folder = real_site()
    site = open_site(folder)
    record(site, make_plan(), "approved", "Dr Kari Nordmann")
    record(site, make_plan(), "withdrawn", "Ola")
    record(site, make_plan(federation={"rounds": 3}), "approved", "Ola")
    return folder


def lines(folder: Path) -> list[str]:
    return (folder / APPROVALS_FILE).read_text().splitlines()


def put(folder: Path, kept: list[str]) -> None:
    (folder / APPROVALS_FILE).write_text("".join(line + "\n" for line in kept))


@pytest.mark.parametrize("kind", KINDS)
def test_without_approval_every_handler_refuses_and_opens_nothing(
    ask: Ask, real_site: MakeSite, make_plan: MakePlan, kind: str
) -> None:
    plan, folder = make_plan(), real_site()
    before = sorted(path.name for path in folder.iterdir())
    assert code(ask(folder, kind, plan)) == "plan-not-approved"
    assert sorted(path.name for path in folder.iterdir()) == before  # no cache of notes, no receipt, no weights
    record(open_site(folder), plan, "approved", "Ola")
    assert code(ask(folder, kind, plan)) == "done"
    assert code(ask(folder, kind, make_plan(federation={"rounds": 9}))) == "plan-not-approved"
    record(open_site(folder), plan, "withdrawn", "Ola")
    assert code(ask(folder, kind, plan)) == "plan-not-approved"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ({"objectives": ["declutr"]}, "objective-beyond-policy"),
        ({"max_rounds": 1}, "rounds-beyond-policy"),
        ({"require_privacy": True}, "privacy-required"),
    ],
)
def test_what_is_beyond_the_policy_is_refused_by_every_handler_though_it_was_approved(
    ask: Ask, real_site: MakeSite, make_plan: MakePlan, kind: str, policy: dict, told: str
) -> None:
    folder = real_site(**policy)
    record(open_site(folder), make_plan(), "approved", "Ola")
    assert code(ask(folder, kind, make_plan())) == told
    assert not (folder / "cache").exists() and not receipts(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_epsilon_beyond_the_policy_is_refused_by_every_handler(
    ask: Ask, real_site: MakeSite, make_plan: MakePlan, kind: str
) -> None:
    plan = make_plan(privacy={"epsilon": 8.0, "delta": 1e-3}, federation={"share": "encoder"})
    folder = real_site(max_epsilon=4.0, release_uncovered=True)
    record(open_site(folder), plan, "approved", "Ola")
    assert code(ask(folder, kind, plan)) == "epsilon-beyond-policy"
    assert not receipts(folder) and not (folder / "received").exists() and not (folder / "ledger.jsonl").exists()


def test_a_policy_that_was_tightened_holds_for_the_next_message(
    ask: Ask, real_site: MakeSite, make_plan: MakePlan
) -> None:
    plan, folder = make_plan(), real_site()
    record(open_site(folder), plan, "approved", "Ola")
    assert code(ask(folder, "train", plan)) == "done"
    file = folder / "site.toml"
    text = file.read_text()
    file.write_text(text.replace("# max_rounds =", "max_rounds = 1"))
    assert code(ask(folder, "train", plan)) == "rounds-beyond-policy"
    file.write_text(text.replace("require_privacy = false", "require_privacy = true"))
    assert code(ask(folder, "evaluate", plan)) == "privacy-required"
    file.write_text("name = ")
    assert code(ask(folder, "train", plan)) == "site-invalid"
    file.write_text(text)
    assert code(ask(folder, "train", plan)) == "done"


def test_another_package_asks_for_another_approval(
    decided: Path, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(federation={"rounds": 3})
    assert refusal(decided, plan) == "approved"
    monkeypatch.setattr(client.approval, "package_digest", lambda: "0" * 64)
    assert refusal(decided, plan) == "package-changed"
    record(open_site(decided), plan, "approved", "Ola")
    assert refusal(decided, plan) == "approved"


def test_what_is_written_says_who_when_what_and_with_which_package(decided: Path, make_plan: MakePlan) -> None:
    found = approvals(open_site(decided))
    assert [(one.number, one.decision, one.by) for one in found] == [
        (1, "approved", "Dr Kari Nordmann"),
        (2, "withdrawn", "Ola"),
        (3, "approved", "Ola"),
    ]
    assert found[0].plan_hash == make_plan().hash() and found[0].study == "test" and found[0].time
    assert {one.package for one in found} == {client.approval.package_digest()}
    assert [one.previous for one in found] == ["0" * 64, found[0].hash, found[1].hash]


def edited(line: str, **values: object) -> str:
    return json.dumps(json.loads(line) | values, separators=(",", ":"))


def rehashed(line: str, **values: object) -> str:
    """Edited by someone who knows how the hash is made, but has no key."""
    changed = client.approval.Approval.model_validate_json(edited(line, **values))
    return changed.model_copy(update={"hash": client.approval._hash(changed)}).model_dump_json()


@pytest.mark.parametrize(
    "attack",
    [
        lambda kept: [edited(kept[0], by="Mallory"), *kept[1:]],
        lambda kept: [*kept[:1], edited(kept[1], decision="approved"), kept[2]],
        lambda kept: [*kept[:2], rehashed(kept[2], plan_hash="1" * 64)],
        lambda kept: [kept[0], kept[2]],  # the withdrawal taken out
        lambda kept: kept[:1],  # with all after it
        lambda kept: [],
        lambda kept: [*kept, kept[0]],  # the old approval once more
        lambda kept: [kept[1], kept[0], kept[2]],
        lambda kept: [kept[0].replace('"number":1', '"number": 1'), *kept[1:]],
        lambda kept: ["{}", *kept],
        lambda kept: ["\x00", *kept],
    ],
)
def test_an_edited_chain_is_found(decided: Path, make_plan: MakePlan, attack: Callable[[list[str]], list[str]]) -> None:
    put(decided, attack(lines(decided)))
    assert refusal(decided, make_plan()) == "approvals-damaged"
    assert refusal(decided, make_plan(federation={"rounds": 3})) == "approvals-damaged"
    with pytest.raises(FednotesError) as caught:
        record(open_site(decided), make_plan(), "approved", "Ola")
    assert caught.value.code == "approvals-damaged"


def test_a_line_cut_off_at_the_end_comes_back_from_the_head(decided: Path, make_plan: MakePlan) -> None:
    record(open_site(decided), make_plan(federation={"rounds": 3}), "withdrawn", "Ola")
    put(decided, lines(decided)[:-1])  # as after a crash, too: the head is written first
    assert refusal(decided, make_plan(federation={"rounds": 3})) == "plan-not-approved"
    (decided / HEAD_FILE).unlink()
    assert refusal(decided, make_plan(federation={"rounds": 3})) == "approvals-damaged"
    (decided / HEAD_FILE).write_text(lines(decided)[0])
    assert refusal(decided, make_plan(federation={"rounds": 3})) == "approvals-damaged"


def test_approvals_of_another_site_or_key_count_for_nothing(
    decided: Path, real_site: MakeSite, make_plan: MakePlan
) -> None:
    plan = make_plan(federation={"rounds": 3})
    for other in (real_site("south"), real_site("north", folder="another-north")):  # another name; another key
        for name in (APPROVALS_FILE, HEAD_FILE):
            (other / name).write_bytes((decided / name).read_bytes())
        assert refusal(other, plan) == "approvals-damaged"


@pytest.mark.parametrize("name", ["", " ", "two\nlines", "x" * 101, "\x1b[31mred"])
def test_a_name_is_a_name(real_site: MakeSite, make_plan: MakePlan, name: str) -> None:
    folder = real_site()
    with pytest.raises(FednotesError) as caught:
        record(open_site(folder), make_plan(), "approved", name)
    assert caught.value.code == "usage" and not (folder / APPROVALS_FILE).exists()


def test_a_virtual_site_needs_no_approval_and_a_site_without_a_key_cannot_give_one(
    sites: dict[str, Path], make_plan: MakePlan
) -> None:
    folder = sites["northgate"]
    assert refusal(folder, make_plan()) == "approved"
    with pytest.raises(FednotesError) as caught:
        record(open_site(folder), make_plan(), "approved", "Ola")
    assert caught.value.code == "no-coordinator"


def test_a_key_that_others_can_read_signs_nothing(real_site: MakeSite, make_plan: MakePlan) -> None:
    folder = real_site()
    (folder / "site.key").chmod(0o644)
    with pytest.raises(FednotesError) as caught:
        record(open_site(folder), make_plan(), "approved", "Ola")
    assert caught.value.code == "key-permissions"


def test_what_was_withdrawn_is_refused_though_no_approval_is_asked_for(
    real_site: MakeSite, make_plan: MakePlan
) -> None:
    folder = real_site(require_approval=False)
    assert refusal(folder, make_plan()) == "approved"
    record(open_site(folder), make_plan(), "withdrawn", "Ola")
    assert refusal(folder, make_plan()) == "plan-not-approved"
