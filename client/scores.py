"""What a site tells the coordinator of the final encoder on its tasks; loaded when that is asked, once a study.

Of one set of weights for each approved plan: whoever could have scores of weights of his own making, again and again,
would learn the labels by and by.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path

from client.evaluation.gain import gain
from client.notes.store import NoteStore
from client.policy import tells_scores
from client.site import Site
from client.tasks import task_names
from common import wire
from common.errors import FednotesError
from common.files import write_text
from common.messages import Request
from common.results import FLOOR, NotScored
from common.scores import REASONS, SiteScores

log = logging.getLogger("fednotes.site")
SCORED = "scored.json"  # file of the site's folder: the hash of a plan -> the digest of the weights that were scored


def released_scores(site: Site, notes: NoteStore, request: Request, on_step: Callable[[int, int], None]) -> SiteScores:
    """The scores of `fednotes site report`, on the tasks that the plan names. Why one has none stays here, too: one of
    `REASONS` is told.

    Raises:
        FednotesError: `withheld`, or as `gain`.
    """
    plan = request.plan
    if not tells_scores(plan, site.config.policy):
        raise FednotesError(
            "withheld",
            "Scores leave where the plan asks for them and the policy allows it (with private training: "
            "release_uncovered, too).",
        )
    if request.round != plan.federation.rounds:
        raise FednotesError("withheld", "Scores are of the last round alone.")
    _once(site.folder / SCORED, plan.hash(), wire.digest(request.arrays))
    known, planned = task_names(site, notes), list(dict.fromkeys(plan.evaluation.tasks))
    asked = [task for task in planned if task in known]
    scorer, comparisons = gain(site, notes, plan, request.arrays, asked, log.info, on_step, fewest=FLOOR)
    for missing in scorer.not_scored:
        log.info("%s was not scored: %s", missing.task, missing.reason)
    scored, failed = {one.task for one in scorer.scores}, {task.data.task for task in scorer.tasks[site.name]}
    failed &= {one.task for one in scorer.not_scored}
    reasons = {task: REASONS["no-task"] for task in planned if task not in known}
    reasons |= {task: REASONS["too-few"] for task in asked if task not in scored}
    reasons |= dict.fromkeys(failed, REASONS["failed"])
    return SiteScores(
        site=site.name,
        answered=True,
        scores=scorer.scores,
        comparisons=comparisons,
        not_scored=[NotScored(site=site.name, task=task, reason=reason) for task, reason in reasons.items()],
    )


def _once(file: Path, plan: str, digest: str) -> None:
    """Written before anything is scored. Raises FednotesError `withheld` where it was other weights before."""
    told = json.loads(file.read_text("utf-8")) if file.exists() else {}
    if told.setdefault(plan, digest) != digest:
        raise FednotesError(
            "withheld",
            "Under this plan other weights were scored before.",
            "If the study was begun anew, let its plan have another seed or name, and approve that.",
        )
    write_text(file, json.dumps(told, indent=2) + "\n")
