"""The local loop: steps of AdamW on a site's notes, within a schedule that spans the whole study.

Everything random is drawn from a key of (study seed, site, step), never from a state that is carried along, so that a
round gives the same weights whether it follows another in the same process or a restart. The optimiser's moments start
anew each round: they would be the moments of weights that the average has since replaced.
"""

import functools
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from client.device import autocast, training_attention
from client.notes.store import NoteStore
from client.objectives import Loss, Objective
from common.encoder import Encoder
from common.errors import FednotesError
from common.plan_sections import Training

_ORDER, _MASKS, _DROPOUT, _HELD_OUT = range(4)  # streams of random numbers
_HELD_OUT_BATCH = 32


@dataclass(frozen=True)
class Trained:
    """What a round of local training did. `loss` is the mean over the objective's terms, in nats; `parts` likewise."""

    steps: int
    tokens: int
    loss: float
    parts: dict[str, float] = field(default_factory=dict)


class Mean:
    """The mean of the losses of some batches, summed where they are computed: asking for each would wait for it."""

    def __init__(self, device: torch.device) -> None:
        self._type = torch.float64 if device.type == "cpu" else torch.float32
        self._sums: dict[str, torch.Tensor] = {}
        self._terms: dict[str, int] = {}

    def add(self, loss: Loss) -> None:
        self._one("", loss.mean.detach() * loss.terms, loss.terms)
        for name, (total, terms) in loss.parts.items():
            self._one(name, total, terms)

    def _one(self, name: str, total: torch.Tensor, terms: int) -> None:
        self._sums[name] = self._sums.get(name, 0) + total.to(self._type)
        self._terms[name] = self._terms.get(name, 0) + terms

    def means(self) -> tuple[float, dict[str, float]]:
        """The loss and its parts; NaN where there were no batches."""
        means = {name: float(total) / self._terms[name] for name, total in self._sums.items()}
        return means.pop("", math.nan), means


def site_key(seed: int, site: str) -> tuple[int, int]:
    """Integers that key a site's random streams. The name is hashed: the order of sites does not matter."""
    return seed, int.from_bytes(hashlib.sha256(site.encode()).digest()[:8], "big")


def rate_factor(step: int, total: int, plan: Training) -> float:
    """Share of the peak learning rate at `step` of `total`: linear warm-up, then the plan's decay towards 0."""
    warmup = round(plan.warmup_fraction * total)
    if step < warmup:
        return (step + 1) / warmup
    if plan.schedule == "constant":
        return 1.0
    left = (total - step) / max(1, total - warmup)
    return left if plan.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))


def train(
    encoder: Encoder,
    objective: Objective,
    notes: NoteStore,
    plan: Training,
    *,
    key: tuple[int, int],
    first_step: int,
    steps: int,
    total_steps: int,
    proximal_mu: float = 0.0,
    on_step: Callable[[int, int], None] | None = None,
) -> Trained:
    """Train in place on the store's training notes, for steps [first_step, first_step + steps) of `total_steps`; fewer
    where the plan's `seconds_per_round` are over, but one at least.

    Args:
        proximal_mu: FedProx (Li et al. 2020): adds mu/2 ||w - w_start||^2 to each step's loss.
        on_step: called after each step with (steps done, steps of the round).
    """
    began, device = time.monotonic(), next(encoder.model.parameters()).device
    rows = usable(objective, notes, "train")
    batches = objective.batches(notes, rows, plan.batch_size, (*key, _ORDER))
    parameters = list(encoder.tensors().values())
    start = [p.detach().clone() for p in parameters] if proximal_mu else []
    optimiser = make_optimiser(encoder, plan, device)
    optimiser.zero_grad()  # of a round before that failed
    encoder.model.train()
    mean, tokens, done = Mean(device), 0, 0
    compute = functools.partial(autocast, device, plan.precision)
    rng_of = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=rng_of), training_attention(encoder, device, plan.precision):
        for done, step in enumerate(range(first_step, first_step + steps), 1):
            torch.manual_seed(int(np.random.SeedSequence([*key, _DROPOUT, step]).generate_state(1, np.uint64)[0]))
            batch = objective.collate(
                [objective.read(notes, i) for i in rows[batches.at(step)]], np.random.default_rng([*key, _MASKS, step])
            )
            for group in optimiser.param_groups:
                group["lr"] = plan.learning_rate * rate_factor(step, total_steps, plan)
            mean.add(objective.backward(encoder, batch.to(device), compute))
            if proximal_mu:
                for p, p0 in zip(parameters, start, strict=True):
                    if p.grad is not None:
                        p.grad.add_(p.detach() - p0, alpha=proximal_mu)
            torch.nn.utils.clip_grad_norm_(parameters, plan.max_grad_norm)
            optimiser.step()
            optimiser.zero_grad()
            tokens += batch.tokens
            if on_step:
                on_step(done, steps)
            if plan.seconds_per_round is not None and time.monotonic() - began >= plan.seconds_per_round:
                break
    return Trained(done, tokens, *mean.means())


@dataclass(frozen=True)
class Measured:
    """A loss on held-out notes; NaN where there were none to measure it on."""

    loss: float
    notes: int
    tokens: int
    parts: dict[str, float]


def held_out_rows(notes: NoteStore, rows: np.ndarray, key: tuple[int, int], most: int) -> np.ndarray:
    """At most so many of some notes, the same whenever it is asked, the shortest first."""
    rows = np.random.default_rng([*key, _HELD_OUT]).permutation(rows)[:most]
    return rows[np.argsort(notes.lengths[rows], kind="stable")]


def held_out_loss(
    encoder: Encoder, objective: Objective, notes: NoteStore, plan: Training, *, key: tuple[int, int], most_notes: int
) -> Measured:
    """The loss on dev notes, with the same notes, masks and spans whenever it is asked."""
    device = next(encoder.model.parameters()).device
    rows = held_out_rows(notes, usable(objective, notes, "dev"), key, most_notes)
    encoder.model.eval()
    mean, tokens = Mean(device), 0
    for start in range(0, len(rows), _HELD_OUT_BATCH):
        batch = objective.collate(
            [objective.read(notes, i) for i in rows[start : start + _HELD_OUT_BATCH]],
            np.random.default_rng([*key, _HELD_OUT, start]),
            cut=True,
        )
        with torch.inference_mode(), autocast(device, plan.precision):
            mean.add(objective.loss(encoder, batch.to(device)))
        tokens += batch.tokens
    loss, parts = mean.means()
    return Measured(loss, len(rows), tokens, parts)


def usable(objective: Objective, notes: NoteStore, split: str) -> np.ndarray:
    """The notes of a split that the objective can use."""
    rows = notes.split_indices(split)
    return rows[objective.usage(notes.lengths[rows]).used]


def check_finite(encoder: Encoder) -> None:
    """Raises FednotesError `diverged`."""
    if not all(math.isfinite(float(p.detach().sum())) for p in encoder.tensors().values()):
        raise FednotesError("diverged", "Training gave NaN or infinity.", "Lower training.learning_rate.")


def make_optimiser(encoder: Encoder, plan: Training, device: torch.device) -> torch.optim.AdamW:
    """AdamW with decoupled decay on matrices only: none on biases and normalisation weights, which are vectors."""
    parameters = list(encoder.tensors().values())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": plan.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.learning_rate, fused=device.type in ("cpu", "cuda"))
