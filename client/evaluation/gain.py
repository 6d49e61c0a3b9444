"""What a site gained: the shared encoder on tasks of its own, beside training alone, the public base, and no encoder.

For the site's own report (client/setup/report.py), and for the coordinator where plan and policy both say so
(client/scores.py). What was begun goes on, and what was scored before is taken from there.
"""

import hashlib
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from client.alone import train_alone
from client.device import pick_device
from client.evaluation.scorer import Scorer
from client.ledger import locked
from client.notes.store import NoteStore
from client.site import Site
from common.encoder import load_encoder
from common.messages import Tensors
from common.plan import StudyPlan
from common.results import Comparison, ModelName
from common.trainable import plain_tensors

TRAINED_ALONE = "report"  # folder of the site's folder
_AGAINST: list[ModelName] = ["local-only", "base", "tf-idf"]


def gain(
    site: Site,
    own: NoteStore,
    plan: StudyPlan,
    shared: Tensors,
    tasks: list[str],
    say: Callable[[str], None],
    on_step: Callable[[int, int], None] = lambda done, steps: None,
    fewest: int = 0,
) -> tuple[Scorer, list[Comparison]]:
    """The scores, and the comparisons of the shared encoder with the others. Trains alone first, unless no task can be
    scored.

    Args:
        own: the site's notes, under the tokenizer of the plan's base.
        shared: the shared tensors, as they came.
        tasks: of the site, by name.
        say: told what is done now.
        on_step: told of training alone: (steps done, steps of all rounds).
        fewest: test notes; a task with fewer is left out.

    Raises:
        FednotesError: as `train_alone`. InputError: as `make_objective` and `open_task`.
    """
    folder = site.folder / TRAINED_ALONE
    with locked(folder / ".lock"):  # the node and a person may ask at once
        encoder = load_encoder(plan.encoder.base, plan.study.seed)
        encoder.set_categories(plan.shared_categories, shared=True, bias=plan.category_bias)
        evaluation = plan.evaluation.model_copy(update={"tasks": tasks})
        scored = plan.model_copy(update={"evaluation": evaluation})
        scorer = Scorer(scored, {site.name: site}, {site.name: own}, encoder, folder / _kept(site, own, plan))
        of_site = scorer.tasks[site.name]
        of_site[:] = [task for task in of_site if len(task.data.test_rows) >= fewest]
        if not of_site:
            return scorer, []
        say("Training alone")
        by_itself = train_alone(
            plan, site.name, own, folder, lambda done, rounds: say(f"Training alone: round {done} of {rounds}"), on_step
        )
        encoder.model.to(pick_device())  # type: ignore[arg-type]
        base = encoder.shared_arrays(plan.federation.share)
        models: dict[ModelName, Tensors | None] = {
            "majority": None,
            "tf-idf": None,
            "base": {name: value.copy() for name, value in base.items()},
            "local-only": plain_tensors(plan, by_itself),
            "federated": plain_tensors(plan, shared),
        }
        for model, tensors in models.items():
            say(f"Scoring: {model}")
            scorer.score(model, site.name, tensors)
        return scorer, scorer.comparisons(_AGAINST)


def _kept(site: Site, own: NoteStore, plan: StudyPlan) -> Path:
    """Where scores are kept that the same plan made of the same notes and tasks."""
    tasks = [task.model_dump(mode="json") for task in site.config.tasks]
    rows = hashlib.sha256(own.rows.tobytes()).hexdigest()
    said = json.dumps([version("fednotes"), plan.hash(), own.digest, rows, tasks])
    return Path(f"scores-{hashlib.sha256(said.encode()).hexdigest()[:16]}")
