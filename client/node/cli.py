"""`fednotes site start | status | stop`: the node of a site, kept alive, seen and ended."""

import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from client.node.status import Status

Folder = Annotated[Path, typer.Argument(help="The site's folder, with its site.toml.")]
LOG = Path("logs") / "node.log"
_DELAY = 10.0  # seconds until the node is started again
_PATIENCE = 30.0  # seconds in which it has to end

_START = """
Example:

    fednotes site start hospital

Exit codes: 0 stopped by Ctrl-C, SIGTERM or `fednotes site stop`, 2 wrong input, 3 it runs already.
"""
_STATUS = """
Examples:

    fednotes site status hospital --watch

    fednotes site status hospital --json

Exit codes: 0 the site is connected, 2 wrong input, or it never ran, 3 it is not connected, or does not run.
"""
_STOP = """
Example:

    fednotes site stop hospital

Exit codes: 0 it has stopped, or did not run, 3 it cannot be stopped.
"""


def register(app: typer.Typer) -> None:
    """Add the commands to `fednotes site`."""
    app.command("start", epilog=_START)(start_command)
    app.command("status", epilog=_STATUS)(status_command)
    app.command("stop", epilog=_STOP)(stop_command)


def start_command(folder: Folder) -> None:
    """Connect a site to its coordinator, and take part in its studies until it is stopped.

    The connection goes out from here; no port is opened. What happens is printed and kept in FOLDER/logs; if the node
    ends, it is started again.
    """
    from client.node.connection import trusting
    from client.node.keys import load_key
    from client.node.node import read_ca
    from client.node.session import node_lives
    from client.site import open_site
    from common.supervisor import QUIET, Child, supervise

    folder = folder.resolve()
    coordinator = open_site(folder).coordinator
    load_key(coordinator.key)  # what is wrong here is said here, not in a log
    trusting(read_ca(coordinator.ca))
    print(f"The site {folder.name} takes part in studies of {coordinator.address}. Its log: {folder / LOG}")
    threading.Thread(target=_tell, args=(folder,), daemon=True).start()
    command = [sys.executable, "-m", "client.node", str(folder)]
    node = Child("node", command, QUIET, folder / LOG, _DELAY, lives=lambda: node_lives(folder))
    supervise([node], folder, _say)


def status_command(
    folder: Folder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on showing it, until Ctrl-C.")] = False,
) -> None:
    """Show what a site's node does: its connection, the round that it works on, its last failure."""
    from client.node.session import node_runs
    from client.node.status import read_status

    status = read_status(folder)
    if watch and not as_json:
        with Live(_view(status, node_runs(folder)), refresh_per_second=2) as live:
            while True:
                time.sleep(1)
                live.update(_view(read_status(folder), node_runs(folder)))
    runs = node_runs(folder)
    if as_json:
        print(status.model_copy(update={} if runs else {"state": "stopped"}).model_dump_json(indent=2))
    else:
        Console().print(_view(status, runs))
    if not runs or not status.connected_since:
        raise typer.Exit(3)


def stop_command(folder: Folder) -> None:
    """Stop a site's node: what it trains is given up, and the coordinator is told."""
    from common.supervisor import stop

    print("The node has stopped." if stop(folder.resolve(), _PATIENCE) else "No node runs here.")


def _view(status: "Status", runs: bool) -> Table:
    """Names come from the coordinator: none is markup."""
    table = Table(box=None, show_header=False, pad_edge=False)
    rows = {
        "node": status.state if runs else "does not run",
        "coordinator": status.coordinator,
        "connected": status.connected_since if runs else None,
        "study": status.study,
        "round": status.round,
        "work": status.message and _work(status),
        "run": status.run,
        "served": f"{status.served} messages",
        "failure": status.error and f"{status.error.time} {status.error.code}: {status.error.message}",
    }
    for name, value in rows.items():
        if value is not None and (runs or name in ("node", "coordinator", "served", "failure")):
            table.add_row(name, escape(str(value)))
    return table


def _work(status: "Status") -> str:
    words = status.message or ""
    if status.step is not None and status.steps:
        words += f", step {status.step:,} of {status.steps:,}"
    if status.seconds_left is not None:
        words += f", about {_time(status.seconds_left)} left"
    return words


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _tell(folder: Path) -> None:
    """Print what changes in the node's status."""
    from client.node.status import read_status
    from common.errors import InputError

    told: tuple[object, ...] = ()
    begun = time.time()
    while True:
        time.sleep(1)
        try:
            if (folder / "status.json").stat().st_mtime < begun:
                continue  # of a node before this one
            status = read_status(folder)
        except (OSError, InputError):
            continue
        now = (status.state, status.connected_since, status.study, status.round, status.message, status.error)
        if now == told:
            continue
        if status.error is not None and status.error not in told:
            _say(f"{status.error.code}: {status.error.message}")
        if status.connected_since is not None and status.connected_since not in told:
            _say(f"connected to {status.coordinator}")
        if status.state == "working" and status.study:
            number = f", round {status.round}" if status.round is not None else ""
            _say(f"study {status.study}{number}: {status.message}")
        told = now


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {''.join(c for c in line if c.isprintable())}", flush=True)
