"""The rounds of a study over Flower's grid and strategies: ask, check each reply, average, measure, keep.

A reply that is an error, late, malformed, not finite or too large leaves its site out of the round with a named reason;
Flower's own strategies would stop the run or average a NaN. With fewer than `min_sites` good replies the round is asked
once more; then the run stops, and its last checkpoint stands. A site whose privacy budget is spent leaves for good.
"""

import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from common import messages
from common.errors import StudyError
from common.messages import BadReply, Tensors
from common.plan import StudyPlan
from common.results import HeldOut, Round, SiteFacts, SiteRound
from server.checkpoint import State, load_checkpoint, save_checkpoint
from server.hospital_privacy import LEDGER, HospitalNoise
from server.strategies import distance, make_strategy, restore_strategy, strategy_state

_ATTEMPTS = 2
_SPENT, _WITHHELD = "budget-spent", "withheld"  # codes of a site that are no failures
HAS_LEFT = "it has left: its privacy budget is spent"  # a reason, by which a resumed run knows it, too


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
    left: set[str] = field(default_factory=set)  # sites that are not asked any more
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)  # that of the checkpoint, where one stands

    def run(self) -> State:
        """All rounds that are still to do. Raises StudyError where the study cannot go on."""
        kept = load_checkpoint(self.checkpoints, self.plan.hash())
        if kept:
            self.run_id = kept[0].run
        facts, left_out = self._meet()
        strategy = self._strategy(kept[0] if kept else None)
        if kept:
            state, arrays, moments = kept
            restore_strategy(strategy, moments, arrays)
            self.left = {s.site for one in state.rounds for s in one.sites if s.reason == HAS_LEFT}
        else:
            arrays = self.initial()
            started = time.perf_counter()
            held_out = self._held_out(0, messages.to_arrays(arrays), strategy)
            first = Round(number=0, attempts=1, seconds=time.perf_counter() - started, sites=[], held_out=held_out)
            state = State(
                plan_hash=self.plan.hash(),
                run=self.run_id,
                round=0,
                rounds=[first],
                sites=facts,
                left_out_sites=left_out,
            )
            save_checkpoint(self.checkpoints, state, arrays, {})
        record = messages.to_arrays(arrays)
        for number in range(state.round + 1, self.plan.federation.rounds + 1):
            self.on_event(Event("round-started", number))
            started = time.perf_counter()
            arrays, sites, attempts = self._train(number, arrays, record, strategy)
            record = messages.to_arrays(arrays)
            held_out = self._held_out(number, record, strategy)
            seconds = time.perf_counter() - started
            done = Round(
                number=number,
                attempts=attempts,
                seconds=seconds,
                sites=sites,
                held_out=held_out,
                hospital_epsilon=strategy.epsilon if isinstance(strategy, HospitalNoise) else None,
            )
            state = state.model_copy(update={"round": number, "rounds": [*state.rounds, done]})
            save_checkpoint(self.checkpoints, state, arrays, strategy_state(strategy, list(arrays)))
            self.on_event(Event("round-ended", number, text=f"{seconds:.1f} s"))
        return state

    def _meet(self) -> tuple[list[SiteFacts], dict[str, str]]:
        """Ask every node who it is; a site that cannot take part is left out of the study, with a reason."""
        content = messages.query_content(self.plan, self.run_id)
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

    def _strategy(self, state: State | None) -> Strategy:
        """The plan's strategy; where the run is resumed, `state` is what stands."""
        average = make_strategy(self.plan.federation)
        if self.plan.hospital_privacy is None:
            return average
        here = sorted(self.names.values())
        if state and here != (before := sorted(one.name for one in state.sites)):
            raise StudyError(
                "sites-changed",
                f"The noise of this run is made for {', '.join(before)}; now there are {', '.join(here)}.",
                "Resume with the same sites, or start a new run.",
            )
        ledger, released = self.checkpoints / LEDGER, state.round if state else 0
        return HospitalNoise(average, self.plan.hospital_privacy, list(self.names), ledger, released)

    @property
    def _needed(self) -> int:
        """Good replies that make a round: where the coordinator adds noise, all, for it is made for their number."""
        return len(self.names) if self.plan.hospital_privacy else self.plan.federation.min_sites

    def _train(
        self, number: int, arrays: Tensors, record: ArrayRecord, strategy: Strategy
    ) -> tuple[Tensors, list[SiteRound], int]:
        """One round of training: the new shared tensors, what each site did, and how many attempts it took.

        `record` is `arrays` as Flower carries them.
        """
        good: list[Message] = []
        sites = [SiteRound(site=name, state="left-out", reason=HAS_LEFT) for name in sorted(self.left)]
        for attempt in range(1, _ATTEMPTS + 1):
            if len(set(self.names.values()) - self.left) < self._needed:
                break  # to train in vain would cost the others time, and some of their privacy
            sites, good = self._attempt(number, arrays, record, strategy)
            if len(good) >= self._needed:
                mean, _ = strategy.aggregate_train(number, good)
                assert mean is not None  # there are good replies
                # FedAdam's step is a float64 scalar, which numpy 2 lets turn the weights into float64.
                return {k: mean[k].numpy().astype(np.float32, copy=False) for k in arrays}, sites, attempt
        reasons = "".join(f"\n  {s.site}: {s.reason}" for s in sites if s.state == "left-out")
        asker = "[hospital_privacy] needs all" if self.plan.hospital_privacy else "the plan asks for"
        raise StudyError(
            "round-failed",
            f"Round {number} had {len(good)} good replies; {asker} {self._needed}.{reasons}",
            "The last checkpoint is intact: mend the sites and resume the run.",
        )

    def _attempt(
        self, number: int, arrays: Tensors, record: ArrayRecord, strategy: Strategy
    ) -> tuple[list[SiteRound], list[Message]]:
        """Ask all sites once: what each did, and the good replies."""
        config = messages.request_config(self.plan, self.run_id)
        size = sum(value.nbytes for value in arrays.values())
        replies = self._exchange(strategy.configure_train(number, record, config, self.grid))
        sites, good = [], []
        for node, name in self.names.items():
            if name in self.left:
                sites.append(SiteRound(site=name, state="left-out", reason=HAS_LEFT))
                continue
            try:
                if _code(replies.get(node)) == _SPENT:
                    self.left.add(name)
                    raise BadReply(HAS_LEFT)
                reply = _present(replies.get(node))
                sites.append(self._read(reply, name, arrays, size))
            except BadReply as reason:
                sites.append(SiteRound(site=name, state="left-out", reason=str(reason), bytes_down=size))
                self.on_event(Event("left-out", number, name, str(reason)))
                continue
            messages.put_in_order(reply, arrays)
            weight = {messages.WEIGHT: reply.content.metric_records[messages.METRICS][messages.WEIGHT]}
            reply.content[messages.METRICS] = MetricRecord(weight)  # Flower wants of all sites the same metrics
            good.append(reply)
        return sites, good

    def _read(self, reply: Message, name: str, arrays: Tensors, size: int) -> SiteRound:
        """What a site did, of its reply to `arrays`, which have `size` bytes. Raises BadReply."""
        expected = {name: value.shape for name, value in arrays.items()}
        did, tensors = messages.read_train_reply(reply, expected, self.facts[name].train, self.plan)
        norm, most = distance(tensors, arrays), self.plan.federation.max_update_norm
        if most is not None and norm > most:
            raise BadReply(f"its update has an L2 norm of {norm:.4g}, more than federation.max_update_norm = {most:g}")
        private = self.plan.privacy is not None
        return SiteRound(
            site=name,
            state="returned",
            notes=0 if private else did.notes,
            steps=did.steps,
            tokens=0 if private else did.tokens,
            loss=did.loss,
            parts=did.parts,
            seconds=0.0 if private else did.seconds,
            bytes_down=size,
            bytes_up=size,
            update_norm=norm,
            privacy=did.privacy,
        )

    def _held_out(self, number: int, record: ArrayRecord, strategy: Strategy) -> dict[str, HeldOut]:
        """The loss of the shared tensors on each site's held-out notes; a site that cannot say is missing."""
        config = messages.request_config(self.plan, self.run_id)
        replies = self._exchange(strategy.configure_evaluate(number, record, config, self.grid))
        held_out: dict[str, HeldOut] = {}
        for node, name in self.names.items():
            if name in self.left or (self.plan.privacy and _code(replies.get(node)) == _WITHHELD):
                continue
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
        gone = {node for node, name in self.names.items() if name in self.left}
        asked = [m for m in requests if not rank or m.metadata.dst_node_id in rank.keys() - gone]
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


def _code(reply: Message | None) -> str:
    """The code with which a site of ours refuses; empty where it does not."""
    if reply is None or not reply.has_error() or reply.error.code != messages.SITE_ERROR:
        return ""
    return reply.error.reason or ""
