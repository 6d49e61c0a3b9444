"""How long the coordinator waits, and whose answer it takes."""

import time
from collections.abc import Iterable
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict

from server.exchange import Deadline, exchange
from simulations.engines import InProcessGrid


def test_nothing_is_known_at_first_then_three_times_the_slowest() -> None:
    deadline = Deadline(3600.0)
    assert deadline.seconds == 3600.0
    deadline.answered(10.0)
    assert deadline.seconds == 120.0
    deadline.answered(100.0)
    deadline.answered(20.0)
    assert deadline.seconds == 300.0


def test_after_a_wait_in_vain_it_doubles_and_ends_at_the_plan_s() -> None:
    deadline = Deadline(1000.0)
    deadline.answered(100.0)
    for expected in (600.0, 1000.0, 1000.0):
        deadline.missed()
        assert deadline.seconds == expected


def test_a_short_plan_is_kept() -> None:
    deadline = Deadline(5.0)
    deadline.answered(1.0)
    assert deadline.seconds == 5.0


def answer(message: Message, context: Context) -> Message:
    return Message(RecordDict(), reply_to=message)


class Gone(InProcessGrid):
    """Node 2 has gone when it is written to; for node 3 the server answers; node 4 never does."""

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        messages = list(messages)
        numbers = super().push_messages(messages)
        return [n for n, m in zip(numbers, messages, strict=True) if m.metadata.dst_node_id != 2]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        ready = [n for n in message_ids if n in self._waiting and self._waiting[n].metadata.dst_node_id != 4]
        return super().pull_messages(ready) if ready else []

    def _answer(self, message: Message) -> Message:
        if message.metadata.dst_node_id != 3:
            return super()._answer(message)
        reply = Message(Error(5, "node unavailable"), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = 1  # the SuperLink
        return reply


def test_answers_belong_to_requests_whoever_sends_them() -> None:
    grid = Gone([Path("a"), Path("b"), Path("c"), Path("d")], answer)
    requests = [Message(RecordDict(), node, "query") for node in (2, 3, 4, 5)]
    seen: list[int] = []
    began = time.monotonic()
    found = exchange(grid, requests, 1.0, lambda node, reply: seen.append(node))
    assert 1.0 <= time.monotonic() - began < 5.0
    assert list(found) == [2, 3, 4, 5] and found[2] is None and found[4] is None and seen == [3, 5]
    lost, well = found[3], found[5]
    assert lost is not None and lost.error.code == 5 and well is not None and well.has_content()


def test_nobody_is_asked() -> None:
    assert exchange(InProcessGrid([], answer), [], 5.0, lambda *_: None) == {}
