"""Who takes part in a study over real servers: those that are registered, planned and there, under their own names."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.proto.node_pb2 import NodeInfo
from scripted_sites import START, Scripted, refuse

import server.meeting
from client.app import SITE_FOLDER
from common import messages
from common.errors import StudyError
from common.plan import StudyPlan
from server.rounds import Rounds
from simulations.engines import InProcessGrid


class Registered(InProcessGrid):
    """Nodes have the names under which their keys are registered; `online` says who is there."""

    online: Callable[[], set[str]]

    def _names(self) -> dict[int, str]:
        return {node: str(context.node_config[SITE_FOLDER]) for node, context in self._contexts.items()}

    def get_node_ids(self) -> list[int]:
        return [node for node, name in self._names().items() if name in self.online()]

    def get_nodes(self) -> list[NodeInfo]:
        return [NodeInfo(node_id=node, name=name) for node, name in self._names().items() if name in self.online()]


class Federation(Scripted):
    """A study over registered sites, whose `there` are online."""

    def begin(self, there: set[str]) -> Rounds:
        grid = Registered([Path(name) for name in self.names], self._site)
        grid.online = lambda: there
        return Rounds(grid, self.plan, self.folder, lambda: dict(START), self.events.append)

    def left_out(self) -> dict[str, str]:
        return {event.site: event.text for event in self.events if event.kind == "left-out"}


@pytest.fixture
def make(
    tmp_path: Path, make_plan: Callable[..., StudyPlan], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Federation]:
    monkeypatch.setattr(server.meeting, "_LOOK_AGAIN", 0.02)

    def build(**federation: object) -> Federation:
        return Federation(make_plan(federation={"site_wait": 0.3, "rounds": 4} | federation), tmp_path / "checkpoints")

    return build


ALL = {"eastholme", "millbrook", "northgate"}


def test_it_waits_for_the_planned_sites_and_starts_when_they_are_there(make: Callable[..., Federation]) -> None:
    study = make(sites=sorted(ALL), site_wait=20.0)
    there = {"eastholme"}
    threading.Timer(0.3, lambda: there.update(ALL)).start()
    state = study.begin(there).run()
    assert [s.state for s in state.rounds[1].sites] == ["returned"] * 3 and state.left_out_sites == {}


def test_after_the_wait_it_starts_without_those_that_are_missing(make: Callable[..., Federation]) -> None:
    study = make(sites=sorted(ALL), min_sites=2)
    state = study.begin({"eastholme", "northgate"}).run()
    assert [s.site for s in state.rounds[1].sites] == ["eastholme", "northgate"]
    assert state.left_out_sites == {"millbrook": "it is not online"}


def test_with_too_few_it_does_not_wait_for_ever(make: Callable[..., Federation]) -> None:
    study = make(min_sites=2)
    with pytest.raises(StudyError, match="1 of 1 sites can take part; the plan asks for 2") as caught:
        study.begin({"eastholme"}).run()
    assert caught.value.code == "too-few-sites" and not study.folder.exists()


def test_nobody_is_there(make: Callable[..., Federation]) -> None:
    with pytest.raises(StudyError, match="0 of 0 sites"):
        make().begin(set()).run()


def test_a_site_that_the_plan_does_not_name_is_not_asked(make: Callable[..., Federation]) -> None:
    study = make(sites=["eastholme", "northgate"])
    state = study.begin(ALL).run()
    assert "millbrook" not in {name for name, _, _ in study.asked} and state.left_out_sites == {}


def test_a_site_may_not_take_the_name_of_another(make: Callable[..., Federation]) -> None:
    study = make()
    study.answers["millbrook", "query", None] = lambda m: messages.facts_reply(study.facts("northgate"), m)
    state = study.begin(ALL).run()
    assert state.left_out_sites == {"millbrook": "it calls itself northgate, and is registered under another name"}
    assert [s.site for s in state.rounds[4].sites] == ["eastholme", "northgate"]
    assert list(study.left_out()) == ["millbrook"] and len([e for e in study.events if e.kind == "left-out"]) == 1


def test_a_site_that_comes_late_takes_part_from_then_on(make: Callable[..., Federation]) -> None:
    study = make()
    there = {"eastholme"}
    update = study.update

    def arrive(name: str, number: int, arrays: messages.Tensors) -> messages.Tensors:
        if number == 2:
            there.add("northgate")
        return update(name, number, arrays)

    study.update = arrive
    state = study.begin(there).run()
    both = ["eastholme", "northgate"]
    assert [[s.site for s in one.sites] for one in state.rounds[1:]] == [["eastholme"], ["eastholme"], both, both]
    assert [(e.round, e.site) for e in study.events if e.kind == "joined" and e.round] == [(3, "northgate")]
    assert [facts.name for facts in state.sites] == ["eastholme", "northgate"]


def test_a_site_that_approves_late_takes_part_from_then_on(make: Callable[..., Federation]) -> None:
    study = make()
    study.answers["millbrook", "query", None] = refuse("plan-not-approved")
    update = study.update

    def approve(name: str, number: int, arrays: messages.Tensors) -> messages.Tensors:
        if number == 3:
            study.answers.clear()
        return update(name, number, arrays)

    study.update = approve
    state = study.begin(ALL).run()
    assert study.left_out() == {"millbrook": "the site reports plan-not-approved"} and state.left_out_sites == {}
    assert [len(one.sites) for one in state.rounds[1:]] == [2, 2, 2, 3]


def test_a_site_that_is_offline_costs_no_wait_and_a_round_that_needs_it_waits(make: Callable[..., Federation]) -> None:
    study = make(min_sites=3, site_wait=20.0)
    there = set(ALL)
    update = study.update

    def leave(name: str, number: int, arrays: messages.Tensors) -> messages.Tensors:
        if (name, number) == ("northgate", 2):  # the last of the round
            there.discard("millbrook")
            threading.Timer(1.0, lambda: there.add("millbrook")).start()
        return update(name, number, arrays)

    study.update = leave
    state = study.begin(there).run()
    assert [one.attempts for one in state.rounds[1:]] == [1, 1, 2, 1] and set(state.rounds[2].held_out) < ALL
    assert all(len([s for s in one.sites if s.state == "returned"]) == 3 for one in state.rounds[1:])


def test_who_was_in_before_a_restart_stays_on_record(make: Callable[..., Federation]) -> None:
    study = make(min_sites=2)

    def stop(name: str, number: int, arrays: messages.Tensors) -> messages.Tensors:
        if number == 3:
            raise KeyboardInterrupt
        return arrays

    study.update = stop
    with pytest.raises(KeyboardInterrupt):
        study.begin(ALL).run()
    study.update = lambda name, number, arrays: arrays
    state = study.begin({"eastholme", "northgate"}).run()
    assert [facts.name for facts in state.sites] == sorted(ALL)
    assert [len(one.sites) for one in state.rounds[1:]] == [3, 3, 2, 2]


def test_weights_that_a_site_was_sent_to_evaluate_are_not_sent_again(make: Callable[..., Federation]) -> None:
    study, plain = make(wire="float16"), Scripted(make(wire="float16").plan, make().folder.parent / "plain")
    state = study.begin(ALL).run()
    plain.run()
    assert all(np.array_equal(study.kept[1][name], plain.kept[1][name]) for name in START)
    size = sum(value.nbytes // 2 for value in START.values())
    assert {(s.bytes_down, s.bytes_up) for one in state.rounds[1:] for s in one.sites} == {(size, size)}
    trained = [m for m in study.sent if m.metadata.message_type == "train"]
    assert len(trained) == 12 and not any(m.content.array_records for m in trained)


def test_a_site_that_lost_them_is_sent_them_and_loses_no_round(make: Callable[..., Federation]) -> None:
    study = make()
    update, size = study.update, sum(value.nbytes for value in START.values())

    def forget(name: str, number: int, arrays: messages.Tensors) -> messages.Tensors:
        if (name, number) == ("eastholme", 2):
            study.brought["millbrook"] = {"bias": arrays["bias"]}
        return update(name, number, arrays)

    study.update = forget
    state = study.begin(ALL).run()
    assert [s.bytes_down for one in state.rounds[1:] for s in one.sites] == [size] * 4 + [2 * size] + [size] * 7
    assert all(s.state == "returned" for one in state.rounds[1:] for s in one.sites)
    assert [one.attempts for one in state.rounds] == [1] * 5 and study.left_out() == {}
    assert study.trained(2) == [*sorted(ALL), "millbrook"]


def test_after_a_restart_they_are_sent(make: Callable[..., Federation]) -> None:
    study = make()
    size, update = sum(value.nbytes for value in START.values()), study.update

    def stop(name: str, number: int, arrays: messages.Tensors) -> messages.Tensors:
        if number == 3:
            raise KeyboardInterrupt
        return update(name, number, arrays)

    study.update = stop
    with pytest.raises(KeyboardInterrupt):
        study.begin(ALL).run()
    study.update = update
    state = study.begin(ALL).run()
    assert [{s.bytes_down for s in one.sites} for one in state.rounds[1:]] == [{size}, {size}, {2 * size}, {size}]
