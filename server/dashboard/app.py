"""The dashboard as one application: the guard outside, then headers, then NiceGUI's pages and our own files."""

import gzip
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path

import nicegui
from fastapi import FastAPI
from nicegui import ui
from plotly.offline import get_plotlyjs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from server.dashboard.actions import Actions
from server.dashboard.downloads import download
from server.dashboard.frame import PLOTLY_JS
from server.dashboard.guard import Guard
from server.dashboard.headers import SecureHeaders
from server.dashboard.library import Library
from server.dashboard.login import Login
from server.dashboard.pages import add_pages, not_found
from server.dashboard.passwords import Password
from server.dashboard.sessions import Sessions

HERE = Path(__file__).parent
_REPORT = HERE.parent / "report"
_ASSETS = {
    **{path.name: path for path in (HERE / "assets").iterdir()},
    **{name: _REPORT / name for name in ("style.css", "dark.css", "charts.js")},
}
_KINDS = {".css": "text/css", ".js": "text/javascript"}
_RECONNECT = 10.0  # seconds for which a page that lost its connection is kept


def application(
    library: Library,
    actions: Actions,
    password: Password | None,
    port: int,
    loopback: bool,
    tls: bool,
    idle: float,
    longest: float,
) -> ASGIApp:
    """Once a process: NiceGUI has one set of pages.

    Args:
        idle, longest: seconds after which a session ends, without a sign of a person and in all.
    """
    sessions = Sessions(idle, longest) if password else None
    # browsers send a cookie to every port of a host; under TLS the prefix binds it to this host alone
    cookie = f"__Host-fednotes-{port}" if tls else f"fednotes-{port}"
    app = FastAPI(openapi_url=None)
    if password and sessions:
        app.router.routes += Login(password, sessions, cookie, tls).routes()
    app.router.routes += [
        Route(PLOTLY_JS, _plotly),
        *(Route(f"/assets/{name}", _asset(path)) for name, path in _ASSETS.items()),
    ]
    app.router.routes.append(Route("/study/{key}/file/{name}", download(library)))
    add_pages(library, actions, idle)
    nicegui.app.add_exception_handler(404, not_found)
    ui.run_with(
        app,
        title="Fednotes",
        favicon=HERE / "assets" / "icon.svg",
        dark=None,
        language="en-US",
        reconnect_timeout=_RECONNECT,
        binding_refresh_interval=None,
        tailwind=False,
        show_welcome_message=False,
        message_history_length=50,
        gzip_middleware_factory=None,
    )
    return Guard(SecureHeaders(app, tls), sessions, cookie, loopback)


def _asset(path: Path) -> Callable[[Request], Awaitable[Response]]:
    content, kind = path.read_bytes(), _KINDS.get(path.suffix, "image/svg+xml")

    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    return answer


async def _plotly(request: Request) -> Response:
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(_zipped_plotly(), media_type="text/javascript", headers=headers)
    return Response(get_plotlyjs(), media_type="text/javascript", headers=headers)


@cache
def _zipped_plotly() -> bytes:
    return gzip.compress(get_plotlyjs().encode(), 6)
