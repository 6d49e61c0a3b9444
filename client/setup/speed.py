"""How long a step of a plan takes on this machine, measured on the site's own notes. Nothing of it leaves."""

import itertools
import os
import statistics
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from common.files import write_text
from common.plan import StudyPlan

SPEED_FILE = "speed.json"
_STEPS, _ENOUGH_SECONDS = 6, 30.0  # that are measured; the first is left out, for it warms up
_KEPT = 20


class Speed(BaseModel):
    """Times in seconds; `evaluate` is of one round's held-out loss. `memory` is the peak of the process in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    plan_hash: str
    study: str
    step: float
    evaluate: float
    memory: int
    device: str
    threads: int
    time: str
    version: str


class _Enough(Exception):
    """The steps that were measured suffice."""


def measure(folder: Path, plan: StudyPlan) -> Speed:
    """Train some steps of the plan and throw them away. Private training spends nothing here, for nothing leaves.

    Raises:
        FednotesError: what a round of the plan would raise.
    """
    import torch

    from client.app import Worker
    from client.dpsgd import Mechanism, train_privately
    from client.objectives import make_objective
    from client.site import open_site
    from client.training import held_out_loss, site_key, train, usable
    from client.units import units_of
    from common.privacy import sampling_rate

    site = open_site(folder)
    work = Worker(plan.encoder.base, plan.study.seed, plan.training.trainable, plan.training.lora_rank)
    notes = site.notes(work.encoder.tokenizer)
    objective = make_objective(plan, work.encoder.tokenizer, notes)
    objective.attach(work.encoder)
    times = [time.perf_counter()]
    key = site_key(plan.study.seed, site.name)

    def on_step(done: int, steps: int) -> None:
        times.append(time.perf_counter())
        if done > 1 and times[-1] - times[0] > _ENOUGH_SECONDS:
            raise _Enough

    spans = {"first_step": 0, "steps": _STEPS, "total_steps": _STEPS}
    try:
        if privacy := plan.privacy:
            units = units_of(notes, usable(objective, notes, "train"), privacy.unit)
            public = site.public_notes(work.encoder.tokenizer) if objective.needs_public_text else None
            mechanism = Mechanism(1.0, sampling_rate(plan.training.batch_size, len(units)), os.urandom(32))
            train_privately(
                work.encoder, objective, notes, public, units, plan.training, privacy, mechanism,
                on_step=on_step, **spans,
            )  # fmt: skip
        else:
            train(work.encoder, objective, notes, plan.training, key=key, on_step=on_step, **spans)
    except _Enough:
        pass
    started = time.perf_counter()
    held_out_loss(work.encoder, objective, notes, plan.training, key=key, most_notes=plan.evaluation.held_out_notes)
    gaps = [after - before for before, after in itertools.pairwise(times[1:])] or [times[-1] - times[0]]
    return Speed(
        plan_hash=plan.hash(),
        study=plan.study.name,
        step=statistics.mean(gaps),
        evaluate=time.perf_counter() - started,
        memory=_peak_memory(),
        device=next(work.encoder.model.parameters()).device.type,
        threads=torch.get_num_threads(),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        version=version("fednotes"),
    )


def keep_speed(folder: Path, speed: Speed) -> None:
    """Write it to `speed.json`, beside those of other plans."""
    others = [one for one in _kept(folder) if one.plan_hash != speed.plan_hash]
    kept = TypeAdapter(list[Speed]).dump_json([*others, speed][-_KEPT:], indent=2)
    write_text(folder / SPEED_FILE, kept.decode() + "\n")


def kept_speed(folder: Path, plan: StudyPlan) -> Speed | None:
    """What was measured of this very plan, if anything was."""
    return next((one for one in _kept(folder) if one.plan_hash == plan.hash()), None)


def _kept(folder: Path) -> list[Speed]:
    try:
        return TypeAdapter(list[Speed]).validate_json((folder / SPEED_FILE).read_bytes())
    except (OSError, ValidationError):
        return []  # it is measured again in a minute


def _peak_memory() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
