"""One poller a source, whatever the number of viewers; it stops when nobody looks, and goes on when a source fails."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any
from weakref import ref

from dashboards import run_apart

from common.errors import InputError
from server.dashboard.live import LOOK_EVERY, Feed, Lives, Shown
from server.dashboard.shared import share


class Counted:
    """A source that says what it is told, and counts how often it is asked."""

    def __init__(self) -> None:
        self.said = {"one": "<p>1</p>", "two": "<p>2</p>"}
        self.version = 0
        self.asked = self.rendered = 0
        self.error: Exception | None = None
        self._busy = threading.Lock()

    def feed(self) -> Feed:
        assert self._busy.acquire(blocking=False), "asked twice at a time"
        try:
            self.asked += 1
            if self.error:
                raise self.error
            return Feed(str(self.version))
        finally:
            self._busy.release()

    def sections(self) -> dict[str, str]:
        self.rendered += 1
        return {name: html + "" for name, html in self.said.items()}

    def say(self, **changes: str) -> None:
        self.said |= changes
        self.version += 1


def said_by(shown: Shown) -> dict[str, str]:
    return {name: one.html for name, one in shown.sections.items()}


def run(test: Callable[[Counted, Lives], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        source, lives = Counted(), Lives()
        await asyncio.wait_for(test(source, lives), 30)

    run_apart(whole())


async def looked(source: Counted, times: int = 2) -> None:
    until = source.asked + times
    while source.asked < until:
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.05)


def test_twenty_viewers_are_one_poller_and_what_changed_is_rendered_once() -> None:
    async def test(source: Counted, lives: Lives) -> None:
        seen: list[list[Shown]] = [[] for _ in range(20)]
        first = await asyncio.gather(*(lives.of("a", lambda: source).join(each.append) for each in seen))
        assert all(said_by(shown) == source.said for shown in first) and source.rendered == 1
        source.say(two="<p>changed</p>")
        await looked(source)
        assert source.rendered == 2
        for each in seen:
            assert each[-1].sections["two"].html == "<p>changed</p>"
            assert each[-1].sections["one"] is first[0].sections["one"]
        before = source.asked
        await asyncio.sleep(4.2 * LOOK_EVERY)
        assert source.asked - before <= 5

    run(test)


def test_it_stops_when_nobody_looks_and_begins_again() -> None:
    async def test(source: Counted, lives: Lives) -> None:
        seen: list[Shown] = []
        live = lives.of("a", lambda: source)
        await live.join(seen.append)
        live.leave(seen.append)
        await asyncio.sleep(3 * LOOK_EVERY)
        asked = source.asked
        await asyncio.sleep(3 * LOOK_EVERY)
        assert source.asked == asked
        source.say(one="<p>new</p>")
        again = lives.of("a", lambda: source)
        assert again is not live
        shown = await again.join(seen.append)
        assert shown.sections["one"].html == "<p>new</p>"

    run(test)


def test_who_comes_back_at_once_finds_the_same_poller() -> None:
    async def test(source: Counted, lives: Lives) -> None:
        seen: list[Shown] = []
        live = lives.of("a", lambda: source)
        await live.join(seen.append)
        live.leave(seen.append)
        assert lives.of("a", lambda: source) is live
        await live.join(seen.append)
        source.say(one="<p>new</p>")
        await looked(source, 3)
        assert seen[-1].sections["one"].html == "<p>new</p>"

    run(test)


def test_a_source_that_fails_is_said_and_what_was_known_stays() -> None:
    async def test(source: Counted, lives: Lives) -> None:
        seen: list[Shown] = []
        await lives.of("a", lambda: source).join(seen.append)
        source.error = InputError("no-run", "It is gone.", "Look for it.")
        await looked(source)
        assert seen[-1].problem == "It is gone. Look for it."
        assert said_by(seen[-1]) == source.said
        known = seen[-1].checked
        source.error = RuntimeError("a secret")
        await looked(source)
        assert "secret" not in seen[-1].problem and seen[-1].problem
        source.error = None
        await looked(source)
        assert seen[-1].problem == "" and seen[-1].checked > known

    run(test)


def test_a_source_that_fails_at_once_still_makes_a_page() -> None:
    async def test(source: Counted, lives: Lives) -> None:
        source.error = InputError("no-run", "It is gone.")
        shown = await lives.of("a", lambda: source).join(lambda _: None)
        assert shown.problem == "It is gone." and shown.sections == {}

    run(test)


def test_a_beat_comes_though_nothing_changes() -> None:
    async def test(source: Counted, lives: Lives) -> None:
        seen: list[Shown] = []
        await lives.of("a", lambda: source).join(seen.append)
        seen.clear()
        await asyncio.sleep(6.5)
        assert 1 <= len(seen) <= 3

    run(test)


def test_who_does_not_wait_hears_of_it_later_as_all_others() -> None:
    async def test(source: Counted, lives: Lives) -> None:
        seen: list[Shown] = []
        shown = await lives.of("a", lambda: source).join(seen.append, patience=0.0)
        assert shown.sections == {} and shown.checked == 0
        await looked(source)
        assert said_by(seen[0]) == source.said and seen[0].checked > 0

    run(test)


def test_equal_html_is_one_object_for_as_long_as_somebody_holds_it() -> None:
    one, other = share("<p>é</p>" * 1000), share("<p>é</p>" * 1000)
    assert one is other and one.html == "<p>é</p>" * 1000 and len(one.zipped) < 200
    assert share("<p>e</p>").address != one.address
    gone = ref(one)
    del one, other
    assert gone() is None
