"""`fednotes site check`: what is well, and what would go wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from client.approval import record
from client.setup.speed import SPEED_FILE, kept_speed
from client.site import open_site
from common.encoder import PACKAGED, load_tokenizer
from common.plan import StudyPlan, load_plan
from tests.client.setup.conftest import Authority
from tests.client.test_ledger import charged, put

Run = Callable[..., str]
MakeSite = Callable[..., Path]


def findings(printed: str) -> dict[str, tuple[str, str]]:
    return {one["name"]: (one["state"], one["text"] + one["fix"]) for one in json.loads(printed)}


@pytest.fixture
def checked(site_command: Run) -> Callable[..., dict[str, tuple[str, str]]]:
    def run(folder: Path, *more: object, exit_code: int = 0) -> dict[str, tuple[str, str]]:
        return findings(site_command("check", folder, "--json", *more, exit_code=exit_code))

    return run


Checked = Callable[..., dict[str, tuple[str, str]]]


def test_all_is_well(
    checked: Checked, site_command: Run, real_site: MakeSite, plan_file: Callable[..., Path], authority: Authority,
    coordinator: Callable[..., str],
) -> None:  # fmt: skip
    folder, plan = real_site(address=coordinator(authority)), plan_file()
    record(open_site(folder), load_plan(plan), "approved", "Ola")
    found = checked(folder, "--plan", plan)
    assert {name: state for name, (state, _) in found.items() if state != "ok"} == {}
    for name, words in (("notes", "train"), ("task label", "classes"), ("certificate", "valid until")):
        assert words in found[name][1]
    speed = kept_speed(folder, load_plan(plan))
    assert speed is not None and speed.step > 0 and speed.evaluate > 0 and speed.memory > 1e8
    printed = site_command("check", folder)
    assert "ok       notes:" in printed and "warning  speed: Not measured." in printed


def test_private_steps_are_timed_and_spend_nothing(
    checked: Checked, real_site: MakeSite, plan_file: Callable[..., Path]
) -> None:
    folder = real_site()
    plan = plan_file(privacy={"epsilon": 8.0, "delta": 1e-3}, federation={"rounds": 3, "share": "encoder"})
    found = checked(folder, "--plan", plan, exit_code=3)  # there is no coordinator here
    assert found["speed"][0] == "ok" and (folder / SPEED_FILE).exists() and not (folder / "ledger.jsonl").exists()


def test_a_plan_that_would_be_refused_is_told_with_its_codes(
    site_command: Run, real_site: MakeSite, plan_file: Callable[..., Path]
) -> None:
    folder = real_site(objectives=["declutr"], max_rounds=1)
    printed = json.loads(site_command("check", folder, "--json", "--plan", plan_file(), exit_code=3))
    plan = [(one["state"], one["text"]) for one in printed if one["name"] == "plan"]
    assert [state for state, _ in plan] == ["error", "error", "warning"]
    for (_, text), words in zip(plan, ("objective-beyond", "rounds-beyond", "not been approved"), strict=True):
        assert words in text


@pytest.mark.parametrize(
    ("settings", "name", "words"),
    [
        ({"clock": 60.0}, "clock", None),
        ({"clock": -30.0}, "clock", "error"),
        ({"clock": 400.0}, "clock", "error"),
        ({"clock": 200.0}, "clock", "warning"),
        ({"days": 10}, "certificate", "warning"),
        ({"days": -1}, "certificate", "error"),
        ({"status": 503}, "coordinator", "error"),
    ],
)
def test_the_coordinator_as_it_answers(
    checked: Checked, real_site: MakeSite, authority: Authority, coordinator: Callable[..., str], settings: dict,
    name: str, words: str | None,
) -> None:  # fmt: skip
    """A clock that is behind the coordinator's is taken for longer than one that is ahead."""
    folder = real_site(address=coordinator(authority, **settings))
    found = checked(folder, exit_code=3 if words == "error" else 0)
    assert found[name][0] == (words or "ok"), found


def test_a_coordinator_of_another_authority_is_not_believed(
    checked: Checked, real_site: MakeSite, coordinator: Callable[..., str]
) -> None:
    found = checked(real_site(address=coordinator(Authority.make())), exit_code=3)
    assert found["certificate"][0] == "error" and "coordinator" not in found


@pytest.mark.parametrize(("address", "name"), [("no-such-host.invalid:8443", "name"), ("localhost:1", "coordinator")])
def test_nobody_answers(checked: Checked, real_site: MakeSite, address: str, name: str) -> None:
    assert checked(real_site(address=address), exit_code=3)[name][0] == "error"


@pytest.mark.parametrize(("mine", "state"), [(False, "ok"), (True, "error")])
def test_public_text_that_has_notes_of_the_site_is_not_public(
    checked: Checked, real_site: MakeSite, tmp_path: Path, mine: bool, state: str
) -> None:
    """Here one of them, with other blanks."""
    folder = real_site()
    note = open_site(folder).notes(load_tokenizer(PACKAGED)).text(7)
    texts = ["what the flu is and how it spreads among people who live together", note.replace(" ", "  ") * mine]
    public = tmp_path / "public.jsonl"
    public.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts if text))
    file = folder / "site.toml"
    file.write_text(file.read_text().replace("[coordinator]", f'[public]\nsource = "{public}"\n\n[coordinator]'))
    found = checked(folder, exit_code=3)["public text"]
    assert found[0] == state and ("1 notes of this site" in found[1]) == mine


def test_damage_at_home_is_named(checked: Checked, real_site: MakeSite, make_plan: Callable[..., StudyPlan]) -> None:
    folder = real_site()
    record(open_site(folder), make_plan(), "approved", "Ola")
    charged(folder, 1)
    put(folder, ["x"])
    (folder / "approvals.jsonl").write_text("{}\n")
    (folder / "site.key").chmod(0o640)
    folder.chmod(0o755)
    (folder / "site.toml").write_text((folder / "site.toml").read_text().replace("notes.jsonl", "gone.jsonl"))
    found = checked(folder, exit_code=3)
    assert {name: found[name][0] for name in ("key", "ledger", "approvals", "notes")} == dict.fromkeys(
        ("key", "ledger", "approvals", "notes"), "error"
    )
    assert found["permissions"][0] == "warning" and "notes-missing" in found["notes"][1]


def test_too_few_notes_are_an_error_and_no_site_is_one_finding(
    checked: Checked, real_site: MakeSite, tmp_path: Path
) -> None:
    folder = real_site()
    text = (folder / "site.toml").read_text()
    (folder / "site.toml").write_text(text.replace("min_notes = 20", "min_notes = 5000"))
    assert checked(folder, exit_code=3)["notes"][0] == "error"
    assert checked(tmp_path, exit_code=3) == {"site.toml": ("error", checked(tmp_path, exit_code=3)["site.toml"][1])}
