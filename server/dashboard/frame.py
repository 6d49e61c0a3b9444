"""What every page has: its header, how fresh it is, and its sections, which are renewed while somebody looks."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nicegui import html, ui
from nicegui.element import Element
from nicegui.events import GenericEventArguments

from server.dashboard.asking import Notice
from server.dashboard.guard import logged_in
from server.dashboard.live import Live, Shown
from server.dashboard.rendering import rendered
from server.dashboard.shared import Shared

_HELD = 8  # versions of a section: it can be fetched for as long as a page holds it, and the way there takes a while
_AT_ONCE = 0.3  # seconds: what takes longer to read comes when the page is open already


@contextmanager
def frame(title: str, eyebrow: str, idle: float) -> Iterator[Notice]:
    """The page around what is made inside. `idle`: seconds after which who does nothing is logged out.

    Yields where the page says what became of what a person did.
    """
    client = ui.context.client
    request = client.request
    session = logged_in(request.scope)
    client.title = f"{title} – Fednotes"
    ui.add_head_html(rendered("head.html"))
    ui.add_body_html(
        rendered(
            "header.html", here=request.url.path, form=session.form if session else "", idle=idle if session else None
        )
    )
    with ui.element("div").props('id="content" tabindex="-1"'):
        html.p(eyebrow).classes("eyebrow")
        html.h1(title)
        yield Notice()


class Section(Element, component="section.js"):
    """A section of the page, which the browser fetches, and again where it changed."""

    def __init__(self, shown: Shared, on_action: Callable[[dict[str, str]], Any] | None = None) -> None:
        """`on_action` gets the data of a `<button data-action=…>` in it that was pressed: `{"action": …}` and more."""
        super().__init__()
        self._held: deque[Shared] = deque(maxlen=_HELD)
        self._show(shown)
        if on_action:

            def pressed(event: GenericEventArguments) -> Any:
                return on_action({str(key): str(value) for key, value in dict(event.args).items()})

            self.on("action", pressed)

    def renew(self, shown: Shared) -> None:
        if shown is not self._held[-1]:
            self._show(shown)
            self.update()

    def _show(self, shown: Shared) -> None:
        self._held.append(shown)
        self._props["src"] = shown.address


class FeedLine(Element, component="feed.js"):
    """How fresh the page is, in words."""

    def __init__(self, shown: Shown) -> None:
        super().__init__()
        self._props["news"] = _news(shown)

    def renew(self, shown: Shown) -> None:
        self._props["news"] = _news(shown)
        self.update()


class Sections(Element):
    """The sections of a live source. They come, change and go with it."""

    def __init__(self, on_action: Callable[[dict[str, str]], Any] | None = None) -> None:
        super().__init__("div")
        self.classes("sections")
        self._on_action = on_action
        self._made: dict[str, Section] = {}

    def renew(self, shown: Shown) -> None:
        for name in [name for name in self._made if name not in shown.sections]:
            self._made.pop(name).delete()
        for index, (name, one) in enumerate(shown.sections.items()):
            if name in self._made:
                self._made[name].renew(one)
            else:
                with self:
                    self._made[name] = Section(one, self._on_action)
                self._made[name].move(self, index)


async def watch(live: Live, *parts: Sections | FeedLine) -> None:
    """Fill the parts of this page from a source, and renew them while the page is open."""

    def renew(shown: Shown) -> None:
        for part in parts:
            part.renew(shown)

    ui.context.client.on_delete(lambda: live.leave(renew))
    renew(await live.join(renew, _AT_ONCE))


def _news(shown: Shown) -> dict[str, Any]:
    feed = shown.feed
    return {
        "heard": feed.heard,
        "still": feed.still,
        "stale": feed.stale_after,
        "problem": shown.problem,
        "checked": shown.checked,
    }
