"""What federation is compared with: a site that trains alone, on its own notes, with the plan and the steps of a study.

The weights never leave, so it needs no differential privacy and spends nothing of it.
"""

import hashlib
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from client.app import Worker
from client.notes.store import NoteStore
from client.objectives import make_objective
from client.objectives.usage import round_steps
from client.training import check_finite, site_key, train
from client.units import count_units
from common.files import new_file
from common.messages import Tensors
from common.plan import StudyPlan
from common.privacy import steps_per_round


def alone(plan: StudyPlan, steps: int) -> StudyPlan:
    """The same plan for a federation of one that makes `steps` steps a round."""
    measures = {"steps_per_round": steps, "tokens_per_round": None, "epochs_per_round": None}
    training = plan.training.model_copy(update=measures)
    federation = plan.federation.model_copy(
        update={
            "strategy": "fedavg",
            "min_sites": 1,
            "max_update_norm": None,
            "proximal_mu": None,
            "server_learning_rate": None,
            "server_momentum": None,
            "trim_fraction": None,
        }
    )
    return plan.model_copy(update={"training": training, "federation": federation, "hospital_privacy": None})


def site_steps(plan: StudyPlan, notes: NoteStore) -> int:
    """Steps of one round at a site."""
    if plan.privacy:
        return steps_per_round(plan.training, count_units(notes, plan.privacy.unit))
    return round_steps(plan, notes.lengths[notes.split_indices("train")])


def train_alone(
    plan: StudyPlan,
    site: str,
    notes: NoteStore,
    folder: Path,
    on_round: Callable[[int, int], None],
    on_step: Callable[[int, int], None] = lambda done, steps: None,
) -> Tensors:
    """The shared tensors of a site that trained alone, without noise. What was begun in `folder` goes on.

    Args:
        on_round: called after each round with (rounds done, rounds).
        on_step: called after each step with (steps done, steps of all rounds).

    Raises:
        FednotesError: `diverged`, or as `make_objective`.
    """
    plan = alone(plan, steps := site_steps(plan, notes))
    training = plan.training.model_copy(update={"seconds_per_round": None})
    plan = plan.model_copy(update={"privacy": None, "training": training})
    work = Worker(plan.encoder.base, plan.study.seed, plan.training.trainable, plan.training.lora_rank)
    objective = make_objective(plan, work.encoder.tokenizer, notes)
    objective.attach(work.encoder)
    said = json.dumps([plan.hash(), site, notes.digest, hashlib.sha256(notes.rows.tobytes()).hexdigest()])
    name = hashlib.sha256(f"{version('fednotes')} {said}".encode()).hexdigest()[:16]
    kept = folder / f"alone-{name}.safetensors"
    rounds = plan.federation.rounds
    for number in range(_begun(kept, work) + 1, rounds + 1):
        before = (number - 1) * steps
        train(
            work.encoder,
            objective,
            notes,
            plan.training,
            key=site_key(plan.study.seed, site),
            first_step=before,
            steps=steps,
            total_steps=rounds * steps,
            on_step=lambda done, _, before=before: on_step(before + done, rounds * steps),  # type: ignore[misc]
        )
        check_finite(work.encoder)
        tensors = {key: p.detach().cpu().contiguous() for key, p in work.encoder.tensors().items()}
        with new_file(kept) as scratch:
            save_file(tensors, scratch, metadata={"round": str(number)})
        on_round(number, rounds)
    return {key: value.copy() for key, value in work.encoder.shared_arrays(plan.federation.share).items()}


def _begun(kept: Path, work: Worker) -> int:
    """Load what was trained before; returns its rounds."""
    try:
        with safe_open(kept, "pt") as opened:
            tensors: dict[str, torch.Tensor] = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            number = int((opened.metadata() or {})["round"])
        work.encoder.load(tensors)
    except (OSError, SafetensorError, KeyError, ValueError):
        return 0
    return number
