"""The pages: the list of studies, and one study."""

from nicegui import ui
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from server.dashboard.frame import FeedLine, Sections, frame, watch
from server.dashboard.live import Lives
from server.dashboard.rendering import rendered
from server.dashboard.runs import Runs


def add_pages(runs: Runs, idle: float) -> None:
    """`idle`: seconds after which who does nothing is logged out."""
    lives = Lives()

    @ui.page("/")
    async def studies() -> None:
        live = lives.of("", lambda: runs)
        with frame("Studies", "Fednotes dashboard", idle):
            parts = FeedLine(live.shown), Sections()
        await watch(live, *parts)

    @ui.page("/study/{name}")
    async def study(name: str) -> Response | None:
        run = runs.run(name)
        if run is None:
            return missing()
        live = lives.of(name, lambda: run)
        with frame(name, "Study", idle):
            parts = FeedLine(live.shown), Sections()
        await watch(live, *parts)
        return None


def missing() -> Response:
    text = "There is no such page, or no longer."
    return HTMLResponse(rendered("refused.html", title="Not found", text=text), 404)


async def not_found(request: Request, error: Exception) -> Response:
    return missing()
