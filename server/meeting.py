"""Who takes part: the nodes that are there, what each says of itself, and why one cannot."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

from common import messages
from common.errors import StudyError
from common.messages import BadReply
from common.plan import StudyPlan
from common.results import SiteFacts
from server.events import Event, OnEvent
from server.exchange import Deadline, exchange
from server.incidents import NO_REPLY, NOT_ONLINE

_LOOK_AGAIN = 2.0  # seconds


@dataclass
class Sites:
    """The sites of a study, as they are met.

    On real servers a node has the name under which the coordinator registered its key, and a site may give no other;
    those that come late, or mend what was wrong, are met before the next round.
    """

    grid: Grid
    plan: StudyPlan
    run_id: str
    base: str
    deadline: Deadline
    on_event: OnEvent
    names: dict[int, str] = field(default_factory=dict)  # node -> site, in the order of the names
    facts: dict[str, SiteFacts] = field(default_factory=dict)  # site -> what it said that it brings
    left_out: dict[str, str] = field(default_factory=dict)  # site (or node) -> why it cannot take part
    _real: bool = False

    def meet(self) -> None:
        """Wait for the sites, and ask each who it is. Raises StudyError `too-few-sites`."""
        there = self._wait()
        self._ask(there, 0)
        if len(self.facts) < self.plan.federation.min_sites:
            reasons = "".join(f"\n  {site}: {reason}" for site, reason in self.left_out.items())
            raise StudyError(
                "too-few-sites",
                f"{len(self.facts)} of {len(there)} sites can take part; "
                f"the plan asks for {self.plan.federation.min_sites}.{reasons}",
                "Mend the sites, or lower federation.min_sites.",
            )

    def meet_late_ones(self, number: int) -> None:
        """Ask those that are registered and have not been let in yet: they may take part from round `number` on."""
        self._ask({node: name for node, name in self._planned().items() if node not in self.names and name}, number)

    def here(self) -> set[int]:
        """The nodes that are online."""
        return set(self.grid.get_node_ids())

    @property
    def real(self) -> bool:
        """Whether these are sites that come and go, and not a simulation's, which are always there."""
        return self._real

    def wait_for(self, nodes: set[int]) -> None:
        """Until these are online; not for ever."""
        end = time.monotonic() + self.plan.federation.site_wait
        while self.real and not nodes <= self.here() and time.monotonic() < end:
            time.sleep(_LOOK_AGAIN)

    def _planned(self) -> dict[int, str]:
        """Node -> the name under which it is registered (empty in simulations), of the sites that the plan wants."""
        registered = {node.node_id: str(node.name) for node in self.grid.get_nodes()}
        wanted = self.plan.federation.sites
        return {node: name for node, name in registered.items() if not wanted or not name or name in wanted}

    def _wait(self) -> dict[int, str]:
        """Until the planned sites are online, or as many as the plan needs; not for ever."""
        federation = self.plan.federation
        end = time.monotonic() + federation.site_wait
        while True:
            there = self._planned()
            self._real = self._real or any(there.values())
            missing = set(federation.sites) - set(there.values()) if self._real else set()
            if len(there) >= federation.min_sites and not missing:
                return there
            if time.monotonic() >= end or (there and not self._real):  # virtual sites are all there at once
                for site in sorted(missing):
                    self.left_out[site] = "it is not online"
                    self.on_event(Event("left-out", 0, site, self.left_out[site], NOT_ONLINE))
                return there
            time.sleep(_LOOK_AGAIN)

    def _ask(self, nodes: dict[int, str], number: int) -> None:
        content = messages.query_content(self.plan, self.run_id, self.base)
        seconds = self.deadline.seconds
        requests = [Message(content, node, "query", ttl=seconds) for node in sorted(nodes)]
        for node, reply in exchange(self.grid, requests, seconds, lambda *_: None).items():
            called = nodes[node] or f"node {node}"
            try:
                one = messages.read_facts(present(reply))
                if nodes[node] and one.name != nodes[node]:
                    text = f"it calls itself {one.name}, and is registered under another name"
                    raise BadReply(text, "name-differs")
                if self.plan.federation.sites and one.name not in self.plan.federation.sites:
                    raise BadReply("the plan does not name it", "not-in-plan")
                if one.name in self.facts:
                    raise BadReply(f"another node already has the name {one.name}", "name-taken")
            except BadReply as reason:
                if self.left_out.get(called) != str(reason):
                    self.left_out[called] = str(reason)
                    self.on_event(Event("left-out", 0, called, str(reason), reason.code))
                continue
            self.left_out.pop(called, None)
            self.facts[one.name] = one
            self.names[node] = one.name
            self.on_event(Event("joined", number, one.name, result=one))
        self.names = dict(sorted(self.names.items(), key=lambda item: item[1]))


def in_order(nodes: Iterable[int], names: dict[int, str]) -> list[int]:
    """Nodes by the names of their sites, so that a run does not depend on node numbers."""
    return sorted(nodes, key=lambda node: names[node])


def present(reply: Message | None) -> Message:
    """Raises BadReply where there is none."""
    if reply is None:
        raise BadReply("no reply in time", NO_REPLY)
    return reply
