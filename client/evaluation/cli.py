"""`fednotes evaluate` and `fednotes embed`: any encoder on any notes, in a federation or not."""

import json
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from client.notes import options
from common.errors import InputError
from common.plan_sections import EncoderPlan, Evaluation

RESULT_FILE = "evaluation.json"


class Mode(StrEnum):
    frozen = "frozen"
    fine_tuned = "fine-tuned"
    lora = "lora"


class LongNotes(StrEnum):
    cut = "cut"
    windows = "windows"


class Split(StrEnum):
    train = "train"
    dev = "dev"
    test = "test"
    all = "all"


Model = Annotated[str, typer.Argument(help="The encoder.")]
Notes = Annotated[
    str,
    typer.Option(
        help="A .csv, .jsonl, .ndjson or .parquet file (each may be gzip), a database URL, or a site.toml.",
        rich_help_panel="Notes",
    ),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        help="A task and the column with its answers; may be repeated. A site.toml has tasks of its own, and the label "
        "column is a task called label.",
        metavar="NAME=COLUMN",
    ),
]
Modes = Annotated[
    list[Mode] | None,
    typer.Option(
        "--mode",
        help="frozen (default): a probe on fixed embeddings. fine-tuned: the encoder learns. lora: adapters do. "
        "May be repeated.",
    ),
]
Shots = Annotated[
    str | None,
    typer.Option(
        help="Labelled notes a class at each point of the few-shot curve of frozen encoders, as 16,32 (or none)."
    ),
]
Seeds = Annotated[int | None, typer.Option(help="Draws at each point of the curve.", min=5, max=100)]
Against = Annotated[str | None, typer.Option(help="Another encoder, to compare MODEL with.", metavar="MODEL")]
MaxLength = Annotated[
    int | None,
    typer.Option(help="Tokens read at once, special ones included (default: 256, or what it can).", min=16, max=8192),
]
Long = Annotated[
    LongNotes | None,
    typer.Option(help="Of a longer note, read its start (cut, default) or the mean of all its windows (windows)."),
]
PlanFile = Annotated[
    Path | None,
    typer.Option(help="Take what is not said here from a study plan: [encoder], [evaluation], seed and precision."),
]
Seed = Annotated[
    int | None,
    typer.Option(help="Of everything random, and of the split of notes that have no site.toml.", min=0, max=2**32 - 1),
]
Out = Annotated[Path | None, typer.Option(help=f"Folder for {RESULT_FILE}.", metavar="FOLDER")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
OutFile = Annotated[Path, typer.Option("--out", help="The file to write: .parquet or .npy.", metavar="FILE")]
SplitFlag = Annotated[Split, typer.Option("--split", help="Which notes; all has those that are set aside, too.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")]

_EXIT_CODES = (
    "Exit codes: 0 done, 2 wrong input, 3 the machine cannot, 4 the encoder gives no numbers, 130 interrupted."
)
_EVALUATE = f"""
Examples:

    fednotes evaluate packaged:minilm --notes notes.csv --text-column body --label-column ward

    fednotes evaluate runs/first/model --notes site.toml --against packaged:minilm --out results

    fednotes evaluate runs/first/model --notes notes.csv --plan runs/first/plan.toml --task grade=harm --json

{_EXIT_CODES}
"""
_EMBED = f"""
Examples:

    fednotes embed packaged:minilm --notes notes.csv --text-column body --out embeddings.parquet

    fednotes embed runs/first/model --notes site.toml --split test --long-notes windows --out test.npy

{_EXIT_CODES}
"""


def register(app: typer.Typer) -> None:
    """Add both commands."""
    app.command("evaluate", epilog=_EVALUATE)(evaluate_command)
    app.command("embed", epilog=_EMBED)(embed_command)


def evaluate_command(
    ctx: typer.Context,
    model: Model,
    notes: Notes,
    task: Tasks = None,
    mode: Modes = None,
    shots: Shots = None,
    seeds: Seeds = None,
    against: Against = None,
    max_length: MaxLength = None,
    long_notes: Long = None,
    plan: PlanFile = None,
    seed: Seed = None,
    out: Out = None,
    as_json: Annotated[bool, typer.Option("--json", help=f"Print {RESULT_FILE} instead of tables.")] = False,
    quiet: Quiet = False,
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
) -> None:
    """Score an encoder on the tasks of notes: beside TF-IDF, the most frequent class, and another encoder.

    MODEL is a folder such as a run's model/, a model hub name, or packaged:minilm.

    Prints macro-F1, accuracy and AUROC on the test notes, the few-shot curve, and figures of the embedding space. All
    of it stays on this machine.

    Notes that the encoder was trained on: give the site.toml that it was trained with, or the plan of its simulation,
    whose seed decides which of them are test notes.
    """
    from client.evaluation.given import given_site, parse_tasks
    from common.plan import load_plan

    study = load_plan(plan) if plan else None
    encoder = study.encoder if study else EncoderPlan()
    seed = seed if seed is not None else study.study.seed if study else 0
    evaluation = _evaluation(study.evaluation if study else Evaluation(), mode, shots, seeds)
    declared = parse_tasks(task or [])
    site = given_site(ctx, notes, seed, declared)
    names = dict.fromkeys([*study.evaluation.tasks, *(one.name for one in declared)]) if study else None
    place = out / RESULT_FILE if out else None
    if place and place.exists():
        raise InputError("out-exists", f"{place} is there already.", "Name another folder.")

    # Imported here, so that --help and what is refused above do not wait for torch.
    from client.evaluation.evaluate import evaluate
    from client.evaluation.evaluator import Settings
    from client.evaluation.show import show
    from client.evaluation.watch import Watch
    from common.files import write_text

    settings = Settings(
        evaluation=evaluation,
        long_notes=long_notes.value if long_notes else encoder.long_notes,
        precision=study.training.precision if study else "auto",
        seed=seed,
        tasks=list(names) if names else None,
    )
    length = max_length or (encoder.max_length if study else None)
    with Watch(Console(stderr=True), quiet) as watch:
        result = evaluate([model, *([against] if against else [])], site, settings, length, watch)
    if place:
        write_text(place, result.model_dump_json(indent=2) + "\n")
    if as_json:
        sys.stdout.write(result.model_dump_json(indent=2) + "\n")
    elif not quiet:
        show(result, Console())
        if place:
            print(f"Written to {place}")


def embed_command(
    ctx: typer.Context,
    model: Model,
    notes: Notes,
    out: OutFile,
    split: SplitFlag = Split.all,
    max_length: MaxLength = None,
    long_notes: Long = None,
    seed: Seed = None,
    force: Force = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of words.")] = False,
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
) -> None:
    """Write an embedding of each note to a file, in the order of the source.

    MODEL is a folder such as a run's model/, a model hub name, or packaged:minilm.

    .parquet: id, row in the source, split, and the embedding as a list of float32. .npy: the embeddings alone, a row a
    note.

    EMBEDDINGS OF NOTES ARE AS PRIVATE AS THE NOTES: much of a text can be recovered from them. The file is written for
    this user's eyes only.
    """
    from client.evaluation.given import given_site

    long = long_notes.value if long_notes else EncoderPlan().long_notes
    site = given_site(ctx, notes, seed or 0)

    from client.evaluation.export import check_out, export

    check_out(out, force)

    import numpy as np

    from client.device import pick_device
    from client.evaluation.evaluate import describe, load_encoders
    from client.evaluation.watch import Watch

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is half written is removed
    with Watch(Console(stderr=True)) as watch:
        (encoder,), length = load_encoders([model], max_length)
        encoder.model.to(pick_device())  # type: ignore[arg-type]
        own = site.notes(encoder.tokenizer, watch.intake)
        positions = np.arange(len(own)) if split is Split.all else own.split_indices(split.value)
        if not len(positions):
            raise InputError(
                "notes-empty", f"None of the notes of {site.name} is a {split.value} note.", "Give --split all."
            )
        facts = {
            "encoder": model,
            "weights": describe(encoder).digest,
            "notes": own.digest,
            "split": split.value,
            "max_length": str(length),
            "long_notes": long,
        }
        watch.say(f"Embedding {len(positions):,} notes")
        export(encoder, own, positions, out, facts, max_length=length, long_notes=long, progress=watch.tokens)
    shape = [len(positions), encoder.hidden_size]
    if as_json:
        print(json.dumps({"file": str(out), "shape": shape, **facts}, indent=2))
    else:
        which = "" if split is Split.all else f"{split.value} "
        order = f", row k for the k-th {which}note of the source" if out.suffix == ".npy" else ""
        print(f"{out}: {shape[0]:,} embeddings of {shape[1]} numbers{order}.")
    print("Embeddings of notes are as private as the notes: keep this file where the notes may be.", file=sys.stderr)


def _evaluation(section: Evaluation, modes: list[Mode] | None, shots: str | None, seeds: int | None) -> Evaluation:
    """The plan's section, or the default one, with what the flags say. Raises InputError."""
    said: dict[str, object] = {}
    if modes:
        said["modes"] = list(dict.fromkeys(mode.value for mode in modes))
    if seeds:
        said["seeds"] = seeds
    try:
        if shots is not None:
            said["shots"] = [] if shots == "none" else sorted({int(part) for part in shots.split(",")})
        return Evaluation.model_validate(section.model_dump() | said)
    except (ValueError, ValidationError):
        raise InputError(
            "usage", f"--shots {shots}: these are not numbers of notes.", "For example --shots 16,32, or --shots none."
        ) from None
