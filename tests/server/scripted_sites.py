"""Sites that answer what a test tells them to, in Flower's own messages, to the real server."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from flwr.app import Context, Message

from client.app import SITE_FOLDER
from common import messages, wire
from common.errors import FednotesError
from common.messages import EvaluateReply, Tensors, TrainReply
from common.plan import StudyPlan
from common.results import PrivacySpent, SiteFacts
from server.checkpoint import State, load_checkpoint
from server.events import Event, OnEvent
from server.rounds import Rounds
from simulations.engines import InProcessGrid

NAMES = ["eastholme", "millbrook", "northgate"]
NOTES = {"eastholme": 10, "millbrook": 200, "northgate": 50}
# Names as models have them: not in the order of the alphabet; one tensor has no dimension.
START: Tensors = {
    "w.z": np.full((3, 2), 0.5, np.float32),
    "bias": np.float32([1, -1]),
    "n": np.array(2, np.float32),
    "w.a": np.zeros((3, 2), np.float32),
}

Answer = Callable[[Message], Message]


def refuse(code: str) -> Answer:
    """A site that sends the code of an error."""
    return lambda message: messages.error_reply(code, message)


def killed(message: Message) -> Message:
    raise KeyboardInterrupt  # passes the grid, as a signal would


def moved(arrays: Tensors, step: float) -> Tensors:
    """`arrays` with an update of L2 norm `step` on them, along one tensor."""
    return arrays | {"bias": arrays["bias"] + np.float32([step, 0])}


@dataclass
class Scripted:
    """A study whose sites return `update(site, round, arrays)`; `answers` says what else happens.

    Keys of `answers` are (site, kind, round); a round of None is every round.
    """

    plan: StudyPlan
    folder: Path
    names: list[str] = field(default_factory=lambda: list(NAMES))
    update: Callable[[str, int, Tensors], Tensors] = lambda site, number, arrays: moved(arrays, 1.0)
    answers: dict[tuple[str, str, int | None], Answer] = field(default_factory=dict)
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    brought: dict[str, Tensors] = field(default_factory=dict)
    record: OnEvent | None = None

    def run(self) -> State:
        grid = InProcessGrid([Path(name) for name in self.names], self._site)
        return Rounds(grid, self.plan, self.folder, lambda: dict(START), self._event).run()

    def _event(self, event: Event) -> None:
        self.events.append(event)
        if self.record:
            self.record(event)

    def _site(self, message: Message, context: Context) -> Message:
        name, kind = str(context.node_config[SITE_FOLDER]), message.metadata.message_type
        number = int(message.content.config_records["config"].get("server-round", 0))  # type: ignore[arg-type]
        self.asked.append((name, kind, number))
        self.sent.append(message)
        for key in ((name, kind, number), (name, kind, None)):
            if key in self.answers:
                return self.answers[key](message)
        try:
            return self._answer(name, kind, number, message)
        except FednotesError as error:
            return messages.error_reply(error.code, message)

    def _answer(self, name: str, kind: str, number: int, message: Message) -> Message:
        if kind == "query":
            return messages.facts_reply(self.facts(name), message)
        arrays = messages.read_request(message, lambda run, digest: self._held(name, run, digest)).arrays
        if kind == "evaluate":
            self.brought[name] = arrays
            return messages.evaluate_reply(EvaluateReply(loss=2.0, notes=4, tokens=40), message)
        update = wire.up(self.update(name, number, arrays), arrays, self.plan.federation.wire)
        return messages.train_reply(self.reply(name, number), update, message)

    def _held(self, name: str, run: str, digest: str) -> Tensors:
        """What the site was sent last, as `client.received` keeps it; a site that is asked for more says so."""
        arrays = self.brought.get(name, {})
        return arrays if wire.digest(arrays) == digest else messages.nothing_held(run, digest)

    def facts(self, name: str) -> SiteFacts:
        counts = dict.fromkeys(("dev", "test", "set_aside", "tokens", "whole", "shortened", "too_short"), 0)
        units = 25 if self.plan.privacy else None
        return SiteFacts(name=name, train=0 if units else NOTES.get(name, 30), units=units, **counts)

    def reply(self, name: str, number: int) -> TrainReply:
        """As an honest site fills it in."""
        if self.plan.privacy is None:
            return TrainReply(NOTES.get(name, 30), steps=2, tokens=99, loss=1.5, seconds=0.5)
        return TrainReply(1, 2, 0, 1.5 if self.plan.privacy.release_loss else None, 0.0, privacy=spent(number))

    def trained(self, number: int) -> list[str]:
        """The sites that were asked to train in a round, in order."""
        return [name for name, kind, one in self.asked if (kind, one) == ("train", number)]

    @property
    def kept(self) -> tuple[State, Tensors, Tensors]:
        kept = load_checkpoint(self.folder, self.plan.hash())
        assert kept is not None
        return kept


def spent(number: int) -> PrivacySpent:
    return PrivacySpent(
        unit="patient", units=25, noise_multiplier=1.0, sample_rate=0.16, steps=2, epsilon=0.25 * number, delta=1e-5
    )
