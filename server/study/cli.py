"""`fednotes server run`, `resume` and `stop`, and `fednotes status`: a study, from its plan to its results."""

import getpass
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from common.errors import InputError, MachineError
from common.plan import load_plan
from server.record.options import Db

if TYPE_CHECKING:
    from server.deployment.config import Server
    from server.study.folder import Study
    from server.study.status import RunStatus

Coordinator = Annotated[Path, typer.Argument(help="The coordinator's folder, with its server.toml.")]
Plan = Annotated[Path, typer.Argument(help="The study plan, a TOML file.")]
Run = Annotated[Path, typer.Argument(help="The folder of a run.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AskedBy = Annotated[str, typer.Option(hidden=True)]  # the dashboard's: who pressed the button

_ENDS = """
Exit codes: 0 all rounds are done, 2 wrong input, 3 the coordinator does not run, 4 the study stopped before its end
(its last checkpoint is intact: resume it), 130 you stopped looking on (the study goes on).
"""
_RUN = f"""
Examples:

    fednotes server run trial study.toml

    fednotes server run trial study.toml --json > summary.json

{_ENDS}
"""
_RESUME = f"""
Example:

    fednotes server resume trial/runs/study-20260301-120000

{_ENDS}
"""
_STOP = """
Example:

    fednotes server stop trial/runs/study-20260301-120000

Exit codes: 0 stopped, or it was not running; 2 wrong input; 3 the coordinator does not run.
"""
_STATUS = """
Examples:

    fednotes status trial/runs/study-20260301-120000

    fednotes status runs/first --watch

    fednotes status runs/first --json --events     # everything that happened, a line of JSON each

Exit codes: 0 printed, 2 this is no run, 3 its record cannot be read.
"""


def register(server: typer.Typer, top: typer.Typer) -> None:
    """Add the commands to `fednotes server`, and `status` to `fednotes`."""
    server.command("run", epilog=_RUN)(run_command)
    server.command("resume", epilog=_RESUME)(resume_command)
    server.command("stop", epilog=_STOP)(stop_command)
    top.command("status", epilog=_STATUS)(status_command)


def run_command(
    folder: Coordinator,
    plan: Plan,
    db: Db = None,
    quiet: Quiet = False,
    as_json: Json = False,
    asked_by: AskedBy = "",
) -> None:
    """Run a study over the registered sites: wait for them, start it, follow it to its end.

    Ctrl-C ends only the looking on; `fednotes server stop` ends the study.
    """
    from server.deployment.config import Server
    from server.study.folder import new_study
    from server.study.waiting import wait_for_sites

    wanted, server = load_plan(plan), Server(folder)
    server.config()
    _is_started(server)
    console = _console(quiet)
    there = wait_for_sites(server, wanted, console if console.is_terminal else None)
    study = new_study(wanted, server.runs, server.folder, db)
    _acted(study, "started", asked_by)
    console.print(f"{study.path}\n{wanted.privacy_words}; sites: {', '.join(there)}", highlight=False, soft_wrap=True)
    _carry(server, study, there, console, quiet, as_json)


def resume_command(run: Run, quiet: Quiet = False, as_json: Json = False, asked_by: AskedBy = "") -> None:
    """Go on with a study that stopped, from its last checkpoint; or follow one that runs."""
    from server.deployment.config import Server
    from server.study.folder import Study
    from server.study.waiting import wait_for_sites

    study = Study(run.absolute())
    server, plan = Server(Path(study.record.coordinator)), study.plan
    _is_started(server)
    summary = study.summary()
    console = _console(quiet)
    if summary and summary.status == "finished":
        return _end(study, console, quiet, as_json)
    there = [] if study.busy() else wait_for_sites(server, plan, console if console.is_terminal else None)
    _acted(study, "resumed", asked_by)
    _carry(server, study, there, console, quiet, as_json)


def stop_command(run: Run, asked_by: AskedBy = "") -> None:
    """Stop a study: its sites stop training, too. It can be resumed."""
    from server.deployment.config import Server
    from server.study.folder import Study
    from server.study.follow import stop

    study = Study(run)
    server = Server(Path(study.record.coordinator))
    _is_started(server)
    if stopped := stop(server, study):
        _acted(study, "stopped", asked_by)
    print("Stopped. Go on with: fednotes server resume " + str(run) if stopped else "It was not running.")


def status_command(
    run: Run,
    watch: Annotated[bool, typer.Option("--watch", help="Show it until it ends.")] = False,
    events: Annotated[bool, typer.Option("--events", help="With --json: what happened, a line of JSON each.")] = False,
    as_json: Json = False,
) -> None:
    """How a run is: its state, rounds, sites, losses and privacy, of a study over servers or of a simulation."""
    from rich.live import Live

    from server.study.status import status

    if events:
        if not as_json:
            raise InputError("usage", "--events prints JSON.", "Add --json.")
        return _print_events(run, watch)
    now = status(run)
    if as_json:
        print(now.model_dump_json(indent=2))
        return
    console = Console()
    if not watch:
        console.print(_page(now))
        return
    with Live(_page(now), console=console, refresh_per_second=2) as live:
        while not now.over:
            time.sleep(1.0)
            now = status(run)
            live.update(_page(now))


def _print_events(run: Path, watch: bool) -> None:
    from server.record.events import events
    from server.record.place import opened
    from server.study.status import status

    (database, study), after = opened(run), 0
    while True:
        over = not watch or status(run).over
        for one in events(database, study, after):
            after = one["id"]
            print(json.dumps(one, ensure_ascii=False), flush=True)
        if over:
            return
        time.sleep(1.0)


def _acted(study: "Study", did: str, asked_by: str) -> None:
    """Write down who did what. `asked_by`: whoever pressed a button of the dashboard."""
    from server.events import Event
    from server.record.place import opened
    from server.record.recorder import Recorder

    text = f"{getpass.getuser()} {did} the study from the command line"
    if asked_by:
        text = f"The study was {did} from the dashboard, by {asked_by}"
    Recorder(*opened(study.path))(Event("action", max(0, study.rounds_done()), text=text))


def _carry(server: "Server", study: "Study", sites: list[str], console: Console, quiet: bool, as_json: bool) -> None:
    from server.display import Log, Page, Silent
    from server.study.follow import carry

    display: Log | Page | Silent
    display = Silent() if quiet else Page(console) if console.is_terminal else Log(console)
    with display:
        display.study(study.plan, sites, "Study")
        carry(server, study, display)
    _end(study, console, quiet, as_json)


def _end(study: "Study", console: Console, quiet: bool, as_json: bool) -> None:
    from server.run_folder import MODEL_FOLDER, REPORT_FILE, SUMMARY_FILE

    if as_json:
        sys.stdout.write((study.path / SUMMARY_FILE).read_text("utf-8") + "\n")
    elif not quiet:
        from server.study.status import status

        console.print(_page(status(study.path)))
        console.print(f"Model: {study.path / MODEL_FOLDER}\nReport: {study.path / REPORT_FILE}", soft_wrap=True)


def _is_started(server: "Server") -> None:
    from common.supervisor import running

    if running(server.state) is None:
        raise MachineError(
            "server-not-running",
            f"The coordinator of {server.folder} does not run.",
            f"Start it, and leave it running: fednotes server start {server.folder}",
        )


def _console(quiet: bool) -> Console:
    return Console(stderr=True, quiet=quiet)


_COLOURS = {"finished": "green", "running": "green", "waiting": "yellow", "interrupted": "yellow", "stopped": "red"}
_MARKS = {"returned": "✓", "sending": "…", "training": "…", "waiting": " "}
_MOST_INCIDENTS = 5


def _page(now: "RunStatus") -> RenderableType:
    head = Text.assemble((now.study, "bold"), " · ", (now.state, _COLOURS[now.state]), " · ", (now.privacy, "bold"))
    head.append(f" · last heard {now.heard[:19].replace('T', ' ')} UTC", "dim")
    table = Table(box=None, pad_edge=False)
    for title in ("", "site", "rounds", "held-out loss", "epsilon", ""):
        table.add_column(title, no_wrap=True, justify="right" if title in ("rounds", "epsilon") else "left")
    for site in now.sites:
        losses = " → ".join(f"{loss:.3f}" for loss in site.held_out)
        spent = f"{site.epsilon:.2f}" if site.epsilon is not None else ""
        style = "" if site.state in _MARKS else "red"
        table.add_row(
            Text(_MARKS.get(site.state, "✗"), style),
            Text(site.site),
            str(site.rounds),
            losses,
            spent,
            Text(f"{site.state}: {site.text}"[:70] if style else site.state, style),
        )
    lines: list[RenderableType] = [head, Text(now.verdict)]
    lines += [Text(now.message, style=_COLOURS[now.state])] if now.message else []
    lines += [table] if now.sites else []
    lines += [Text(f"left out: {site}: {reason}", style="red") for site, reason in now.left_out_sites.items()]
    for one in now.incidents[-_MOST_INCIDENTS:]:
        text = f"{one.time:%Y-%m-%d %H:%M} round {one.round}: {one.sentence} {one.next_step} ({one.code})"
        lines.append(Text(text, style="yellow"))
    return Group(*lines)
