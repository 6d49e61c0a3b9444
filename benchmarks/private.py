"""What private pre-training brings: MLM and DeCLUTR at several epsilons, beside the base and public text alone.

    python benchmarks/private.py --base MODEL --notes notes.jsonl.gz --public public.jsonl.gz --out runs/private

Each hospital (the column `site`) trains on its own notes, federated: from the base, and from the base after DeCLUTR on
the public text alone. Every arm has the same units, steps and chances of a unit; few weights learn, where the arm's
name does not say otherwise. Frozen embeddings are scored by a probe with 16 labels a class, over the test notes of all
sites, and compared with where the arm began, on the same test notes. It goes on where it stopped.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tomli_w
from rich.console import Console

import common  # noqa: F401  (before torch: it sets how idle threads wait)
from client.notes.source import Columns, NotesSource
from client.notes.store import default_cache, prepare
from client.objectives import make_objective
from client.training import site_key, train
from common.encoder import load_encoder
from common.files import new_folder
from common.plan import StudyPlan
from common.results import POOLED
from common.table import Table
from server.display import Log
from simulations.setup import Wish
from simulations.table.plan import load_table
from simulations.table.run import TABLE_FILE, results, resume_table, run_table

SPANS: dict[str, Any] = {
    "kind": "declutr",
    "sampling": "adjacent",
    "anchors": 1,
    "positives": 1,
    "min_span": 16,
    "max_span": 62,
    "mlm_weight": 0.0,
}
RATES = {"biases": 1e-3, "lora": 1e-3, "all": 1e-4}
EPSILONS = (8.0, 1.0, 3.0)


def arm(name: str, objective: dict[str, Any], trainable: str, epsilon: float | None) -> dict[str, Any]:
    training = {"trainable": trainable, "learning_rate": RATES[trainable]}
    privacy = {} if epsilon is None else {"privacy": {"epsilon": epsilon, "unit": "patient"}}
    return {"name": name, "objective": objective, "training": training} | privacy


def arms(public: bool) -> list[dict[str, Any]]:
    """Those that begin at the base, or those that begin at the model of public text."""
    if public:
        return [arm(f"public-{name}", SPANS, "biases", e) for name, e in (("declutr", None), ("declutr-8", 8.0))]
    kinds = (("declutr", SPANS), ("mlm", {"kind": "mlm"}))
    found = [arm(kind, objective, "biases", None) for kind, objective in kinds]
    found += [arm(f"{kind}-{e:g}", objective, "biases", e) for e in EPSILONS for kind, objective in kinds]
    return [*found, *(arm(f"declutr-8-{which}", SPANS, which, 8.0) for which in ("lora", "all"))]


def table(base: str, chosen: list[dict[str, Any]], settings: argparse.Namespace) -> dict[str, Any]:
    return {
        "study": {"name": "private", "seed": settings.seeds[0]},
        "encoder": {"base": base, "max_length": 128},
        "training": {
            "steps_per_round": settings.steps,
            "batch_size": settings.batch,
            "learning_rate": 1e-3,
            "precision": "float32",
        },
        "federation": {"rounds": settings.rounds, "share": "encoder"},
        "evaluation": {"held_out_notes": 16, "shots": [16, 64]},
        "table": {"seeds": settings.seeds, "settings": ["federated"]},
        "arms": chosen,
    }


def public_model(settings: argparse.Namespace, source: NotesSource) -> Path:
    """The base after training on public text alone; made once."""
    folder = settings.out / "public-model"
    if folder.exists():
        return folder
    training = {"steps_per_round": settings.public_steps, "batch_size": 64, "learning_rate": 3e-4}
    plan = StudyPlan.model_validate(
        {
            "study": {"name": "public", "seed": 1},
            "encoder": {"base": settings.base, "max_length": 128},
            "objective": SPANS,
            "training": training,
        }
    )
    encoder = load_encoder(settings.base, 1)
    notes = prepare(source, encoder.tokenizer, b"public text", default_cache())
    objective = make_objective(plan, encoder.tokenizer, notes)
    steps = settings.public_steps
    train(
        encoder,
        objective,
        notes,
        plan.training,
        key=site_key(1, "public"),
        first_step=0,
        steps=steps,
        total_steps=steps,
    )
    with new_folder(folder) as scratch:
        encoder.save(scratch, 128, with_head=True)
    return folder


def run(name: str, plan: dict[str, Any], wish: Wish, out: Path) -> Table:
    display = Log(Console(stderr=True))
    path = out / name
    if (path / TABLE_FILE).exists():
        done = resume_table(path, display)
    else:
        file = out / f"{name}.toml"
        file.write_text(tomli_w.dumps(plan), encoding="utf-8")
        done = run_table(
            load_table(file), Wish(wish.notes, baselines=wish.baselines, out=path, public=wish.public), display
        )
    found = results(done)
    assert found is not None  # it has run
    return found


def say(title: str, table: Table) -> None:
    print(f"\n{title}: test notes of all sites, 16 labels a class")
    for cell in table.cells:
        for score in cell.scores:
            few = next((few for few in score.few_shot if few.shots == 16), None)
            if score.site == POOLED and score.mode == "frozen" and few:
                print(f"  {cell.arm:20s} seed {cell.seed}: {few.macro_f1.value:.3f}; all {score.macro_f1.value:.3f}")
    for d in table.differences:
        if d.site == POOLED and d.mode == "frozen" and d.shots == 16 and d.against_arm == "base":
            interval = f"[{d.difference.low or 0:+.3f}, {d.difference.high or 0:+.3f}]"
            print(f"  {d.arm:24s} minus its start: {d.difference.value:+.3f} {interval}, {d.verdict}, n = {d.n_test}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--notes", required=True)
    parser.add_argument("--public", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[1])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--public-steps", type=int, default=40)
    parser.add_argument("--arms", default="", help="by name, with commas; all where empty")
    settings = parser.parse_args()
    settings.out.mkdir(parents=True, exist_ok=True)
    public = NotesSource(source=str(Path(settings.public).resolve()))
    notes = NotesSource(
        source=str(Path(settings.notes).resolve()),
        columns=Columns(site="site", label="label", category="category", split="split"),
    )
    wish = Wish(notes=notes, public=public)
    wanted = settings.arms.split(",") if settings.arms else None
    for name, is_public in (("from-public", True), ("from-base", False)):
        chosen = [one for one in arms(is_public) if wanted is None or one["name"] in wanted]
        if chosen:
            base = str(public_model(settings, public).resolve()) if is_public else settings.base
            say(name, run(name, table(base, chosen, settings), wish, settings.out))


if __name__ == "__main__":
    main()
