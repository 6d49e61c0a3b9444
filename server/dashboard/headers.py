"""What a browser may do with our pages: run our scripts, talk to this server, and nothing else."""

import secrets

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ALL = "default-src 'none'; connect-src 'self'; font-src 'self'; img-src 'self' data: blob:; form-action 'self'; " + (
    "base-uri 'none'; frame-ancestors 'none'"
)
STRICT = _ALL + "; script-src 'self'; style-src 'self'"
# Vue compiles templates and NiceGUI runs what its server sends, both by eval; scripts in the page need the nonce, which
# what gets into a page later, or in an attribute, does not have. Quasar and Plotly set styles.
_NICEGUI = _ALL + "; script-src 'self' 'unsafe-eval' 'nonce-{}'; style-src 'self' 'unsafe-inline'"


class SecureHeaders:
    """Sets the headers of every answer, and the nonce of the scripts in NiceGUI's pages.

    Everything that a page holds beyond NiceGUI's own template is escaped there (`<` as `&lt;`), so `<script` in one is
    NiceGUI's or ours.
    """

    def __init__(self, app: ASGIApp, tls: bool) -> None:
        self.app, self._tls = app, tls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        nonce = secrets.token_urlsafe(16)
        start: Message = {}
        page, body = False, bytearray()

        async def sent(message: Message) -> None:
            nonlocal start, page
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                page = "x-nicegui-content" in headers
                self._set(headers, _NICEGUI.format(nonce) if page else STRICT)
                if page:
                    start = message
                    return
            elif page:
                body.extend(message.get("body", b""))
                if message.get("more_body"):
                    return
                content = bytes(body).replace(b"<script", f'<script nonce="{nonce}"'.encode())
                MutableHeaders(raw=start["headers"])["Content-Length"] = str(len(content))
                await send(start)
                message = {"type": "http.response.body", "body": content}
            await send(message)

        await self.app(scope, receive, sent)

    def _set(self, headers: MutableHeaders, policy: str) -> None:
        headers["Content-Security-Policy"] = policy
        headers["X-Content-Type-Options"] = "nosniff"
        headers["X-Frame-Options"] = "DENY"
        # none to anybody else; with "no-referrer" a browser would not say either that a form is our own
        headers["Referrer-Policy"] = "same-origin"
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
        headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=()"
        headers.setdefault("Cache-Control", "no-store")
        if self._tls:
            headers["Strict-Transport-Security"] = "max-age=31536000"
