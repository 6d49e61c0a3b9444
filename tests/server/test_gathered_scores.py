"""The coordinator asks for scores once, keeps what it got, and is spoilt by no answer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from scripted_sites import START, Scripted, killed, refuse

import server.meeting
from client.app import SITE_FOLDER
from common.plan import StudyPlan
from common.results import SiteFacts
from common.scores import KEPT, KIND
from server.checkpoint import State, load_checkpoint
from server.rounds import Rounds
from simulations.engines import InProcessGrid

FIRST, SECOND, THIRD = "eastholme", "millbrook", "northgate"
FIGURES = {
    "task/label/metric": "macro-f1",
    "task/label/n_train": 20,
    "task/label/n_test": 20,
    "score/label/frozen/federated/macro_f1/value": 0.6,
    "score/label/frozen/federated/accuracy/value": 0.7,
    "score/label/frozen/base/macro_f1/value": 0.4,
    "score/label/frozen/base/accuracy/value": 0.5,
    "minus/label/frozen/base/value": 0.2,
    "minus/label/frozen/base/low": 0.1,
    "minus/label/frozen/base/high": 0.3,
    "minus/label/frozen/base/verdict": "better",
}


def scored(message: Message, **changes: Any) -> Message:
    return Message(RecordDict({"config": ConfigRecord(FIGURES | changes)}), reply_to=message)


def hostile(message: Message) -> Message:
    return scored(message, **{"score/label/frozen/federated/macro_f1/value": 7.0})


class Real(InProcessGrid):
    """Nodes have the names under which they are registered, as on real servers; some are not online."""

    gone: set[str]

    def get_node_ids(self) -> list[int]:
        return [node for node, context in self._contexts.items() if context.node_config[SITE_FOLDER] not in self.gone]

    def get_nodes(self) -> list[NodeInfo]:
        names = {node: str(context.node_config[SITE_FOLDER]) for node, context in self._contexts.items()}
        return [NodeInfo(node_id=node, name=name) for node, name in names.items()]


class Federation(Scripted):
    gone: set[str]

    def run(self) -> State:
        grid = Real([Path(name) for name in self.names], self._site)
        self.gone = grid.gone = set()
        return Rounds(grid, self.plan, self.folder, lambda: dict(START), self._event).run()

    def facts(self, name: str) -> SiteFacts:
        return super().facts(name).model_copy(update={"train": 200, "test": 20})

    def asked_for_scores(self) -> list[str]:
        return [name for name, kind, _ in self.asked if kind == KIND]

    def reasons(self, state: State) -> dict[str, list[str]]:
        return {one.site: [missing.reason for missing in one.not_scored] for one in state.scores}


@pytest.fixture
def study(tmp_path: Path, make_plan: Callable[..., StudyPlan], monkeypatch: pytest.MonkeyPatch) -> Federation:
    monkeypatch.setattr(server.meeting, "_LOOK_AGAIN", 0.02)
    plan = make_plan(evaluation={"release_scores": True}, federation={"rounds": 2, "site_wait": 0.3})
    return Federation(plan, tmp_path / "checkpoints")


def test_one_answers_one_keeps_its_scores_and_one_answers_badly(study: Federation) -> None:
    study.answers = {
        (FIRST, KIND, 2): scored,
        (SECOND, KIND, 2): refuse("withheld"),
        (THIRD, KIND, 2): hostile,
    }
    state = study.run()
    assert study.asked_for_scores() == [FIRST, SECOND, THIRD]
    first, second, third = state.scores
    assert [(one.model, one.macro_f1.value, one.support) for one in first.scores] == [
        ("federated", 0.6, {}),
        ("base", 0.4, {}),
    ]
    assert [one.verdict for one in first.comparisons] == ["better"] and first.answered and second.answered
    assert study.reasons(state) == {
        FIRST: [],
        SECOND: [KEPT],
        THIRD: ["No score came: its scores are malformed."],
    }
    assert not third.answered and not third.scores
    faults = [(one.site, one.code) for one in study.events if one.code]
    assert faults == [(THIRD, "reply-invalid")]  # that a site keeps its scores is none
    phases = [one.text for one in study.events if one.kind == "phase"]
    assert phases == [
        f"waiting for scores: {count} of 3 sites {'has' if count == 1 else 'have'} answered" for count in range(4)
    ]
    assert study.kept[0].scores == state.scores


@pytest.mark.parametrize("content", [RecordDict(), RecordDict({"config": ConfigRecord({"words": "of a note"})})])
def test_any_answer_ends_the_study_well(study: Federation, content: RecordDict) -> None:
    study.answers = {(name, KIND, 2): lambda message: Message(content, reply_to=message) for name in study.names}
    state = study.run()
    assert state.round == 2 and not any(one.scores for one in state.scores)
    assert "of a note" not in json.dumps(study.reasons(state))


def test_a_resumed_run_asks_those_alone_that_have_not_answered(study: Federation) -> None:
    """The coordinator dies while it waits; what had come is on the disk."""
    study.answers = {
        (FIRST, KIND, 2): scored,
        (SECOND, KIND, 2): refuse("withheld"),
        (THIRD, KIND, 2): killed,
    }
    with pytest.raises(KeyboardInterrupt):
        study.run()
    kept = load_checkpoint(study.folder, study.plan.hash())
    assert kept is not None and {one.site for one in kept[0].scores if one.answered} == {FIRST, SECOND}
    study.answers[THIRD, KIND, 2] = refuse("out-of-memory")
    study.asked.clear()
    state = study.run()
    assert study.asked_for_scores() == [THIRD] and not study.trained(2)
    assert study.reasons(state)[THIRD] == ["No score came: the site reports out-of-memory."]
    study.answers[THIRD, KIND, 2] = scored
    study.asked.clear()
    state = study.run()
    assert study.asked_for_scores() == [THIRD] and [len(one.scores) for one in state.scores] == [2, 0, 2]
    study.asked.clear()
    assert study.run().scores == state.scores and study.asked_for_scores() == []


def test_a_site_that_has_gone_is_not_waited_for(study: Federation) -> None:
    study.answers = {(name, KIND, 2): scored for name in study.names}

    def last_word(message: Message) -> Message:
        study.gone.add(THIRD)
        return refuse("no-dev-notes")(message)

    study.answers[THIRD, "evaluate", 2] = last_word
    state = study.run()
    assert study.asked_for_scores() == [FIRST, SECOND]
    assert study.reasons(state)[THIRD] == ["The site was not there to be asked."]


def test_a_site_that_never_returned_is_not_asked(study: Federation) -> None:
    study.answers = {(name, KIND, 2): scored for name in study.names}
    study.answers |= {(THIRD, "train", number): refuse("diverged") for number in (1, 2)}
    state = study.run()
    assert study.asked_for_scores() == [FIRST, SECOND]
    assert study.reasons(state)[THIRD] == ["The site returned from no round."]


def test_nobody_is_asked_where_the_plan_does_not_or_in_a_simulation(
    study: Federation, make_plan: Callable[..., StudyPlan], tmp_path: Path
) -> None:
    study.plan = make_plan(federation={"rounds": 1, "site_wait": 0.3})
    assert study.run().scores == [] and study.asked_for_scores() == []
    asks = make_plan(evaluation={"release_scores": True}, federation={"rounds": 1})
    simulated = Scripted(asks, tmp_path / "simulated")
    assert simulated.run().scores == [] and KIND not in {kind for _, kind, _ in simulated.asked}
