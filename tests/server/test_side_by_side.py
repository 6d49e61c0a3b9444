"""Replies that are pulled side by side: what one that stalls keeps from the others."""

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import pytest
from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid

from server.exchange import exchange
from server.side_by_side import SideBySide
from simulations.engines import InProcessGrid


def answer(message: Message, context: Context) -> Message:
    return Message(RecordDict(), reply_to=message)


class Stalling(InProcessGrid):
    """As Flower's: a reply is handed out once, and the pull that has that of node 2 returns when it is let go on."""

    def __init__(self, nodes: int) -> None:
        super().__init__([Path(str(node)) for node in range(nodes)], answer)
        self.go_on = threading.Event()
        self.asked: dict[str, Message] = {}

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        messages = list(messages)
        numbers = super().push_messages(messages)
        self.asked |= dict(zip(numbers, messages, strict=True))
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        message_ids = list(message_ids)
        ours = [number for number in message_ids if number in self._waiting]
        unknown = [Message(Error(3, "unavailable"), reply_to=self.asked[n]) for n in message_ids if n not in ours]
        stalls = [number for number in ours if self._waiting[number].metadata.dst_node_id == 2]
        replies = super().pull_messages(stalls or ours) if ours else []
        if stalls:
            self.go_on.wait(20)
        return [*replies, *unknown]


def requests(*nodes: int) -> list[Message]:
    return [Message(RecordDict(), node, "query") for node in nodes]


def test_a_reply_that_stalls_holds_up_no_other_and_no_deadline() -> None:
    stalling = Stalling(3)
    grid = cast(Grid, SideBySide(cast(Grid, stalling)))
    seen: list[int] = []
    began = time.monotonic()
    found = exchange(grid, requests(2, 3, 4), 4.0, lambda node, reply: seen.append(node))
    assert 4.0 <= time.monotonic() - began < 8.0
    assert found[2] is None and seen == [3, 4]
    late = exchange(grid, requests(3), 10.0, lambda node, reply: stalling.go_on.set())
    assert late[3] is not None and list(late) == [3]  # the late one belongs to nobody any more


def test_one_that_is_slow_is_there_in_the_end() -> None:
    stalling = Stalling(2)
    threading.Timer(2.5, stalling.go_on.set).start()
    found = exchange(cast(Grid, SideBySide(cast(Grid, stalling))), requests(2, 3), 20.0, lambda *_: None)
    assert all(reply is not None and not reply.has_error() for reply in found.values())


def test_what_no_pull_has_in_its_hands_is_missing() -> None:
    stalling = Stalling(1)
    stalling.go_on.set()
    grid = SideBySide(cast(Grid, stalling))
    numbers = list(grid.push_messages(requests(2)))
    assert grid.pull_messages(numbers)[0].has_content()
    assert grid.pull_messages(numbers)[0].has_error()


def test_a_server_that_hangs_is_not_asked_ever_more() -> None:
    go_on, pulls = threading.Event(), []

    class Hanging(InProcessGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            pulls.append(message_ids)
            go_on.wait(20)
            return []

    grid = SideBySide(cast(Grid, Hanging([Path("a")], answer)))
    for _ in range(4):
        assert grid.pull_messages(["1"]) == []
    assert len(pulls) == 2
    go_on.set()


def test_what_a_pull_raises_is_raised() -> None:
    class Broken(InProcessGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        SideBySide(cast(Grid, Broken([Path("a")], answer))).pull_messages(["1"])
