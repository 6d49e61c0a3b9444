"""The local loop: steps of AdamW on a site's notes, within a schedule that spans the whole study.

Everything random is drawn from a key of (study seed, site, step), never from a state that is carried along, so that a
round gives the same weights whether it follows another in the same process or a restart. The optimiser's moments start
anew each round: they would be the moments of weights that the average has since replaced.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from client.batching import Batches
from client.device import autocast, training_attention
from client.notes.store import NoteStore
from client.objectives import Objective, TokenisedNote
from common.encoder import Encoder
from common.plan import Training

_ORDER, _MASKS, _DROPOUT, _HELD_OUT = range(4)  # streams of random numbers
_HELD_OUT_BATCH = 32


@dataclass(frozen=True)
class Trained:
    """What a round of local training did; `loss` is the mean over predicted tokens, in nats."""

    steps: int
    tokens: int
    loss: float


def site_key(seed: int, site: str) -> tuple[int, int]:
    """Integers that key a site's random streams. The name is hashed: the order of sites does not matter."""
    return seed, int.from_bytes(hashlib.sha256(site.encode()).digest()[:8], "big")


def round_steps(plan: Training, notes: int) -> int:
    """Steps of one round at a site with so many training notes."""
    if plan.steps_per_round is not None:
        return plan.steps_per_round
    assert plan.epochs_per_round is not None  # the plan fills it in
    return max(1, math.ceil(plan.epochs_per_round * notes / plan.batch_size))


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
    max_length: int,
    proximal_mu: float = 0.0,
    on_step: Callable[[int, int], None] | None = None,
) -> Trained:
    """Train in place on the store's training notes, for steps [first_step, first_step + steps) of `total_steps`.

    Args:
        proximal_mu: FedProx (Li et al. 2020): adds mu/2 ||w - w_start||^2 to each step's loss.
        on_step: called after each step with (steps done, steps of the round).
    """
    device = next(encoder.model.parameters()).device
    rows = notes.split_indices("train")
    batches = Batches(np.minimum(notes.lengths[rows], max_length - 2), plan.batch_size, (*key, _ORDER))
    parameters = list(encoder.tensors().values())
    start = [p.detach().clone() for p in parameters] if proximal_mu else []
    optimiser = make_optimiser(encoder, plan, device)
    encoder.model.train()
    loss_sum = torch.zeros((), dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)
    terms = tokens = 0
    rng_of = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=rng_of), training_attention(encoder, device, plan.precision):
        for done, step in enumerate(range(first_step, first_step + steps), 1):
            torch.manual_seed(int(np.random.SeedSequence([*key, _DROPOUT, step]).generate_state(1, np.uint64)[0]))
            batch = objective.collate(
                [tokenised(notes, i) for i in rows[batches.at(step)]], np.random.default_rng([*key, _MASKS, step])
            )
            for group in optimiser.param_groups:
                group["lr"] = plan.learning_rate * rate_factor(step, total_steps, plan)
            with autocast(device, plan.precision):
                total, count = objective.loss(encoder, batch.to(device))
            (total / count).backward()
            if proximal_mu:
                for p, p0 in zip(parameters, start, strict=True):
                    if p.grad is not None:
                        p.grad.add_(p.detach() - p0, alpha=proximal_mu)
            torch.nn.utils.clip_grad_norm_(parameters, plan.max_grad_norm)
            optimiser.step()
            optimiser.zero_grad()
            loss_sum += total.detach()
            terms, tokens = terms + count, tokens + batch.tokens
            if on_step:
                on_step(done, steps)
    return Trained(steps, tokens, float(loss_sum) / terms)


def held_out_loss(
    encoder: Encoder, objective: Objective, notes: NoteStore, plan: Training, *, key: tuple[int, int], most_notes: int
) -> tuple[float, int, int]:
    """Loss, notes and tokens on dev notes, the same notes and masks whenever it is asked; NaN where there are none."""
    device = next(encoder.model.parameters()).device
    rows = notes.split_indices("dev")
    rows = np.random.default_rng([*key, _HELD_OUT]).permutation(rows)[:most_notes]
    rows = rows[np.argsort(notes.lengths[rows], kind="stable")]
    encoder.model.eval()
    loss_sum, terms, tokens = 0.0, 0, 0
    for start in range(0, len(rows), _HELD_OUT_BATCH):
        batch = objective.collate(
            [tokenised(notes, i) for i in rows[start : start + _HELD_OUT_BATCH]],
            np.random.default_rng([*key, _HELD_OUT, start]),
            cut=True,
        )
        with torch.inference_mode(), autocast(device, plan.precision):
            total, count = objective.loss(encoder, batch.to(device))
        loss_sum, terms, tokens = loss_sum + float(total), terms + count, tokens + batch.tokens
    return (loss_sum / terms if terms else math.nan), len(rows), tokens


def tokenised(notes: NoteStore, index: int) -> TokenisedNote:
    return TokenisedNote(notes.tokens(index), notes.word_starts(index))


def make_optimiser(encoder: Encoder, plan: Training, device: torch.device) -> torch.optim.AdamW:
    """AdamW with decoupled decay on matrices only: none on biases and normalisation weights, which are vectors."""
    parameters = list(encoder.tensors().values())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": plan.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.learning_rate, fused=device.type in ("cpu", "cuda"))
