"""One exchange with the sites: send, and collect the answers until all are there or the time is over."""

import time
from collections.abc import Callable, Sequence

from flwr.app import Message
from flwr.serverapp import Grid

_POLL = 0.3  # seconds; Flower's own loop looks every three
_FACTOR, _FLOOR = 3.0, 120.0


def exchange(
    grid: Grid,
    requests: Sequence[Message],
    seconds: float,
    on_reply: Callable[[int, Message], None],
    on_sent: Callable[[int], None] = lambda node: None,
) -> dict[int, Message | None]:
    """Map node -> reply, None where it did not come within `seconds`.

    A reply belongs to the request that it answers, whoever sends it: for a node that is lost Flower's server answers.
    """
    found: dict[int, Message | None] = {request.metadata.dst_node_id: None for request in requests}
    if not requests:
        return found
    sent = set(grid.push_messages(requests))  # without those to nodes that have gone meanwhile
    ids = {request.metadata.message_id: request.metadata.dst_node_id for request in requests}
    waiting = {number: node for number, node in ids.items() if number in sent}
    for recipient in waiting.values():
        on_sent(recipient)
    end = time.monotonic() + seconds
    while waiting:
        replies = list(grid.pull_messages(list(waiting)))
        for reply in replies:
            node = waiting.pop(reply.metadata.reply_to_message_id, None)
            if node is not None:
                found[node] = reply
                on_reply(node, reply)
        if time.monotonic() >= end:
            break
        if not replies:
            time.sleep(_POLL)
    return found


class Deadline:
    """How long to wait for the answers to one kind of request: three times as long as the slowest took so far, and two
    minutes at least; `most` where nothing is known yet. After a wait in vain it doubles, up to `most`."""

    def __init__(self, most: float) -> None:
        self.seconds = self._most = most
        self._slowest = 0.0

    def answered(self, seconds: float) -> None:
        """A site has answered after so long."""
        self._slowest = max(self._slowest, seconds)
        self._learn(max(_FLOOR, _FACTOR * self._slowest))

    def missed(self) -> None:
        """A site has not answered in time."""
        self._learn(2 * self.seconds)

    def _learn(self, seconds: float) -> None:
        self.seconds = min(self._most, seconds)
