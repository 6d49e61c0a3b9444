"""`fednotes notes`: what a data manager asks of a file of notes before it takes part in a study."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from client.notes.options import (
    Cache,
    CategoryColumn,
    DateColumn,
    IdColumn,
    LabelColumn,
    PatientColumn,
    Query,
    SkipBad,
    SplitColumn,
    TextColumn,
    columns,
    notes_source,
)

# The side of the split that a note falls on here says nothing about the study, whose key only the site holds.
INSPECTION_KEY = b"fednotes notes inspect"

app = typer.Typer(
    help="Look at a hospital's notes before they take part in a study.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)

_STAGES = {
    "read": "Reading: {:,} notes",
    "compare": "Looking for copies: pass {}",
    "tokenise": "Tokenising: {:,} notes",
}
_EXAMPLES = """
Examples:

    fednotes notes inspect notes.csv

    fednotes notes inspect incidents.jsonl.gz --text-column narrative --category-column ward --skip-bad 20

    fednotes notes inspect sqlite:///omop.db --query "SELECT * FROM note" --text-column note_text --json
"""


@app.callback()
def notes() -> None:
    """Look at a hospital's notes before they take part in a study."""


@app.command("inspect", epilog=_EXAMPLES)
def inspect_command(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(help="The notes.")],
    text_column: TextColumn = "text",
    id_column: IdColumn = None,
    patient_column: PatientColumn = None,
    category_column: CategoryColumn = None,
    label_column: LabelColumn = None,
    date_column: DateColumn = None,
    split_column: SplitColumn = None,
    site_column: Annotated[
        str | None, typer.Option(help="Column that names the hospital.", rich_help_panel="Notes")
    ] = None,
    query: Query = None,
    skip_bad: SkipBad = 0,
    cache: Cache = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="The study plan: its encoder counts tokens, its max_length cuts (else the defaults)."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Read, check and tokenise notes, and print what is in them.

    FILE is a .csv, .jsonl, .ndjson or .parquet file (each may be gzip), a database URL, or a site.toml.

    Columns that are not named are used where the file has one called id, patient, category, label, date, split or
    site. Nothing leaves this machine, and no note's text is printed.
    """
    source = notes_source(file, query, columns(ctx), skip_bad)

    # Imported here, so that --help does not wait for the tokenizer's library.
    from client.notes.inspect import inspect
    from client.notes.show import show
    from client.notes.store import default_cache, prepare
    from common.encoder import load_tokenizer
    from common.plan import load_plan
    from common.plan_sections import EncoderPlan

    study = load_plan(plan) if plan else None
    encoder = study.encoder if study else EncoderPlan()
    with _progress() as progress:
        store = prepare(source, load_tokenizer(encoder.base), INSPECTION_KEY, cache or default_cache(), progress)
    inspection = inspect(store, encoder.max_length, study)
    if json:
        typer.echo(inspection.model_dump_json(indent=2))
    else:
        show(inspection, file, Console())


@contextmanager
def _progress() -> Iterator[Callable[[str, int], None]]:
    """Says on a terminal how far the work is; says nothing where the output goes elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda stage, done: None
        return
    with console.status("Looking at the file") as status:
        yield lambda stage, done: status.update(_STAGES[stage].format(done))
