"""What is new, once for all who look on: one poller a study, which renders what changed and tells every viewer."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from common.errors import FednotesError
from server.dashboard.shared import Shared, share

LOOK_EVERY = 0.5  # seconds
BEAT_EVERY = 5.0  # seconds: a page that hears nothing for three beats says so


@dataclass(frozen=True)
class Feed:
    """How fresh a source is.

    Args:
        version: differs whenever a section may have changed.
        heard: the study's last sign of life, in Unix seconds; None where there was none yet.
        still: why no news is expected, in a sentence; empty while it is.
        stale_after: seconds of silence after which what is shown is called old.
    """

    version: str
    heard: float | None = None
    still: str = ""
    stale_after: float = 60.0


class Source(Protocol):
    """What a page shows. Both are called in a thread, never two at a time; a FednotesError is shown in words."""

    def feed(self) -> Feed:
        """Cheap: it is asked twice a second."""
        ...

    def sections(self) -> dict[str, str]:
        """Name -> HTML, escaped, in the order of the page. Asked where the version changed."""
        ...


@dataclass(frozen=True)
class Shown:
    """What viewers see. A section that did not change is the same object as before.

    `checked`: when the source last answered, in Unix seconds; 0 while it is read for the first time. `problem`: why it
    does not; empty where it does.
    """

    sections: dict[str, Shared] = field(default_factory=dict)
    feed: Feed = Feed("")
    checked: float = 0.0
    problem: str = ""


Viewer = Callable[[Shown], None]


class Live:
    """One source and those who look at it. It polls while there is one, and not a moment longer."""

    def __init__(self, source: Source, ended: Callable[[], None]) -> None:
        """`ended` is called when nobody looks any more."""
        self.shown = Shown()
        self._source, self._ended = source, ended
        self._viewers: list[Viewer] = []
        self._polling: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()
        self._told = 0.0

    async def join(self, viewer: Viewer, patience: float = 60.0) -> Shown:
        """What there is to see now, or nothing where that takes longer; `viewer` is called with what comes."""
        self._viewers.append(viewer)
        if self._polling is None:
            self._polling = asyncio.create_task(self._poll())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._looked.wait(), patience)
        return self.shown

    def leave(self, viewer: Viewer) -> None:
        with contextlib.suppress(ValueError):
            self._viewers.remove(viewer)

    async def _poll(self) -> None:
        # it is never cancelled: a look that is under way in its thread must end before another begins
        while self._viewers:
            before = self.shown
            await self._look()
            self._looked.set()
            now = self.shown
            same = now.sections is before.sections and now.feed == before.feed and now.problem == before.problem
            if not same or now.checked - self._told >= BEAT_EVERY:
                self._told = now.checked
                for viewer in tuple(self._viewers):
                    viewer(now)
            await asyncio.sleep(LOOK_EVERY)
        self._polling = None
        self._looked.clear()
        self._ended()

    async def _look(self) -> None:
        before = self.shown
        try:
            feed = await asyncio.to_thread(self._source.feed)
            sections = before.sections
            if feed.version != before.feed.version or before.problem or not before.checked:
                sections = await asyncio.to_thread(self._rendered)
                if list(sections.items()) == list(before.sections.items()):
                    sections = before.sections
            problem = ""
        except FednotesError as error:
            feed, sections, problem = before.feed, before.sections, str(error)
        except Exception:  # whatever it is, the page must go on and say that it knows nothing new
            logging.getLogger("fednotes").exception("A page could not be renewed")
            feed, sections = before.feed, before.sections
            problem = "A defect in Fednotes: the dashboard's output says which."
        self.shown = Shown(sections, feed, time.time(), problem)

    def _rendered(self) -> dict[str, Shared]:
        return {name: share(html) for name, html in self._source.sections().items()}


class Lives:
    """One Live a key, for as long as somebody looks at it."""

    def __init__(self) -> None:
        self._open: dict[str, Live] = {}

    def of(self, key: str, source: Callable[[], Source]) -> Live:
        if key not in self._open:
            self._open[key] = Live(source(), lambda: self._close(key))
        return self._open[key]

    def _close(self, key: str) -> None:
        del self._open[key]
