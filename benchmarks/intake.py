"""Time and memory of taking in a hospital's notes: 250,000 notes of 300 words must pass in under 2 GiB.

    python benchmarks/intake.py --json

Makes notes of random words (Zipf-distributed, lengths around --words) in a temporary file, prepares them in a process
of its own, and prints the peak of that process's memory against the limit, and the seconds of each stage. The ratio is
peak / limit: under 1 passes.
"""

import argparse
import json
import multiprocessing
import platform
import resource
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.notes.source import NotesSource
from client.notes.store import prepare
from common.encoder import PACKAGED, load_tokenizer

LIMIT_GIB = 2.0
SYLLABLES = ("car", "di", "o", "my", "pa", "thy", "ne", "phro", "lo", "gy", "he", "mat", "to", "sis", "pul", "mon")


def make_vocabulary(random: np.random.Generator) -> NDArray[np.object_]:
    """The tokenizer's whole words, and an invented long one after every fifth: 1.5 tokens a word, as in real notes."""
    ids = load_tokenizer(PACKAGED).get_vocab()
    known = [word for word in sorted(ids, key=lambda word: ids[word]) if word.isalpha() and word.isascii()]
    invented = ["".join(random.choice(SYLLABLES, 4)) for _ in range(len(known) // 5)]
    for place, word in enumerate(invented):
        known.insert(place * 6 + 5, word)
    return np.array(known, dtype=object)


def make_notes(path: Path, notes: int, words: int, seed: int = 0) -> int:
    """Writes JSON Lines with id, patient, category and text; returns the file's bytes. A hundredth are exact copies."""
    random = np.random.default_rng(seed)
    vocabulary = make_vocabulary(random)
    weights = 1.0 / np.arange(1, len(vocabulary) + 1)
    cumulative = np.cumsum(weights / weights.sum())
    with path.open("w", encoding="utf-8") as stream:
        text = ""
        for note in range(notes):
            if note % 100 != 99:
                length = int(random.integers(words // 2, words * 3 // 2 + 1))
                drawn = np.minimum(np.searchsorted(cumulative, random.random(length)), len(vocabulary) - 1)
                text = " ".join(vocabulary[drawn])
            row = {"id": f"n{note}", "patient": f"p{note // 4}", "category": f"ward {note % 12}", "text": text}
            stream.write(json.dumps(row) + "\n")
    return path.stat().st_size


def measure(source: str, cache: str, results: "multiprocessing.Queue[dict[str, float]]") -> None:
    """In a process of its own: prepares once, opens once more, and puts seconds and the peak of memory."""
    begun: dict[str, float] = {}
    tokenizer = load_tokenizer(PACKAGED)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()

    def progress(stage: str, done: int) -> None:
        begun[stage] = time.perf_counter()

    store = prepare(NotesSource(source=source), tokenizer, b"benchmark", Path(cache), progress)
    finished = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    prepare(NotesSource(source=source), tokenizer, b"benchmark", Path(cache))
    results.put(
        {
            "notes": len(store),
            "tokens": int(store.lengths.sum()),
            "seconds": finished - start,
            "seconds_read": begun["read"] - start,
            "seconds_compare": begun["compare"] - begun["read"],
            "seconds_tokenise": finished - begun["compare"],
            "seconds_reopen": time.perf_counter() - finished,
            "start_gib": before / 2**20,
            "peak_gib": peak / 2**20,
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notes", type=int, default=250_000)
    parser.add_argument("--words", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "notes.jsonl"
        size = make_notes(source, arguments.notes, arguments.words)
        # A fresh interpreter: a forked child would count this one's memory as its own.
        spawn = multiprocessing.get_context("spawn")
        results: multiprocessing.Queue[dict[str, float]] = spawn.Queue()
        child = spawn.Process(target=measure, args=(str(source), str(Path(folder) / "cache"), results))
        child.start()
        while child.is_alive() and results.empty():
            child.join(0.2)
        if results.empty():
            raise SystemExit(f"The measured process ended with {child.exitcode}.")
        measured = results.get()
        child.join()
    report = {
        "benchmark": "intake",
        "words": arguments.words,
        "file_gib": round(size / 2**30, 3),
        **{name: round(value, 3) for name, value in measured.items()},
        "limit_gib": LIMIT_GIB,
        "ratio": round(measured["peak_gib"] / LIMIT_GIB, 3),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "pyarrow", "tokenizers", "transformers")},
        },
    }
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        for name, value in report.items():
            print(f"{name:18} {value}")


if __name__ == "__main__":
    main()
