"""`fednotes site report`: what a site gained, on its own tasks. The reason to take part; all of it stays here."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from client.alone import site_steps, train_alone
from client.device import pick_device
from client.evaluation.scorer import Scorer
from client.received import last_received
from client.site import Site
from client.tasks import task_names
from common.encoder import load_encoder
from common.errors import InputError
from common.files import write_text
from common.messages import Tensors
from common.plan import StudyPlan
from common.results import Comparison, ModelName, NotScored, TaskScore
from common.trainable import plain_tensors

REPORT_FILE, TRAINED_ALONE = "report.json", "report"
SCHEMA_VERSION: Literal[1] = 1


class SiteReport(BaseModel):
    """The contents of `report.json`. `round` is the last whose shared weights came here, of `rounds` that are planned.

    `alone_without_noise`: the study's training was private, that of the site alone was not, for it never leaves: the
    difference between the two holds the price of privacy, too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = SCHEMA_VERSION
    site: str
    study: str
    plan_hash: str
    privacy: str
    run: str
    round: int
    rounds: int
    steps_per_round: int
    alone_without_noise: bool
    train: int
    dev: int
    test: int
    written: str
    scores: list[TaskScore]
    comparisons: list[Comparison]
    not_scored: list[NotScored]


def report(site: Site, plan: StudyPlan | None, say: Callable[[str], None]) -> SiteReport:
    """Train alone, score everything, and write `report.json`. What was begun before goes on.

    Raises:
        InputError: `nothing-received`; `no-labels`: the site has no task; or as `make_objective`.
        FednotesError: as `train_alone`.
    """
    came = last_received(site.folder, plan)
    plan = came.plan
    encoder = load_encoder(plan.encoder.base, plan.study.seed)
    encoder.set_categories(plan.shared_categories, shared=True, bias=plan.category_bias)
    own = site.notes(encoder.tokenizer)
    tasks = task_names(site, own)
    if not tasks:
        raise InputError(
            "no-labels",
            f"{site.name} has no labels to judge an encoder by.",
            "Name a label column or [[tasks]] in site.toml.",
        )
    evaluation = plan.evaluation.model_copy(update={"tasks": tasks})
    scored = plan.model_copy(update={"evaluation": evaluation})
    folder = site.folder / TRAINED_ALONE
    say("Training alone")
    by_itself = train_alone(
        plan, site.name, own, folder, lambda done, rounds: say(f"Training alone: round {done} of {rounds}")
    )
    encoder.model.to(pick_device())  # type: ignore[arg-type]
    base = encoder.shared_arrays(plan.federation.share)
    models: dict[ModelName, Tensors | None] = {
        "majority": None,
        "tf-idf": None,
        "base": {name: value.copy() for name, value in base.items()},
        "local-only": plain_tensors(plan, by_itself),
        "federated": plain_tensors(plan, came.tensors),
    }
    scorer = Scorer(scored, {site.name: site}, {site.name: own}, encoder, folder)
    for model, tensors in models.items():
        say(f"Scoring: {model}")
        scorer.score(model, site.name, tensors)
    counts = {split: len(own.split_indices(split)) for split in ("train", "dev", "test")}
    made = SiteReport(
        site=site.name,
        study=plan.study.name,
        plan_hash=plan.hash(),
        privacy=plan.privacy_words,
        run=came.run,
        round=came.round,
        rounds=plan.federation.rounds,
        steps_per_round=site_steps(plan, own),
        alone_without_noise=plan.privacy is not None,
        written=datetime.now(UTC).isoformat(timespec="seconds"),
        scores=scorer.scores,
        comparisons=scorer.comparisons(["local-only", "base", "tf-idf"]),
        not_scored=scorer.not_scored,
        **counts,
    )
    write_text(site.folder / REPORT_FILE, made.model_dump_json(indent=2) + "\n")
    return made
