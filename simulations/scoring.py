"""What only a simulation scores: with the worker's own encoder, and the test notes of all sites on one map."""

from typing import Literal

import numpy as np

from client.app import worker
from client.evaluation.plane import plane
from client.evaluation.scorer import Scorer
from common.encoder import Encoder, load_encoder
from common.messages import Tensors
from common.plan import StudyPlan
from common.results import EmbeddingMap, EmbeddingPoint
from server.base import set_shared_categories

_MAP_NOTES = 1500


def scoring_encoder(plan: StudyPlan) -> Encoder:
    """A plain encoder of the plan's base: the worker's own, unless that has frozen weights or adapters."""
    if plan.training.trainable == "all":
        encoder = worker(plan).encoder
    else:
        encoder = load_encoder(plan.encoder.base, plan.study.seed)
    set_shared_categories(encoder, plan)
    return encoder


def embedding_map(scorer: Scorer, tensors: Tensors, method: Literal["pca", "umap"]) -> EmbeddingMap:
    """The test notes of all sites under one model, in two dimensions. For simulated data only.

    Raises:
        MachineError: `umap-missing`.
    """
    scorer.encoder.load(tensors)
    share = max(1, _MAP_NOTES // len(scorer.notes))
    vectors, points = [], []
    for name, store in scorer.notes.items():
        rows = store.split_indices("test")[:share]
        vectors.append(scorer.embed(store, rows))
        categories, labels = store.column("category")[rows], store.column("label")[rows]
        points += [(name, str(c or "none"), str(v or "none")) for c, v in zip(categories, labels, strict=True)]
    places, explained = plane(np.concatenate(vectors), method, scorer.plan.study.seed)
    return EmbeddingMap(
        points=[
            EmbeddingPoint(site=s, category=c, label=v, x=round(float(x), 4), y=round(float(y), 4))
            for (s, c, v), (x, y) in zip(points, places, strict=True)
        ],
        model="federated",
        method=method.upper(),
        explained=[round(part, 4) for part in explained],
    )
