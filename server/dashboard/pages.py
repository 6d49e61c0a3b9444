"""The pages: the list of studies, one study, one site of it, and studies beside each other."""

from collections.abc import Callable

from nicegui import ui
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from server.dashboard.actions import Actions
from server.dashboard.comparison import Comparison
from server.dashboard.frame import FeedLine, Sections, frame, watch
from server.dashboard.library import Library
from server.dashboard.live import Lives, Source
from server.dashboard.rendering import rendered
from server.dashboard.study import StudySource
from server.record.reader import read_study

Act = Callable[[dict[str, str]], None]  # gets the data of a button that was pressed
_MOST_COMPARED = 12


def add_pages(library: Library, actions: Actions, idle: float) -> None:
    """`idle`: seconds after which who does nothing is logged out."""
    lives = Lives()

    async def show(key: str, source: Callable[[], Source], title: str, eyebrow: str, act: Act | None = None) -> None:
        live = lives.of(key, source)
        with frame(title, eyebrow, idle):
            parts = FeedLine(live.shown), Sections(on_action=act)
        await watch(live, *parts)

    @ui.page("/")
    async def studies() -> None:
        live = lives.of("", lambda: library)
        with frame("Studies", "Fednotes dashboard", idle):
            if actions.can_start:
                actions.start_form()
            parts = FeedLine(live.shown), Sections()
        await watch(live, *parts)

    @ui.page("/study/{key}")
    async def study(key: str) -> Response | None:
        entry = library.entry(key)
        if entry is None:
            return missing()
        name = read_study(entry.database, entry.study).plan.study.name
        await show(
            f"study {key}",
            lambda: StudySource(entry, can_act=actions.possible(entry)),
            name,
            f"Study {key}",
            lambda data: actions.ask(entry, data.get("action", "")),
        )
        return None

    @ui.page("/study/{key}/site/{name}")
    async def site(key: str, name: str) -> Response | None:
        entry = library.entry(key)
        record = read_study(entry.database, entry.study) if entry else None
        if entry is None or record is None or name not in {one.name for one in record.sites}:
            return missing()
        eyebrow = f"Site, in the study {record.plan.study.name}"
        await show(f"site {key} {name}", lambda: StudySource(entry, name), name, eyebrow)
        return None

    @ui.page("/compare")
    async def compare(request: Request) -> Response | None:
        known = set(library.keys())
        keys = [key for key in dict.fromkeys(request.query_params.getlist("study")) if key in known][:_MOST_COMPARED]
        entries = [entry for key in keys if (entry := library.entry(key))]
        await show(f"compare {keys}", lambda: Comparison(entries), "Studies beside each other", "Comparison")
        return None


def missing() -> Response:
    text = "There is no such page, or no longer."
    return HTMLResponse(rendered("refused.html", title="Not found", text=text), 404)


async def not_found(request: Request, error: Exception) -> Response:
    return missing()
