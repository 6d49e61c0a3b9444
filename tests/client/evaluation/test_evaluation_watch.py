"""What a terminal shows while notes are embedded, and that nothing else is shown anything."""

import io

from rich.console import Console

from client.evaluation.watch import Watch


def said(console: Console, silent: bool = False) -> str:
    with Watch(console, silent) as watch:
        watch.intake("read", 1200)
        watch.say("Embedding 1,200 notes")
        watch.tokens(30_000, 60_000)
        watch.progress.refresh()
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_sees_what_is_done_and_how_fast() -> None:
    text = said(Console(file=io.StringIO(), force_terminal=True, width=120))
    assert "Embedding 1,200 notes" in text and "tokens a second" in text


def test_a_pipe_sees_nothing() -> None:
    assert said(Console(file=io.StringIO())) == ""


def test_nor_does_a_terminal_that_wants_quiet() -> None:
    assert said(Console(file=io.StringIO(), force_terminal=True), silent=True) == ""
