"""`fednotes dashboard`: the live page, and its password."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from common.errors import InputError, MachineError

app = typer.Typer(
    help="A live page of studies, on this machine; elsewhere only with TLS and a password.",
)

_EXAMPLES = """
Examples:

    fednotes dashboard

    fednotes dashboard --runs /srv/fednotes/runs --port 8700

    fednotes dashboard --coordinator trial

    fednotes dashboard --db postgresql+psycopg://fednotes@db.example.org/fednotes

    fednotes dashboard password dashboard.password

    fednotes dashboard --host 0.0.0.0 --certificate fed.pem --key fed.key --password-file dashboard.password

Exit codes: 0 ended by Ctrl-C or a signal, 2 wrong input, 3 a port is taken, or the extra `dashboard` is not installed.
"""
_PASSWORD = """
Examples:

    fednotes dashboard password dashboard.password

    pwgen 24 1 | fednotes dashboard password dashboard.password

Exit codes: 0 set, 2 wrong input, 3 the file cannot be written.
"""


@app.callback(invoke_without_command=True, epilog=_EXAMPLES)
def dashboard(
    context: typer.Context,
    runs: Annotated[Path | None, typer.Option(help="The folder of runs (default: runs, or the coordinator's).")] = None,
    db: Annotated[
        str | None,
        typer.Option(help="Show the studies of this database: what their --db was.", metavar="URL"),
    ] = None,
    coordinator: Annotated[
        Path | None, typer.Option(help="A coordinator's folder: studies can then be started from the page.")
    ] = None,
    host: Annotated[str, typer.Option(help="Where it listens.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Its port (default: 8600, or a free one).", min=1, max=65535)] = None,
    certificate: Annotated[Path | None, typer.Option(help="A certificate, with its chain, in PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="The certificate's key.")] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="What `fednotes dashboard password` made.", metavar="FILE")
    ] = None,
    idle_minutes: Annotated[
        float, typer.Option(help="Minutes without a sign of a person after which a session ends.", min=0.01)
    ] = 30,
    session_hours: Annotated[float, typer.Option(help="Hours after which any session ends.", min=0.001)] = 12,
) -> None:
    """A live page of studies: of a folder of runs, or of a database. Ctrl-C ends it; studies go on."""
    if context.invoked_subcommand:
        return
    from importlib.util import find_spec

    if find_spec("nicegui") is None:
        message = "The dashboard needs a package that is not installed: nicegui."
        raise MachineError("dashboard-missing", message, "Install it: pip install 'fednotes[dashboard]'")
    if (certificate is None) != (key is None):
        raise InputError("usage", "--certificate and --key go together.", "Give both, or neither.")
    from server.dashboard.passwords import read_password
    from server.dashboard.serve import serve

    password = read_password(password_file) if password_file else None
    tls = (certificate, key) if certificate and key else None
    if runs and db:
        raise InputError("usage", "--runs and --db are two places to look for studies.", "Give one of them.")
    if coordinator:
        from server.deployment.config import Server

        Server(coordinator).config()  # it is one
    runs = runs or (Server(coordinator).runs if coordinator else Path("runs"))
    serve(runs, db, coordinator, host, port, tls, password, idle_minutes * 60, session_hours * 3600)


@app.command("password", epilog=_PASSWORD)
def password_command(file: Annotated[Path, typer.Argument(help="Where to keep its hash.")]) -> None:
    """Set the password: it is asked for twice, or read from standard input. The file holds its hash alone."""
    from server.dashboard.passwords import write_password

    if sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt="The same again")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    write_password(password, file)
    print(f"Set. Start with: fednotes dashboard --password-file {file}")
