"""`fednotes export`: the model of a run, for those who will use it."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

_EXPORT = """
Examples:

    fednotes export runs/first --to first-model

    fednotes export trial/runs/study-20260301-120000 --to model --format sentence-transformers --format onnx

Exit codes: 0 written, 2 wrong input, a run that has not ended, or a site that refuses (release-vetoed), 3 the machine
cannot (a package is missing, no space), 4 the run's checkpoints are damaged.
"""


class FormatName(StrEnum):
    hugging_face = "hugging-face"
    sentence_transformers = "sentence-transformers"
    onnx = "onnx"


def register(app: typer.Typer) -> None:
    app.command("export", epilog=_EXPORT)(export_command)


def export_command(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    to: Annotated[Path, typer.Option(help="A new or empty folder for the model.")],
    formats: Annotated[
        list[FormatName] | None,
        typer.Option(
            "--format",
            help="May be given several times (default: the first two). Each holds the Hugging Face folder; onnx adds a "
            "graph that is checked against it.",
        ),
    ] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Export the last checkpoint of a run that stopped.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a run's model into a folder, with its card and a governance annex: all of it, or nothing.

    Where the plan has a memorisation check and a site refuses the release, nothing is written.
    """
    from server.export.release import Format, export

    wanted: list[Format] = [one.value for one in formats or ()] or ["hugging-face", "sentence-transformers"]
    released = export(run, to, list(dict.fromkeys(wanted)), unfinished)
    if as_json:
        print(released.model_dump_json(indent=2))
        return
    for name, size in released.files.items():
        print(f"{size:>13,}  {to / name}")
    if released.difference is not None:
        print(f"ONNX differs from torch by {released.difference:.1e} at most, on {released.compared_texts} texts.")
    print(f"{released.privacy[:1].upper()}{released.privacy[1:]}.")
    print("\n".join(released.memorisation))
