"""What the tests of private training share: encoders in double precision, units of notes, and each objective under a
private plan."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from client.clipping import Clipper, Losses, make_clipper
from client.notes.store import NoteStore
from client.objectives import Objective, TokenisedNote, make_objective
from common.encoder import Encoder, load_encoder
from common.plan import StudyPlan
from common.trainable import train_only

CATEGORIES = ["nursing", "progress", "radiology"]
OBJECTIVES: dict[str, dict[str, Any]] = {
    "mlm": {"kind": "mlm"},
    "mlm-words": {"kind": "mlm", "whole_word": True},
    "declutr": {"kind": "declutr", "min_span": 3, "max_span": 12},
    "declutr-plain": {"kind": "declutr", "min_span": 3, "max_span": 12, "masked": False, "anchors": 1, "positives": 3},
    "declutr-alone": {"kind": "declutr", "min_span": 3, "max_span": 12, "mlm_weight": 0.0},
    "declutr-groups": {"kind": "declutr", "min_span": 3, "max_span": 12},
    "category": {"kind": "note-category", "categories": CATEGORIES, "weight": 1.0},
    "category-plain": {"kind": "note-category", "categories": CATEGORIES, "weight": 1.0, "masked": False},
    "prototypes": {"kind": "note-category", "categories": CATEGORIES, "weight": 1.0, "loss": "prototypes"},
}
PATTERNS = ("all", "no-embeddings", "biases", "lora")


def private_plan(objective: str, base: str, trainable: str = "all", **privacy: Any) -> StudyPlan:
    settings = {"noise_multiplier": 1.0} | privacy
    if objective.endswith("groups"):
        settings["negatives"] = "groups"
    return StudyPlan.model_validate(
        {
            "study": {"name": "private", "seed": 3},
            "encoder": {"base": base, "max_length": 32},
            "objective": OBJECTIVES[objective],
            "training": {
                "steps_per_round": 2,
                "batch_size": 4,
                "learning_rate": 1e-3,
                "precision": "float32",
                "trainable": trainable,
            },
            "privacy": settings,
        }
    )


@dataclass
class Bench:
    """An objective with its encoder, ready for private steps in double precision."""

    plan: StudyPlan
    encoder: Encoder
    objective: Objective
    tensors: dict[str, torch.nn.Parameter]

    def losses(self, units: Sequence[Sequence[TokenisedNote]], seeds: Sequence[int]) -> Losses:
        rngs = [np.random.default_rng([11, seed]) for seed in seeds]
        batch = self.objective.collate_units(units, rngs)
        return lambda owned: self.objective.unit_losses(self.encoder, batch, owned)

    def clipped(
        self, engine: Any, units: Sequence[Sequence[TokenisedNote]], bound: float, seeds: Sequence[int] | None = None
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """The clipped sums of the units' gradients, and their losses."""
        seeds = range(len(units)) if seeds is None else seeds
        clipper: Clipper = make_clipper(engine, self.encoder, self.tensors, bound)
        at_once = min(clipper.units_at_once, self.objective.units_at_once or len(units))
        losses = []
        with clipper:
            for first in range(0, len(units), at_once):
                part, own = units[first : first + at_once], seeds[first : first + at_once]
                losses.append(clipper.add(self.losses(part, own), len(part)))
        return {name: total.clone() for name, total in clipper.sums.items()}, torch.cat(losses)


def bench(objective: str, base: str, notes: NoteStore, trainable: str = "all", **privacy: Any) -> Bench:
    plan = private_plan(objective, base, trainable, **privacy)
    encoder = load_encoder(base)
    train_only(encoder, plan.training.trainable, plan.training.lora_rank, plan.study.seed)
    made = make_objective(plan, encoder.tokenizer, notes)
    made.attach(encoder)
    encoder.model.double().eval()
    if encoder.category_head:
        encoder.category_head.double()
        with torch.no_grad():  # a head of zeros passes no gradient on to the encoder
            for p in encoder.category_head.parameters():
                p.normal_(std=0.5, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():  # nor does an adapter whose second matrix is zero pass one to its first
        for name, p in encoder.tensors().items():
            if "lora_B" in name:
                p.normal_(std=0.1, generator=torch.Generator().manual_seed(6))
    rng = np.random.default_rng(2)
    made.begin_round(encoder, notes, rng)
    made.begin_step(rng)
    head = "" if made.reads_mlm_head else encoder.model.base_model_prefix + "."
    tensors = {name: p for name, p in encoder.tensors().items() if name.startswith(head)}
    return Bench(plan, encoder, made, tensors)


def units_of_notes(sizes: Sequence[Sequence[int]]) -> list[list[TokenisedNote]]:
    """Units of random notes of so many tokens each; every one has a category of its own choice."""
    rng = np.random.default_rng(4)
    return [
        [
            TokenisedNote(
                rng.integers(5, 390, n), rng.random(n) < 0.7, category=[*CATEGORIES, None][int(rng.integers(4))]
            )
            for n in unit
        ]
        for unit in sizes
    ]


def norm(tensors: dict[str, torch.Tensor]) -> float:
    return float(torch.linalg.vector_norm(torch.cat([t.flatten() for t in tensors.values()])))


Make = Callable[..., Bench]
