"""What the tests of private training share: encoders, units of notes, each objective under a private plan, and what a
private step sums and hands on."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from client.clipping import Clipper, Losses, make_clipper
from client.dpsgd import _GRADIENT, Mechanism, _sum_units, train_privately
from client.notes.source import NotesSource
from client.notes.store import NoteStore, prepare
from client.objectives import Objective, TokenisedNote, make_objective
from client.training import Trained, usable
from client.units import Units, units_of
from common.encoder import Encoder, load_encoder
from common.plan import StudyPlan
from common.plan_sections import Privacy
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
UNGROUPED = [name for name in OBJECTIVES if not name.endswith("groups")]
# Of `adversarial_notes`, by their places.
SHORT, IDENTICAL, LONG, RARE, MANY, FIRST_ORDINARY = 0, 24, 32, 33, 34, 35
RARE_WORDS = "zyzzyva qoph xylyl jynx ovolo phlox crwth vug adze ytterbium kvetch oxyphenbutazone"
Tensors = dict[str, torch.Tensor]


def key_of(*names: object) -> bytes:
    """A key that is no secret, so that a test is the same every time."""
    return hashlib.sha256("/".join(map(str, names)).encode()).digest()


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
    """An objective with its encoder, ready for private steps."""

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

    @property
    def privacy(self) -> Privacy:
        assert self.plan.privacy is not None
        return self.plan.privacy

    def units(self, notes: NoteStore) -> Units:
        return units_of(notes, usable(self.objective, notes, "train"), self.privacy.unit)

    def exact(
        self, notes: NoteStore, units: Units, key: bytes, *, rate: float = 1.0, step: int = 0, **privacy: Any
    ) -> tuple[Tensors, np.ndarray]:
        """What a step sums before there is noise: clipped gradients, and counts and losses as shares of the vector."""
        terms = self.privacy.model_copy(update=privacy)
        bound = terms.max_grad_norm * (_GRADIENT if terms.release_loss else 1.0)
        with make_clipper(terms.engine, self.encoder, self.tensors, bound) as clipper:
            told = _sum_units(clipper, self.objective, notes, units, terms, Mechanism(1.0, rate, key), step)
        return clipper.sums, told

    def round(
        self,
        notes: NoteStore,
        units: Units,
        key: bytes,
        *,
        noise: float = 1.0,
        rate: float = 1.0,
        steps: int = 1,
        learning_rate: float | None = None,
        proximal_mu: float = 0.0,
        on_step: Callable[[int, int], None] | None = None,
        public: NoteStore | Literal["the notes"] | None = "the notes",
        **privacy: Any,
    ) -> tuple[Trained, list[Tensors]]:
        """Train privately; returns also what each step handed the optimiser."""
        plan = self.plan.training
        if learning_rate is not None:
            plan = plan.model_copy(update={"learning_rate": learning_rate})
        with handed_on(self.encoder.tensors()) as handed:
            trained = train_privately(
                self.encoder,
                self.objective,
                notes,
                notes if public == "the notes" else public,
                units,
                plan,
                self.privacy.model_copy(update=privacy),
                Mechanism(noise, rate, key),
                first_step=0,
                steps=steps,
                total_steps=steps,
                proximal_mu=proximal_mu,
                on_step=on_step,
            )
        return trained, handed


@contextlib.contextmanager
def handed_on(tensors: Mapping[str, torch.nn.Parameter]) -> Iterator[list[Tensors]]:
    """The gradients that each step of any optimiser gets, by tensor: all that leaves a site is made of these."""
    names = {id(p): name for name, p in tensors.items()}
    steps: list[Tensors] = []

    def take(optimiser: torch.optim.Optimizer, *_: object) -> None:
        given = [p for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
        steps.append({names[id(p)]: p.grad.clone() for p in given})

    handle = register_optimizer_step_pre_hook(take)
    try:
        yield steps
    finally:
        handle.remove()


def without(units: Units, *gone: int) -> Units:
    """The same units, of which some have nothing."""
    return Units([members[:0] if u in gone else members for u, members in enumerate(units.members)])


def only(units: Units, *left: int) -> Units:
    return without(units, *(set(range(len(units))) - set(left)))


def flat(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensors[name].detach().flatten() for name in sorted(tensors)])


def store_of(folder: Path, encoder: Encoder, notes: Sequence[Mapping[str, str | None]]) -> NoteStore:
    """A store of notes that are given, all of them for training."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "notes.jsonl"
    file.write_text("".join(json.dumps(note) + "\n" for note in notes), encoding="utf-8")
    store = prepare(NotesSource(source=str(file)), encoder.tokenizer, b"key of the split", folder / "cache")
    return store.with_columns(split=np.array(["train"] * len(store), dtype=object))


def adversarial_notes(texts: list[str]) -> list[Mapping[str, str | None]]:
    """Units of one word, all alike; units of one text, all alike; one very long, one of rare tokens and an unknown
    one, one of many notes; and a few like any others, with no patient."""
    units: list[list[str]] = [
        *[["pain"]] * 24,
        *[[" ".join(["pain"] * 30)]] * 8,
        [" ".join(texts[:6])],
        [RARE_WORDS.replace(" ", " ☃ ")],
        [" ".join(text.split()[:30]) for text in texts[20:29]],
        *[[" ".join(text.split()[:30])] for text in texts[40:44]],
    ]
    return [
        {
            "text": text,
            "patient": f"p{number}" if number < FIRST_ORDINARY else None,
            "category": CATEGORIES[number % 3] if number % 4 else None,
        }
        for number, unit in enumerate(units)
        for text in unit
    ]


def bench(
    objective: str,
    base: str,
    notes: NoteStore,
    trainable: str = "all",
    dtype: torch.dtype = torch.float64,
    **privacy: Any,
) -> Bench:
    plan = private_plan(objective, base, trainable, **privacy)
    encoder = load_encoder(base)
    train_only(encoder, plan.training.trainable, plan.training.lora_rank, plan.study.seed)
    made = make_objective(plan, encoder.tokenizer, notes)
    made.attach(encoder)
    encoder.model.to(dtype).eval()
    if encoder.category_head:
        encoder.category_head.to(dtype)
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
