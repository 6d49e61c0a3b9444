"""Downstream scores of every model at every site, on one machine. Each is kept as it is made: a killed run goes on."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import BaseModel
from sklearn.decomposition import PCA

from client.device import release_memory
from client.evaluation.compare import compare
from client.evaluation.embed import embed_notes
from client.evaluation.score import score_frozen
from client.evaluation.task import TaskData, task_data
from client.notes.store import NoteStore
from common.encoder import Encoder, tensors_digest
from common.errors import FednotesError
from common.files import write_text
from common.messages import Tensors
from common.plan import StudyPlan
from common.results import Comparison, EmbeddingMap, EmbeddingPoint, ModelName, NotScored, TaskScore
from simulations.partition import slug

TASK = "label"
_MAP_NOTES = 1500


class _Kept(BaseModel):
    """A score with its test predictions, and the digest of the weights that made it."""

    weights: str
    score: TaskScore
    predictions: list[str]


class Scorer:
    """Scores models at the sites of one run; `folder` keeps the scores, `encoder` is loaded with each model in turn."""

    def __init__(self, plan: StudyPlan, notes: dict[str, NoteStore], encoder: Encoder, folder: Path) -> None:
        self.plan, self.notes, self.encoder, self.folder = plan, notes, encoder, folder
        self.scores: list[TaskScore] = []
        self.predictions: dict[tuple[ModelName, str], np.ndarray] = {}
        self.tasks: dict[str, TaskData] = {}
        self.not_scored: list[NotScored] = []
        for name, store in notes.items():
            labels = store.column("label")
            data = task_data(name, TASK, labels[store.split_indices("train")], labels[store.split_indices("test")])
            if isinstance(data, NotScored):
                self.not_scored.append(data)
            else:
                self.tasks[name] = data

    def score(self, model: ModelName, site: str, tensors: Tensors | None) -> None:
        """Score one model (its shared tensors; None for TF-IDF) at one site, or take the score that was kept."""
        if site not in self.tasks:
            return
        weights = tensors_digest(tensors.items()) if tensors else ""
        place = self.folder / model / f"{slug(site)}.json"
        kept = self._kept(place, weights)
        if kept is None:
            try:
                score, predictions = self._fresh(model, site, tensors)
            except FednotesError as error:
                # One site's odd notes must not cost the others their report.
                self.not_scored.append(NotScored(site=site, task=TASK, reason=f"{model}: {error.message}"))
                return
            finally:
                release_memory()
            kept = _Kept(weights=weights, score=score, predictions=[str(p) for p in predictions])
            write_text(place, json.dumps(kept.model_dump(mode="json")))
        self.scores.append(kept.score)
        self.predictions[model, site] = np.array(kept.predictions)

    def comparisons(self, models: list[ModelName]) -> list[Comparison]:
        """The federated encoder against each of `models`, at each site that was scored."""
        return [
            compare(
                data, model, self.predictions["federated", site], self.predictions[model, site], self.plan.study.seed
            )
            for site, data in self.tasks.items()
            for model in models
            if {(model, site), ("federated", site)} <= self.predictions.keys()
        ]

    def embedding_map(self, tensors: Tensors) -> EmbeddingMap:
        """The test notes of all sites under one model, in two principal components. For simulated data only."""
        self.encoder.load(tensors)
        share = max(1, _MAP_NOTES // len(self.notes))
        vectors, points = [], []
        for name, store in self.notes.items():
            rows = store.split_indices("test")[:share]
            vectors.append(self._embed(store, rows))
            categories, labels = store.column("category")[rows], store.column("label")[rows]
            points += [(name, str(c or "none"), str(v or "none")) for c, v in zip(categories, labels, strict=True)]
        pca = PCA(n_components=2, random_state=0)
        plane = pca.fit_transform(np.concatenate(vectors))
        return EmbeddingMap(
            points=[
                EmbeddingPoint(site=s, category=c, label=v, x=round(float(x), 4), y=round(float(y), 4))
                for (s, c, v), (x, y) in zip(points, plane, strict=True)
            ],
            model="federated",
            explained=[round(float(share), 4) for share in pca.explained_variance_ratio_],
        )

    def _kept(self, place: Path, weights: str) -> _Kept | None:
        try:
            kept = _Kept.model_validate_json(place.read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return kept if kept.weights == weights else None

    def _fresh(self, model: ModelName, site: str, tensors: Tensors | None) -> tuple[TaskScore, np.ndarray]:
        store = self.notes[site]
        train, test = store.split_indices("train"), store.split_indices("test")
        side: Callable[[np.ndarray], np.ndarray | list[str]]
        if tensors is None:
            side = store.texts
        else:
            self.encoder.load(tensors)
            side = functools.partial(self._embed, store)
        settings = self.plan.evaluation
        score, predicted = score_frozen(
            self.tasks[site],
            model,
            side(train),
            side(test),
            shots=settings.shots,
            seeds=settings.seeds,
            seed=self.plan.study.seed,
            groups=patients(store, train),
        )
        return score, predicted.full

    def _embed(self, store: NoteStore, rows: np.ndarray) -> np.ndarray:
        return embed_notes(
            self.encoder,
            store,
            rows,
            max_length=self.plan.encoder.max_length,
            precision=self.plan.training.precision,
            long_notes=self.plan.encoder.long_notes,
        )


def patients(store: NoteStore, rows: np.ndarray) -> np.ndarray:
    """The patient of each note; a note without one is a patient of its own."""
    patients = store.column("patient")[rows]
    return np.array([f"n{row}" if p is None else f"p{p}" for row, p in zip(rows, patients, strict=True)])
