"""The rounds of a study over Flower's grid and strategies: ask, check each reply, average, measure, keep.

A reply that is an error, late, malformed, not finite or too large leaves its site out of the round with a named reason;
Flower's own strategies would stop the run or average a NaN. With fewer than `min_sites` good replies the round is asked
once more; then the run stops, and its last checkpoint stands. A site that failed twice in a row rests for a while; one
whose privacy budget is spent leaves for good.
"""

import functools
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from common import memorisation, messages, scores, wire
from common.errors import StudyError
from common.messages import BadReply, Tensors
from common.plan import StudyPlan
from common.results import HeldOut, Round, SiteFacts, SiteRound
from common.scores import SiteScores
from server.attendance import RESTS, rest
from server.checkpoint import State, load_checkpoint, save_checkpoint, save_state
from server.contribution import contributions
from server.events import Event, OnEvent
from server.exchange import Deadline, exchange
from server.hospital_privacy import LEDGER, HospitalNoise
from server.incidents import NOT_ONLINE, TOO_LARGE
from server.incidents import RESTS as RESTING
from server.incidents import SPENT as _SPENT
from server.meeting import Sites, in_order, present
from server.memorisation import check_memorisation
from server.scores import OnReply, gather_scores
from server.strategies import distance, make_strategy, restore_strategy, strategy_state

_ATTEMPTS, _VIRTUAL_ATTEMPTS = 4, 2  # a real site may be back in a minute
_WITHHELD, _MISSING = "withheld", "weights-missing"  # codes of a site that are no failures
HAS_LEFT = "it has left: its privacy budget is spent"  # a reason, by which a resumed run knows it, too


@dataclass
class Rounds:
    """A study under way. `initial` gives the base's shared tensors; it is called only where no checkpoint stands."""

    grid: Grid
    plan: StudyPlan
    checkpoints: Path
    initial: Callable[[], Tensors]
    on_event: OnEvent
    base: str = ""  # digest of the base's body, with which each site compares its own; empty on one machine
    left: set[str] = field(default_factory=set)  # sites that are not asked any more
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)  # that of the checkpoint, where one stands

    def run(self) -> State:
        """All rounds that are still to do. Raises StudyError where the study cannot go on."""
        kept = load_checkpoint(self.checkpoints, self.plan.hash())
        if kept:
            self.run_id = kept[0].run
        most = self.plan.federation.round_timeout
        self._deadlines = {kind: Deadline(most) for kind in ("query", "train", "evaluate", memorisation.KIND)}
        self._deadlines[scores.KIND] = Deadline((self.plan.federation.rounds + 1) * most)  # a site trains alone first
        self._answering: set[int] = set()  # nodes that have answered the latest training request
        self._asked: set[int] = set()  # nodes that were online when a training request was sent
        self._holding: set[int] = set()  # nodes that were sent the weights as they stand, to evaluate
        self._held_digest = ""
        self._sent: dict[str, int] = {}  # site -> bytes that it was sent to evaluate
        self.sites = Sites(self.grid, self.plan, self.run_id, self.base, self._deadlines["query"], self.on_event)
        self.sites.meet()
        last = kept[0].rounds[-1] if kept else None
        digest = kept[0].digests["shared"] if kept else ""
        self.on_event(Event("began", last.number if last else 0, result=last, digest=digest))
        strategy = self._strategy(kept[0] if kept else None)
        if kept:
            state, arrays, moments = kept
            restore_strategy(strategy, moments, arrays)
            self.left = {s.site for one in state.rounds for s in one.sites if s.reason == HAS_LEFT}
        else:
            arrays = self.initial()
            started = time.perf_counter()
            held_out = self._held_out(0, arrays, set(self.sites.names))
            first = Round(number=0, attempts=1, seconds=time.perf_counter() - started, sites=[], held_out=held_out)
            state = State(plan_hash=self.plan.hash(), run=self.run_id, round=0, rounds=[first], **self._who([]))
            save_checkpoint(self.checkpoints, state, arrays, {})
            self.on_event(Event("round-ended", 0, result=first, digest=state.digests["shared"]))
        for number in range(state.round + 1, self.plan.federation.rounds + 1):
            self.on_event(Event("round-started", number))
            started = time.perf_counter()
            if not self.plan.hospital_privacy:  # its noise is made for a fixed number of hospitals
                self.sites.meet_late_ones(number)
            arrays, sites, attempts = self._train(number, arrays, strategy, state.rounds)
            held_out = self._held_out(number, arrays, self._answering)
            brought = {one.site: one.bytes_down + self._sent.get(one.site, 0) for one in sites}
            sites = [one.model_copy(update={"bytes_down": brought[one.site]}) for one in sites]
            seconds = time.perf_counter() - started
            done = Round(
                number=number,
                attempts=attempts,
                seconds=seconds,
                sites=sites,
                held_out=held_out,
                hospital_epsilon=strategy.epsilon if isinstance(strategy, HospitalNoise) else None,
            )
            state = state.model_copy(
                update={"round": number, "rounds": [*state.rounds, done], **self._who(state.sites)}
            )
            save_checkpoint(self.checkpoints, state, arrays, strategy_state(strategy, list(arrays)))
            shown = f"{seconds:.1f} s"
            self.on_event(Event("round-ended", number, text=shown, result=done, digest=state.digests["shared"]))
        if self.plan.release and self.plan.release.memorisation and not state.memorisation:
            self.on_event(Event("phase", state.round, text="checking what the model has learnt by heart"))
            ask = functools.partial(self._ask, memorisation.KIND, state.round)
            found = check_memorisation(state, self.plan, arrays, self.sites.names, ask)
            state = state.model_copy(update={"memorisation": found})
            save_checkpoint(self.checkpoints, state, arrays, strategy_state(strategy, list(arrays)))
        if self.plan.evaluation.release_scores and self.sites.real:  # a simulation scores by itself
            state = state.model_copy(update={"scores": self._scores(state, arrays)})
        return state

    def _scores(self, state: State, arrays: Tensors) -> list[SiteScores]:
        """What the sites say of the final encoder; each answer is kept as it comes."""
        here = self.sites.here()
        sites = {node: self.sites.facts[name] for node, name in self.sites.names.items() if node in here}
        ask = functools.partial(self._ask, scores.KIND, state.round)

        def keep(found: list[SiteScores]) -> None:
            save_state(self.checkpoints, state.model_copy(update={"scores": found}))

        return gather_scores(state, self.plan, arrays, sites, ask, keep, self.on_event)

    def _who(self, before: list[SiteFacts]) -> dict[str, Any]:
        """Who takes part, and who cannot; a site that took part before a run was resumed stays on record."""
        known = {one.name: one for one in before} | self.sites.facts
        left_out = {name: reason for name, reason in self.sites.left_out.items() if name not in known}
        return {"sites": [known[name] for name in sorted(known)], "left_out_sites": left_out}

    def _strategy(self, state: State | None) -> Strategy:
        """The plan's strategy; where the run is resumed, `state` is what stands."""
        average = make_strategy(self.plan.federation)
        if self.plan.hospital_privacy is None:
            return average
        names = self.sites.names
        here = sorted(names.values())
        if state and here != (before := sorted(one.name for one in state.sites)):
            raise StudyError(
                "sites-changed",
                f"The noise of this run is made for {', '.join(before)}; now there are {', '.join(here)}.",
                "Resume with the same sites, or start a new run.",
            )
        ledger, released = self.checkpoints / LEDGER, state.round if state else 0
        return HospitalNoise(average, self.plan.hospital_privacy, list(names), ledger, released)

    @property
    def _needed(self) -> int:
        """Good replies that make a round: where the coordinator adds noise, all, for it is made for their number."""
        return len(self.sites.names) if self.plan.hospital_privacy else self.plan.federation.min_sites

    def _train(
        self, number: int, arrays: Tensors, strategy: Strategy, before: list[Round]
    ) -> tuple[Tensors, list[SiteRound], int]:
        """One round of training: the new shared tensors, what each site did, and how many attempts it took.

        A site whose reply is good is not asked again.
        """
        names = self.sites.names
        did = {name: SiteRound(site=name, state="left-out", reason=HAS_LEFT, code=_SPENT) for name in sorted(self.left)}
        good: dict[int, Message] = {}
        asked: set[int] = set()
        for attempt in range(1, (_ATTEMPTS if self.sites.real else _VIRTUAL_ATTEMPTS) + 1):
            nodes = {node for node, name in names.items() if name not in self.left}
            if len(nodes) < self._needed:
                break  # to train in vain would cost the others time, and some of their privacy
            resting = {node: left for node in nodes if (left := rest(before, names[node]))}
            if attempt > 1 or len(nodes) - len(resting) < self._needed:
                resting = {}  # it is needed
            for node, left in resting.items():
                reason = f"{RESTS} twice or more: {left} more round{'s' * (left > 1)}"
                did[names[node]] = SiteRound(site=names[node], state="left-out", reason=reason, code=RESTING)
            asked = nodes - resting.keys()
            if attempt > 1:
                self.sites.wait_for(asked)
            self._attempt(number, arrays, strategy, in_order(asked, names), did, good)
            if len(good) >= self._needed:
                replies = {names[node]: good[node] for node in in_order(good, names)}
                if not self.plan.hospital_privacy:  # no noise covers these
                    for one in contributions(replies, arrays):
                        did[one.site] = did[one.site].model_copy(update={"weight": one.weight, "cosine": one.cosine})
                mean, _ = strategy.aggregate_train(number, list(replies.values()))
                assert mean is not None  # there are good replies
                # FedAdam's step is a float64 scalar, which numpy 2 lets turn the weights into float64.
                new = {k: mean[k].numpy().astype(np.float32, copy=False) for k in arrays}
                return new, [did[name] for name in sorted(did)], attempt
        reasons = "".join(f"\n  {s.site}: {s.reason}" for _, s in sorted(did.items()) if s.state == "left-out")
        asker = "[hospital_privacy] needs all" if self.plan.hospital_privacy else "the plan asks for"
        raise StudyError(
            "round-failed",
            f"Round {number} had {len(good)} good replies; {asker} {self._needed}.{reasons}",
            "The last checkpoint is intact: mend the sites and resume the run.",
        )

    def _attempt(
        self,
        number: int,
        arrays: Tensors,
        strategy: Strategy,
        nodes: list[int],
        did: dict[str, SiteRound],
        good: dict[int, Message],
    ) -> None:
        """Ask the sites whose reply is not yet good; adds to `did` what each did, and to `good` its reply."""
        names, config = self.sites.names, messages.request_config(self.plan, self.run_id)
        view = cast(Grid, _Nodes(nodes))  # Flower would wait for ever for a node that has gone
        requests = list(strategy.configure_train(number, messages.to_arrays(arrays), config, view))
        sent = wire.down(arrays, self.plan.federation.wire)
        all_bytes = sum(value.nbytes for value in sent.values())
        config = requests[0].content.config_records[messages.CONFIG]
        whole = RecordDict({messages.ARRAYS: messages.packed(sent), messages.CONFIG: config})
        named = RecordDict({messages.CONFIG: ConfigRecord({**config, messages.HELD: self._held_digest})})
        self._answering, self._asked = set(), set()
        missing = [node for node in nodes if node not in good]
        contents = {node: named if node in self._holding else whole for node in missing}
        replies = self._ask("train", number, contents)
        if lacking := [node for node, reply in replies.items() if _code(reply) == _MISSING]:
            self._holding.difference_update(lacking)
            replies |= self._ask("train", number, dict.fromkeys(lacking, whole))
        for node, reply in replies.items():
            name = names[node]
            size = 0 if node in self._holding else all_bytes
            try:
                if _code(reply) == _SPENT:
                    self.left.add(name)
                    raise BadReply(HAS_LEFT, _SPENT)
                did[name] = self._read(present(reply), name, arrays, size)
            except BadReply as reason:
                text, code = str(reason), reason.code
                if reply is None and node not in self._asked:
                    text, code = "it is not online", NOT_ONLINE
                did[name] = SiteRound(site=name, state="left-out", reason=text, code=code, bytes_down=size)
                self.on_event(Event("left-out", number, name, text, code))
                continue
            good[node] = present(reply)
        self._answering |= good.keys()

    def _read(self, reply: Message, name: str, arrays: Tensors, size: int) -> SiteRound:
        """What a site did, of its reply to `arrays`, which travelled in `size` bytes; a strategy can take the reply
        then. Raises BadReply."""
        expected = {name: value.shape for name, value in arrays.items()}
        did, update = messages.read_train_reply(reply, expected, self.sites.facts[name].train, self.plan)
        tensors = wire.restored(update, arrays, self.plan.federation.wire)
        norm, most = distance(tensors, arrays), self.plan.federation.max_update_norm
        if most is not None and norm > most:
            text = f"its update has an L2 norm of {norm:.4g}, more than federation.max_update_norm = {most:g}"
            raise BadReply(text, TOO_LARGE)
        messages.for_strategy(reply, {name: tensors[name] for name in arrays})
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
            bytes_up=sum(value.nbytes for value in update.values()),
            update_norm=norm,
            privacy=did.privacy,
        )

    def _held_out(self, number: int, arrays: Tensors, nodes: set[int]) -> dict[str, HeldOut]:
        """The loss of the shared tensors on the held-out notes of some nodes; a site that cannot say is missing."""
        names, config = self.sites.names, messages.request_config(self.plan, self.run_id)
        config["server-round"] = number
        sent = wire.down(arrays, self.plan.federation.wire)
        content = RecordDict({messages.ARRAYS: messages.packed(sent), messages.CONFIG: config})
        there = in_order({node for node in nodes if names[node] not in self.left}, names)
        held_out: dict[str, HeldOut] = {}
        replies = self._ask("evaluate", number, dict.fromkeys(there, content))
        self._sent = {names[node]: sum(value.nbytes for value in sent.values()) for node in there}
        if self.sites.real:  # the next round begins where this one ends, and need not send it again
            self._holding = {node for node, reply in replies.items() if reply is not None}
            self._held_digest = wire.digest(wire.received(sent))
        for node, reply in replies.items():
            name = names[node]
            if self.plan.privacy and _code(reply) == _WITHHELD:
                continue
            try:
                said = messages.read_evaluate_reply(present(reply), self.plan.objective.kind)
            except BadReply as reason:
                self.on_event(Event("unmeasured", number, name, f"held-out loss: {reason}", reason.code))
                continue
            held_out[name] = HeldOut(
                loss=said.loss, notes=said.notes, tokens=said.tokens, parts=said.parts, space=said.space
            )
            self.on_event(Event("held-out", number, name, f"{said.loss:.3f}", result=held_out[name]))
        return held_out

    def _ask(
        self,
        kind: str,
        number: int,
        contents: dict[int, RecordDict],
        on_reply: OnReply = lambda node, reply: None,
    ) -> dict[int, Message | None]:
        """Send to each node its request, in their order, and wait as long as is due: node -> reply, None where late or
        offline. `on_reply` is told of each answer as it comes."""
        names, deadline, began = self.sites.names, self._deadlines[kind], time.monotonic()
        # Virtual sites take turns on this machine: how long one took says nothing of when the last will answer.
        seconds = deadline.seconds if self.sites.real else self.plan.federation.round_timeout
        here = self.sites.here()
        requests = [
            Message(content, node, kind, ttl=seconds, group_id=str(number))
            for node, content in contents.items()
            if node in here
        ]

        def answered(node: int, reply: Message) -> None:
            self._answering.add(node)
            took = time.monotonic() - began
            if not reply.has_error():
                deadline.answered(took)
                if kind == "train":
                    self.on_event(Event("returned", number, names[node], f"{took:.1f} s"))
            on_reply(node, reply)

        def sent(node: int) -> None:
            if kind == "train":
                self.on_event(Event("asked", number, names[node]))

        for request in requests if kind == "train" else ():
            self.on_event(Event("sending", number, names[request.metadata.dst_node_id]))
        self._asked |= {request.metadata.dst_node_id for request in requests}
        replies = exchange(self.grid, requests, seconds, answered, sent)
        if None in replies.values():
            deadline.missed()
        return {node: replies.get(node) for node in contents}


class _Nodes:
    """What Flower's strategies look at of a grid."""

    def __init__(self, nodes: list[int]) -> None:
        self._nodes = nodes

    def get_node_ids(self) -> list[int]:
        return self._nodes


def _code(reply: Message | None) -> str:
    """The code with which a site of ours refuses; empty where it does not."""
    if reply is None or not reply.has_error() or reply.error.code != messages.SITE_ERROR:
        return ""
    return reply.error.reason or ""
