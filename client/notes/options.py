"""The flags that say where notes are and what their columns are called; the same for every command that takes notes."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from client.notes.source import Columns, NotesSource
from common.errors import InputError

TextColumn = Annotated[str, typer.Option(help="Column with the text of the notes.", rich_help_panel="Notes")]
IdColumn = Annotated[str | None, typer.Option(help="Column that names a note.", rich_help_panel="Notes")]
PatientColumn = Annotated[str | None, typer.Option(help="Column that names the patient.", rich_help_panel="Notes")]
CategoryColumn = Annotated[str | None, typer.Option(help="Column with the note's category.", rich_help_panel="Notes")]
LabelColumn = Annotated[
    str | None, typer.Option(help="Column with the label of a downstream task.", rich_help_panel="Notes")
]
DateColumn = Annotated[str | None, typer.Option(help="Column with the note's date (ISO).", rich_help_panel="Notes")]
SplitColumn = Annotated[str | None, typer.Option(help="Column with train, dev or test.", rich_help_panel="Notes")]
Query = Annotated[
    str | None, typer.Option(help="SQL that selects the notes; needs a database URL.", rich_help_panel="Notes")
]
SkipBad = Annotated[
    int, typer.Option(help="Leave out and list up to this many broken rows.", min=0, rich_help_panel="Notes")
]
Cache = Annotated[
    Path | None,
    typer.Option(
        help="Folder for prepared notes (default: $FEDNOTES_CACHE, or the user's cache).", rich_help_panel="Notes"
    ),
]


def columns(ctx: typer.Context, **more: str | None) -> Columns:
    """The columns that a command's flags name: its parameters `text_column`, `id_column` and so on, and `more`."""
    named = {field: ctx.params[f"{field}_column"] for field in Columns.model_fields if f"{field}_column" in ctx.params}
    return Columns(**(named | more))


def notes_source(notes: str, query: str | None, columns: Columns, skip_bad: int) -> NotesSource:
    """The source that flags describe; a `site.toml` in place of a file of notes brings its own. Raises InputError."""
    if notes.endswith(".toml"):
        from client.site import open_site_file

        return open_site_file(Path(notes)).notes
    try:
        return NotesSource(source=notes, query=query, columns=columns, skip_bad=skip_bad)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError("notes-source", f"The source of notes is incomplete: {reason}.", "See --help.") from None
