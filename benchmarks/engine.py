"""Wall time of a study on the in-process engine, over a plain loop that calls the same training function.

    python benchmarks/engine.py            # a table
    python benchmarks/engine.py --json     # one JSON object; `ratio` is engine over loop, median of interleaved pairs

The loop is what a researcher would write by hand: one model, weights set before each site, a weighted mean after the
round, held-out losses. The engine does the same through Flower's messages, with every reply checked and a checkpoint
synced to disk after each round. Both end with the same weights, which this script checks.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

import client.app
import server.app
from client.notes.source import Columns, NotesSource
from client.notes.store import prepare
from client.objectives import make_objective
from client.site import Policy, SiteConfig, open_site
from client.training import held_out_loss, site_key, train
from common.encoder import load_tokenizer
from common.plan import StudyPlan, parse_plan, plan_to_toml
from common.slug import slug
from server.checkpoint import load_checkpoint
from simulations.engines import run_inprocess
from simulations.partition import by_column, write_site
from simulations.synthetic_notes import write_jsonl

PLAN = """
[study]
name = "engine"
[encoder]
max_length = 128
[training]
steps_per_round = 20
batch_size = 16
[federation]
rounds = 2
[evaluation]
held_out_notes = 64
"""
KEY = b"benchmark"


def loop(plan: StudyPlan, sites: list[Path]) -> tuple[float, dict[str, np.ndarray]]:
    """Seconds and final shared weights of the plain loop."""
    work = client.app.worker(plan)
    encoder = work.encoder
    opened = [open_site(folder) for folder in sites]
    notes = {site.name: site.notes(encoder.tokenizer) for site in opened}
    objectives = {name: make_objective(plan, encoder.tokenizer, store) for name, store in notes.items()}
    shared = {name: work.initial[name].clone() for name in encoder.shared(plan.federation.share)}
    steps, rounds = plan.training.steps_per_round or 0, plan.federation.rounds
    started = time.perf_counter()

    def measure() -> None:
        encoder.load(shared)
        for name, store in notes.items():
            key = site_key(plan.study.seed, name)
            most = plan.evaluation.held_out_notes
            held_out_loss(encoder, objectives[name], store, plan.training, key=key, most_notes=most)

    measure()
    for number in range(rounds):
        mean = {name: np.zeros(value.shape, np.float32) for name, value in shared.items()}
        weights = {name: len(store.split_indices("train")) for name, store in notes.items()}
        for name, store in sorted(notes.items()):
            encoder.load(shared)
            train(
                encoder,
                objectives[name],
                store,
                plan.training,
                key=site_key(plan.study.seed, name),
                first_step=number * steps,
                steps=steps,
                total_steps=rounds * steps,
            )
            for tensor, value in encoder.shared(plan.federation.share).items():
                mean[tensor] += value.detach().numpy() * (weights[name] / sum(weights.values()))
        for tensor, value in mean.items():
            shared[tensor].numpy()[...] = value
        measure()
    return time.perf_counter() - started, {name: value.numpy() for name, value in shared.items()}


def engine(plan: StudyPlan, sites: list[Path], folder: Path) -> tuple[float, dict[str, np.ndarray]]:
    """Seconds and final shared weights of the in-process engine."""
    folder.mkdir()
    (folder / server.app.PLAN_FILE).write_text(plan_to_toml(plan), encoding="utf-8")
    started = time.perf_counter()
    run_inprocess(server.app.app, client.app.app, folder, sites)
    seconds = time.perf_counter() - started
    kept = load_checkpoint(folder / server.app.CHECKPOINTS, plan.hash())
    assert kept is not None
    return seconds, kept[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--pairs", type=int, default=3, help="interleaved pairs (default 3)")
    arguments = parser.parse_args()
    plan = parse_plan(PLAN)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_jsonl(root / "notes.jsonl", notes=1200, hospitals=2)
        source = NotesSource(source=str(root / "notes.jsonl"), columns=Columns(site="site"))
        store = prepare(source, load_tokenizer(plan.encoder.base), KEY, root / "cache")
        common = {"split_key": KEY.hex(), "cache": root / "cache", "notes": source}
        common["policy"] = Policy(require_approval=False)
        sites = [
            write_site(root / slug(name), SiteConfig(name=name, **common), rows)
            for name, rows in by_column(store).rows.items()
        ]
        loop(plan, sites)  # warms the processor's caches, and the imports, for both
        pairs = []
        for number in range(arguments.pairs):
            by_engine, weights = engine(plan, sites, root / f"run-{number}")
            by_loop, same = loop(plan, sites)
            difference = max(float(np.abs(weights[name] - same[name]).max()) for name in weights)
            pairs.append((by_engine, by_loop, difference))
    ratio = statistics.median(e / p for e, p, _ in pairs)
    result = {
        "ratio": round(ratio, 4),
        "aim": "at most 1.1",
        "pairs_seconds": [[round(e, 2), round(p, 2)] for e, p, _ in pairs],
        "largest_weight_difference": max(d for *_, d in pairs),
        "settings": {"sites": len(sites), "rounds": 2, "steps_per_round": 20, "batch_size": 16, "max_length": 128},
        "versions": {n: version(n) for n in ("fednotes", "flwr", "torch")} | {"python": platform.python_version()},
    }
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
