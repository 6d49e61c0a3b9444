"""The private step: DP-SGD over units (Abadi et al. 2016), proved for each objective in docs/privacy.md.

A step draws each unit with the same chance, clips the gradient of each one's own loss, adds them up, adds noise, and
divides by the expected number of units, never by how many it drew. A step that draws none is noise alone. What AdamW
makes of the result needs no further care. All of it computes in float32: in bfloat16 a unit's gradient would be rounded
by what else is in the batch.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from client.clipping import Clipper, make_clipper
from client.noise import SecretStream
from client.notes.store import NoteStore
from client.objectives import Objective
from client.training import Trained, make_optimiser, rate_factor
from client.units import Units
from common.encoder import Encoder
from common.plan_sections import Privacy, Training

# Of a unit's clipped vector, a tenth of the norm is for its count and a tenth for its loss: the gradient keeps .99.
_COUNT, _LOSS = 0.1, 0.1
_GRADIENT = math.sqrt(1 - _COUNT**2 - _LOSS**2)
_MOST_LOSS = 20.0  # nats: a larger loss counts as this


@dataclass(frozen=True)
class Mechanism:
    """What the ledger charged for: `noise_multiplier` is over the sensitivity, `rate` the chance of each unit."""

    noise_multiplier: float
    rate: float
    key: bytes  # secret, of this round alone


def sensitivity(objective: Objective, plan: Privacy) -> float:
    """How far a unit can move the sum of a step: the clipping norm, or twice that where units are clipped in groups."""
    return plan.max_grad_norm * (2 if objective.groups else 1)


def train_privately(
    encoder: Encoder,
    objective: Objective,
    notes: NoteStore,
    public: NoteStore | None,
    units: Units,
    plan: Training,
    privacy: Privacy,
    mechanism: Mechanism,
    *,
    first_step: int,
    steps: int,
    total_steps: int,
    proximal_mu: float = 0.0,
    on_step: Callable[[int, int], None] | None = None,
) -> Trained:
    """Train in place on the units, for steps [first_step, first_step + steps) of `total_steps`.

    Args:
        public: text that is no secret, for objectives that compare with it.
        on_step: called after each step with (steps done, steps of the round).

    Returns:
        What was trained. `loss` has noise, and is NaN where the plan does not release it or the noise drowned it;
        `tokens` is 0.

    Raises:
        InputError: `clipping-unsupported`; `no-public-text`.
    """
    device = next(encoder.model.parameters()).device
    head = "" if objective.reads_mlm_head else encoder.model.base_model_prefix + "."
    tensors = {
        name: p for name, p in encoder.tensors().items() if name.startswith((head, "category_head.") if head else "")
    }
    start = [p.detach().clone() for p in tensors.values()] if proximal_mu else []
    encoder.model.eval()  # no dropout: the noise is enough
    coins = np.random.default_rng(SecretStream(mechanism.key, "round").integers(4))
    objective.begin_round(encoder, public, coins)
    optimiser = make_optimiser(encoder, plan, device)
    optimiser.zero_grad()  # of a round before that failed: of notes, and without noise
    bound = privacy.max_grad_norm * (_GRADIENT if privacy.release_loss else 1.0)
    spread = mechanism.noise_multiplier * sensitivity(objective, privacy)
    expected = mechanism.rate * len(units)
    told = np.zeros(2)  # noised sums of the counts and of the losses
    with make_clipper(privacy.engine, encoder, tensors, bound) as clipper:
        for done, step in enumerate(range(first_step, first_step + steps), 1):
            clipper.clear()
            exact = _sum_units(clipper, objective, notes, units, privacy, mechanism, step)
            noise = SecretStream(mechanism.key, "noise", step)
            for name, p in tensors.items():
                added = noise.normal(p.numel()).view(p.shape).mul_(spread).to(device)
                p.grad = clipper.sums[name].add(added).div_(expected)
            if privacy.release_loss:
                told += exact * privacy.max_grad_norm + spread * noise.normal(2).numpy()
            for group in optimiser.param_groups:
                group["lr"] = plan.learning_rate * rate_factor(step, total_steps, plan)
            if proximal_mu:
                for p, p0 in zip(tensors.values(), start, strict=True):
                    assert p.grad is not None  # just given
                    p.grad.add_(p.detach() - p0, alpha=proximal_mu)
            optimiser.step()
            optimiser.zero_grad()
            if on_step:
                on_step(done, steps)
    count, loss = told / privacy.max_grad_norm
    return Trained(steps, 0, float(loss / _LOSS * _MOST_LOSS / (count / _COUNT)) if count > 0 < loss else math.nan)


def _sum_units(
    clipper: Clipper,
    objective: Objective,
    notes: NoteStore,
    units: Units,
    privacy: Privacy,
    mechanism: Mechanism,
    step: int,
) -> np.ndarray:
    """Add a step's clipped gradients to the clipper's sums; returns the sums of the counts and of the losses, each as
    the share of the clipped vector that it has."""
    key = mechanism.key
    common = SecretStream(key, "step", step).integers(4)
    objective.begin_step(np.random.default_rng(common))
    drawn = units.draw(mechanism.rate, key, step)
    # A unit's own random numbers rest on its place alone: with it gone, those of the others are the same.
    seeds = SecretStream(key, "coins", step).integers(len(units))
    chosen: list[tuple[np.ndarray, np.random.Generator]] = []
    grouped: dict[int, list[np.ndarray]] = {}
    groups = max(1, round(mechanism.rate * len(units) / privacy.group_size))
    for unit in drawn.tolist():
        rng = np.random.default_rng(seeds[unit])
        label = int(rng.integers(groups))
        mine = units.notes(unit, privacy.notes_per_unit, rng)
        if len(mine) and objective.groups:
            grouped.setdefault(label, []).append(mine)
        elif len(mine):
            chosen.append((mine, rng))
    for label, members in sorted(grouped.items()):
        chosen.append((np.concatenate(members), np.random.default_rng([*common, label])))
    chosen.sort(key=lambda one: -int(notes.lengths[one[0]].max()))  # so that little is padded
    at_once = min(clipper.units_at_once, objective.units_at_once or clipper.units_at_once)
    told = np.zeros(2)
    device = next(iter(clipper.sums.values())).device
    for first in range(0, len(chosen), at_once):
        part = chosen[first : first + at_once]
        batch = objective.collate_units(
            [[objective.read(notes, i) for i in mine.tolist()] for mine, _ in part], [rng for _, rng in part]
        ).to(device)
        losses = clipper.add(functools.partial(objective.unit_losses, clipper.encoder, batch), len(part))
        mean = (losses / batch.tensors["notes"]).double().nan_to_num(_MOST_LOSS).clamp(0, _MOST_LOSS)
        told += [_COUNT * len(part), _LOSS * float((mean / _MOST_LOSS).sum())]
    return told
