"""Downstream scores of models at one site or several. Each is kept as it is made: what was killed goes on."""

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from client.device import release_memory
from client.evaluation.compare import compare
from client.evaluation.embed import embed_notes
from client.evaluation.score import Notes, Predicted, score_frozen, score_majority, score_tuned
from client.evaluation.task import TaskData, task_data
from client.notes.store import NoteStore
from client.site import Site
from client.tasks import OpenTask, open_task
from common.encoder import Encoder, tensors_digest
from common.errors import FednotesError
from common.files import write_text
from common.messages import Tensors
from common.plan import StudyPlan
from common.results import (
    Comparison,
    Mode,
    ModelName,
    NotScored,
    TaskScore,
)
from common.slug import slug

WORDS: tuple[ModelName, ...] = ("tf-idf", "majority")  # no encoders: they are scored in one way


class _Kept(BaseModel):
    """A score with its test predictions, and the digest of the weights that made it."""

    weights: str
    score: TaskScore
    predictions: list[str]


@dataclass(frozen=True)
class _SiteTask:
    """A task that can be scored at a site: what is scored, and the notes with its labels."""

    data: TaskData
    opened: OpenTask


Key = tuple[str, str, ModelName, Mode]  # site, task, model, how it was scored


class Scorer:
    """Scores models at the sites of a study; `folder` keeps the scores, `encoder` is loaded with each model in turn."""

    def __init__(
        self, plan: StudyPlan, sites: dict[str, Site], notes: dict[str, NoteStore], encoder: Encoder, folder: Path
    ) -> None:
        self.plan, self.notes, self.encoder, self.folder = plan, notes, encoder, folder
        self.scores: list[TaskScore] = []
        self.predictions: dict[Key, np.ndarray] = {}
        self.tasks: dict[str, list[_SiteTask]] = {name: [] for name in sites}
        self.not_scored: list[NotScored] = []
        for name, site in sites.items():
            for task in plan.evaluation.tasks:
                found = _site_task(site, task, notes[name], encoder)
                if isinstance(found, NotScored):
                    self.not_scored.append(found)
                else:
                    self.tasks[name].append(found)

    def score(self, model: ModelName, site: str, tensors: Tensors | None) -> None:
        """Score one model (its shared tensors; None for what has none) at one site, or take the scores kept."""
        weights = tensors_digest(tensors.items()) if tensors else ""
        modes: list[Mode] = [*self.plan.evaluation.modes] if tensors else ["frozen"]
        vectors: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # by the text that the tasks read
        for task in self.tasks[site]:
            for mode in modes:
                name = task.data.task
                place = self.folder / model / slug(site) / f"{name}-{mode}.json"
                kept = self._kept(place, weights)
                if kept is None:
                    try:
                        score, predicted = self._fresh(model, mode, task, tensors, vectors)
                    except FednotesError as error:
                        # One site's odd notes must not cost the others their report.
                        reason = f"{model}, {mode}: {error.message}"
                        self.not_scored.append(NotScored(site=site, task=name, reason=reason))
                        continue
                    finally:
                        release_memory()
                    kept = _Kept(weights=weights, score=score, predictions=[str(p) for p in predicted.full])
                    write_text(place, json.dumps(kept.model_dump(mode="json")))
                self.scores.append(kept.score)
                self.predictions[site, name, model, mode] = np.array(kept.predictions)

    def comparisons(self, models: list[ModelName]) -> list[Comparison]:
        """The federated encoder against each of `models`, at each site, on each task and in each mode."""
        found = []
        for site, tasks in self.tasks.items():
            for task, mode, model in product(tasks, self.plan.evaluation.modes, models):
                name = task.data.task
                ours = self.predictions.get((site, name, "federated", mode))
                theirs = self.predictions.get((site, name, model, "frozen" if model in WORDS else mode))
                if ours is not None and theirs is not None:
                    found.append(compare(task.data, model, ours, theirs, self.plan.study.seed, mode))
        return found

    def _kept(self, place: Path, weights: str) -> _Kept | None:
        try:
            kept = _Kept.model_validate_json(place.read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return kept if kept.weights == weights else None

    def _fresh(
        self,
        model: ModelName,
        mode: Mode,
        task: _SiteTask,
        tensors: Tensors | None,
        vectors: dict[str, tuple[np.ndarray, np.ndarray]],
    ) -> tuple[TaskScore, Predicted]:
        plan, store = self.plan, task.opened.notes
        settings, seed = plan.evaluation, plan.study.seed
        train, test = store.split_indices("train"), store.split_indices("test")
        if model == "majority":
            return score_majority(task.data, seed)
        if tensors is not None:
            self.encoder.load(tensors)
        if mode != "frozen":
            return score_tuned(
                task.data,
                model,
                mode,
                self.encoder,
                store,
                evaluation=settings,
                max_length=plan.encoder.max_length,
                precision=plan.training.precision,
                seed=seed,
            )
        sides: tuple[Notes, Notes]
        if tensors is None:
            sides = store.texts(train), store.texts(test)
        else:
            text = "" if task.opened.own_text else task.opened.task.text or ""
            if text not in vectors:
                vectors[text] = self.embed(store, train), self.embed(store, test)
            sides = vectors[text]
        groups = store.patients()[train]
        return score_frozen(
            task.data, model, *sides, shots=settings.shots, seeds=settings.seeds, seed=seed, groups=groups
        )

    def embed(self, store: NoteStore, rows: np.ndarray) -> np.ndarray:
        """Embeddings of some notes, as the plan reads them, by the encoder as it stands."""
        return embed_notes(
            self.encoder,
            store,
            rows,
            max_length=self.plan.encoder.max_length,
            precision=self.plan.training.precision,
            long_notes=self.plan.encoder.long_notes,
        )


def _site_task(site: Site, name: str, notes: NoteStore, encoder: Encoder) -> _SiteTask | NotScored:
    opened = open_task(site, name, notes, encoder.tokenizer)
    if isinstance(opened, NotScored):
        return opened
    labels = opened.notes.column("label")
    train, dev, test = (labels[opened.notes.split_indices(split)] for split in ("train", "dev", "test"))
    data = task_data(site.name, name, train, test, dev_labels=dev, metric=opened.task.metric)
    return data if isinstance(data, NotScored) else _SiteTask(data, opened)
