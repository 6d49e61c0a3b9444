"""What federation is compared with: each site alone, and all notes pooled in one place.

Both are a federation of one site, run by the same code. Local-only takes a site's own notes and steps; centralised
takes the notes of all sites, and as many steps a round as all sites together, so that it reads as many tokens as they.
"""

from pathlib import Path

import numpy as np

from client.alone import alone, site_steps
from client.app import app as client_app
from client.notes.store import NoteStore
from client.site import open_site
from common.messages import Tensors
from common.results import POOLED
from common.slug import slug
from server.app import app as server_app
from server.checkpoint import load_checkpoint
from server.run_folder import CHECKPOINTS
from simulations.engines import run_inprocess
from simulations.partition import write_site
from simulations.run_folder import Simulation


def local_only(run: Simulation, name: str, notes: NoteStore) -> Tensors:
    """Train at one site as if it were alone; returns its shared tensors. Resumes what was begun."""
    steps = site_steps(run.plan, notes)
    return _train_alone(
        run, run.path / "baselines" / f"local-only-{slug(name)}", name, run.sites[name], notes.rows, steps
    )


def centralised(run: Simulation, notes: dict[str, NoteStore]) -> Tensors:
    """Train on the notes of all sites in one place; returns the shared tensors. Resumes what was begun."""
    steps = sum(site_steps(run.plan, store) for store in notes.values())
    rows = np.sort(np.concatenate([store.rows for store in notes.values()]))
    any_site = next(iter(run.sites.values()))
    return _train_alone(run, run.path / "baselines" / "centralised", POOLED, any_site, rows, steps)


def _train_alone(run: Simulation, folder: Path, name: str, like: Path, rows: np.ndarray, steps: int) -> Tensors:
    plan = alone(run.plan, steps)
    config = open_site(like).config.model_copy(update={"name": name})
    baseline = Simulation(folder)
    write_site(folder / "site", config, rows)
    baseline.begin(plan, run.setup)
    run_inprocess(server_app, client_app, folder, [folder / "site"])
    kept = load_checkpoint(folder / CHECKPOINTS, plan.hash())
    assert kept is not None  # the run above ended without an error
    return kept[1]
