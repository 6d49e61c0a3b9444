"""Score one cell of the table: its models on every site's tasks, on all sites together, and their embedding space."""

import json
from dataclasses import dataclass, field

import numpy as np
from pydantic import BaseModel

from client.device import release_memory
from client.evaluation.embed import embed_notes
from client.evaluation.few_shot import few_shot
from client.evaluation.metrics import accuracy_estimate, macro_f1_estimate
from client.evaluation.score import Predicted, score_frozen, score_majority, score_tuned
from client.evaluation.space import space
from client.evaluation.task import TaskData, task_data
from client.notes.store import NoteStore
from client.tasks import LABEL
from common.encoder import Encoder
from common.files import new_file, write_text
from common.results import POOLED, TOGETHER, Mode, ModelName, NotScored, TaskScore
from common.table import Cell, Consumed, Setting, SiteSpace
from simulations.table.cells import Model, Place
from simulations.table.plan import TablePlan

Key = tuple[str, Mode]  # where a task is scored, and how

_CELL, _VECTORS = "cell.json", "held-out.npy"


class _Draws(BaseModel):
    full: list[str]
    draws: dict[int, list[list[str]]]


class _Kept(BaseModel):
    """A finished cell on disk, with the predictions behind its scores."""

    cell: Cell
    predicted: dict[str, dict[Mode, _Draws]]


@dataclass
class Scored:
    """A finished cell, and its predictions by place and mode."""

    cell: Cell
    predicted: dict[Key, Predicted] = field(default_factory=dict)


class TableScorer:
    """Scores cells over the same notes: `notes` are those of each site, views of `source`."""

    def __init__(self, table: TablePlan, notes: dict[str, NoteStore], source: NoteStore) -> None:
        self.table, self.notes = table, notes
        self.all_notes = source.view(np.sort(np.concatenate([store.rows for store in notes.values()])))
        self.tasks: dict[str, TaskData] = {}
        self.not_scored: list[NotScored] = []
        for name, store in [*notes.items(), (POOLED, self.all_notes)]:
            fewest = table.table.pooled_class_notes if name == POOLED else 8
            labels = store.column("label")
            train, dev, test = (labels[store.split_indices(split)] for split in ("train", "dev", "test"))
            data = task_data(name, LABEL, train, test, fewest, dev_labels=dev)
            if isinstance(data, NotScored):
                self.not_scored.append(data)
            else:
                self.tasks[name] = data

    def store(self, place: str) -> NoteStore:
        return self.all_notes if place == POOLED else self.notes[place]

    def score(self, place: Place, name: ModelName, model: Model | None, encoder: Encoder) -> Scored:
        """Score a cell's models (None for what has none: "tf-idf" and "majority") and keep what was found."""
        scores: list[TaskScore] = []
        found: dict[Key, Predicted] = {}
        spaces: list[SiteSpace] = []
        vectors = self._vectors(model, encoder) if model else None
        for site, data in self.tasks.items():
            if model is not None and not {site, POOLED} & model.tensors.keys():
                continue  # the site has no model; or each has its own, and their notes no common space
            score, found[site, "frozen"] = self._frozen(site, data, name, vectors, place.seed)
            scores.append(score)
            if model is not None and site != POOLED and place.setting in self.table.table.tuned:
                for mode, (score, predicted) in self._tuned(site, data, name, model, encoder).items():
                    scores.append(score)
                    found[site, mode] = predicted
        for mode in dict.fromkeys(mode for _, mode in found):
            if (together := self._together(name, mode, found)) is not None:
                score, found[TOGETHER, mode] = together
                scores.append(score)
        if model is not None and vectors is not None:
            spaces = self._spaces(place, model, vectors)
        consumed = model.consumed if model else Consumed()
        cell = Cell(
            arm=place.arm, setting=place.setting, seed=place.seed, consumed=consumed, scores=scores, space=spaces
        )
        self._keep(place, cell, found)
        release_memory()
        return Scored(cell, found)

    def kept(self, place: Place) -> Scored | None:
        """A cell that was finished before; None where there is none."""
        try:
            kept = _Kept.model_validate_json((place.folder / _CELL).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        found: dict[Key, Predicted] = {}
        for site, modes in kept.predicted.items():
            for mode, said in modes.items():
                draws = {n: np.array(labels) for n, labels in said.draws.items()}
                found[site, mode] = Predicted(np.array(said.full), draws)
        return Scored(kept.cell, found)

    def truth(self, place: str) -> np.ndarray:
        """The labels of the test notes of a place."""
        if place == TOGETHER:
            return np.concatenate([data.test_labels for site, data in self.tasks.items() if site != POOLED])
        return self.tasks[place].test_labels

    def _vectors(self, model: Model, encoder: Encoder) -> np.ndarray:
        """Embeddings of every note by the model of its site, [rows of the source, H]; zeros for notes of no site."""
        plan = self.table.common
        out = np.zeros((int(self.all_notes.rows.max()) + 1, encoder.hidden_size), dtype=np.float32)
        for owner, tensors in model.tensors.items():
            encoder.load({name: value for name, value in tensors.items() if not name.startswith("category_head.")})
            store = self.store(owner)
            sides = np.concatenate([store.split_indices(split) for split in ("train", "dev", "test")])
            out[store.rows[sides]] = embed_notes(
                encoder,
                store,
                sides,
                max_length=plan.encoder.max_length,
                precision=plan.training.precision,
                long_notes=plan.encoder.long_notes,
            )
        return out

    def _frozen(
        self, site: str, data: TaskData, name: ModelName, vectors: np.ndarray | None, seed: int
    ) -> tuple[TaskScore, Predicted]:
        store, plan = self.store(site), self.table.common
        if name == "majority":
            return score_majority(data, plan.study.seed)
        train, test = store.split_indices("train"), store.split_indices("test")
        notes = [store.texts(rows) if vectors is None else vectors[store.rows[rows]] for rows in (train, test)]
        # The draws are those of the table's seed, whatever a cell's: models are compared on the same labelled notes.
        settings = plan.evaluation
        return score_frozen(
            data,
            name,
            *notes,
            shots=settings.shots,
            seeds=settings.seeds,
            seed=plan.study.seed,
            groups=store.patients()[train],
        )

    def _tuned(
        self, site: str, data: TaskData, name: ModelName, model: Model, encoder: Encoder
    ) -> dict[Mode, tuple[TaskScore, Predicted]]:
        plan = self.table.common
        tensors = model.tensors.get(site) or model.tensors[POOLED]
        encoder.load({name: value for name, value in tensors.items() if not name.startswith("category_head.")})
        return {
            mode: score_tuned(
                data,
                name,
                mode,
                encoder,
                self.store(site),
                evaluation=plan.evaluation,
                max_length=plan.encoder.max_length,
                precision=plan.training.precision,
                seed=plan.study.seed,
            )
            for mode in plan.evaluation.modes
            if mode != "frozen"
        }

    def _together(self, name: ModelName, mode: Mode, found: dict[Key, Predicted]) -> tuple[TaskScore, Predicted] | None:
        """The predictions of the sites' own probes in one row: every setting has these, also where models differ."""
        sites = [site for site in self.tasks if site != POOLED]
        if len(sites) < 2 or any((site, mode) not in found for site in sites):
            return None
        seed = self.table.common.study.seed
        shots = set.intersection(*({*found[site, mode].draws} for site in sites))
        predicted = Predicted(
            np.concatenate([found[site, mode].full for site in sites]),
            {n: np.concatenate([found[site, mode].draws[n] for site in sites], axis=1) for n in sorted(shots)},
        )
        truth = np.concatenate([self.tasks[site].test_labels for site in sites])
        train = np.concatenate([self.tasks[site].train_labels for site in sites])
        names, counts = np.unique(truth, return_counts=True)
        score = TaskScore(
            site=TOGETHER,
            task=LABEL,
            model=name,
            mode=mode,
            n_train=len(train),
            n_test=len(truth),
            support={str(n): int(count) for n, count in zip(names, counts, strict=True)},
            macro_f1=macro_f1_estimate(truth, predicted.full, seed),
            accuracy=accuracy_estimate(truth, predicted.full, seed),
            auroc=None,
            few_shot=few_shot(train, truth, predicted.draws),
        )
        return score, predicted

    def _spaces(self, place: Place, model: Model, vectors: np.ndarray) -> list[SiteSpace]:
        """The embedding space of dev notes, at every site and where there is one space, over all of them."""
        np_file = place.folder / _VECTORS
        place.folder.mkdir(parents=True, exist_ok=True)
        with new_file(np_file) as scratch, scratch.open("wb") as file:
            np.save(file, vectors[self._dev(self.all_notes)])
        spaces = []
        for site in [*self.notes, POOLED]:
            if not {site, POOLED} & model.tensors.keys():
                continue
            store = self.store(site)
            rows = store.split_indices("dev")
            spaces.append(
                SiteSpace(
                    site=site,
                    space=space(
                        vectors[store.rows[rows]],
                        store.column("label")[rows],
                        store.column("category")[rows],
                        base=self._others(place, "base", "as it is", site, self.table.common.study.seed),
                        local=self._others(place, place.arm, "local-only", site, place.seed),
                        seed=self.table.common.study.seed,
                    ),
                )
            )
        return spaces

    def _dev(self, store: NoteStore) -> np.ndarray:
        return store.rows[store.split_indices("dev")]

    def _others(self, place: Place, arm: str, setting: Setting, site: str, seed: int) -> np.ndarray | None:
        """The same held-out notes under another cell's model; None where there is none, or no common space."""
        other = Place(place.root, arm, setting, seed)
        file = other.folder / _VECTORS
        if not file.exists() or (site == POOLED and setting == "local-only"):
            return None
        return np.load(file)[np.isin(self._dev(self.all_notes), self._dev(self.store(site)))]

    def _keep(self, place: Place, cell: Cell, found: dict[Key, Predicted]) -> None:
        predicted: dict[str, dict[Mode, _Draws]] = {}
        for (site, mode), said in found.items():
            draws = {n: labels.tolist() for n, labels in said.draws.items()}
            predicted.setdefault(site, {})[mode] = _Draws(full=said.full.tolist(), draws=draws)
        place.folder.mkdir(parents=True, exist_ok=True)
        kept = _Kept(cell=cell, predicted=predicted)
        write_text(place.folder / _CELL, json.dumps(kept.model_dump(mode="json")))
