"""Encoders on all tasks of one site, one encoder after the other, on the same notes and the same draws of labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast, get_args

import numpy as np
import torch

from client.device import pick_device, release_memory
from client.evaluation.compare import compare
from client.evaluation.embed import LongNotes, embed_notes
from client.evaluation.score import Notes, Predicted, score_frozen, score_majority, score_tuned
from client.evaluation.space import space
from client.evaluation.task import TaskData, task_data
from client.evaluation.watch import Watch
from client.notes.store import NoteStore
from client.site import Site
from client.tasks import LABEL, OpenTask, open_task, task_names
from common.encoder import Encoder
from common.errors import InputError, StudyError
from common.plan_sections import Evaluation
from common.results import (
    EncoderComparison,
    EncoderScore,
    EncoderSpace,
    EvaluatedModel,
    Mode,
    NotScored,
    TaskScore,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Settings:
    """How encoders are evaluated; `tasks` None stands for all that the site has."""

    evaluation: Evaluation
    long_notes: LongNotes = "cut"
    precision: str = "auto"
    seed: int = 0
    tasks: Sequence[str] | None = None


class Evaluator:
    """What is known so far of the encoders at one site. Raises InputError `no-labels`, or as `open_task`.

    Args:
        own: the notes of `site`, under the first encoder's `tokenizer`.
        max_length: tokens that every encoder reads at once.
    """

    def __init__(
        self,
        site: Site,
        own: NoteStore,
        tokenizer: "PreTrainedTokenizerBase",
        settings: Settings,
        max_length: int,
        watch: Watch,
    ) -> None:
        self.site, self.settings, self.max_length, self.watch = site, settings, max_length, watch
        self.scores: list[EncoderScore] = []
        self.not_scored: list[NotScored] = []
        self.tasks: dict[str, TaskData] = {}
        self._predicted: dict[tuple[str, EvaluatedModel, Mode], np.ndarray] = {}
        self._test_vectors: dict[tuple[str, EvaluatedModel], np.ndarray] = {}
        self._names = list(task_names(site, own) if settings.tasks is None else settings.tasks) or [LABEL]
        self._missing: dict[str, NotScored] = {}
        self._rows = {split: own.split_indices(split) for split in SPLITS}
        self._patients = own.patients()
        self._categories = own.column("category")
        self._opened = self._open(own, tokenizer)
        self._labels = {name: task.notes.column("label") for name, task in self._opened.items()}
        if not any(value is not None for column in (self._categories, *self._labels.values()) for value in column):
            raise InputError(
                "no-labels",
                f"The notes of {site.name} have neither labels nor categories, by which an encoder could be judged.",
                "Name a column with --label-column, --category-column or --task NAME=COLUMN.",
            )
        for name in self._names:
            data = self._data(name)
            if isinstance(data, NotScored):
                self.not_scored.append(data)
            else:
                self.tasks[name] = data

    def score_words(self) -> None:
        """What stands beside every encoder: the most frequent class, and TF-IDF."""
        for name, data in self.tasks.items():
            self.watch.say(f"{name}: TF-IDF")
            score, predicted = score_majority(data, self.settings.seed)
            self._keep("majority", score, predicted)
            texts = self._opened[name].notes.texts
            self._score_frozen("tf-idf", data, texts(self._of(data, "train")), texts(self._of(data, "test")))

    def score_encoder(self, model: EvaluatedModel, encoder: Encoder) -> None:
        """Every task in every mode, and the embeddings of the test notes. The encoder comes out as it went in."""
        cast(torch.nn.Module, encoder.model).to(pick_device())
        if model != "model":  # each encoder cuts texts into tokens of its own
            own = self.site.notes(encoder.tokenizer, self.watch.intake)
            self._opened = self._open(own, encoder.tokenizer)
        by_text: dict[str | None, list[str]] = {}
        for name, task in self._opened.items():
            by_text.setdefault(None if task.own_text else task.task.text, []).append(name)
        for names in by_text.values():
            vectors = self._embed(encoder, names)
            for name in names:
                self._test_vectors[name, model] = vectors.of(self._rows["test"])
                if data := self.tasks.get(name):
                    self._score(model, encoder, data, vectors)
        release_memory()

    def comparisons(self) -> list[EncoderComparison]:
        """The encoder that was asked about, in each mode, against all that stands beside it."""
        found = []
        for name, data in self.tasks.items():
            for mode in self.settings.evaluation.modes:
                for against in get_args(EvaluatedModel):
                    ours = self._predicted.get((name, "model", mode))
                    theirs = self._predicted.get((name, against, mode if against == "against" else "frozen"))
                    if against == "model" or ours is None or theirs is None:
                        continue
                    found.append(
                        EncoderComparison.model_validate(
                            compare(data, "base", ours, theirs, self.settings.seed, mode).model_dump()
                            | {"against": against}
                        )
                    )
        return found

    def spaces(self) -> list[EncoderSpace]:
        """The figures of each encoder's embedding space over the test notes, with each task's labels."""
        test = self._rows["test"]
        return [
            EncoderSpace(
                model=model,
                task=name,
                space=space(
                    vectors,
                    self._labels[name][test],
                    self._categories[test],
                    base=self._test_vectors.get((name, "against")) if model == "model" else None,
                    seed=self.settings.seed,
                ),
            )
            for (name, model), vectors in self._test_vectors.items()
        ]

    def _open(self, own: NoteStore, tokenizer: "PreTrainedTokenizerBase") -> dict[str, OpenTask]:
        """The tasks that the site has; `_missing` gets the others."""
        opened: dict[str, OpenTask] = {}
        for name in self._names:
            task = open_task(self.site, name, own, tokenizer, self.watch.intake)
            if isinstance(task, OpenTask):
                opened[name] = task
            else:
                self._missing[name] = task
        if not opened:  # its labels are not asked for, but there is an embedding space to look at
            opened[LABEL] = cast(OpenTask, open_task(self.site, LABEL, own, tokenizer, self.watch.intake))
        return opened

    def _data(self, name: str) -> TaskData | NotScored:
        if name in self._missing:
            return self._missing[name]
        train, dev, test = (self._labels[name][self._rows[split]] for split in SPLITS)
        metric = self._opened[name].task.metric
        return task_data(self.site.name, name, train, test, dev_labels=dev, metric=metric)

    def _of(self, data: TaskData, split: str) -> np.ndarray:
        """Positions of the labelled notes of a split that are scored."""
        return self._rows[split][data.train_rows if split == "train" else data.test_rows]

    def _embed(self, encoder: Encoder, names: Sequence[str]) -> "_Vectors":
        """All notes that tasks of one text need: the test notes, and those that a probe learns from."""
        positions = [self._rows["test"]]
        if "frozen" in self.settings.evaluation.modes:
            positions += [self._of(self.tasks[name], "train") for name in names if name in self.tasks]
        needed = np.unique(np.concatenate(positions))
        self.watch.say(f"{encoder.base}: embedding {len(needed):,} notes")
        vectors = embed_notes(
            encoder,
            self._opened[names[0]].notes,
            needed,
            max_length=self.max_length,
            precision=self.settings.precision,
            long_notes=self.settings.long_notes,
            progress=self.watch.tokens,
        )
        return _Vectors(needed, vectors)

    def _score(self, model: EvaluatedModel, encoder: Encoder, data: TaskData, vectors: "_Vectors") -> None:
        for mode in self.settings.evaluation.modes:
            self.watch.say(f"{encoder.base}: {data.task}, {mode}")
            if mode == "frozen":
                train, test = (vectors.of(self._of(data, split)) for split in ("train", "test"))
                self._score_frozen(model, data, train, test)
                continue
            try:
                scored = score_tuned(
                    data,
                    "base",
                    mode,
                    encoder,
                    self._opened[data.task].notes,
                    evaluation=self.settings.evaluation,
                    max_length=self.max_length,
                    precision=self.settings.precision,
                    seed=self.settings.seed,
                )
            except StudyError as error:
                if error.code != "tuning-diverged":
                    raise
                self._note(model, data, error.message)
            else:
                self._keep(model, *scored)

    def _score_frozen(self, model: EvaluatedModel, data: TaskData, train: Notes, test: Notes) -> None:
        """A probe on representations of the scored notes alone."""
        settings = self.settings.evaluation
        try:
            scored = score_frozen(
                replace(data, train_rows=np.arange(len(train)), test_rows=np.arange(len(test))),
                "tf-idf" if model == "tf-idf" else "base",
                train,
                test,
                shots=settings.shots,
                seeds=settings.seeds,
                seed=self.settings.seed,
                groups=self._patients[self._of(data, "train")],
            )
        except InputError as error:  # no-shared-words, which says nothing against the encoder
            self._note(model, data, error.message)
        else:
            self._keep(model, *scored)

    def _keep(self, model: EvaluatedModel, score: TaskScore, predicted: Predicted) -> None:
        self.scores.append(EncoderScore.model_validate(score.model_dump() | {"model": model}))
        self._predicted[score.task, model, score.mode] = predicted.full

    def _note(self, model: EvaluatedModel, data: TaskData, reason: str) -> None:
        self.not_scored.append(NotScored(site=data.site, task=data.task, reason=f"{model}: {reason}"))


@dataclass(frozen=True, eq=False)
class _Vectors:
    """Embeddings [n, H] of the notes at `positions` [n], which ascend."""

    positions: np.ndarray
    vectors: np.ndarray

    def of(self, positions: np.ndarray) -> np.ndarray:
        return self.vectors[np.searchsorted(self.positions, positions)]
