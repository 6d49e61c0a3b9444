"""A private step against the same step without privacy, and against Opacus' own modes.

    python benchmarks/private_step.py [--repeats 5]

One process, one model, float32, no dropout: the packaged MiniLM with masked language modelling, sequences of 128
tokens, 64 notes a step, and AdamW. The modes take turns, so that a busy machine slows all of them; a mode's figure is
the median over turns of its processor time over that of the plain step of the same turn. Memory is measured in
processes of their own (Linux): the peak of one step above the loaded model.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from client.clipping import make_clipper
from client.noise import SecretStream
from client.objectives import TokenisedNote
from client.objectives.mlm import Mlm
from common.encoder import load_encoder
from common.plan import StudyPlan
from common.trainable import train_only

UNITS, LENGTH = 64, 128
PRIVATE, OPACUS_WHOLE = ("book-keeping", "one unit at a time", "Opacus, 8 at once"), "Opacus, 64 at once"
PATTERNS = ("all", "no-embeddings", "biases")


class Steps:
    """Steps of every mode on the same units."""

    def __init__(self, trainable: str) -> None:
        plan = StudyPlan.model_validate(
            {"study": {"name": "step"}, "encoder": {"max_length": LENGTH}, "training": {"trainable": trainable}}
        )
        self.encoder = load_encoder(plan.encoder.base)
        train_only(self.encoder, plan.training.trainable, 8, 0)
        self.encoder.model.eval()
        self.tensors = self.encoder.tensors()
        self.objective = Mlm(plan, plan.objective, self.encoder.tokenizer)  # type: ignore[arg-type]
        rng = np.random.default_rng(1)
        ids = rng.integers(1000, 30000, (UNITS, LENGTH - 2))
        self.units = [[TokenisedNote(row, np.ones(len(row), dtype=bool))] for row in ids]
        self.optimiser = torch.optim.AdamW(self.tensors.values(), lr=1e-6, fused=True)

    def plain(self) -> None:
        """What training without privacy does."""
        batch = self.objective.collate([unit[0] for unit in self.units], np.random.default_rng(2))
        self.objective.backward(self.encoder, batch, contextlib.nullcontext)
        torch.nn.utils.clip_grad_norm_(self.tensors.values(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()

    def private(self, engine: str, at_once: int | None = None) -> None:
        clipper = make_clipper(engine, self.encoder, self.tensors, 1.0)  # type: ignore[arg-type]
        size = at_once or clipper.units_at_once
        stream = SecretStream(b"0" * 32, "benchmark")
        with clipper:
            for first in range(0, UNITS, size):
                part = self.units[first : first + size]
                rngs = [np.random.default_rng([2, first + i]) for i in range(len(part))]
                batch = self.objective.collate_units(part, rngs)
                clipper.add(
                    lambda owned, batch=batch: self.objective.unit_losses(self.encoder, batch, owned), len(part)
                )
            for name, p in self.tensors.items():
                p.grad = clipper.sums[name].add_(stream.normal(p.numel()).view(p.shape)).div_(UNITS)
        self.optimiser.step()
        self.optimiser.zero_grad()

    def opacus_whole(self) -> None:
        """Opacus with all 64 at once, as its engine does unless told otherwise."""
        self.private("opacus", UNITS)

    def modes(self) -> dict[str, Callable[[], None]]:
        return {
            "plain": self.plain,
            "plain, again": self.plain,
            "book-keeping": lambda: self.private("book-keeping"),
            "one unit at a time": lambda: self.private("loop"),
            "Opacus, 8 at once": lambda: self.private("opacus"),
        }


def processor_seconds(step: Callable[[], None]) -> float:
    before = time.process_time()
    step()
    return time.process_time() - before


def times(trainable: str, repeats: int) -> dict[str, float]:
    modes = Steps(trainable).modes()
    for step in modes.values():
        step()
    ratios: dict[str, list[float]] = {name: [] for name in modes}
    for _ in range(repeats):
        took = {name: processor_seconds(step) for name, step in modes.items()}
        for name, seconds in took.items():
            ratios[name].append(seconds / took["plain"])
    return {name: statistics.median(found) for name, found in ratios.items() if name != "plain"}


def peak(trainable: str, mode: str) -> float:
    """MiB above the loaded model, in a process of its own."""
    line = [sys.executable, __file__, "--peak", trainable, mode]
    return float(subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()[-1])


def print_peak(trainable: str, mode: str) -> None:
    steps = Steps(trainable)
    run = (steps.modes() | {OPACUS_WHOLE: steps.opacus_whole})[mode]
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak that loading had
    run()
    print(_memory("VmHWM") - before)


def _memory(name: str) -> float:
    """A figure of this process in MiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--patterns", type=lambda text: text.split(","), default=list(PATTERNS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        return print_peak(*arguments.peak)
    torch.set_num_threads(arguments.threads)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for trainable in arguments.patterns:
        memory = {name: peak(trainable, name) for name in ("plain", *PRIVATE, OPACUS_WHOLE)}
        ratios = times(trainable, arguments.repeats)
        found[trainable] = {"time": ratios, "memory": {name: mib / memory["plain"] for name, mib in memory.items()}}
        if not arguments.json:
            print(f"\ntrainable = {trainable}: processor time and peak memory over those of the plain step")
            for name in dict.fromkeys([*ratios, *memory]):
                ratio = f"{ratios[name]:.2f}" if name in ratios else ""
                share = f"{memory[name] / memory['plain']:.2f}  {memory[name]:6.0f} MiB" if name in memory else ""
                print(f"  {name:20s} {ratio:>6s}  {share}", flush=True)
    if arguments.json:
        versions = {name: version(name) for name in ("torch", "opacus", "transformers")}
        worst = max(found[trainable]["time"]["book-keeping"] for trainable in found)
        print(json.dumps({"ratio": worst, "patterns": found, "versions": versions}, indent=2))


if __name__ == "__main__":
    main()
