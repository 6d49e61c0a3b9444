"""HTML that all viewers share: it is zipped once, and each browser fetches it under an address that names its content.

A page itself holds the addresses alone, so that twenty who look at a large study cost little more than one."""

import gzip
import hashlib
from weakref import WeakValueDictionary

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.dashboard.static import zipped_answer


class Shared:
    """A section, escaped, for as long as a page or a source holds it. Equal HTML is one object: see `share`."""

    __slots__ = ("__weakref__", "digest", "zipped")

    def __init__(self, digest: str, content: bytes) -> None:
        self.digest, self.zipped = digest, gzip.compress(content, 5)

    @property
    def address(self) -> str:
        return f"/section/{self.digest}"

    @property
    def html(self) -> str:
        return gzip.decompress(self.zipped).decode()


_held: "WeakValueDictionary[str, Shared]" = WeakValueDictionary()


def share(html: str) -> Shared:
    content = html.encode()
    digest = hashlib.sha256(content).hexdigest()
    found = _held.get(digest)
    return found if found is not None else _held.setdefault(digest, Shared(digest, content))


async def _section(request: Request) -> Response:
    found = _held.get(request.path_params["digest"])
    if found is None:
        return Response(status_code=204)  # no page shows it any more: what is newer is on its way
    return zipped_answer(request, found.zipped, "text/html", {})


def route() -> Route:
    return Route("/section/{digest}", _section)
