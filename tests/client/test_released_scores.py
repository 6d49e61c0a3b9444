"""Scores that leave a site: only where plan and policy both say so, only on what the plan names, and never a class."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message

import client.app
from client.evaluation import gain
from client.node.parcel import pack, unpack
from client.notes.source import Columns, NotesSource
from client.receipt import receipts
from client.site import Policy, open_site
from client.tasks import Task
from common import scores
from common.encoder import load_tokenizer
from common.memorisation import request_content
from common.messages import Tensors, site_code
from common.plan import StudyPlan
from common.results import SiteFacts
from common.scores import KIND, REASONS, SiteScores
from server.base import base_tensors

RUN = "0123456789abcdef" * 2
CLASSES = ("Brimquazzle", "Jarvontwisp")  # made-up words, as all that must stay
TASK, PATIENT = "skevintrolp", "Oxtrevigand"
ROUNDS = 2
PRIVATE = {"noise_multiplier": 1.0, "delta": 1e-4, "unit": "note"}
Ask = Callable[..., Message]
Plans = Callable[..., StudyPlan]
Labelled = Callable[..., Path]


@pytest.fixture
def ask(make_message: Callable[..., Message], site_context: Callable[[Path], Context]) -> Ask:
    """Ask a site for its scores."""

    def send(folder: Path, plan: StudyPlan, number: int = ROUNDS, arrays: Tensors | None = None) -> Message:
        content = request_content(plan, RUN, number, base_tensors(plan) if arrays is None else arrays)
        return client.app.app(make_message(content, KIND), site_context(folder))

    return send


@pytest.fixture
def labelled(make_site: Callable[..., Path], tmp_path: Path) -> Labelled:
    """A site of 220 notes, 40 of them for the test, each with one of two labels that its text gives away in part; and
    with a task of its own, whose name no plan knows."""
    rng = np.random.default_rng(5)
    words = [["fever", "cough", "lung", "chest"], ["knee", "hip", "bone", "plaster"]]
    letters = list("abcdefghijklmnopqrstuvwxyz")

    def make(few: bool = False, **policy: Any) -> Path:
        notes = []
        for number in range(220):
            kind = number % 2
            filler = ["".join(rng.choice(letters, 5)) for _ in range(8)]
            notes.append(
                {
                    "text": " ".join([*rng.choice(words[kind if rng.random() < 0.8 else 1 - kind], 3), *filler]),
                    "patient": f"{PATIENT}{number}",
                    "label": CLASSES[kind],
                    "own": CLASSES[kind],
                    "split": "test" if number < (18 if few else 40) else "dev" if number < 60 else "train",
                }
            )
        file = tmp_path / f"notes-{few}.jsonl"
        file.write_text("".join(json.dumps(note) + "\n" for note in notes), encoding="utf-8")
        source = NotesSource(source=str(file), columns=Columns(split="split"))
        given = Policy(require_approval=False, **({"release_scores": True} | policy))
        tasks = [Task(name=TASK, label="own")]
        return make_site(f"site-{few}", np.arange(220), notes=source, policy=given, tasks=tasks)

    return make


@pytest.fixture
def asking(make_plan: Plans) -> Plans:
    def make(**sections: dict[str, Any]) -> StudyPlan:
        evaluation = {"release_scores": True, "shots": [16], "held_out_notes": 8} | sections.pop("evaluation", {})
        return make_plan(evaluation=evaluation, **sections)

    return make


def read(reply: Message, plan: StudyPlan) -> SiteScores:
    facts = SiteFacts(
        name="site", train=160, dev=20, test=40, set_aside=0, tokens=1, whole=160, shortened=0, too_short=0
    )
    return scores.read_reply(reply, facts, plan)


def test_the_scores_are_those_of_the_site_s_own_report(ask: Ask, asking: Plans, labelled: Labelled) -> None:
    plan, folder = asking(), labelled()
    moved = {name: value + np.float32(0.01) for name, value in base_tensors(plan).items()}
    found = read(ask(folder, plan, arrays=moved), plan)
    assert [(one.model, one.mode) for one in found.scores] == [
        (model, "frozen") for model in ("federated", "base", "local-only", "tf-idf")
    ]
    assert {one.against for one in found.comparisons} == {"local-only", "base", "tf-idf"}
    assert {one.task for one in found.scores} == {"label"} and not found.not_scored
    site = open_site(folder)
    own = site.notes(load_tokenizer(plan.encoder.base))
    scorer, comparisons = gain.gain(site, own, plan, moved, ["label", TASK], lambda text: None)
    theirs = {one.model: one for one in scorer.scores if one.task == "label"}
    for one in found.scores:
        same = theirs[one.model]
        assert (one.n_train, one.n_test) == (same.n_train, same.n_test) == (160, 40)
        assert one.macro_f1.value == round(same.macro_f1.value, 3) and one.accuracy.high == round(same.accuracy.high, 3)
        assert [few.macro_f1.value for few in one.few_shot] == [round(few.macro_f1.value, 3) for few in same.few_shot]
        assert one.few_shot and not any(few.per_seed for few in one.few_shot)
    differences = {one.against: one for one in comparisons if one.task == "label"}
    assert all(one.verdict == differences[one.against].verdict for one in found.comparisons)


def test_what_was_scored_is_not_scored_again(
    ask: Ask, asking: Plans, labelled: Labelled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coordinator that was restarted asks once more."""
    plan, folder = asking(), labelled()
    first = read(ask(folder, plan), plan)
    place = next((folder / "report").glob("scores-*"))
    before = {file: file.stat().st_mtime_ns for file in (folder / "report").rglob("*.*") if file.is_file()}
    assert read(ask(folder, plan), plan) == first
    assert {file: file.stat().st_mtime_ns for file in before} == before and place.is_dir()
    other = asking(evaluation={"shots": [20]})  # another plan has scores of its own
    assert [few.shots for few in read(ask(folder, other), other).scores[-1].few_shot] == [20]


def test_no_class_no_name_and_no_other_task_is_in_the_reply(ask: Ask, asking: Plans, labelled: Labelled) -> None:
    plan, folder = asking(), labelled()
    reply = ask(folder, plan)
    parcel = pack(reply)
    sent = b"".join(parcel.objects.values())  # the bytes that a node sends
    assert b"federated" in sent and read(unpack(parcel), plan).scores
    for word in (*CLASSES, TASK, PATIENT, "majority", str(folder)):
        assert word.lower().encode() not in sent.lower()
    assert set(reply.content) == {"config"}
    values = reply.content.config_records["config"]
    assert {value for value in values.values() if isinstance(value, str)} <= {
        "macro-f1", "better", "worse", "no clear difference",
    }  # fmt: skip
    receipt = receipts(folder)[-1]
    assert (receipt.kind, receipt.round) == ("scores", ROUNDS)
    assert {name: value.value for name, value in receipt.values.items()} == dict(values)


@pytest.mark.parametrize(
    ("policy", "sections", "number"),
    [
        ({"release_scores": False}, {}, ROUNDS),
        ({}, {"evaluation": {"release_scores": False}}, ROUNDS),
        ({}, {}, ROUNDS - 1),
        ({}, {"privacy": PRIVATE}, ROUNDS),
        ({"release_scores": False, "release_uncovered": True}, {"privacy": PRIVATE}, ROUNDS),
    ],
)
def test_scores_are_withheld(
    ask: Ask, asking: Plans, labelled: Labelled, policy: dict, sections: dict, number: int
) -> None:
    folder = labelled(**policy)
    assert site_code(ask(folder, asking(**sections), number)) == "withheld"
    assert not receipts(folder) and not (folder / "report").exists()  # nothing was even computed


def test_under_one_plan_the_scores_of_one_set_of_weights_leave(ask: Ask, asking: Plans, labelled: Labelled) -> None:
    plan, folder = asking(), labelled(few=True)
    made_up = {name: value + np.float32(0.01) for name, value in base_tensors(plan).items()}
    first = ask(folder, plan)
    assert first.has_content() and ask(folder, plan).content == first.content
    assert site_code(ask(folder, plan, arrays=made_up)) == "withheld"
    assert ask(folder, asking(study={"name": "another"}), arrays=made_up).has_content()


def test_a_private_study_s_scores_leave_where_the_policy_releases_what_is_uncovered(
    ask: Ask, asking: Plans, labelled: Labelled
) -> None:
    plan = asking(privacy=PRIVATE)
    assert read(ask(labelled(release_uncovered=True), plan), plan).scores


def test_a_task_on_few_notes_and_one_that_is_not_there_have_a_reason(
    ask: Ask, asking: Plans, labelled: Labelled
) -> None:
    plan, folder = asking(evaluation={"tasks": ["label", "severity"]}), labelled(few=True)
    found = read(ask(folder, plan), plan)
    assert not found.scores and {one.task: one.reason for one in found.not_scored} == {
        "label": REASONS["too-few"],
        "severity": REASONS["no-task"],
    }
    assert not list((folder / "report").glob("alone-*"))  # there was nothing to train for


def test_a_plan_that_nobody_approved_gets_none(ask: Ask, asking: Plans, labelled: Labelled) -> None:
    folder = labelled()
    text = (folder / "site.toml").read_text()
    assert "require_approval = false" in text
    (folder / "site.toml").write_text(text.replace("require_approval = false", "require_approval = true"))
    assert site_code(ask(folder, asking())) == "plan-not-approved"


def test_training_alone_is_shown(ask: Ask, asking: Plans, labelled: Labelled, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(client.app, "on_step", lambda site, done, steps: seen.append((done, steps)))
    ask(labelled(), asking())
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]  # two rounds of two steps
