"""The `fednotes` command: puts together the commands of the coordinator, the hospital and the simulation."""

import json
import sys

import typer
from rich.console import Console

import client.cli
import client.evaluation.cli
import client.notes.cli
import common.cli
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
        resumable = any(name in sys.argv for name in ("simulate", "compare"))
        kept = " What was done is kept: `fednotes simulate --resume RUN` goes on." if resumable else ""
        print(f"Interrupted.{kept}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
