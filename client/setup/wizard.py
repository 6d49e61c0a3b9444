"""What `fednotes site init` asks where a flag is missing and a person is there. No value of any note is shown."""

import sys

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client.notes.options import notes_source
from client.notes.preview import Preview, preview
from client.notes.source import Columns, NotesSource
from client.site import Policy
from common.errors import InputError

_FIELDS = {
    "text": "the text of a note",
    "patient": "who it is about",
    "category": "its kind",
    "label": "the answer of a task",
    "date": "its date (ISO)",
}
NO_COLUMN = "-"


def at_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def ask_source() -> tuple[str, str | None]:
    """The file or the URL, and the query of a database."""
    said = typer.prompt("Notes: a .csv, .jsonl or .parquet file, or a database URL").strip()
    return said, typer.prompt("SQL that selects them").strip() if "://" in said else None


def ask_columns(source: NotesSource, console: Console) -> NotesSource:
    """Show what is in a source, in names and counts, and let the person say which column is which."""
    looked = preview(source)
    console.print(_table(looked))
    named: dict[str, str | None] = {}
    known = {column.name for column in looked.columns}
    for field, words in _FIELDS.items():
        while True:
            said = typer.prompt(
                f"Column with {words}{'' if field == 'text' else f' ({NO_COLUMN} for none)'}",
                default=looked.guess(field) or NO_COLUMN,
            ).strip()
            if said in known or (said == NO_COLUMN and field not in known | {"text"}):
                break
            why = "a column of just that name is taken for it" if said == NO_COLUMN else f"there is no column {said!r}"
            console.print(f"{why[0].upper()}{why[1:]}.", highlight=False, markup=False)
        named[field] = None if said == NO_COLUMN else said
    return source.model_copy(update={"columns": Columns.model_validate(named)})


def ask_public() -> NotesSource | None:
    """Text that is no secret: only some plans need it."""
    said = typer.prompt("File with public text, for private contrastive training (- for none)", default=NO_COLUMN)
    return None if said.strip() == NO_COLUMN else notes_source(said.strip(), None, Columns(), 0)


def ask_policy(policy: Policy) -> Policy:
    """The lines that hospitals differ on; the rest is strict, and stands in the file with a comment."""
    private = typer.confirm("Only studies with differential privacy?", default=policy.require_privacy)
    epsilon = typer.prompt("Most epsilon that all private studies may spend", default=policy.max_epsilon, type=float)
    if not 0 < epsilon < float("inf"):
        raise InputError("usage", f"An epsilon of {epsilon} is no bound.", "Give a number above 0, such as 10.")
    scores = typer.confirm(
        "Tell the coordinator how well the encoder does on your tasks?", default=policy.release_scores
    )
    return policy.model_copy(update={"require_privacy": private, "max_epsilon": epsilon, "release_scores": scores})


def _table(looked: Preview) -> Table:
    first = "The first " if looked.more else ""
    table = Table(title=f"{first}{looked.rows:,} rows, {looked.broken:,} of them broken", box=None, pad_edge=False)
    table.add_column("column")
    for name in ("filled", "different values", "characters on average"):
        table.add_column(name, justify="right")
    for column in looked.columns:
        table.add_row(escape(column.name), f"{column.filled:,}", f"{column.distinct:,}", f"{column.characters:,.0f}")
    return table
