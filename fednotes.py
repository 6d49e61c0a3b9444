"""The `fednotes` command: puts together the commands of the coordinator, the hospital and the simulation."""

import json
import sys
from typing import Annotated

import typer
from rich.console import Console

import client.cli
import client.evaluation.cli
import client.notes.cli
import common.cli
import server.cli
import server.dashboard.cli
import server.export.cli
import server.mirror.cli
import server.study.cli
import simulations.cli
from common.errors import FednotesError

app = typer.Typer(
    help="Hospitals pre-train a small text encoder together, on clinical notes that never leave them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
simulations.cli.register(app)
client.evaluation.cli.register(app)
app.add_typer(common.cli.app, name="plan")
app.add_typer(client.notes.cli.app, name="notes")
app.add_typer(client.cli.app, name="site")
app.add_typer(server.cli.app, name="server")
app.add_typer(server.dashboard.cli.app, name="dashboard")
server.study.cli.register(server.cli.app, app)
server.export.cli.register(app)
server.mirror.cli.register(app)


@app.command()
def version(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """The version, and the digest of the installed files: a coordinator and its sites must have the same."""
    from importlib.metadata import version as of

    from common.package import package_digest

    said = {"version": of("fednotes"), "package": package_digest(), "flwr": of("flwr")}
    print(
        json.dumps(said) if as_json else f"fednotes {said['version']}\npackage {said['package']}\nflwr {said['flwr']}"
    )


def main() -> None:
    """Run a command; a foreseen failure is two plain lines and its exit code, never a traceback."""
    try:
        app()
    except FednotesError as error:
        if "--json" in sys.argv:
            print(json.dumps({"error": {"code": error.code, "message": error.message, "next_step": error.next_step}}))
        else:
            console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
            console.print(f"error ({error.code}): {error.message}")
            if error.next_step:
                console.print(f"  {error.next_step}")
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _say_what_goes_on()
        sys.exit(130)
    except SystemExit as end:  # Typer makes one of Ctrl-C
        if isinstance(end.__context__, typer.Exit) and isinstance(end.__context__.__cause__, KeyboardInterrupt):
            _say_what_goes_on()
        raise


def _say_what_goes_on() -> None:
    """What a person who pressed Ctrl-C has to know."""
    kept = ""
    if any(name in sys.argv for name in ("simulate", "compare")):
        kept = " What was done is kept: `fednotes simulate --resume RUN` goes on."
    elif sys.argv[1:3] in (["server", "run"], ["server", "resume"]):
        kept = " The study goes on: `fednotes status RUN` shows it, `fednotes server stop RUN` ends it."
    print(f"Interrupted.{kept}", file=sys.stderr)


if __name__ == "__main__":
    main()
