"""Train one cell of the table: an arm in a setting, from one seed. It is a study of its own, resumed where it stood."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client.alone import alone, site_steps
from client.app import app as client_app
from client.notes.store import NoteStore
from client.site import open_site, site_facts
from common.errors import StudyError
from common.files import new_folder
from common.messages import Tensors
from common.plan import StudyPlan
from common.results import POOLED
from common.slug import slug
from common.table import Consumed, Setting
from common.trainable import plain_tensors
from server.app import app as server_app
from server.checkpoint import load_checkpoint
from server.display import Display
from server.run_folder import CHECKPOINTS
from simulations.engines import run_inprocess
from simulations.partition import write_site
from simulations.run_folder import Simulation
from simulations.scoring import scoring_encoder
from simulations.table.plan import ArmSection, TablePlan

STUDIES = "studies"  # of a cell, while it is trained


@dataclass(frozen=True)
class Place:
    """Where the results of a cell are kept."""

    root: Path
    arm: str
    setting: Setting
    seed: int

    @property
    def folder(self) -> Path:
        return self.root / "cells" / self.arm / slug(self.setting) / f"seed-{self.seed}"

    def model(self, site: str) -> Path:
        """The trained encoder, kept where another arm starts from it."""
        return self.folder / "models" / slug(site)


@dataclass(frozen=True)
class Model:
    """What was trained: shared tensors by site, or one entry under `POOLED` for all sites; and what it took."""

    tensors: dict[str, Tensors]
    consumed: Consumed


def train_cell(
    run: Simulation, table: TablePlan, arm: ArmSection, place: Place, notes: dict[str, NoteStore], display: Display
) -> Model:
    """Train the models of a cell, or take up what was begun; a site that cannot train alone has none.

    Raises:
        StudyError: a study stops.
    """
    groups = {name: [name] for name in notes} if place.setting == "local-only" else {POOLED: list(notes)}
    tensors: dict[str, Tensors] = {}
    consumed = Consumed()
    for owner, members in groups.items():
        base = Place(run.path, arm.start, place.setting, place.seed).model(owner) if arm.start else None
        if base is not None and not base.exists():
            continue  # the site could not train alone there either
        plan = table.plan(arm, place.seed, str(base) if base else None)
        stores = {name: notes[name] for name in members}
        try:
            tensors[owner], took = _study(run, place, plan, owner, stores, display)
        except StudyError as error:
            # A site that lacks what the objective needs has no model of its own; the others have theirs.
            if place.setting != "local-only" or error.code != "too-few-sites":
                raise
            continue
        consumed = Consumed(**{key: getattr(consumed, key) + getattr(took, key) for key in Consumed.model_fields})
        if any(other.start == arm.name for other in table.arms) and not place.model(owner).exists():
            encoder = scoring_encoder(plan)
            encoder.load(tensors[owner])
            with new_folder(place.model(owner)) as scratch:
                encoder.save(scratch, plan.encoder.max_length, plan.federation.share == "encoder+mlm-head")
    return Model(tensors, consumed)


def _study(
    run: Simulation, place: Place, plan: StudyPlan, owner: str, notes: dict[str, NoteStore], display: Display
) -> tuple[Tensors, Consumed]:
    """One federation: of all sites, of one alone, or of all notes in one place, as the setting has it."""
    folder = place.folder / STUDIES / slug(owner)
    if place.setting == "federated":
        members = {name: store.rows for name, store in notes.items()}
    else:
        # As many steps as the sites make together, so that it reads as many tokens as they.
        steps = sum(site_steps(plan, store) for store in notes.values())
        plan = alone(plan, steps)
        members = {owner: np.sort(np.concatenate([store.rows for store in notes.values()]))}
    like = open_site(next(iter(run.sites.values()))).config
    sites = [
        write_site(folder / "sites" / slug(name), like.model_copy(update={"name": name}), rows)
        for name, rows in members.items()
    ]
    Simulation(folder).begin(plan, run.setup)
    display.study(plan, list(members), f"{place.arm}, {place.setting}, seed {place.seed}")
    run_inprocess(server_app, client_app, folder, sites)
    kept = load_checkpoint(folder / CHECKPOINTS, plan.hash())
    assert kept is not None  # the run above ended without an error
    state, tensors, _ = kept
    did = [site for done in state.rounds for site in done.sites]
    facts = [site_facts(name, store, plan) for name, store in notes.items()]
    return plain_tensors(plan, tensors), Consumed(
        steps=sum(site.steps for site in did),
        tokens=sum(site.tokens for site in did),
        whole=sum(fact.whole for fact in facts),
        shortened=sum(fact.shortened for fact in facts),
        too_short=sum(fact.too_short for fact in facts),
        seconds=sum(done.seconds for done in state.rounds),
    )
