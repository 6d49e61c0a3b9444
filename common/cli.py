"""`fednotes plan`: what a study will do, before anything runs."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from common.errors import InputError
from common.plan import check_plan, load_plan, plan_to_toml
from common.plan_sections import OBJECTIVES
from common.privacy_cli import PRIVACY_EXAMPLES, privacy_command

app = typer.Typer(help="Check a study plan, or see every key that one can have.", no_args_is_help=True)
app.command("privacy", epilog=PRIVACY_EXAMPLES)(privacy_command)

PlanFile = Annotated[Path, typer.Argument(help="The plan, a TOML file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command(epilog="Example:\n\n    fednotes plan check study.toml")
def check(file: PlanFile, as_json: Json = False) -> None:
    """Check a plan: prints its hash, or every mistake at once (exit code 2)."""
    plan = load_plan(file)
    if as_json:
        print(json.dumps({"valid": True, "study": plan.study.name, "hash": plan.hash(), "privacy": plan.privacy_words}))
    else:
        print(f"{file} is valid: study {plan.study.name}, {plan.privacy_words}.\nhash {plan.hash()}")


Kind = StrEnum("Kind", {kind: kind for kind in OBJECTIVES})  # type: ignore[misc]
_SHOW = """Examples:

    fednotes plan show > study.toml

    fednotes plan show --objective declutr > study.toml

    fednotes plan show study.toml --json
"""


@app.command(epilog=_SHOW)
def show(
    file: Annotated[Path | None, typer.Argument(help="A plan; without one, the defaults.")] = None,
    objective: Annotated[Kind | None, typer.Option(help="Whose defaults to show (default: mlm).")] = None,
    as_json: Json = False,
) -> None:
    """Print a plan with every default written out and a comment for each key."""
    if file and objective:
        raise InputError("usage", "A plan has its objective; --objective is for the defaults.", "Give one of them.")
    kind = objective.value if objective else "mlm"
    defaults = {"study": {"name": "my-study"}, "objective": {"kind": kind}}
    plan = load_plan(file) if file else check_plan(defaults, "the defaults")
    if as_json:
        print(json.dumps(plan.model_dump(mode="json") | {"hash": plan.hash()}, indent=2))
    else:
        print(plan_to_toml(plan, comments=True), end="")
