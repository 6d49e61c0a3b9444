"""The dashboard as one application: the guard outside, then headers, then NiceGUI's pages and our own files."""

from pathlib import Path

import nicegui
from fastapi import FastAPI
from nicegui import ui
from starlette.routing import Route
from starlette.types import ASGIApp

from server.dashboard import shared, static
from server.dashboard.actions import Actions
from server.dashboard.downloads import download
from server.dashboard.guard import Guard
from server.dashboard.headers import SecureHeaders
from server.dashboard.library import Library
from server.dashboard.login import Login
from server.dashboard.pages import add_pages, not_found
from server.dashboard.passwords import Password
from server.dashboard.sessions import Sessions

HERE = Path(__file__).parent
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
    app.router.routes += [*static.routes(), shared.route(), Route("/study/{key}/file/{name}", download(library))]
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
        message_history_length=50,  # addresses of sections, not their HTML
        gzip_middleware_factory=None,  # what is large is kept zipped
    )
    return Guard(SecureHeaders(app, tls), sessions, cookie, loopback)
