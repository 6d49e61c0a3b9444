"""What federation is compared with: each site alone, and all notes pooled in one place.

Both are a federation of one site, run by the same code. Local-only takes a site's own notes and steps; centralised
takes the notes of all sites, and as many steps a round as all sites together, so that it reads as many tokens as they.
"""

from pathlib import Path

import numpy as np

from client.app import app as client_app
from client.notes.store import NoteStore
from client.objectives.usage import round_steps
from client.site import open_site
from client.units import count_units
from common.messages import Tensors
from common.plan import StudyPlan
from common.privacy import steps_per_round
from common.results import POOLED
from server.app import CHECKPOINTS
from server.app import app as server_app
from server.checkpoint import load_checkpoint
from simulations.engines import run_inprocess
from simulations.partition import slug, write_site
from simulations.run_folder import RunFolder


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


def local_only(run: RunFolder, name: str, notes: NoteStore) -> Tensors:
    """Train at one site as if it were alone; returns its shared tensors. Resumes what was begun."""
    steps = site_steps(run.plan, notes)
    return _train_alone(
        run, run.path / "baselines" / f"local-only-{slug(name)}", name, run.sites[name], notes.rows, steps
    )


def centralised(run: RunFolder, notes: dict[str, NoteStore]) -> Tensors:
    """Train on the notes of all sites in one place; returns the shared tensors. Resumes what was begun."""
    steps = sum(site_steps(run.plan, store) for store in notes.values())
    rows = np.sort(np.concatenate([store.rows for store in notes.values()]))
    any_site = next(iter(run.sites.values()))
    return _train_alone(run, run.path / "baselines" / "centralised", POOLED, any_site, rows, steps)


def _train_alone(run: RunFolder, folder: Path, name: str, like: Path, rows: np.ndarray, steps: int) -> Tensors:
    plan = alone(run.plan, steps)
    config = open_site(like).config.model_copy(update={"name": name})
    baseline = RunFolder(folder)
    write_site(folder / "site", config, rows)
    baseline.begin(plan, run.setup)
    run_inprocess(server_app, client_app, folder, [folder / "site"])
    kept = load_checkpoint(folder / CHECKPOINTS, plan.hash())
    assert kept is not None  # the run above ended without an error
    return kept[1]
