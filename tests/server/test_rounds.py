"""Rounds over Flower's messages and real small sites, with faults put between the two."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Error, Message, RecordDict

import client.app
from client.app import SITE_FOLDER
from client.site import open_site, site_facts
from common import messages
from common.encoder import load_tokenizer
from common.errors import StudyError
from common.messages import SITE_ERROR, Tensors
from common.plan import StudyPlan
from common.plan_sections import STRATEGY_SETTINGS
from server.base import base_tensors
from server.checkpoint import State, load_checkpoint
from server.events import Event
from server.rounds import Rounds
from simulations.engines import InProcessGrid

SECRET = "Mrs Zebrafinch, 4 Elm Street"
NAMES = ["eastholme", "millbrook", "northgate"]

Fault = Callable[[Message, Message], Message]


@dataclass
class Study:
    """A study over the three sites; `faults` maps (site, kind, round, attempt) to what happens to the reply.

    An attempt of None is every attempt; a round of None is every round.
    """

    plan: StudyPlan
    folder: Path
    sites: list[Path]
    faults: dict[tuple[str, str, int | None, int | None], Fault] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    replies: dict[tuple[str, int], Tensors] = field(default_factory=dict)
    sent: list[Message] = field(default_factory=list)
    grid_type: type[InProcessGrid] = InProcessGrid

    def client(self, message: Message, context: Context) -> Message:
        name, kind = Path(str(context.node_config[SITE_FOLDER])).name, message.metadata.message_type
        number = int(message.content.config_records["config"].get("server-round", 0))  # type: ignore[arg-type]
        self.asked.append((name, kind, number))
        self.sent.append(message)
        attempt = self.asked.count((name, kind, number))
        reply = client.app.app(message, context)
        for key in ((name, kind, r, a) for r in (number, None) for a in (attempt, None)):
            if key in self.faults:
                return self.faults[key](reply, message)
        if kind == "train" and not reply.has_error():
            self.replies[name, number] = messages.unpacked(reply.content.array_records["arrays"])
        return reply

    def rounds(self) -> Rounds:
        grid = self.grid_type(self.sites, self.client)
        return Rounds(grid, self.plan, self.folder, lambda: base_tensors(self.plan), self.events.append)

    def run(self) -> State:
        return self.rounds().run()

    @property
    def kept(self) -> tuple[State, Tensors, Tensors]:
        kept = load_checkpoint(self.folder, self.plan.hash())
        assert kept is not None
        return kept

    @property
    def weights(self) -> Tensors:
        return self.kept[1]

    def everything_written(self) -> str:
        return "".join(path.read_text() for path in self.folder.rglob("state.json")) + repr(self.events)


@pytest.fixture
def make_study(
    tmp_path: Path,
    make_site: Callable[..., Path],
    hospitals: dict[str, np.ndarray],
    make_plan: Callable[..., StudyPlan],
) -> Callable[..., Study]:
    def make(
        where: str = "a", sites: Iterable[str] = NAMES, faults: dict[Any, Fault] | None = None, **plan: Any
    ) -> Study:
        folders = [make_site(name, hospitals[name], folder=f"{where}/{name}") for name in sites]
        return Study(make_plan(**plan), tmp_path / where / "checkpoints", folders, faults or {})

    return make


def equal(a: Tensors, b: Tensors) -> bool:
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)


# Faults: each takes the honest reply and the request, and gives what arrives.


def raises(reply: Message, message: Message) -> Message:
    raise RuntimeError(SECRET)


def killed(reply: Message, message: Message) -> Message:
    raise KeyboardInterrupt  # passes the grid, as a signal would


def foreign_error(reply: Message, message: Message) -> Message:
    return Message(Error(7, SECRET), reply_to=message)


def own_error(reply: Message, message: Message) -> Message:
    return messages.error_reply("out-of-memory", message)


def wordy_error(reply: Message, message: Message) -> Message:
    return Message(Error(SITE_ERROR, SECRET), reply_to=message)


def _change(reply: Message, change: Callable[[np.ndarray], np.ndarray]) -> Message:
    tensors = messages.unpacked(reply.content.array_records["arrays"])
    name = list(tensors)[3]
    reply.content["arrays"] = messages.packed(tensors | {name: change(tensors[name].copy())})
    return reply


def nan(reply: Message, message: Message) -> Message:
    def spoil(value: np.ndarray) -> np.ndarray:
        value.reshape(-1)[-1] = np.nan
        return value

    return _change(reply, spoil)


def wrong_shape(reply: Message, message: Message) -> Message:
    return _change(reply, lambda value: value[..., :-1])


def wrong_type(reply: Message, message: Message) -> Message:
    return _change(reply, lambda value: value.astype(np.float64))


def wrong_keys(reply: Message, message: Message) -> Message:
    tensors = messages.unpacked(reply.content.array_records["arrays"])
    reply.content["arrays"] = messages.packed(tensors | {"more": np.zeros(1, np.float32)})
    return reply


def no_metrics(reply: Message, message: Message) -> Message:
    return Message(RecordDict({"arrays": reply.content.array_records["arrays"]}), reply_to=message)


def no_weight(reply: Message, message: Message) -> Message:
    reply.content.metric_records["metrics"]["num-examples"] = 0
    return reply


def more_metrics(reply: Message, message: Message) -> Message:
    reply.content.metric_records["metrics"][SECRET] = 1.0
    return reply


def empty(reply: Message, message: Message) -> Message:
    return Message(RecordDict(), reply_to=message)


def turned(reply: Message, message: Message) -> Message:
    """An honest reply whose tensors stand in another order."""
    content = reply.content
    tensors = messages.unpacked(content.array_records["arrays"])
    back = messages.packed(dict(reversed(tensors.items())))
    return Message(RecordDict({**content, "arrays": back}), reply_to=message)


FAULTS = [
    (raises, "it failed (Flower error 2)"),
    (foreign_error, "it failed (Flower error 7)"),
    (own_error, "the site reports out-of-memory"),
    (nan, "not finite: tensor "),
    (wrong_shape, "wrong shape: tensor "),
    (wrong_type, "wrong type: tensor "),
    (wrong_keys, "wrong keys: 1 "),
    (no_metrics, "its records are not "),
    (no_weight, "its number of notes is 0"),
    (more_metrics, "its metrics are not the expected ones"),
    (empty, "its records are not "),
]


def test_a_whole_study(make_study: Callable[..., Study], bases: dict[str, str]) -> None:
    study = make_study()
    state = study.run()
    start = base_tensors(study.plan)
    tokenizer = load_tokenizer(bases["bert"])
    assert state == study.kept[0] and state.round == 2 and state.left_out_sites == {}
    assert [f.name for f in state.sites] == NAMES
    assert state.sites == [
        site_facts(f.name, open_site(p).notes(tokenizer), study.plan)
        for f, p in zip(state.sites, study.sites, strict=True)
    ]
    assert [(r.number, r.attempts) for r in state.rounds] == [(0, 1), (1, 1), (2, 1)]
    assert state.rounds[0].sites == [] and all(set(r.held_out) == set(NAMES) for r in state.rounds)
    size = sum(value.nbytes for value in start.values())
    before = start
    for one in state.rounds[1:]:
        assert [s.site for s in one.sites] == NAMES and one.seconds > 0
        updates = {name: study.replies[name, one.number] for name in NAMES}
        for site in one.sites:
            update = updates[site.site]
            norm = np.sqrt(sum(np.square(update[k].astype(np.float64) - before[k]).sum() for k in before))
            assert site.state == "returned" and site.reason == "" and site.steps == 2
            assert (site.bytes_down, site.bytes_up) == (2 * size, size)  # to train, and to evaluate
            assert site.update_norm == pytest.approx(norm, rel=1e-5) and site.update_norm > 0
        weight = {s.site: s.notes for s in one.sites}
        before = {
            k: sum(weight[n] * updates[n][k].astype(np.float64) for n in NAMES) / sum(weight.values()) for k in before
        }
        before = {k: v.astype(np.float32) for k, v in before.items()}
    assert all(np.allclose(study.weights[k], before[k], atol=1e-6) for k in before)
    assert all(v.dtype == np.float32 for v in study.weights.values())
    kinds = [e.kind for e in study.events]
    assert [kinds.count(one) for one in ("round-started", "round-ended", "held-out")] == [2, 3, 9]


def test_the_order_of_the_sites_does_not_matter(make_study: Callable[..., Study]) -> None:
    one, other = make_study("a"), make_study("b", sites=reversed(NAMES))
    a, b = one.run(), other.run()
    assert equal(one.weights, other.weights) and a.sites == b.sites
    assert [r.held_out for r in a.rounds] == [r.held_out for r in b.rounds]
    for study in (one, other):
        assert [
            name for name, kind, _ in study.asked if kind != "query"
        ] == NAMES * 5  # two rounds, three held-out losses


def test_one_site_alone(make_study: Callable[..., Study]) -> None:
    study = make_study(sites=["northgate"])
    state = study.run()
    assert [s.site for s in state.rounds[2].sites] == ["northgate"]
    assert equal(study.weights, study.replies["northgate", 2])


@pytest.mark.parametrize(("fault", "reason"), FAULTS, ids=lambda v: getattr(v, "__name__", ""))
def test_a_site_with_a_fault_is_left_out_and_the_others_go_on(
    make_study: Callable[..., Study], fault: Fault, reason: str
) -> None:
    study = make_study(federation={"min_sites": 2}, faults={("millbrook", "train", 1, None): fault})
    state = study.run()
    first, second = state.rounds[1:]
    by_name = {s.site: s for s in first.sites}
    out = by_name["millbrook"]
    assert (out.state, out.bytes_up, out.notes, out.loss, out.update_norm) == ("left-out", 0, 0, None, None)
    assert out.reason.startswith(reason) and out.bytes_down > 0
    assert by_name["northgate"].state == by_name["eastholme"].state == "returned"
    assert first.attempts == 1 and all(s.state == "returned" for s in second.sites)
    assert SECRET not in study.everything_written()
    assert any(e.kind == "left-out" and e.site == "millbrook" and e.round == 1 for e in study.events)
    # The round is exactly that of the two others.
    alone = make_study("b", sites=["eastholme", "northgate"], federation={"min_sites": 2})
    alone.run()
    sent = [
        m
        for m in study.sent
        if m.metadata.message_type == "train" and m.content.config_records["config"]["server-round"] == 2
    ]
    expected = [
        m
        for m in alone.sent
        if m.metadata.message_type == "train" and m.content.config_records["config"]["server-round"] == 2
    ]
    assert equal(*(messages.unpacked(ms[0].content.array_records["arrays"]) for ms in (sent, expected)))


def test_words_of_a_site_are_not_written(make_study: Callable[..., Study]) -> None:
    study = make_study(federation={"rounds": 1}, faults={("millbrook", "train", 1, None): wordy_error})
    study.run()
    assert SECRET not in study.everything_written()


class Late(InProcessGrid):
    """The answer of one node does not come in time."""

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        waiting = [number for number in message_ids if number in self._waiting]
        ready = [number for number in waiting if not self._slow(self._waiting[number])]
        return super().pull_messages(ready) if ready else []

    def _slow(self, message: Message) -> bool:
        assert message.metadata.ttl == 2.0  # nobody at the site works on for an answer that nobody waits for
        return message.metadata.message_type != "query" and message.metadata.dst_node_id == 2


def test_a_late_site_is_left_out(make_study: Callable[..., Study]) -> None:
    study = make_study(federation={"rounds": 1, "round_timeout": 2.0})
    study.grid_type = Late
    state = study.run()
    out = {s.site: s.reason for s in state.rounds[1].sites if s.state == "left-out"}
    assert out == {"eastholme": "no reply in time"} and set(state.rounds[0].held_out) == {"millbrook", "northgate"}


class Strange(InProcessGrid):
    """A node that was never asked answers too, and one answers twice."""

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        replies = super().pull_messages(message_ids)
        stray = Message(Error(7, SECRET), reply_to=Message(RecordDict(), 99, "train"))
        return [stray, *replies, replies[0]]


def test_strange_answers_are_ignored(make_study: Callable[..., Study]) -> None:
    study, plain = make_study("a"), make_study("b")
    study.grid_type = Strange
    state = study.run()
    plain.run()
    assert [s.site for s in state.rounds[1].sites] == NAMES and equal(study.weights, plain.weights)


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "fedavgm", "trimmed-mean", "median"])
def test_the_order_of_tensors_in_a_reply_does_not_matter(make_study: Callable[..., Study], strategy: str) -> None:
    """Names are checked as a set, so a reply in another order is honest: it must count as what it says."""
    federation = {"strategy": strategy}
    study = make_study("a", federation=federation, faults={("eastholme", "train", None, None): turned})
    plain = make_study("b", federation=federation)
    state = study.run()
    plain.run()
    assert state.rounds[2].sites[0].state == "returned" and equal(study.weights, plain.weights)


# Too few good replies.


def test_a_round_without_enough_sites_is_asked_twice_and_then_stops(make_study: Callable[..., Study]) -> None:
    study = make_study(federation={"min_sites": 3, "rounds": 3}, faults={("millbrook", "train", 2, None): nan})
    with pytest.raises(StudyError) as caught:
        study.run()
    assert caught.value.code == "round-failed" and caught.value.exit_code == 4
    assert "Round 2 had 2 good replies" in caught.value.message and "asks for 3" in caught.value.message
    assert "\n  millbrook: not finite: tensor " in caught.value.message
    assert "northgate" not in caught.value.message
    # What was good is not asked for again.
    assert [study.asked.count((name, "train", 2)) for name in NAMES] == [1, 2, 1]
    assert study.kept[0].round == 1 and [r.number for r in study.kept[0].rounds] == [0, 1]
    # Mended and resumed, it is the study that never failed.
    study.faults.clear()
    plain = make_study("b", federation={"min_sites": 3, "rounds": 3})
    state, expected = study.run(), plain.run()
    assert equal(study.weights, plain.weights) and [r.held_out for r in state.rounds] == [
        r.held_out for r in expected.rounds
    ]


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "fedavgm"])
@pytest.mark.parametrize("share", ["encoder", "encoder+mlm-head"])
def test_the_second_attempt_is_as_good_as_the_first(
    make_study: Callable[..., Study], strategy: str, share: str
) -> None:
    federation = {"min_sites": 3, "strategy": strategy, "share": share}
    study = make_study("a", federation=federation, faults={("millbrook", "train", 2, 1): raises})
    plain = make_study("b", federation=federation)
    state = study.run()
    plain.run()
    assert [r.attempts for r in state.rounds] == [1, 1, 2] and all(s.state == "returned" for s in state.rounds[2].sites)
    assert equal(study.weights, plain.weights)


def test_no_good_reply_at_all(make_study: Callable[..., Study]) -> None:
    study = make_study(faults={(name, "train", 1, None): foreign_error for name in NAMES})
    with pytest.raises(StudyError, match="Round 1 had 0 good replies") as caught:
        study.run()
    assert SECRET not in str(caught.value) and study.kept[0].round == 0
    assert equal(study.weights, base_tensors(study.plan))


# The held-out loss.


@pytest.mark.parametrize("fault", [raises, foreign_error, empty, own_error])
def test_a_failed_held_out_loss_does_not_stop_a_study(make_study: Callable[..., Study], fault: Fault) -> None:
    study = make_study(federation={"min_sites": 3}, faults={("millbrook", "evaluate", 1, None): fault})
    state = study.run()
    assert [set(NAMES) - set(r.held_out) for r in state.rounds] == [set(), {"millbrook"}, set()]
    assert all(s.state == "returned" for r in state.rounds for s in r.sites)
    assert SECRET not in study.everything_written()


def test_all_held_out_losses_fail(make_study: Callable[..., Study]) -> None:
    state = make_study(faults={(name, "evaluate", None, None): raises for name in NAMES}).run()
    assert [r.held_out for r in state.rounds] == [{}, {}, {}]


def test_a_study_learns(make_study: Callable[..., Study]) -> None:
    training = {"steps_per_round": 15, "learning_rate": 5e-3, "batch_size": 16}
    state = make_study(federation={"rounds": 3}, training=training, evaluation={"held_out_notes": 1000}).run()
    means = [np.mean([r.held_out[name].loss for name in NAMES]) for r in state.rounds]
    assert means[3] < means[0] - 0.2, means


# Who takes part.


def test_a_site_that_cannot_take_part_is_named(
    make_study: Callable[..., Study], make_site: Callable[..., Path], hospitals: dict[str, np.ndarray]
) -> None:
    study = make_study()
    study.sites.append(make_site("few", hospitals["northgate"][:10], folder="a/few"))
    state = study.run()
    assert state.left_out_sites == {"node 5": "the site reports too-few-notes"}
    assert not any(name == "few" for name, kind, _ in study.asked if kind != "query")
    assert [f.name for f in state.sites] == NAMES


def test_names_are_unique(
    make_study: Callable[..., Study], make_site: Callable[..., Path], hospitals: dict[str, np.ndarray]
) -> None:
    study = make_study()
    study.sites.append(make_site("northgate", hospitals["eastholme"], folder="a/impostor"))
    state = study.run()
    assert state.left_out_sites == {"node 5": "another node already has the name northgate"}
    assert [s.site for s in state.rounds[1].sites] == NAMES
    assert not any(name == "impostor" for name, kind, _ in study.asked if kind != "query")


@pytest.mark.parametrize("fault", [raises, foreign_error, empty])
def test_a_site_that_does_not_say_who_it_is(make_study: Callable[..., Study], fault: Fault) -> None:
    study = make_study(federation={"min_sites": 2}, faults={("eastholme", "query", None, None): fault})
    state = study.run()
    assert list(state.left_out_sites) == ["node 2"] and [f.name for f in state.sites] == NAMES[1:]
    assert SECRET not in study.everything_written()


def test_too_few_sites_to_begin(make_study: Callable[..., Study]) -> None:
    study = make_study(federation={"min_sites": 4})
    with pytest.raises(StudyError, match="3 of 3 sites can take part; the plan asks for 4") as caught:
        study.run()
    assert caught.value.code == "too-few-sites" and not study.folder.exists()
    assert all(kind == "query" for _, kind, _ in study.asked)


# Kill and resume.


@pytest.mark.parametrize(
    ("strategy", "share"),
    [
        *((strategy, "encoder+mlm-head") for strategy in STRATEGY_SETTINGS),
        ("fedavg", "encoder"),
        ("fedadam", "encoder"),
    ],
)
def test_a_study_that_was_killed_ends_as_if_it_had_not_been(
    make_study: Callable[..., Study], strategy: str, share: str
) -> None:
    federation = {"strategy": strategy, "share": share, "rounds": 3}
    unbroken = make_study("a", federation=federation)
    expected = unbroken.run()
    study = make_study("b", federation=federation, faults={("northgate", "train", 3, None): killed})
    with pytest.raises(KeyboardInterrupt):
        study.run()
    assert study.kept[0].round == 2
    client.app._worker.cache_clear()
    study.faults.clear()
    state = study.run()
    assert equal(study.weights, unbroken.weights)
    assert [r.held_out for r in state.rounds] == [r.held_out for r in expected.rounds]
    assert [[(s.site, s.loss, s.tokens) for s in r.sites] for r in state.rounds] == [
        [(s.site, s.loss, s.tokens) for s in r.sites] for r in expected.rounds
    ]


def test_a_finished_study_is_left_as_it_is(make_study: Callable[..., Study]) -> None:
    study = make_study()
    state = study.run()
    study.asked.clear()
    assert study.run() == state and {kind for _, kind, _ in study.asked} == {"query"}


def test_the_base_is_loaded_only_where_no_checkpoint_stands(make_study: Callable[..., Study]) -> None:
    study = make_study()
    study.run()
    rounds = study.rounds()
    rounds.initial = lambda: pytest.fail("the base was asked for")  # type: ignore[assignment]
    rounds.run()


def test_fedprox_tells_its_sites(make_study: Callable[..., Study]) -> None:
    study = make_study(federation={"strategy": "fedprox", "proximal_mu": 0.25, "rounds": 1})
    study.run()
    sent = [messages.read_request(m).proximal_mu for m in study.sent if m.metadata.message_type == "train"]
    assert sent == [0.25] * 3


@pytest.mark.parametrize("wire", ["float16", "delta-float16"])
def test_half_the_bytes(make_study: Callable[..., Study], wire: str) -> None:
    study, plain = make_study("a", federation={"wire": wire}), make_study("b")
    state = study.run()
    plain.run()
    size = sum(value.nbytes for value in plain.weights.values())
    for one in (s for r in state.rounds[1:] for s in r.sites):
        assert one.bytes_up == size // 2 and one.bytes_down == (size if wire == "float16" else 2 * size)
    start = base_tensors(study.plan)
    moved = np.sqrt(sum(np.square(plain.weights[k] - start[k]).sum() for k in start))
    apart = np.sqrt(sum(np.square(plain.weights[k] - study.weights[k]).sum() for k in start))
    assert 0 < apart < 0.05 * moved and all(v.dtype == np.float32 for v in study.weights.values())


def test_weights_that_are_said_to_be_half_and_are_not(make_study: Callable[..., Study]) -> None:
    study = make_study(
        federation={"wire": "float16", "rounds": 1}, faults={("millbrook", "train", 1, None): wrong_type}
    )
    out = study.run().rounds[1].sites[1]
    assert out.reason.startswith("wrong type: tensor ") and out.reason.endswith("is float64, not float16")


def test_a_site_that_never_answers_is_left_alone_more_and_more(make_study: Callable[..., Study]) -> None:
    study = make_study(federation={"rounds": 7}, faults={("millbrook", "train", None, None): own_error})
    state = study.run()
    asked = [number for name, kind, number in study.asked if (name, kind) == ("millbrook", "train")]
    assert asked == [1, 2, 4, 7]
    assert [s.reason for r in state.rounds[5:7] for s in r.sites if s.site == "millbrook"] == [
        "it rests after failing twice or more: 2 more rounds",
        "it rests after failing twice or more: 1 more round",
    ]


def test_a_site_that_rests_is_asked_where_the_others_are_too_few(make_study: Callable[..., Study]) -> None:
    faults = {("millbrook", "train", n, None): own_error for n in (1, 2)}
    faults |= {("northgate", "train", 3, None): own_error}
    study = make_study(federation={"rounds": 3, "min_sites": 2}, faults=faults)
    last = study.run().rounds[3]
    assert [s.state for s in last.sites] == ["returned", "returned", "left-out"] and last.attempts == 2
