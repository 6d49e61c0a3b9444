"""The site's handlers, called as Flower calls them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict
from safetensors.numpy import load_file

import client.app
from client.notes.source import NotesSource
from client.notes.store import NoteStore
from client.objectives import make_objective
from client.site import open_site, site_facts
from client.training import held_out_loss, site_key
from common import messages
from common.encoder import load_encoder, load_tokenizer
from common.messages import BadReply, Tensors
from common.plan import StudyPlan
from server.base import base_tensors

SECRET = "Mrs Zebrafinch, 4 Elm Street"
RUN = "0123456789abcdef" * 2
Ask = Callable[..., Message]


@pytest.fixture
def ask(make_message: Callable[..., Message], site_context: Callable[[Path], Context]) -> Ask:
    """Send a site a request of some kind and return its reply."""

    def send(folder: Path, kind: str, plan: StudyPlan, number: int = 1, arrays: Tensors | None = None) -> Message:
        if kind == "query":
            content = messages.query_content(plan, RUN)
        else:
            config = messages.request_config(plan, RUN)
            config["server-round"] = number
            sent = base_tensors(plan) if arrays is None else arrays
            content = RecordDict({"arrays": messages.packed(sent), "config": config})
        return client.app.app(make_message(content, kind), site_context(folder))

    return send


def tensors(reply: Message) -> Tensors:
    assert not reply.has_error(), reply.error
    return messages.unpacked(reply.content.array_records["arrays"])


def equal(a: Tensors, b: Tensors) -> bool:
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)


def code(reply: Message) -> str:
    """The code of an error reply, which must give nothing else away."""
    assert reply.has_error() and not reply.has_content() and reply.error.code == messages.SITE_ERROR
    assert SECRET not in str(reply.error.reason)
    return str(reply.error.reason)


@pytest.fixture
def own_share(make_plan: Callable[..., StudyPlan]) -> StudyPlan:
    return make_plan(federation={"share": "encoder", "rounds": 3}, training={"learning_rate": 1e-2})


@pytest.mark.parametrize("objective", [{"kind": "mlm"}, {"kind": "declutr", "max_span": 30}])
def test_a_site_describes_itself(
    ask: Ask,
    sites: dict[str, Path],
    make_plan: Callable[..., StudyPlan],
    bases: dict[str, str],
    objective: dict[str, Any],
) -> None:
    plan = make_plan(objective=objective)
    for name, folder in sites.items():
        facts = messages.read_facts(ask(folder, "query", plan))
        assert facts == site_facts(name, open_site(folder).notes(load_tokenizer(bases["bert"])), plan)


@pytest.mark.parametrize("share", ["encoder", "encoder+mlm-head"])
def test_an_update_passes_the_checks(
    ask: Ask, sites: dict[str, Path], make_plan: Callable[..., StudyPlan], share: str, notes: NoteStore
) -> None:
    plan = make_plan(federation={"share": share})
    start = base_tensors(plan)
    expected = {name: value.shape for name, value in start.items()}
    said, update = messages.read_train_reply(ask(sites["northgate"], "train", plan), expected, 10_000, plan)
    own = open_site(sites["northgate"]).notes(load_tokenizer(plan.encoder.base))
    assert said.notes == len(own.split_indices("train")) and said.steps == 2 and said.tokens > 4 * 2
    assert 3 < said.loss < 9 and said.seconds > 0
    assert not equal(update, start) and all(np.abs(update[k] - start[k]).max() < 0.1 for k in start)
    assert (sites["northgate"] / "heads").exists() == (share == "encoder")


def test_the_same_request_gives_the_same_update(
    ask: Ask, sites: dict[str, Path], make_plan: Callable[..., StudyPlan]
) -> None:
    plan = make_plan()
    first = tensors(ask(sites["northgate"], "train", plan))
    other = tensors(ask(sites["millbrook"], "train", plan))
    client.app._worker.cache_clear()
    assert equal(tensors(ask(sites["northgate"], "train", plan)), first) and not equal(first, other)
    assert not equal(tensors(ask(sites["northgate"], "train", plan, 2)), first)


def test_an_update_is_no_window_on_the_live_model(
    ask: Ask, sites: dict[str, Path], make_plan: Callable[..., StudyPlan]
) -> None:
    reply = ask(sites["northgate"], "train", make_plan())
    before = {k: v.copy() for k, v in tensors(reply).items()}
    ask(sites["millbrook"], "train", make_plan())
    assert equal(tensors(reply), before)


def test_heads_do_not_leak_between_sites_that_share_a_process(
    ask: Ask, make_site: Callable[..., Path], hospitals: dict[str, np.ndarray], own_share: StudyPlan
) -> None:
    """A site's updates are the same alone and between others, over rounds."""

    def rounds(order: list[str], where: str) -> dict[tuple[str, int], Tensors]:
        folders = {name: make_site(name, hospitals[name], folder=f"{where}/{name}") for name in order}
        return {
            (name, number): tensors(ask(folder, "train", own_share, number))
            for number in (1, 2, 3)
            for name, folder in folders.items()
        }

    together = rounds(["northgate", "millbrook"], "together")
    turned = rounds(["millbrook", "northgate"], "turned")
    client.app._worker.cache_clear()
    alone = rounds(["northgate"], "alone")
    assert all(equal(together[key], turned[key]) for key in together)
    assert all(equal(together[key], alone[key]) for key in alone)


def test_heads_stay_and_differ_between_sites(ask: Ask, sites: dict[str, Path], own_share: StudyPlan) -> None:
    encoder = load_encoder(own_share.encoder.base)
    kept = []
    for name in ("northgate", "millbrook"):
        update = tensors(ask(sites[name], "train", own_share))
        kept.append(load_file(sites[name] / "heads" / RUN / "heads-000001.safetensors"))
        assert set(update) == set(encoder.shared("encoder")) and set(kept[-1]) == set(encoder.private("encoder"))
    assert not any(np.array_equal(kept[0][n], kept[1][n]) for n in kept[0])
    assert not any(np.array_equal(kept[0][n], p.detach().numpy()) for n, p in encoder.private("encoder").items())


def test_a_round_goes_on_from_the_heads_before_it(ask: Ask, sites: dict[str, Path], own_share: StudyPlan) -> None:
    folder = sites["northgate"]
    ask(folder, "train", own_share, 1)
    second = tensors(ask(folder, "train", own_share, 2))
    again = tensors(ask(folder, "train", own_share, 2))  # as after a failed attempt
    assert equal(second, again)
    (folder / "heads" / RUN / "heads-000001.safetensors").unlink()
    assert not equal(tensors(ask(folder, "train", own_share, 2)), second)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_evaluation_has_the_heads_of_its_round(
    ask: Ask, sites: dict[str, Path], own_share: StudyPlan, number: int
) -> None:
    folder, arrays = sites["northgate"], base_tensors(own_share)
    for done in (1, 2, 3):
        ask(folder, "train", own_share, done)
    encoder = load_encoder(own_share.encoder.base, own_share.study.seed)
    if number:
        encoder.load(load_file(folder / "heads" / RUN / f"heads-{number:06d}.safetensors"))
    encoder.load(arrays)
    own = open_site(folder).notes(encoder.tokenizer)
    expected = held_out_loss(
        encoder, make_objective(own_share, encoder.tokenizer, own), own, own_share.training,
        key=site_key(own_share.study.seed, "northgate"), most_notes=8,
    )  # fmt: skip
    said = messages.read_evaluate_reply(ask(folder, "evaluate", own_share, number, arrays), "mlm")
    assert (said.loss, said.notes, said.tokens) == (expected.loss, expected.notes, expected.tokens)


def test_a_site_that_diverged_comes_back(
    ask: Ask, sites: dict[str, Path], own_share: StudyPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One round whose training ends in NaN is refused; its heads must not spoil all rounds to come."""
    folder, arrays = sites["northgate"], base_tensors(own_share)
    train = client.app.train

    def diverge(encoder: Any, *given: Any, **named: Any) -> Any:
        done = train(encoder, *given, **named)
        encoder.load({name: torch.full_like(p, torch.nan) for name, p in encoder.tensors().items()})
        return done

    monkeypatch.setattr(client.app, "train", diverge)
    ask(folder, "train", own_share, 1)
    monkeypatch.setattr(client.app, "train", train)
    update = tensors(ask(folder, "train", own_share, 2, arrays))
    assert all(np.isfinite(value).all() for value in update.values())


def test_fedprox_reaches_the_loop(
    make_message: Callable[..., Message],
    site_context: Callable[[Path], Context],
    sites: dict[str, Path],
    make_plan: Callable[..., StudyPlan],
) -> None:
    plan, updates = make_plan(training={"steps_per_round": 4}), []
    start = base_tensors(plan)
    for mu in (0.0, 1000.0):
        config = messages.request_config(plan, RUN)
        config["server-round"], config["proximal-mu"] = 1, mu
        content = RecordDict({"arrays": messages.packed(start), "config": config})
        update = tensors(client.app.app(make_message(content), site_context(sites["northgate"])))
        updates.append(sum(float(np.square(update[k] - start[k]).sum()) for k in start))
    assert updates[1] < updates[0]


def test_steps_are_shown(
    ask: Ask, sites: dict[str, Path], make_plan: Callable[..., StudyPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int, int]] = []
    monkeypatch.setattr(client.app, "on_step", lambda *step: seen.append(step))
    ask(sites["northgate"], "train", make_plan())
    assert seen == [("northgate", 1, 2), ("northgate", 2, 2)]


# What goes wrong.


def test_too_few_notes(
    ask: Ask, make_site: Callable[..., Path], hospitals: dict[str, np.ndarray], make_plan: Callable[..., StudyPlan]
) -> None:
    few = make_site("few", hospitals["northgate"][:15])
    assert code(ask(few, "query", make_plan())) == "too-few-notes"
    enough = make_site("enough", hospitals["northgate"][:15], min_notes=2)
    assert messages.read_facts(ask(enough, "query", make_plan())).train >= 2


@pytest.mark.parametrize("kind", ["query", "train", "evaluate"])
def test_broken_notes_are_a_code(
    ask: Ask,
    make_site: Callable[..., Path],
    make_plan: Callable[..., StudyPlan],
    tmp_path: Path,
    kind: str,
    hospitals: dict[str, np.ndarray],
) -> None:
    path = tmp_path / f"{SECRET}.jsonl"
    path.write_text(json.dumps({"text": SECRET}) + "\n" + '{"text": "' + SECRET + "\n")
    folder = make_site("broken", hospitals["northgate"], notes=NotesSource(source=str(path)), cache=tmp_path / "cache")
    assert code(ask(folder, kind, make_plan())).startswith("notes-")


@pytest.mark.parametrize("kind", ["query", "train", "evaluate"])
@pytest.mark.parametrize(
    ("error", "told"), [(ValueError(SECRET), "internal-error"), (MemoryError(SECRET), "out-of-memory")]
)
def test_any_exception_is_a_code(
    ask: Ask,
    sites: dict[str, Path],
    make_plan: Callable[..., StudyPlan],
    kind: str,
    error: Exception,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    patched = {"query": "admitted", "train": "train", "evaluate": "held_out_loss"}[kind]
    monkeypatch.setattr(client.app, patched, fail)
    assert code(ask(sites["northgate"], kind, make_plan())) == told


def test_after_an_exception_the_site_works_as_before(
    ask: Ask,
    sites: dict[str, Path],
    own_share: StudyPlan,
    make_site: Callable[..., Path],
    hospitals: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def break_off(site: str, done: int, steps: int) -> None:
        raise ValueError(SECRET)

    monkeypatch.setattr(client.app, "on_step", break_off)
    assert code(ask(sites["northgate"], "train", own_share)) == "internal-error"
    monkeypatch.undo()
    client_update = tensors(ask(sites["northgate"], "train", own_share))
    fresh = make_site("northgate", hospitals["northgate"], folder="fresh")
    assert equal(client_update, tensors(ask(fresh, "train", own_share)))


@pytest.mark.parametrize("kind", ["query", "train", "evaluate"])
def test_an_empty_message_is_a_code(
    make_message: Callable[..., Message], site_context: Callable[[Path], Context], sites: dict[str, Path], kind: str
) -> None:
    assert code(client.app.app(make_message(None, kind), site_context(sites["northgate"]))) == "internal-error"


def test_another_version_is_a_code(
    make_message: Callable[..., Message],
    site_context: Callable[[Path], Context],
    sites: dict[str, Path],
    make_plan: Callable[..., StudyPlan],
) -> None:
    content = messages.query_content(make_plan(), RUN)
    content.config_records["config"]["version"] = "99.0"
    assert code(client.app.app(make_message(content, "query"), site_context(sites["northgate"]))) == "version-differs"


def test_a_site_that_is_not_there_is_a_code(ask: Ask, tmp_path: Path, make_plan: Callable[..., StudyPlan]) -> None:
    assert code(ask(tmp_path / SECRET, "query", make_plan())) == "site-missing"


def test_no_dev_notes_is_a_code(
    ask: Ask, make_site: Callable[..., Path], notes: NoteStore, make_plan: Callable[..., StudyPlan]
) -> None:
    folder = make_site("train-only", notes.split_indices("train"))
    assert code(ask(folder, "evaluate", make_plan(), 0)) == "no-dev-notes"


def test_a_reply_without_what_was_asked_is_refused(
    ask: Ask, sites: dict[str, Path], make_plan: Callable[..., StudyPlan]
) -> None:
    with pytest.raises(BadReply, match="wrong keys"):
        messages.read_train_reply(ask(sites["northgate"], "train", make_plan()), {"other": (1,)}, 10_000, make_plan())
