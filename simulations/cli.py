"""`fednotes simulate` and `fednotes compare`: a whole federation on one machine."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from client.notes import options
from client.notes.source import Columns
from common.errors import InputError
from common.results import Summary
from common.table import Table
from server.record.options import Db

STUDIES = Path(__file__).parent / "studies"
_MOST_LINES = 15


_BASELINES: dict[str, list[Literal["local-only", "centralised"]]] = {
    "simulate": [],
    "compare": ["local-only", "centralised"],
}


class Engine(StrEnum):
    inprocess = "inprocess"
    flower = "flower"


Plan = Annotated[Path | None, typer.Argument(help="The study plan, a TOML file; without one, the demo's.")]
Notes = Annotated[
    str | None,
    typer.Option(
        help="A .csv, .jsonl, .ndjson or .parquet file (each may be gzip), a database URL, or a site.toml; "
        "without it, synthetic notes.",
        rich_help_panel="Notes",
    ),
]
Public = Annotated[
    str | None,
    typer.Option(
        help="Public text for private contrastive training: a file like --notes' (default: synthetic notes).",
        metavar="FILE",
        rich_help_panel="Notes",
    ),
]
Sites = Annotated[
    int | None, typer.Option(help="Number of virtual hospitals to share the notes out to.", min=1, max=1000)
]
SplitBy = Annotated[str | None, typer.Option(help="Column whose values are the hospitals.", metavar="COLUMN")]
Out = Annotated[Path | None, typer.Option(help="Folder for the results (default: runs/STUDY-TIME).")]
Resume = Annotated[Path | None, typer.Option(help="Carry a run that stopped to its end.", metavar="RUN")]
EngineFlag = Annotated[
    Engine, typer.Option(help="inprocess: sites take turns here. flower: Flower's own simulation, in parallel.")
]


class MapMethod(StrEnum):
    pca = "pca"
    umap = "umap"


Map = Annotated[
    MapMethod | None, typer.Option(help="Draw a map of note embeddings (always one by pca for synthetic notes).")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print summary.json instead of words.")]

_EPILOG = """
Examples:

    fednotes {command}

    fednotes {command} study.toml --notes notes.jsonl.gz --split-by site

    fednotes {command} study.toml --notes notes.csv --text-column body --sites 6 --out runs/first

    fednotes {command} --resume runs/first

Exit codes: 0 done, 2 wrong input, 3 the machine cannot, 4 the study stopped early, 130 interrupted.
"""


SIMULATE = """Simulate a federation: hospitals pre-train an encoder together and each tests it, on its own notes.

With no argument: the demo, on synthetic notes. The public base and TF-IDF are scored beside the shared encoder.
"""
COMPARE = """Simulate a federation, and train the baselines that it must beat: each site alone, and all notes pooled.

Says for each site whether federation helped. Takes about three times as long as simulate.

A plan with [[arms]] is a table: each objective in turn, from several seeds, trained alone, federated and in one place
(simulations/studies/paper.toml). It takes hours; one that was stopped goes on with --resume.
"""


def register(app: typer.Typer) -> None:
    """Add both commands: they take the same arguments, and differ in the baselines."""
    for name, text in (("simulate", SIMULATE), ("compare", COMPARE)):
        app.command(name, help=text, epilog=_EPILOG.format(command=name))(study)


def study(
    ctx: typer.Context,
    plan: Plan = None,
    notes: Notes = None,
    public: Public = None,
    sites: Sites = None,
    split_by: SplitBy = None,
    out: Out = None,
    resume: Resume = None,
    engine: EngineFlag = Engine.inprocess,
    embedding_map: Map = None,
    quiet: Quiet = False,
    as_json: Json = False,
    text_column: options.TextColumn = "text",
    id_column: options.IdColumn = None,
    patient_column: options.PatientColumn = None,
    category_column: options.CategoryColumn = None,
    label_column: options.LabelColumn = None,
    date_column: options.DateColumn = None,
    split_column: options.SplitColumn = None,
    query: options.Query = None,
    skip_bad: options.SkipBad = 0,
    cache: options.Cache = None,
    db: Db = None,
) -> None:
    # Imported here, so that --help does not wait; torch comes in where all is checked that can be without it.
    from client.notes.read import file_format
    from client.site import open_site_file
    from common.plan import load_plan
    from server.display import Log, Page, Silent
    from simulations.run_folder import Simulation
    from simulations.setup import Wish
    from simulations.table.plan import RESULTS_FILE, TABLE_FILE, is_table, load_table

    console = Console(stderr=True)
    display = Silent() if quiet or as_json else Page(console) if console.is_terminal else Log(console)
    run: Simulation
    table = is_table(plan) if plan else resume is not None and (resume / TABLE_FILE).exists()
    if table and (ctx.info_name == "simulate" or engine is Engine.flower):
        raise InputError(
            "usage",
            "This is a table of many studies, which are run in one process and with their baselines.",
            "Use fednotes compare, without --engine.",
        )
    if table and db:
        raise InputError("usage", "A table of many studies keeps no record.", "Leave --db out.")
    if resume is not None:
        if plan or notes or public or sites or split_by or out or db:
            raise InputError("usage", "--resume takes the plan and the notes from the run.", "Give --resume alone.")
        with display:
            if table:
                from simulations.table.run import resume_table

                run = resume_table(resume, display)
            else:
                _ = Simulation(resume).setup
                from simulations.federation import resume as resume_run

                run = resume_run(resume, display)
    else:
        if sites and split_by:
            raise InputError("usage", "--sites and --split-by are two ways to share notes out.", "Give one of them.")
        if split_by and not notes:
            raise InputError("usage", "--split-by needs --notes.", "Synthetic notes bring their own hospitals.")
        if public and public.endswith(".toml"):
            raise InputError("usage", "--public: a site.toml is of a site's own notes.", "Give a file of public text.")
        columns = options.columns(ctx, site=split_by)
        wish = Wish(
            notes=options.notes_source(notes, query, columns, skip_bad) if notes else None,
            public=options.notes_source(public, None, Columns(text=text_column), 0) if public else None,
            sites=sites,
            engine=engine.value,
            baselines=_BASELINES[str(ctx.info_name)],
            out=out,
            cache=cache,
            embedding_map=embedding_map.value if embedding_map else None,
            database=db,
            tasks=open_site_file(Path(notes)).tasks if notes and notes.endswith(".toml") else (),
        )
        for given in filter(None, (wish.notes, wish.public)):
            file_format(given)
        with display:
            if table and plan:
                of_table = load_table(plan)
                display.promise(of_table.privacy_words)
                from simulations.table.run import run_table

                run = run_table(of_table, wish, display)
            else:
                of_run = load_plan(plan or STUDIES / "demo.toml")
                display.promise(of_run.privacy_words)
                from simulations.federation import simulate as run_simulation

                run = run_simulation(of_run, wish, display)
    if as_json:
        sys.stdout.write((run.path / (RESULTS_FILE if table else "summary.json")).read_text("utf-8") + "\n")
    elif not quiet and table:
        from simulations.table.run import results

        _say_table(results(run), run.path, console)
    elif not quiet:
        summary = run.summary()
        assert summary is not None  # it has just been written
        _say(summary, run.path, console)


def _say(summary: Summary, path: Path, console: Console) -> None:
    """The end of a run in at most 15 lines."""
    from server.figures.privacy import private
    from server.report import words
    from server.report.memorisation import memorisation_sentences
    from server.report.privacy_words import spent_words

    lines = [f"{summary.study}: {words.duration(summary.seconds)}, {len(summary.sites)} sites, {summary.privacy}."]
    if private(summary):
        lines.append(f"privacy: {spent_words(summary)}")
    lines += words.lead(summary)
    lines.append(memorisation_sentences(summary)[-1])
    lines += [f"  {name:8} {path / file}" for name, file in _RESULTS]
    for line in lines[:_MOST_LINES]:
        console.print(line, highlight=False, soft_wrap=True)


def _say_table(table: Table | None, path: Path, console: Console) -> None:
    """The end of a table: where it is, and how the federated rows compare on the test notes of all sites."""
    from common.results import POOLED

    if table is None:
        return
    console.print(
        f"{table.study}: {len(table.cells)} of {table.planned} cells, {len(table.sites)} sites, {table.privacy}.",
        highlight=False,
    )
    few = min((d.shots for d in table.differences if d.shots is not None), default=None)
    for d in table.differences:
        if d.site == POOLED and d.mode == "frozen" and d.shots == few and d.against_setting == "as it is":
            low, high = d.difference.low, d.difference.high
            interval = "" if low is None or high is None else f" ({low:+.3f} to {high:+.3f})"
            console.print(
                f"  {d.arm}, federated, {few} labels a class: {d.difference.value:+.3f}{interval} macro-F1 against "
                f"{d.against_arm}, {d.verdict}, n = {d.n_test}",
                highlight=False,
                soft_wrap=True,
            )
    console.print(
        f"  report   {path / 'report.html'}\n  table    {path / 'table.json'}", highlight=False, soft_wrap=True
    )


_RESULTS = (("report", "report.html"), ("summary", "summary.json"), ("model", "model"))
