"""The rounds of a study over Flower's grid and strategies: ask, check each reply, average, measure, keep.

A reply that is an error, late, malformed or not finite leaves its site out of the round with a named reason; Flower's
own strategies would stop the run or average a NaN. With fewer than `min_sites` good replies the round is asked once
more; then the run stops, and its last checkpoint stands.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from common import messages
from common.errors import StudyError
from common.messages import BadReply, Tensors
from common.plan import StudyPlan
from common.results import HeldOut, Round, SiteFacts, SiteRound
from server.checkpoint import State, load_checkpoint, save_checkpoint
from server.strategies import make_strategy, restore_strategy, strategy_state

_ATTEMPTS = 2


@dataclass(frozen=True)
class Event:
    """Something that a display may show. `site` and `text` are empty where they do not apply."""

    kind: Literal["asked", "left-out", "round-started", "returned", "held-out", "round-ended"]
    round: int
    site: str = ""
    text: str = ""


OnEvent = Callable[[Event], None]


@dataclass
class Rounds:
    """A study under way. `initial` gives the base's shared tensors; it is called only where no checkpoint stands."""

    grid: Grid
    plan: StudyPlan
    checkpoints: Path
    initial: Callable[[], Tensors]
    on_event: OnEvent
    names: dict[int, str] = field(default_factory=dict)  # node -> site, of the sites that take part
    facts: dict[str, SiteFacts] = field(default_factory=dict)  # site -> what it said that it brings

    def run(self) -> State:
        """All rounds that are still to do. Raises StudyError where the study cannot go on."""
        facts, left_out = self._meet()
        strategy = make_strategy(self.plan.federation)
        kept = load_checkpoint(self.checkpoints, self.plan.hash())
        if kept:
            state, arrays, moments = kept
            restore_strategy(strategy, moments, arrays)
        else:
            arrays = self.initial()
            started = time.perf_counter()
            held_out = self._held_out(0, messages.to_arrays(arrays), strategy)
            first = Round(number=0, attempts=1, seconds=time.perf_counter() - started, sites=[], held_out=held_out)
            state = State(plan_hash=self.plan.hash(), round=0, rounds=[first], sites=facts, left_out_sites=left_out)
            save_checkpoint(self.checkpoints, state, arrays, {})
        record = messages.to_arrays(arrays)
        for number in range(state.round + 1, self.plan.federation.rounds + 1):
            self.on_event(Event("round-started", number))
            started = time.perf_counter()
            arrays, sites, attempts = self._train(number, arrays, record, strategy)
            record = messages.to_arrays(arrays)
            held_out = self._held_out(number, record, strategy)
            seconds = time.perf_counter() - started
            done = Round(number=number, attempts=attempts, seconds=seconds, sites=sites, held_out=held_out)
            state = state.model_copy(update={"round": number, "rounds": [*state.rounds, done]})
            save_checkpoint(self.checkpoints, state, arrays, strategy_state(strategy, list(arrays)))
            self.on_event(Event("round-ended", number, text=f"{seconds:.1f} s"))
        return state

    def _meet(self) -> tuple[list[SiteFacts], dict[str, str]]:
        """Ask every node who it is; a site that cannot take part is left out of the study, with a reason."""
        content = messages.query_content(self.plan)
        requests = [Message(content, node, "query") for node in self.grid.get_node_ids()]
        facts: dict[int, SiteFacts] = {}
        left_out: dict[str, str] = {}
        for node, reply in self._exchange(requests).items():
            try:
                one = messages.read_facts(_present(reply))
                if one.name in {f.name for f in facts.values()}:
                    raise BadReply(f"another node already has the name {one.name}")
                facts[node] = one
            except BadReply as reason:
                left_out[f"node {node}"] = str(reason)
                self.on_event(Event("left-out", 0, f"node {node}", str(reason)))
        self.names = {node: f.name for node, f in sorted(facts.items(), key=lambda item: item[1].name)}
        self.facts = {f.name: f for f in facts.values()}
        if len(facts) < self.plan.federation.min_sites:
            reasons = "".join(f"\n  {site}: {reason}" for site, reason in left_out.items())
            raise StudyError(
                "too-few-sites",
                f"{len(facts)} of {len(requests)} sites can take part; "
                f"the plan asks for {self.plan.federation.min_sites}.{reasons}",
                "Mend the sites, or lower federation.min_sites.",
            )
        return [facts[node] for node in self.names], left_out

    def _train(
        self, number: int, arrays: Tensors, record: ArrayRecord, strategy: FedAvg
    ) -> tuple[Tensors, list[SiteRound], int]:
        """One round of training: the new shared tensors, what each site did, and how many attempts it took.

        `record` is `arrays` as Flower carries them.
        """
        expected = {name: value.shape for name, value in arrays.items()}
        size = sum(value.nbytes for value in arrays.values())
        sites: list[SiteRound] = []
        for attempt in range(1, _ATTEMPTS + 1):
            config = messages.request_config(self.plan)
            requests = strategy.configure_train(number, record, config, self.grid)
            sites, good = [], []
            replies = self._exchange(requests)
            for node, name in self.names.items():
                try:
                    reply = _present(replies.get(node))
                    did, tensors = messages.read_train_reply(
                        reply, expected, self.facts[name].train, self.plan.objective.kind
                    )
                except BadReply as reason:
                    sites.append(SiteRound(site=name, state="left-out", reason=str(reason), bytes_down=size))
                    self.on_event(Event("left-out", number, name, str(reason)))
                    continue
                messages.put_in_order(reply, expected)
                good.append(reply)
                sites.append(
                    SiteRound(
                        site=name,
                        state="returned",
                        notes=did.notes,
                        steps=did.steps,
                        tokens=did.tokens,
                        loss=did.loss,
                        parts=did.parts,
                        seconds=did.seconds,
                        bytes_down=size,
                        bytes_up=size,
                        update_norm=_distance(tensors, arrays),
                    )
                )
            if len(good) >= self.plan.federation.min_sites:
                mean, _ = strategy.aggregate_train(number, good)
                assert mean is not None  # there are good replies
                # FedAdam's step is a float64 scalar, which numpy 2 lets turn the weights into float64.
                return {k: mean[k].numpy().astype(np.float32, copy=False) for k in arrays}, sites, attempt
        reasons = "".join(f"\n  {s.site}: {s.reason}" for s in sites if s.state == "left-out")
        raise StudyError(
            "round-failed",
            f"Round {number} had {len(sites) - reasons.count(chr(10))} good replies, twice; "
            f"the plan asks for {self.plan.federation.min_sites}.{reasons}",
            "The last checkpoint is intact: mend the sites and resume the run.",
        )

    def _held_out(self, number: int, record: ArrayRecord, strategy: FedAvg) -> dict[str, HeldOut]:
        """The loss of the shared tensors on each site's held-out notes; a site that cannot say is missing."""
        config: ConfigRecord = messages.request_config(self.plan)
        replies = self._exchange(strategy.configure_evaluate(number, record, config, self.grid))
        held_out: dict[str, HeldOut] = {}
        for node, name in self.names.items():
            try:
                said = messages.read_evaluate_reply(_present(replies.get(node)), self.plan.objective.kind)
            except BadReply as reason:
                self.on_event(Event("left-out", number, name, f"held-out loss: {reason}"))
                continue
            held_out[name] = HeldOut(
                loss=said.loss, notes=said.notes, tokens=said.tokens, parts=said.parts, space=said.space
            )
            self.on_event(Event("held-out", number, name, f"{said.loss:.3f}"))
        return held_out

    def _exchange(self, requests: Iterable[Message]) -> dict[int, Message | None]:
        """Send to the sites that take part (to all, before they are known), and map node -> reply, None where late.

        The sites are asked in order of their names, so that a run does not depend on node numbers.
        """
        rank = {node: place for place, node in enumerate(self.names)}
        asked = [m for m in requests if not rank or m.metadata.dst_node_id in rank]
        asked.sort(key=lambda m: rank.get(m.metadata.dst_node_id, m.metadata.dst_node_id))
        found: dict[int, Message | None] = {m.metadata.dst_node_id: None for m in asked}
        for reply in self.grid.send_and_receive(asked, timeout=self.plan.federation.round_timeout):
            if reply.metadata.src_node_id in found:
                found[reply.metadata.src_node_id] = reply
        return found


def _present(reply: Message | None) -> Message:
    if reply is None:
        raise BadReply("no reply in time")
    return reply


def _distance(a: Tensors, b: Tensors) -> float:
    """L2 norm of a - b over all tensors."""
    squares = 0.0
    for name, value in b.items():
        difference = (a[name] - value).ravel()
        squares += float(difference @ difference)
    return math.sqrt(squares)
