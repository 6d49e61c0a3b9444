"""The encoder learns a task: pooled embeddings under a head of two layers (METHOD section 3.1), all of it trained.

Either the whole body learns, or adapters in it (LoRA) while the body stays fixed. Which epoch's weights are used is
decided on dev notes, and the test notes are predicted once, by them. The caller's encoder is only borrowed.
"""

import contextlib
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from client.batching import epoch_batches
from client.device import autocast, training_attention
from client.evaluation.borrowed import adapted, borrowed
from client.evaluation.early_stopping import BestEpoch, held_out
from client.evaluation.embed import batches_by_length, padded
from client.evaluation.metrics import MEASURES
from client.evaluation.probe import check_finite
from client.notes.store import NoteStore
from common.encoder import Encoder
from common.errors import StudyError
from common.plan_sections import Evaluation
from common.results import Metric

BATCH = 16
WARMUP = 0.1  # of all steps
WEIGHT_DECAY = 0.01
MAX_GRAD_NORM = 1.0
DROPOUT = 0.1  # in the head
MIN_DEV = 10  # fewer dev notes than this say too little to choose an epoch by

TunedMode = Literal["fine-tuned", "lora"]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Notes to learn from: positions in their store [n], and the class of each [n]."""

    rows: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Tuned:
    """What the tuned encoder says of the test notes.

    Attributes:
        classes: [k] class names, sorted.
        labels: [n_test] the predicted class of each note.
        scores: [n_test, k] probability of each class; rows sum to 1.
        history: (metric, loss in nats) on the dev notes after each epoch; empty where there was no early stopping.
        epoch: whose weights were used, counted from 1.
    """

    classes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    history: list[tuple[float, float]]
    epoch: int


def fine_tune(
    encoder: Encoder,
    notes: NoteStore,
    train: Labelled,
    dev: Labelled | None,
    test: np.ndarray,
    *,
    mode: TunedMode,
    evaluation: Evaluation,
    metric: Metric,
    max_length: int,
    precision: str,
    seed: int,
) -> Tuned:
    """Learn from `train`, stop by `dev`, predict `test`; the encoder comes out as it went in.

    Where `dev` has fewer than `MIN_DEV` notes, or one class only, a part of `train` is held out in its place. Where its
    classes are too small for that, or `dev` is None, training goes through all its epochs and the last one's weights
    are used.

    Args:
        encoder: where training starts.
        notes: the store that all positions are of.
        train: at least two classes.
        dev: of the same classes; may be empty; None for no early stopping.
        test: [n_test] positions.
        evaluation: rates, epochs and rank.
        metric: by which epochs are compared.
        max_length: tokens of a note that are read, special ones included.
        precision: as in the plan's training section.
        seed: of everything random. On a processor the same seed gives the same predictions.

    Raises:
        StudyError: `embeddings-not-finite`: the weights that were given are not numbers; `tuning-diverged`.
    """
    check_finite(*(parameter.detach().cpu().numpy() for parameter in encoder.body.parameters()))
    if dev is not None and (len(dev.rows) < MIN_DEV or len(np.unique(dev.labels)) < 2):
        held = held_out(train.labels, seed)
        dev = Labelled(train.rows[held], train.labels[held])
        train = Labelled(train.rows[~held], train.labels[~held])
    device = next(encoder.model.parameters()).device
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        stack.enter_context(borrowed(encoder))
        torch.manual_seed(seed)
        if mode == "lora":
            stack.enter_context(adapted(encoder, evaluation.lora_rank))
        stack.enter_context(training_attention(encoder, device, precision))
        classes = np.unique(train.labels)
        model = _Classifier(encoder, notes, classes, max_length, precision)
        best = _learn(model, train, dev, mode, evaluation, metric, seed)
        logits = model.logits(test)
    _check(logits, mode)
    return Tuned(
        classes=classes,
        labels=classes[logits.argmax(axis=1)],
        scores=torch.from_numpy(logits).softmax(dim=1).numpy(),
        history=best.history,
        epoch=best.number or evaluation.tuning_epochs,
    )


def task_head(width: int, classes: int) -> torch.nn.Sequential:
    """Pooled embeddings [B, width] -> logits [B, classes], through one hidden layer of the same width."""
    nn = torch.nn
    return nn.Sequential(
        nn.Dropout(DROPOUT), nn.Linear(width, width), nn.Tanh(), nn.Dropout(DROPOUT), nn.Linear(width, classes)
    )


class _Classifier:
    """The encoder under a fresh head, on the notes of one store."""

    def __init__(
        self, encoder: Encoder, notes: NoteStore, classes: np.ndarray, max_length: int, precision: str
    ) -> None:
        self.encoder, self.notes, self.classes = encoder, notes, classes
        self.max_length, self.precision = max_length, precision
        self.device = next(encoder.model.parameters()).device
        self.head = task_head(encoder.hidden_size, len(classes)).to(self.device)  # drawn on the processor, then moved

    def train(self, mode: bool) -> None:
        self.encoder.model.train(mode)
        self.head.train(mode)

    def forward(self, rows: np.ndarray) -> torch.Tensor:
        """Logits [B, classes] float32 of the notes at `rows`."""
        ids, mask = padded(self.encoder, self.notes, rows, self.max_length)
        with autocast(self.device, self.precision):
            return self.head(self.encoder.embed(ids.to(self.device), mask.to(self.device))).float()

    def logits(self, rows: np.ndarray) -> np.ndarray:
        """Logits [n, classes] float64, dropout off."""
        self.train(False)
        out = np.zeros((len(rows), len(self.classes)))
        # One context for all batches: it keeps the weights that it has cast to bfloat16 until it is left.
        with torch.inference_mode(), autocast(self.device, self.precision):
            for places in batches_by_length(self.lengths(rows)):
                out[places] = self.forward(rows[places]).cpu().numpy()
        return out

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        return np.minimum(self.notes.lengths[rows] + 2, self.max_length)


def _learn(
    model: _Classifier,
    train: Labelled,
    dev: Labelled | None,
    mode: TunedMode,
    evaluation: Evaluation,
    metric: Metric,
    seed: int,
) -> BestEpoch:
    """Train in place; the model is left with the weights that are to be used."""
    optimiser, parameters = _optimiser(model, mode, evaluation)
    peaks = [group["lr"] for group in optimiser.param_groups]
    best = BestEpoch(parameters)
    targets = torch.from_numpy(np.searchsorted(model.classes, train.labels)).to(model.device)
    total = evaluation.tuning_epochs * math.ceil(len(train.rows) / BATCH)
    step = 0
    for epoch in range(evaluation.tuning_epochs):
        model.train(True)
        losses = []
        for places in epoch_batches(model.lengths(train.rows), BATCH, np.random.default_rng([seed, epoch])):
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * _rate_factor(step, total)
            loss = torch.nn.functional.cross_entropy(model.forward(train.rows[places]), targets[places])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
            optimiser.step()
            optimiser.zero_grad()
            losses.append(loss.detach())
            step += 1
        _check(torch.stack(losses).cpu().numpy(), mode)
        if dev is None or not len(dev.rows):
            continue
        logits = model.logits(dev.rows)
        _check(logits, mode)
        value = MEASURES[metric](dev.labels, model.classes[logits.argmax(axis=1)])
        if not best.offer(value, _cross_entropy(logits, np.searchsorted(model.classes, dev.labels))):
            break
    if best.history:
        best.load()
    return best


def _optimiser(
    model: _Classifier, mode: TunedMode, evaluation: Evaluation
) -> tuple[torch.optim.AdamW, list[torch.nn.Parameter]]:
    """AdamW for the body's (or the adapters') rate and the head's; decoupled decay on matrices only."""
    body = [parameter for parameter in model.encoder.body.parameters() if parameter.requires_grad]
    head = list(model.head.parameters())
    body_rate = evaluation.tuning_learning_rate if mode == "fine-tuned" else evaluation.lora_learning_rate
    groups = [
        {"params": [p for p in of_part if (p.ndim > 1) == decays], "lr": rate, "weight_decay": WEIGHT_DECAY * decays}
        for of_part, rate in ((body, body_rate), (head, evaluation.head_learning_rate))
        for decays in (True, False)
    ]
    fused = model.device.type in ("cpu", "cuda")
    return torch.optim.AdamW([group for group in groups if group["params"]], fused=fused), [*body, *head]


def _rate_factor(step: int, total: int) -> float:
    """Share of the peak rate: linear warm-up, then linear decay towards 0."""
    warmup = round(WARMUP * total)
    return (step + 1) / warmup if step < warmup else (total - step) / (total - warmup)


def _cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    return float(torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets)))


def _check(values: np.ndarray, mode: TunedMode) -> None:
    if not np.isfinite(values).all():
        rate = "tuning_learning_rate" if mode == "fine-tuned" else "lora_learning_rate"
        raise StudyError(
            "tuning-diverged",
            f"The encoder's training on the task ({mode}) gave numbers that are NaN or infinite.",
            f"Lower {rate} or head_learning_rate in the plan.",
        )
