"""A question before something is done, and a line that says what became of it: seen, and read aloud."""

from collections.abc import Awaitable, Callable

from nicegui import ui
from nicegui.element import Element


class Notice(Element):
    """A line near the top of the page. It stays until there is something else to say."""

    def __init__(self) -> None:
        super().__init__("div")
        self.props('role="status" id="notice"')

    def say(self, text: str, wrong: bool = False) -> None:
        if self.is_deleted:  # the page was closed
            return
        self.clear()
        with self:
            paragraph(text, "message stopped" if wrong else "message")


def confirm(question: str, what: str, then: Callable[[], Awaitable[None]]) -> None:
    """Ask in a dialog, whose focus is on No; so is Escape, and a click beside it."""
    answered = False

    async def yes() -> None:
        nonlocal answered
        if not answered:  # a second click comes before the dialog is gone
            answered = True
            dialog.close()
            await then()

    with ui.dialog() as dialog, ui.element("div").classes("asked"):
        dialog.props('role="alertdialog" aria-labelledby="asked-question" aria-describedby="asked-what"')
        dialog.on("hide", dialog.delete)
        paragraph(question, "asked-question", "asked-question")
        paragraph(what, "", "asked-what")
        with ui.element("div").classes("actions"):
            button("Yes", "button strong").on("click", yes)
            button("No", "button").props("data-autofocus").on("click", dialog.close)
    dialog.open()


def button(words: str, kind: str, identity: str = "") -> Element:
    with ui.element("button").props('type="button"').classes(kind) as made:
        ui.label(words).props("class=words")
    return made.props(f'id="{identity}"') if identity else made


def paragraph(text: str, kind: str, identity: str = "") -> None:
    """`text` is escaped."""
    made = ui.label(text).classes(kind)
    if identity:
        made.props(f'id="{identity}"')
