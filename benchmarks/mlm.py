"""MLM tokens per second and peak memory against the Hugging Face Trainer's usual set-up.

    python benchmarks/mlm.py             # a table
    python benchmarks/mlm.py --json      # one JSON object; `ratio` is ours over theirs, median of interleaved pairs

The same notes, base, batch size, sequence length, threads and dropout. Theirs is what the library's own example does:
notes joined and cut into full blocks, `DataCollatorForLanguageModeling` at 15 %, `Trainer` with its AdamW. Only tokens
that are not padding count. Each measurement is a process of its own, so that peak memory is its own; loading and
tokenising are not timed. `ratio` compares each side as it comes (ours picks bfloat16 where the processor computes in
it, the Trainer float32); `ratio_same_precision` has float32 on both sides, `ratio_both_bfloat16` bfloat16 on both.
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

import torch

from client.device import computes_bfloat16
from client.notes.source import NotesSource
from client.notes.store import NoteStore, prepare
from client.objectives import make_objective
from client.training import train
from common.encoder import Encoder, load_encoder
from common.plan import parse_plan
from simulations.synthetic_notes import write_jsonl

STEPS, BATCH, LENGTH = 12, 16, 128
WARM_UP = 2
KEY = b"benchmark"


def ours(encoder: Encoder, notes: NoteStore, precision: str) -> tuple[int, float]:
    """Tokens and seconds of our local loop."""
    plan = parse_plan(
        f'[study]\nname = "mlm"\n[encoder]\nmax_length = {LENGTH}\n'
        f'[training]\nsteps_per_round = {STEPS}\nbatch_size = {BATCH}\nprecision = "{precision}"\n'
    )
    objective = make_objective(plan, encoder.tokenizer, notes)

    def steps(count: int) -> int:
        given = (encoder, objective, notes, plan.training)
        return train(*given, key=(1, 1), first_step=0, steps=count, total_steps=STEPS).tokens

    steps(WARM_UP)
    started = time.perf_counter()
    return steps(STEPS), time.perf_counter() - started


def theirs(encoder: Encoder, notes: NoteStore, precision: str) -> tuple[int, float]:
    """Tokens and seconds of the Hugging Face Trainer."""
    from transformers import DataCollatorForLanguageModeling, Trainer, TrainerCallback, TrainingArguments

    tokenizer = encoder.tokenizer
    rows = notes.split_indices("train")
    joined: list[int] = []
    for row in rows:
        joined += [tokenizer.cls_token_id, *notes.tokens(row).tolist(), tokenizer.sep_token_id]
    blocks = [{"input_ids": joined[i : i + LENGTH]} for i in range(0, len(joined) - LENGTH, LENGTH)]
    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            marks.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            scratch,
            max_steps=STEPS + WARM_UP,
            per_device_train_batch_size=BATCH,
            learning_rate=1e-4,
            weight_decay=0.01,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            bf16=precision == "bfloat16",
        )
        collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
        trainer = Trainer(encoder.model, arguments, data_collator=collator, train_dataset=blocks, callbacks=[Clock()])
        trainer.train()
    return STEPS * BATCH * LENGTH, marks[-1] - marks[WARM_UP - 1]


SIDES = {"ours": ours, "theirs": theirs}


def child(side: str, precision: str, folder: Path) -> None:
    """One measurement, printed as JSON."""
    encoder = load_encoder("packaged:minilm")
    notes = prepare(NotesSource(source=str(folder / "notes.jsonl")), encoder.tokenizer, KEY, folder / "cache")
    tokens, seconds = SIDES[side](encoder, notes, precision)
    scale = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    print(json.dumps({"tokens_per_second": tokens / seconds, "peak_mib": peak / 2**20}))


def measure(side: str, precision: str, folder: Path) -> dict[str, float]:
    line = [sys.executable, __file__, "--child", side, precision, str(folder)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--pairs", type=int, default=3, help="interleaved pairs (default 3)")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        side, precision, folder = arguments.child
        return child(side, precision, Path(folder))
    bfloat16 = computes_bfloat16(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    cells = [("ours", "auto"), ("theirs", "float32"), ("ours", "float32")] + [("theirs", "bfloat16")] * bfloat16
    found: dict[tuple[str, str], list[dict[str, float]]] = {cell: [] for cell in cells}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_jsonl(folder / "notes.jsonl", notes=1200)
        for _ in range(arguments.pairs):
            for cell in cells:
                found[cell].append(measure(*cell, folder))

    def ratio(a: tuple[str, str], b: tuple[str, str]) -> float:
        pairs = zip(found[a], found[b], strict=True)
        return round(statistics.median(x["tokens_per_second"] / y["tokens_per_second"] for x, y in pairs), 3)

    def peak(cell: tuple[str, str]) -> float:
        return statistics.median(one["peak_mib"] for one in found[cell])

    auto, usual, plain = cells[:3]
    result = {
        "ratio": ratio(auto, usual),
        "aim": "at least 2",
        "ratio_same_precision": ratio(plain, usual),
        "ratio_both_bfloat16": ratio(auto, ("theirs", "bfloat16")) if bfloat16 else None,
        "peak_memory_ratio": round(peak(auto) / peak(usual), 3),
        "peak_memory_ratio_same_precision": round(peak(plain) / peak(usual), 3),
        "cells": {
            f"{side}, {precision}": {k: [round(one[k]) for one in values] for k in ("tokens_per_second", "peak_mib")}
            for (side, precision), values in found.items()
        },
        "settings": {"steps": STEPS, "batch_size": BATCH, "length": LENGTH, "threads": torch.get_num_threads()},
        "versions": {n: version(n) for n in ("fednotes", "torch", "transformers")}
        | {"python": platform.python_version()},
    }
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
