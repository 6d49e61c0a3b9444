"""Log in and log out: plain forms, which work without scripts, with a keyboard, and read aloud."""

import asyncio
import hmac
import math
import secrets
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from server.dashboard.guard import LOGIN, logged_in
from server.dashboard.passwords import LONGEST, Password
from server.dashboard.rendering import rendered
from server.dashboard.sessions import Sessions, Slowdown, network

_FREE, _LONGEST_WAIT = 5, 900.0  # failures of one address; seconds
_FREE_OF_ALL, _LONGEST_WAIT_OF_ALL = 50, 30.0  # short, or whoever guesses would lock the coordinator out
_ANSWER = 1.0  # seconds: what a wrong password costs at least
_MOST_WAITING = 8  # guesses that wait for their turn
_MOST_BYTES = 8 * LONGEST
_FORM_COOKIE = "fednotes-login"


class Login:
    """The routes of the login. One password is checked at a time, since a check takes 64 MiB."""

    def __init__(self, password: Password, sessions: Sessions, cookie: str, tls: bool) -> None:
        self._password, self._sessions, self._cookie = password, sessions, cookie
        self._options: dict[str, Any] = {"httponly": True, "samesite": "strict", "secure": tls, "path": "/"}
        self._of_one, self._of_all = Slowdown(_FREE, _LONGEST_WAIT), Slowdown(_FREE_OF_ALL, _LONGEST_WAIT_OF_ALL)
        self._turn, self._waiting = asyncio.Lock(), 0

    def routes(self) -> list[Route]:
        return [
            Route(LOGIN, self.show, methods=["GET"]),
            Route(LOGIN, self.enter, methods=["POST"]),
            Route("/logout", self.leave, methods=["POST"]),
            Route("/session", self.session, methods=["GET", "POST"]),
        ]

    async def show(self, request: Request) -> Response:
        return self._page(request, local(request.query_params.get("next", "")))

    async def enter(self, request: Request) -> Response:
        given = await _form(request)
        wanted = local(given.get("next", ""))
        cookie = request.cookies.get(_FORM_COOKIE, "")
        if not cookie or not hmac.compare_digest(cookie.encode(), given.get("form", "").encode()):
            return self._page(request, wanted, "The page had been open for too long. Try again.", 403)
        who = network(request.client.host if request.client else "")
        wait = max(self._of_one.wait(who), self._of_all.wait(""))
        if wait or self._waiting >= _MOST_WAITING:
            return self._too_many(request, wanted, wait or _ANSWER)
        self._waiting += 1
        try:
            async with self._turn:
                # those who came while another guess was checked do not get round the wait that it has earned them
                if wait := max(self._of_one.wait(who), self._of_all.wait("")):
                    return self._too_many(request, wanted, wait)
                right = await asyncio.to_thread(self._password.matches, given.get("password", ""))
                if not right:
                    self._of_one.failed(who)
                    self._of_all.failed("")
                    await asyncio.sleep(_ANSWER)
        finally:
            self._waiting -= 1
        if not right:
            return self._page(request, wanted, "That is not the password.", 403)
        self._of_one.succeeded(who)
        answer = RedirectResponse(wanted, 303)
        answer.set_cookie(self._cookie, self._sessions.begin(), **self._options)
        answer.delete_cookie(_FORM_COOKIE, **self._options)
        return answer

    async def leave(self, request: Request) -> Response:
        session, given = logged_in(request.scope), await _form(request)
        if session is None or not hmac.compare_digest(session.form.encode(), given.get("form", "").encode()):
            return Response("The form is not of this session.", 403)
        self._sessions.end(request.scope["session_cookie"])
        answer = RedirectResponse(LOGIN, 303)
        answer.delete_cookie(self._cookie, **self._options)
        return answer

    async def session(self, request: Request) -> Response:
        """How long it lasts. (The guard says 401 where there is none.) POST: a person is there."""
        session = self._sessions.find(request.scope["session_cookie"], touch=request.method == "POST")
        if session is None:  # it ended just now
            return Response("Log in first.", 401)
        left, lasts = self._sessions.left(session)
        return JSONResponse({"left": round(left, 1), "lasts": lasts})

    def _too_many(self, request: Request, wanted: str, wait: float) -> Response:
        seconds = math.ceil(wait)
        said = f"Too many wrong passwords. Wait {seconds} s, then try again."
        answer = self._page(request, wanted, said, 429)
        answer.headers["Retry-After"] = str(seconds)
        return answer

    def _page(self, request: Request, wanted: str, problem: str = "", status: int = 200) -> Response:
        form = request.cookies.get(_FORM_COOKIE) or secrets.token_urlsafe(24)
        page = rendered("login.html", form=form, wanted=wanted, problem=problem, longest=LONGEST)
        answer = HTMLResponse(page, status)
        answer.set_cookie(_FORM_COOKIE, form, **self._options)
        return answer


def local(path: str) -> str:
    """Where to go after the login: a page of ours, whatever was asked for."""
    plain = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() and "\\" not in path
    return path if plain and not path.startswith(LOGIN) else "/"


async def _form(request: Request) -> dict[str, str]:
    """The fields of a small form; none where it is larger than any of ours."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BYTES:
            return {}
    try:
        return {name: values[-1] for name, values in parse_qs(body.decode("ascii"), keep_blank_values=True).items()}
    except ValueError:
        return {}
