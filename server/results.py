"""What a run leaves when it ends: the model, `summary.json`, and the report."""

import time
from datetime import UTC, datetime
from pathlib import Path

from common.encoder import Encoder
from common.errors import StudyError
from common.files import new_folder
from common.plan import StudyPlan
from common.results import Summary
from server.base import trained_encoder
from server.checkpoint import load_checkpoint
from server.export.card import model_card
from server.report import write_report
from server.run_folder import MODEL_FOLDER, REPORT_FILE, RunFolder
from server.versions import versions

CARD_FILE = "README.md"


def write_model(run: RunFolder, encoder: Encoder, summary: Summary) -> None:
    """Write the encoder with its card, whole or not at all."""
    with new_folder(run.path / MODEL_FOLDER) as scratch:
        save_model(scratch, run.plan, encoder, summary)


def save_model(folder: Path, plan: StudyPlan, encoder: Encoder, summary: Summary, pooling: bool = True) -> str:
    """Write the encoder and its card into a folder; returns the card. `pooling`: as in `Encoder.save`."""
    most = plan.encoder.max_length
    encoder.save(folder, most, plan.federation.share == "encoder+mlm-head", pooling)
    card = model_card(summary, plan.encoder.pooling, most)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    return card


def write_results(run: RunFolder, started: str, stopped: StudyError | None) -> Summary | None:
    """Write what a study over real servers has come to, and return it; None where it ended before the first
    measurement. Its scores are those that sites released; the others are the sites' own.

    Args:
        started: when it began, ISO 8601.
        stopped: why it ended before its last round; there is no model then, but the last checkpoint stands.
    """
    plan = run.plan
    kept = load_checkpoint(run.checkpoints, plan.hash())
    if kept is None:
        return None
    state, shared, _ = kept
    encoder = trained_encoder(plan, shared)
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
        scores=[score for one in state.scores for score in one.scores],
        comparisons=[comparison for one in state.scores for comparison in one.comparisons],
        not_scored=[missing for one in state.scores for missing in one.not_scored],
        memorisation=state.memorisation,
    )
    if stopped is None:
        write_model(run, encoder, summary)
    run.write_summary(summary)
    write_report(summary, run.path / REPORT_FILE)
    return summary
