"""The one port that the world sees: TLS outside, and of the SuperLink the fleet's calls and its health, nothing else.

The SuperLink serves everything on one port: whoever reaches its control calls may start programs, whoever reaches its
runtime calls may steal a task. A request is passed on if its path is, byte for byte, one of those below; whatever is
spelt otherwise is refused without a word.

    python -m server.deployment.gateway FOLDER
"""

import asyncio
import contextlib
import logging
import resource
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.deployment.certificates import client_context, server_context
from server.deployment.config import LOOPBACK, GatewayConfig, Server

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

# What a registered site calls. Those by which a stranger could register itself are not among them.
FLEET = [
    f"/v1/fleet/{call}"
    for call in (
        "activate-node",
        "confirm-message-received",
        "deactivate-node",
        "get-fab",
        "get-run",
        "pull-messages",
        "pull-object",
        "push-messages",
        "push-object",
        "send-node-heartbeat",
    )
]
HEALTH = "/health"

_ALLOWED = {("POST", path.encode()) for path in FLEET} | {("GET", HEALTH.encode())}
_HOP_BY_HOP = {
    "connection",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "server",
    "te",  # codespell:ignore
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
}
_MIB = 1024 * 1024
_IDLE, _WHOLE = 30.0, 300.0  # seconds without a byte of a request, and for all of a request and its answer
_BURST = 10  # seconds' worth of requests that may come at once
_KEEP_ALIVE = 75  # seconds; longer than a site keeps an idle connection, so that it is the site that closes it
_UPSTREAM_KEEP_ALIVE = 3.0  # shorter than the SuperLink's five, for the same reason

_log = logging.getLogger("gateway")


@dataclass
class Visitor:
    """One address: its open connections, and the requests that it may make without waiting."""

    tokens: float
    connections: int = 0
    filled: float = field(default_factory=time.monotonic)
    told: float = -60.0

    def wait(self, rate: int) -> float:
        """Seconds that its next request has to wait; its place in the queue is taken."""
        now = time.monotonic()
        self.tokens = min(rate * _BURST, self.tokens + rate * (now - self.filled)) - 1
        self.filled = now
        return max(0.0, -self.tokens / rate)


class Visitors:
    """All addresses that were seen lately."""

    def __init__(self, config: GatewayConfig) -> None:
        self.config = config
        self._known: dict[str, Visitor] = {}

    def of(self, address: str) -> Visitor:
        if address not in self._known:
            if len(self._known) > 10_000:
                self._known = {key: one for key, one in self._known.items() if one.connections}
            self._known[address] = Visitor(tokens=self.config.requests_per_second * _BURST)
        return self._known[address]

    def refused(self, address: str, why: str) -> None:
        """Log it, once a minute for an address. What it asked for is not logged."""
        visitor, now = self.of(address), time.monotonic()
        if now - visitor.told >= 60:
            visitor.told = now
            _log.warning("%s was refused: %s", address, why)


class Gateway:
    """The ASGI application: it passes a request on to `upstream`, or refuses it."""

    def __init__(self, upstream: httpx.AsyncClient, visitors: Visitors) -> None:
        self._upstream = upstream
        self._visitors = visitors
        self._most = visitors.config.body_mib * _MIB

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        request = Request(scope, receive)
        try:
            async with asyncio.timeout(_WHOLE):
                await self._answer(request, scope, receive, send)
        except (TimeoutError, ClientDisconnect, httpx.TransportError):
            # Too late for an answer, or it was under way: the server closes the connection.
            _log.debug("a request was broken off")
            raise _BrokenOff from None

    async def _answer(self, request: Request, scope: "Scope", receive: "Receive", send: "Send") -> None:
        address = request.client.host if request.client else ""
        allowed = (request.method, scope["raw_path"]) in _ALLOWED and not scope["query_string"]
        if not allowed or "upgrade" in request.headers:
            self._visitors.refused(address, "it asked for something else than the fleet's calls")
            return await _refusal(403)(scope, receive, send)
        if int(request.headers.get("content-length", 0)) > self._most:
            self._visitors.refused(address, "its request was too large")
            return await _refusal(413)(scope, receive, send)
        if wait := self._visitors.of(address).wait(self._visitors.config.requests_per_second):
            if wait > _IDLE:
                self._visitors.refused(address, "it made too many requests")
                return await _refusal(503)(scope, receive, send)
            await asyncio.sleep(wait)
        try:
            answer = await self._upstream.send(self._request(request), stream=True)
        except _TooLarge:
            return await _refusal(413)(scope, receive, send)
        except httpx.TransportError:
            self._visitors.refused(address, "the SuperLink does not answer")
            return await _refusal(502)(scope, receive, send)
        try:
            headers = {key: value for key, value in answer.headers.items() if key not in _HOP_BY_HOP}
            await StreamingResponse(answer.aiter_raw(), answer.status_code, headers)(scope, receive, send)
        finally:
            await answer.aclose()

    def _request(self, request: Request) -> httpx.Request:
        """The same request to the SuperLink, with its body as a stream."""
        headers = [(key, value) for key, value in request.headers.items() if key not in _HOP_BY_HOP]
        if "transfer-encoding" in request.headers:  # then a length that it gives besides means nothing
            headers = [(key, value) for key, value in headers if key != "content-length"]
        content = self._body(request) if request.method == "POST" else None
        return self._upstream.build_request(
            request.method, request.scope["raw_path"].decode(), headers=headers, content=content
        )

    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        size, pieces = 0, request.stream()
        while True:
            try:
                async with asyncio.timeout(_IDLE):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            size += len(piece)
            if size > self._most:
                raise _TooLarge
            if piece:
                yield piece


class _TooLarge(Exception): ...


class _BrokenOff(Exception): ...


def _refusal(status: int) -> Response:
    """No detail; and what is left of the request is not read."""
    return Response(status_code=status, headers={"connection": "close"})


def connection_class(visitors: Visitors) -> type[H11Protocol]:
    """Uvicorn's connection, with a limit for each address and for the time that a request's head may take."""

    class Connection(H11Protocol):
        deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.address = self.client[0] if self.client else ""
            visitors.of(self.address).connections += 1
            if visitors.of(self.address).connections > visitors.config.connections:
                visitors.refused(self.address, "it has too many connections")
                transport.abort()
            self._expect_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is None or self.cycle.response_complete:
                self._expect_head()
            elif self.deadline:
                self.deadline.cancel()
                self.deadline = None

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            visitors.of(self.address).connections -= 1
            if self.deadline:
                self.deadline.cancel()

        def _expect_head(self) -> None:
            if not self.deadline:
                self.deadline = self.loop.call_later(_IDLE, self.transport.abort)

    return Connection


def serve(folder: Path) -> None:
    """Listen until told to stop."""
    _open_many_files()
    server = Server(folder)
    settings = server.config()
    assert settings.listener  # else nobody starts a gateway
    visitors = Visitors(settings.gateway)
    upstream = httpx.AsyncClient(
        base_url=f"https://{LOOPBACK}:{settings.flower_port}",
        verify=client_context(server.inside),
        trust_env=False,  # no proxy to our own loopback
        timeout=httpx.Timeout(60, connect=5),
        limits=httpx.Limits(max_connections=512, keepalive_expiry=_UPSTREAM_KEEP_ALIVE),
    )
    config = uvicorn.Config(
        Gateway(upstream, visitors),
        host=settings.listener[0],
        port=settings.listener[1],
        http=connection_class(visitors),
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",  # what strangers send is no reason to fill a disk
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=3,
        limit_concurrency=2000,
        ssl_certfile=server.certificate,
        ssl_keyfile=server.key,
    )
    config.load()
    config.ssl = server_context(server.certificate, server.key)
    uvicorn.Server(config).run()


def _open_many_files() -> None:
    """As many as we may: of a connection that has not finished TLS nobody knows yet whose it is, and 1,024 are few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # where the system allows less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _log.debug("files that may be open: %d before, %d now", soft, hard)


class _Quiet(logging.Filter):
    """Uvicorn logs each error of an application with its traceback; ours that only end a connection are no errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        kind: Any = record.exc_info[0] if record.exc_info else None
        return not (kind and issubclass(kind, _BrokenOff))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("uvicorn.error").addFilter(_Quiet())
    with contextlib.suppress(KeyboardInterrupt):
        serve(Path(sys.argv[1]))
