"""The encoder learns a task, by itself or through adapters, and is given back as it was."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from client.evaluation import early_stopping
from client.evaluation import fine_tune as module
from client.evaluation.early_stopping import held_out
from client.evaluation.embed import embed_notes
from client.evaluation.fine_tune import Labelled, Tuned, fine_tune, task_head
from client.evaluation.metrics import MEASURES, macro_f1
from client.evaluation.task import TaskData
from client.notes.store import NoteStore
from common.encoder import Encoder, load_encoder, tensors_digest
from common.errors import StudyError
from common.plan_sections import Evaluation

EVALUATION = Evaluation(
    tuning_epochs=6, tuning_learning_rate=3e-3, lora_learning_rate=2e-2, head_learning_rate=1e-2, lora_rank=4
)
MODES = ("fine-tuned", "lora")


def parts(store: NoteStore, data: TaskData) -> tuple[Labelled, Labelled, np.ndarray]:
    train = Labelled(store.split_indices("train")[data.train_rows], data.train_labels)
    dev = Labelled(store.split_indices("dev")[data.dev_rows], data.dev_labels)
    return train, dev, store.split_indices("test")[data.test_rows]


def tune(encoder: Encoder, store: NoteStore, data: TaskData, **changes: Any) -> Tuned:
    train, dev, test = parts(store, data)
    settings: dict[str, Any] = {
        "train": train,
        "dev": dev,
        "test": test,
        "mode": "fine-tuned",
        "evaluation": EVALUATION,
        "metric": "macro-f1",
        "max_length": 32,
        "precision": "float32",
        "seed": 0,
    }
    return fine_tune(encoder, store, **settings | changes)


@pytest.mark.parametrize("mode", MODES)
def test_it_learns_and_leaves_the_encoder_as_it_was(
    bases: dict[str, str],
    task_stores: dict[str, NoteStore],
    task_of: Callable[..., TaskData],
    family: str,
    mode: str,
) -> None:
    encoder, store = load_encoder(bases[family]), task_stores[family]
    data, rows = task_of(store), np.arange(4)
    # With these settings adapters learn all of it from each of ten seeds; of rank 4 not from each.
    settings: dict[str, Any] = {
        "mode": mode,
        "evaluation": EVALUATION.model_copy(update={"lora_learning_rate": 5e-3, "lora_rank": 16}),
    }
    before, drawn = tensors_digest(encoder.tensors().items()), torch.random.get_rng_state()
    vectors = embed_notes(encoder, store, rows, max_length=32, precision="float32")
    tuned = tune(encoder, store, data, **settings)
    assert macro_f1(data.test_labels, tuned.labels) > 0.85  # the majority class alone: 1/6
    assert tuned.scores.shape == (30, 3) and tuned.scores.sum(axis=1) == pytest.approx(np.ones(30))
    assert (tuned.classes[tuned.scores.argmax(axis=1)] == tuned.labels).all()
    assert tensors_digest(encoder.tensors().items()) == before
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert np.array_equal(embed_notes(encoder, store, rows, max_length=32, precision="float32"), vectors)
    again = tune(encoder, store, data, **settings)
    assert np.array_equal(again.scores, tuned.scores) and again.history == tuned.history
    assert not np.array_equal(tune(encoder, store, data, **settings, seed=1).scores, tuned.scores)


@pytest.fixture
def bert(task_stores: dict[str, NoteStore]) -> NoteStore:
    return task_stores["bert"]


@pytest.fixture
def data(bert: NoteStore, task_of: Callable[..., TaskData]) -> TaskData:
    return task_of(bert)


def test_the_best_epoch_of_all_is_the_one_that_predicts(encoder: Encoder, bert: NoteStore, data: TaskData) -> None:
    """On dev notes whose classes are shuffled later epochs are worse; they are predicted as after the best one."""
    _, dev, _ = parts(bert, data)
    shuffled = Labelled(dev.rows, np.random.default_rng(1).permutation(dev.labels))
    tuned = tune(encoder, bert, data, dev=shuffled, test=dev.rows)
    assert tuned.epoch < len(tuned.history)
    assert tuned.history[tuned.epoch - 1] == max(tuned.history, key=lambda epoch: (epoch[0], -epoch[1]))
    of_true = tuned.scores[np.arange(18), np.searchsorted(tuned.classes, shuffled.labels)]
    losses = [loss for _, loss in tuned.history]
    assert -np.log(of_true).mean() == pytest.approx(losses[tuned.epoch - 1]) != pytest.approx(losses[-1])


def test_it_stops_two_epochs_after_the_best(
    encoder: Encoder, bert: NoteStore, data: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MEASURES, "macro-f1", lambda true, pred: 0.5)
    monkeypatch.setattr(module, "_cross_entropy", lambda logits, targets: 1.0)
    tuned = tune(encoder, bert, data)
    assert tuned.epoch == 1 and len(tuned.history) == 3


def test_epochs_are_compared_by_the_metric_of_the_task(encoder: Encoder, bert: NoteStore, data: TaskData) -> None:
    by_accuracy = tune(encoder, bert, data, metric="accuracy")
    assert all((value * 18) == pytest.approx(round(value * 18)) for value, _ in by_accuracy.history)


def test_without_dev_notes_a_part_of_the_train_notes_stops_it(
    encoder: Encoder, bert: NoteStore, task_of: Callable[..., TaskData], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early_stopping, "MIN_OF_CLASS", 3)
    data = task_of(bert, dev=False)
    train, dev, _ = parts(bert, data)
    assert len(dev.rows) == 0
    learned: set[int] = set()
    forward = module._Classifier.forward

    def spy(self: Any, rows: np.ndarray) -> torch.Tensor:
        if self.head.training:
            learned.update(rows.tolist())
        return forward(self, rows)

    monkeypatch.setattr(module._Classifier, "forward", spy)
    tuned = tune(encoder, bert, data)
    held = held_out(data.train_labels, 0)
    assert held.sum() == 9 and learned == set(train.rows[~held].tolist())
    assert tuned.history and macro_f1(data.test_labels, tuned.labels) > 0.85


def test_a_few_dev_notes_or_one_class_of_them_stop_nothing(
    encoder: Encoder, bert: NoteStore, data: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early_stopping, "MIN_OF_CLASS", 3)
    _, dev, _ = parts(bert, data)
    some = np.flatnonzero(dev.labels == "heart")
    results = [
        tune(encoder, bert, data, dev=Labelled(dev.rows[few], dev.labels[few]))
        for few in (np.arange(9), np.repeat(some, 2), np.arange(0))
    ]
    assert results[0].history == results[1].history == results[2].history != []


@pytest.mark.parametrize("mode", MODES)
def test_small_classes_and_none_for_dev_go_through_all_epochs(
    encoder: Encoder, bert: NoteStore, data: TaskData, mode: str
) -> None:
    """Of one class two notes, of the others one; twenty of each; and dev notes enough, but no early stopping."""
    train, dev, _ = parts(bert, data)
    few, none = Labelled(train.rows[:4], train.labels[:4]), Labelled(dev.rows[:0], dev.labels[:0])
    for tuned in (
        tune(encoder, bert, data, train=few, dev=none, mode=mode),
        tune(encoder, bert, data, dev=none, mode=mode),
        tune(encoder, bert, data, dev=None, mode=mode),
    ):
        assert tuned.history == [] and tuned.epoch == EVALUATION.tuning_epochs
        assert set(tuned.classes) == set(data.train_labels) and tuned.scores.shape == (30, 3)


def test_the_test_notes_are_read_once_at_the_end(
    encoder: Encoder, bert: NoteStore, data: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, test = parts(bert, data)
    read: list[int] = []
    padded = module.padded

    def spy(encoder: Encoder, notes: NoteStore, rows: np.ndarray, max_length: int):
        read.extend(rows.tolist())
        return padded(encoder, notes, rows, max_length)

    monkeypatch.setattr(module, "padded", spy)
    tune(encoder, bert, data)
    assert sorted(read[-30:]) == sorted(test.tolist()) and not set(read[:-30]) & set(test.tolist())


def test_only_the_first_tokens_of_a_note_are_read(
    encoder: Encoder, bert: NoteStore, data: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = set()
    embed = Encoder.embed

    def spy(self: Encoder, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        widths.add(ids.shape[1])
        return embed(self, ids, mask)

    monkeypatch.setattr(Encoder, "embed", spy)
    tune(encoder, bert, data, max_length=8, evaluation=EVALUATION.model_copy(update={"tuning_epochs": 1}))
    assert max(widths) == 8 < bert.lengths.max()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rate", ["body", "head_learning_rate"])
def test_numbers_that_are_not_finite_end_it_and_leave_the_encoder(
    encoder: Encoder, bert: NoteStore, data: TaskData, mode: str, rate: str
) -> None:
    before = tensors_digest(encoder.tensors().items())
    name = rate if rate != "body" else "tuning_learning_rate" if mode == "fine-tuned" else "lora_learning_rate"
    hot = EVALUATION.model_copy(update={name: 1e38})
    with pytest.raises(StudyError) as caught:
        tune(encoder, bert, data, mode=mode, evaluation=hot)
    assert caught.value.code == "tuning-diverged" and name in caught.value.next_step
    assert tensors_digest(encoder.tensors().items()) == before
    assert not any("lora" in name for name, _ in encoder.model.named_modules())


def test_an_encoder_that_is_not_finite_is_told_apart(encoder: Encoder, bert: NoteStore, data: TaskData) -> None:
    next(iter(encoder.body.parameters())).data[0, 0] = torch.nan
    with pytest.raises(StudyError) as caught:
        tune(encoder, bert, data)
    assert caught.value.code == "embeddings-not-finite"


@pytest.mark.parametrize("mode", MODES)
def test_bfloat16_works_and_leaves_the_attention_as_it_was(
    bases: dict[str, str],
    task_stores: dict[str, NoteStore],
    task_of: Callable[..., TaskData],
    family: str,
    mode: str,
) -> None:
    encoder, store = load_encoder(bases[family]), task_stores[family]
    before, attention = tensors_digest(encoder.tensors().items()), encoder.model.config._attn_implementation
    data = task_of(store)
    tuned = tune(encoder, store, data, mode=mode, precision="bfloat16")
    assert macro_f1(data.test_labels, tuned.labels) > 0.8
    assert tensors_digest(encoder.tensors().items()) == before
    assert encoder.model.config._attn_implementation == attention


def test_what_learns_and_at_which_rate(
    encoder: Encoder, bert: NoteStore, data: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    make = module._optimiser

    def spy(*given: Any) -> Any:
        optimiser, parameters = make(*given)
        groups = [(g["lr"], g["weight_decay"], sum(p.numel() for p in g["params"])) for g in optimiser.param_groups]
        seen.append({"groups": groups, "parameters": parameters})
        return optimiser, parameters

    monkeypatch.setattr(module, "_optimiser", spy)
    once = EVALUATION.model_copy(update={"tuning_epochs": 1})
    for mode in MODES:
        tune(encoder, bert, data, mode=mode, evaluation=once)
    matrices = sum(p.numel() for p in encoder.body.parameters() if p.ndim > 1)
    vectors = sum(p.numel() for p in encoder.body.parameters() if p.ndim == 1)
    head = [(1e-2, 0.01, 32 * 32 + 32 * 3), (1e-2, 0.0, 32 + 3)]
    assert seen[0]["groups"] == [(3e-3, 0.01, matrices), (3e-3, 0.0, vectors), *head]
    assert seen[1]["groups"] == [(2e-2, 0.01, 2 * 4 * 4 * 32), *head]


def test_the_head_has_two_layers() -> None:
    head = task_head(384, 7)
    assert sum(p.numel() for p in head.parameters()) == 384 * 384 + 384 + 384 * 7 + 7
    kinds = [type(layer).__name__ for layer in head]
    assert kinds == ["Dropout", "Linear", "Tanh", "Dropout", "Linear"]


def test_the_rate_warms_up_and_falls_to_nought() -> None:
    factors = [module._rate_factor(step, 100) for step in range(100)]
    assert factors[:10] == pytest.approx(np.arange(1, 11) / 10) and factors[10] == 1.0
    assert np.diff(factors[10:]) == pytest.approx(np.full(89, -1 / 90)) and factors[-1] == pytest.approx(1 / 90)
    assert [module._rate_factor(step, 1) for step in range(1)] == [1.0]
