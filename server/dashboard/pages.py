"""The pages: the list of studies, one study, one site of it, and studies beside each other."""

import asyncio
from collections.abc import Callable
from functools import partial

from nicegui import ui
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from common.errors import FednotesError
from server.dashboard.actions import Actions
from server.dashboard.asking import Notice
from server.dashboard.comparison import Comparison
from server.dashboard.frame import FeedLine, Sections, frame, watch
from server.dashboard.library import Entry, Library
from server.dashboard.live import Lives, Source
from server.dashboard.rendering import rendered
from server.dashboard.study import StudySource
from server.record.listing import names

Act = Callable[[Notice, dict[str, str]], None]  # gets the data of a button that was pressed
_MOST_COMPARED = 12
_PATIENCE = 60.0  # seconds: a busy machine may take long to read a large study


def add_pages(library: Library, actions: Actions, idle: float) -> None:
    """`idle`: seconds after which who does nothing is logged out."""
    lives = Lives()

    async def show(key: str, source: Callable[[], Source], title: str, eyebrow: str, act: Act | None = None) -> None:
        live = lives.of(key, source)
        with frame(title, eyebrow, idle) as notice:
            parts = FeedLine(live.shown), Sections(on_action=act and partial(act, notice))
        await watch(live, *parts)

    @ui.page("/", response_timeout=_PATIENCE)
    async def studies() -> None:
        live = lives.of("", lambda: library)
        with frame("Studies", "Fednotes dashboard", idle) as notice:
            if actions.can_start:
                actions.start_form(notice)
            parts = FeedLine(live.shown), Sections()
        await watch(live, *parts)

    @ui.page("/study/{key}", response_timeout=_PATIENCE)
    async def study(key: str) -> Response | None:
        found = await _found(library, key)
        if isinstance(found, Response):
            return found
        entry, name, _ = found

        def act(notice: Notice, data: dict[str, str]) -> None:
            actions.ask(entry, data.get("action", ""), notice)

        await show(f"study {key}", lambda: StudySource(entry), name, f"Study {key}", act)
        return None

    @ui.page("/study/{key}/site/{name}", response_timeout=_PATIENCE)
    async def site(key: str, name: str) -> Response | None:
        found = await _found(library, key)
        if isinstance(found, Response):
            return found
        entry, study, sites = found
        if name not in sites:
            return missing()
        await show(f"site {key} {name}", lambda: StudySource(entry, name), name, f"Site, in the study {study}")
        return None

    @ui.page("/compare", response_timeout=_PATIENCE)
    async def compare(request: Request) -> Response | None:
        wanted = list(dict.fromkeys(request.query_params.getlist("study")))[:_MOST_COMPARED]
        found = [await _found(library, key) for key in wanted]
        entries = [one[0] for one in found if not isinstance(one, Response)]
        await show(
            f"compare {[one.key for one in entries]}",
            lambda: Comparison(entries),
            "Studies beside each other",
            "Comparison",
        )
        return None


async def _found(library: Library, key: str) -> tuple[Entry, str, set[str]] | Response:
    """A study, its name and its sites; or the page that says why there is none."""
    try:
        entry = await asyncio.to_thread(library.entry, key)
        return (entry, *await asyncio.to_thread(names, entry.database, entry.study)) if entry else missing()
    except FednotesError as error:
        return HTMLResponse(rendered("refused.html", title="It cannot be read", text=str(error)), 503)


def missing() -> Response:
    text = "There is no such page, or no longer."
    return HTMLResponse(rendered("refused.html", title="Not found", text=text), 404)


async def not_found(request: Request, error: Exception) -> Response:
    return missing()
