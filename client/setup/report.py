"""`fednotes site report`: what a site gained, on its own tasks. The reason to take part. This report stays here."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from client.alone import site_steps
from client.evaluation.gain import gain
from client.received import last_received
from client.site import Site
from client.tasks import task_names
from common.encoder import load_tokenizer
from common.errors import InputError
from common.files import write_text
from common.plan import StudyPlan
from common.results import Comparison, NotScored, TaskScore

REPORT_FILE = "report.json"
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
    own = site.notes(load_tokenizer(plan.encoder.base))
    tasks = task_names(site, own)
    if not tasks:
        raise InputError(
            "no-labels",
            f"{site.name} has no labels to judge an encoder by.",
            "Name a label column or [[tasks]] in site.toml.",
        )
    scorer, comparisons = gain(site, own, plan, came.tensors, tasks, say)
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
        comparisons=comparisons,
        not_scored=scorer.not_scored,
        **counts,
    )
    write_text(site.folder / REPORT_FILE, made.model_dump_json(indent=2) + "\n")
    return made
