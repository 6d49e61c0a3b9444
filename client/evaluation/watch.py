"""What a person sees on a terminal while notes are read, embedded and scored."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_STAGES = {
    "read": "Reading the notes: {:,}",
    "compare": "Looking for copies: pass {}",
    "tokenise": "Tokenising the notes: {:,}",
}


class Watch:
    """One line: what is being done, how far it is, how fast, and the time left. Nothing where the output goes to a file
    or a pipe, or where `silent`."""

    def __init__(self, console: Console, silent: bool = False) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=silent or not console.is_terminal,
        )
        self.line = self.progress.add_task("Loading the encoder", total=None, rate="")
        self.began = time.monotonic()
        self.stage = ""

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def say(self, text: str) -> None:
        """What is being done from now on."""
        self.progress.reset(self.line, description=text, total=None, rate="")
        self.began, self.stage = time.monotonic(), ""

    def intake(self, stage: str, done: int) -> None:
        """As `client.notes.store.prepare` reports."""
        text = _STAGES[stage].format(done)
        if stage != self.stage:
            self.say(text)
            self.stage = stage
        self.progress.update(self.line, description=text)

    def tokens(self, done: int, total: int) -> None:
        """As `embed_notes` reports."""
        rate = done / max(time.monotonic() - self.began, 1e-6)
        self.progress.update(self.line, completed=done, total=total, rate=f"{rate:,.0f} tokens a second")
