"""`fednotes mirror`: a study's record in MLflow and TensorBoard, while it runs or after."""

import contextlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.errors import InputError, MachineError

if TYPE_CHECKING:
    from server.mirror.sink import Sink, Written
    from server.record.reader import StudyRecord

_EXAMPLES = """
Examples:

    fednotes mirror runs/first --tensorboard boards      # then: tensorboard --logdir boards

    fednotes mirror runs/first --mlflow sqlite:///mlflow.db

    fednotes mirror trial/runs/study-20260301-120000 --mlflow https://mlflow.example.org --watch

Exit codes: 0 it is there, 2 wrong input, 3 a package is not installed, or a server or a folder cannot be written to,
130 you ended it (give the same command again: it goes on).
"""


def register(top: typer.Typer) -> None:
    """Add the command to `fednotes`."""
    top.command("mirror", epilog=_EXAMPLES)(mirror_command)


def mirror_command(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    tensorboard: Annotated[
        Path | None, typer.Option(help="A folder, in which the study gets one of its own.", metavar="DIR")
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(help="A tracking server, or sqlite:///FILE for a file of MLflow's.", metavar="URI")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until the study is over.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a line for each time that it wrote.")] = False,
) -> None:
    """Copy what a study measured to TensorBoard or MLflow: what is not there yet, and nothing that the record lacks.

    It reads the record beside the study, which never waits for it. No note is in a record.
    """
    if tensorboard is None and mlflow is None:
        raise InputError("usage", "Nowhere is given to mirror to.", "Give --tensorboard DIR, --mlflow URI, or both.")
    from server.mirror.follow import follow
    from server.record.place import opened
    from server.record.reader import read_study

    database, study = opened(run)
    record = read_study(database, study)
    with contextlib.ExitStack() as stack:
        sinks: list[Sink] = []
        if tensorboard is not None:
            from server.mirror.tensorboard_sink import TensorBoardSink

            sinks.append(stack.enter_context(contextlib.closing(TensorBoardSink(tensorboard, record))))
        if mlflow is not None:
            from server.mirror.mlflow_sink import MlflowSink

            sinks.append(MlflowSink(mlflow, record))
        follow(database, study, sinks, watch, lambda now, written: _print(now, written, as_json), _say_away)


def _print(record: "StudyRecord", written: "Written", as_json: bool) -> None:
    if as_json:
        print(json.dumps({"study": record.id, "state": record.state} | asdict(written)), flush=True)
        return
    rounds = f"rounds {min(written.rounds)} to {max(written.rounds)}" if written.rounds else "nothing new"
    print(f"{written.where}: {rounds}, {written.values:,} values ({record.state})", flush=True)


def _say_away(error: MachineError) -> None:
    print(f"{error.message} It is tried again.", file=sys.stderr, flush=True)
