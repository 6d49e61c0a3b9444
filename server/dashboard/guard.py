"""Who gets in: every request and every websocket passes here before any page sees it."""

import asyncio
import ipaddress
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.requests import Request, cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.dashboard.sessions import Session, Sessions

LOGIN = "/login"
OPEN = (LOGIN, "/assets/")  # what needs no session: the login page, and files that any installation has
NO_PERSON = ("/_nicegui", "/assets/", "/session")  # what a page asks by itself, and so no sign of a person
_LOOK_AGAIN = 1.0  # seconds
_SESSION_ENDED = 4401  # of a websocket: the private codes of applications, by the number of HTTP


class Guard:
    """Wraps the whole application.

    Args:
        sessions: who is logged in; None where no password is set, which only loopback may be without.
        cookie: the name of the session's cookie.
        loopback: served to this machine alone, so that every other host's name is a trick: a page elsewhere whose name
            was made to point here. Under TLS the certificate says which names are ours.
    """

    def __init__(self, app: ASGIApp, sessions: Sessions | None, cookie: str, loopback: bool) -> None:
        self.app, self._sessions, self._cookie, self._loopback = app, sessions, cookie, loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        headers = _headers(scope)
        # NiceGUI would write it into its pages; nothing here stands behind a prefix
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"x-forwarded-prefix"]
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._loopback and not _is_loopback(host):
            return await _refuse(scope, receive, send, 421, "This dashboard answers to localhost only.")
        reads = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        if origin is not None and urlsplit(origin).netloc != host and not reads:
            return await _refuse(scope, receive, send, 403, "Another site's page may not send this.")
        if self._sessions is None:
            return await self.app(scope, receive, send)
        cookie = cookie_parser(headers.get("cookie", "")).get(self._cookie)
        path = scope["path"]
        session = self._sessions.find(cookie, touch=not path.startswith(NO_PERSON))
        scope["session_cookie"], scope["logged_in"] = cookie, session
        if session is None and not path.startswith(OPEN):
            return await self._ask_to_log_in(scope, receive, send, headers)
        if scope["type"] == "websocket":
            return await self._while_logged_in(cookie or "", scope, receive, send)
        return await self.app(scope, receive, send)

    async def _ask_to_log_in(self, scope: Scope, receive: Receive, send: Send, headers: dict[str, str]) -> None:
        """A person is led to the login page, and back; a program is told no."""
        if scope["type"] == "http" and scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            wanted = scope["path"] + ("?" + scope["query_string"].decode("latin-1") if scope["query_string"] else "")
            return await RedirectResponse(f"{LOGIN}?next={quote(wanted)}", 303)(scope, receive, send)
        await _refuse(scope, receive, send, 401, "Log in first.")

    async def _while_logged_in(self, cookie: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Closes a websocket when its session ends, whatever is still being said."""
        assert self._sessions is not None
        sessions, ended = self._sessions, False
        coming: asyncio.Task[Message] | None = None

        async def receive_while() -> Message:
            nonlocal coming, ended
            while sessions.find(cookie):
                coming = coming or asyncio.ensure_future(receive())
                done, _ = await asyncio.wait([coming], timeout=_LOOK_AGAIN)
                if done:
                    message, coming = coming.result(), None
                    return message
            if not ended:
                ended = True
                await send({"type": "websocket.close", "code": _SESSION_ENDED})
            return {"type": "websocket.disconnect", "code": _SESSION_ENDED}

        async def send_while(message: Message) -> None:
            if not ended:
                await send(message)

        try:
            await self.app(scope, receive_while, send_while)
        finally:
            if coming:
                coming.cancel()


def address_of(request: Request) -> str:
    """Who asks, as far as that can be told."""
    return request.client.host if request.client else "somebody"


def logged_in(scope: Any) -> Session | None:
    """The session of a request; None where no password is set."""
    found: Session | None = scope.get("logged_in")
    return found


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, why: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        return await send({"type": "websocket.close", "code": 4000 + status})
    await PlainTextResponse(why, status)(scope, receive, send)


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _is_loopback(host: str) -> bool:
    """Of a Host header; the port may be another one, as it is through a tunnel."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
