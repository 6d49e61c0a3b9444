"""Files that any installation has: our own, Plotly's, NiceGUI's. Each is zipped once, and kept by browsers for good:
its address changes with it."""

import asyncio
import gzip
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

_HERE = Path(__file__).parent
_REPORT = _HERE.parent / "report"


def _folder(package: str) -> Path:
    """Of an installed package, which is not imported for it: NiceGUI makes files where it is."""
    found = find_spec(package)
    assert found and found.origin
    return Path(found.origin).parent


_NICEGUI = _folder("nicegui") / "static"
_OURS = {
    **{path.name: path for path in (_HERE / "assets").iterdir()},
    **{name: _REPORT / name for name in ("style.css", "dark.css", "charts.js")},
    "plotly.js": _folder("plotly") / "package_data" / "plotly.min.js",
}
_THEIRS = {str(path.relative_to(_NICEGUI)): path for path in _NICEGUI.rglob("*") if path.is_file()}
_TEXTS = {".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript", ".svg": "image/svg+xml"}
_OTHERS = {".woff2": "font/woff2", ".ico": "image/x-icon"}
_FOR_GOOD = {"Cache-Control": "public, max-age=31536000, immutable"}


@cache
def address(name: str) -> str:
    """Of one of our own files."""
    return f"/assets/{hashlib.sha256(_OURS[name].read_bytes()).hexdigest()[:16]}/{name}"


def routes() -> list[Route]:
    return [
        Route("/assets/{digest}/{name}", _our),
        Route(f"/_nicegui/{version('nicegui')}/static/{{name:path}}", _their),
    ]


async def _our(request: Request) -> Response:
    name = request.path_params["name"]
    known = name in _OURS and request.url.path == address(name)
    return await _answer(request, _OURS[name]) if known else PlainTextResponse("There is no such file.", 404)


async def _their(request: Request) -> Response:
    path = _THEIRS.get(request.path_params["name"])
    return await _answer(request, path) if path else PlainTextResponse("There is no such file.", 404)


async def _answer(request: Request, path: Path) -> Response:
    if path.suffix in _TEXTS:
        return zipped_answer(request, await asyncio.to_thread(_zipped, path), _TEXTS[path.suffix], _FOR_GOOD)
    kind = _OTHERS.get(path.suffix, "application/octet-stream")
    return Response(await asyncio.to_thread(path.read_bytes), media_type=kind, headers=_FOR_GOOD)


def zipped_answer(request: Request, zipped: bytes, kind: str, headers: Mapping[str, str]) -> Response:
    """What is kept zipped, as the browser can read it."""
    headers = {**headers, "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(zipped, media_type=kind, headers={**headers, "Content-Encoding": "gzip"})
    return Response(gzip.decompress(zipped), media_type=kind, headers=headers)


@cache
def _zipped(path: Path) -> bytes:
    return gzip.compress(path.read_bytes(), 6)
