"""The embedding space of a site's held-out notes, round by round: figures that may leave, from vectors that stay."""

from pathlib import Path

import numpy as np

from client.evaluation.embed import embed_notes
from client.evaluation.space import space
from client.notes.store import NoteStore
from common.encoder import Encoder
from common.files import new_file
from common.plan import StudyPlan
from common.results import Space

BASE_EMBEDDINGS = "base-embeddings.npy"


def round_space(
    encoder: Encoder, notes: NoteStore, rows: np.ndarray, plan: StudyPlan, number: int, folder: Path
) -> Space:
    """The figures under the shared weights of round `number`; those of round 0, the base's, are kept to compare with.

    Args:
        rows: the held-out notes, the same in every round.
        folder: the site's own; the base's embeddings stay there.
    """
    vectors = embed_notes(
        encoder,
        notes,
        rows,
        max_length=plan.encoder.max_length,
        precision=plan.training.precision,
        long_notes=plan.encoder.long_notes,
    )
    kept = folder / BASE_EMBEDDINGS
    if number == 0:
        with new_file(kept) as scratch, scratch.open("wb") as file:
            np.save(file, vectors)
    base = np.load(kept) if kept.exists() else None
    if base is not None and base.shape != vectors.shape:  # of another study
        base = None
    labels, categories = notes.column("label")[rows], notes.column("category")[rows]
    return space(vectors, labels, categories, base=base, seed=plan.study.seed)
