"""What a run leaves when it ends: the model, `summary.json`, and the report."""

import time
from datetime import UTC, datetime

from common.encoder import Encoder, load_encoder
from common.errors import StudyError
from common.files import new_folder
from common.results import Summary
from common.trainable import plain_tensors
from server.base import set_shared_categories
from server.checkpoint import load_checkpoint
from server.report import write_report
from server.report.model_card import model_card
from server.run_folder import MODEL_FOLDER, REPORT_FILE, RunFolder
from server.versions import versions


def write_model(run: RunFolder, encoder: Encoder, summary: Summary) -> None:
    """Write the encoder with its card, whole or not at all."""
    plan = run.plan
    with new_folder(run.path / MODEL_FOLDER) as scratch:
        encoder.save(scratch, plan.encoder.max_length, plan.federation.share == "encoder+mlm-head")
        (scratch / "README.md").write_text(model_card(summary), encoding="utf-8")


def write_results(run: RunFolder, started: str, stopped: StudyError | None) -> Summary | None:
    """Write what a study over real servers has come to, and return it; None where it ended before the first
    measurement. Its scores are the sites' own; none of them comes here.

    Args:
        started: when it began, ISO 8601.
        stopped: why it ended before its last round; there is no model then, but the last checkpoint stands.
    """
    plan = run.plan
    kept = load_checkpoint(run.checkpoints, plan.hash())
    if kept is None:
        return None
    state, shared, _ = kept
    encoder = load_encoder(plan.encoder.base, plan.study.seed)
    set_shared_categories(encoder, plan)
    parameters = sum(p.numel() for p in encoder.tensors().values())
    now = datetime.now(UTC)
    summary = Summary(
        study=plan.study.name,
        status="stopped" if stopped else "finished",
        message=str(stopped) if stopped else "",
        privacy=plan.privacy_words,
        epsilon_cap=plan.privacy.epsilon if plan.privacy else None,
        plan_hash=plan.hash(),
        objective=plan.objective.kind,
        seed=plan.study.seed,
        engine="servers",
        started=started,
        finished=now.isoformat(timespec="seconds"),
        seconds=max(0.0, time.time() - datetime.fromisoformat(started).timestamp()),
        versions=versions(),
        base=plan.encoder.base,
        parameters=parameters,
        shared_parameters=sum(value.size for value in shared.values()),
        sites=state.sites,
        left_out_sites=state.left_out_sites,
        planned_rounds=plan.federation.rounds,
        rounds=state.rounds,
        scores=[],
        comparisons=[],
        not_scored=[],
    )
    if stopped is None:
        encoder.load(plain_tensors(plan, shared))
        write_model(run, encoder, summary)
    run.write_summary(summary)
    write_report(summary, run.path / REPORT_FILE)
    return summary
