"""Any encoder on any notes: what `fednotes evaluate` does."""

import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from client.evaluation.evaluator import SPLITS, Evaluator, Settings
from client.evaluation.watch import Watch
from client.site import Site
from common.encoder import Encoder, load_encoder, sequence_limit, tensors_digest
from common.errors import InputError
from common.plan_sections import EncoderPlan
from common.results import EvaluatedEncoder, EvaluatedModel, EvaluationResult

_PACKAGES = ("fednotes", "torch", "transformers", "scikit-learn")
_MODELS: tuple[EvaluatedModel, ...] = ("model", "against")


def evaluate(
    names: Sequence[str], site: Site, settings: Settings, max_length: int | None, watch: Watch
) -> EvaluationResult:
    """Scores of an encoder, and of another to compare it with, on the test notes of each task of a site.

    Args:
        names: the one or two encoders: a folder, a model hub name, or the packaged one.
        max_length: as in `load_encoders`.

    Raises:
        InputError: `no-labels`: there is nothing to judge an encoder by; as `load_encoders`; notes that are refused.
        StudyError: `embeddings-not-finite`.
        MachineError: as `prepare` and `load_encoder`.
    """
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    encoders, length = load_encoders(names, max_length)
    own = site.notes(encoders[0].tokenizer, watch.intake)
    work = Evaluator(site, own, encoders[0].tokenizer, settings, length, watch)
    work.score_words()
    for model, encoder in zip(_MODELS, encoders, strict=False):
        work.score_encoder(model, encoder)
    found = [describe(encoder) for encoder in encoders]
    counts = {split: len(own.split_indices(split)) for split in SPLITS}
    return EvaluationResult(
        encoder=found[0],
        against=found[1] if len(found) > 1 else None,
        site=site.name,
        notes_digest=own.digest,
        **counts,
        set_aside=len(own) - sum(counts.values()),
        max_length=length,
        long_notes=settings.long_notes,
        precision=settings.precision,
        seed=settings.seed,
        started=started,
        seconds=time.perf_counter() - clock,
        versions={"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        scores=work.scores,
        comparisons=work.comparisons(),
        space=work.spaces(),
        not_scored=work.not_scored,
    )


def load_encoders(names: Sequence[str], max_length: int | None) -> tuple[list[Encoder], int]:
    """The encoders that were named, and how many tokens all of them are to read at once.

    Args:
        max_length: None for the default of a plan, or less where an encoder can only read less.

    Raises:
        InputError: `usage`: one reads fewer tokens than `max_length`; or as `load_encoder`.
        MachineError: as `load_encoder`.
    """
    encoders = [load_encoder(name) for name in names]
    limits = [sequence_limit(encoder.model) for encoder in encoders]
    if max_length is None:
        return encoders, min(EncoderPlan().max_length, *limits)
    for name, limit in zip(names, limits, strict=True):
        if max_length > limit:
            raise InputError(
                "usage", f"--max-length {max_length}: {name} reads at most {limit} tokens.", f"Give {limit} or less."
            )
    return encoders, max_length


def describe(encoder: Encoder) -> EvaluatedEncoder:
    """An encoder by its name and its weights, without any head."""
    body = encoder.shared("encoder")
    parameters = sum(tensor.numel() for tensor in body.values())
    return EvaluatedEncoder(name=encoder.base, digest=tensors_digest(body.items()), parameters=parameters)
