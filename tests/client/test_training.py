"""The local loop: its schedule, its optimiser, and that a round depends on its key and its start alone."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import client.training
from client.batching import Batches
from client.notes.store import NoteStore
from client.objectives import Loss
from client.objectives.mlm import Mlm
from client.training import Mean, Trained, held_out_loss, make_optimiser, rate_factor, site_key, train
from common.encoder import Encoder, load_encoder
from common.plan import StudyPlan
from common.plan_sections import EncoderPlan, Study, Training
from common.plan_sections import Mlm as MlmPlan

KEY = site_key(3, "Northgate")
CPU = torch.device("cpu")
Weights = dict[str, torch.Tensor]


def plan(**settings: Any) -> Training:
    return Training(
        **({"steps_per_round": 4, "batch_size": 4, "learning_rate": 1e-3, "precision": "float32"} | settings)
    )


def mlm(encoder: Encoder) -> Mlm:
    study = StudyPlan(study=Study(name="test"), encoder=EncoderPlan(max_length=32))
    return Mlm(study, MlmPlan(), encoder.tokenizer)


def run(
    encoder: Encoder, notes: NoteStore, settings: Training, first: int = 0, steps: int = 4, **other: Any
) -> Trained:
    objective = mlm(encoder)
    keys = {"key": KEY, "total_steps": 8} | other
    return train(encoder, objective, notes, settings, first_step=first, steps=steps, **keys)


def weights(encoder: Encoder) -> Weights:
    return {name: p.detach().clone() for name, p in encoder.tensors().items()}


def equal(a: Weights, b: Weights) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def distance(a: Weights, b: Weights) -> float:
    return math.sqrt(sum(float((a[name] - b[name]).square().sum()) for name in a))


# The schedule.


def test_warm_up_and_linear_decay() -> None:
    settings = plan(warmup_fraction=0.2)
    factors = [rate_factor(step, 10, settings) for step in range(10)]
    assert factors == pytest.approx([1 / 2, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_cosine_decay() -> None:
    settings = plan(schedule="cosine", warmup_fraction=0.0)
    factors = [rate_factor(step, 4, settings) for step in range(4)]
    assert factors == pytest.approx([1, 0.5 + math.sqrt(0.5) / 2, 0.5, 0.5 - math.sqrt(0.5) / 2])


def test_constant() -> None:
    settings = plan(schedule="constant", warmup_fraction=0.5)
    assert [rate_factor(step, 4, settings) for step in range(4)] == [0.5, 1, 1, 1]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_rate_ends_near_nothing_and_never_jumps(schedule: str) -> None:
    factors = np.array([rate_factor(step, 1000, plan(schedule=schedule)) for step in range(1000)])
    assert 0 < factors[-1] < 0.01 and factors.max() == 1 and factors[99] == 1
    assert np.abs(np.diff(factors)).max() <= 0.01 + 1e-9
    assert (np.diff(factors[100:]) <= 0).all() and (np.diff(factors[:100]) > 0).all()


@pytest.mark.parametrize("total", [1, 2, 3])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_shortest_study_has_a_rate(total: int, fraction: float, schedule: str) -> None:
    settings = plan(schedule=schedule, warmup_fraction=fraction)
    assert all(0 < rate_factor(step, total, settings) <= 1 for step in range(total))


def test_the_schedule_spans_the_rounds(encoder: Encoder, notes: NoteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def spy(step: int, total: int, settings: Training) -> float:
        asked.append((step, total))
        return rate_factor(step, total, settings)

    monkeypatch.setattr(client.training, "rate_factor", spy)
    run(encoder, notes, plan(), first=0)
    run(encoder, notes, plan(), first=4)
    assert list(dict.fromkeys(asked)) == [(step, 8) for step in range(8)]


def test_keys_name_a_site_and_a_seed() -> None:
    keys = {site_key(seed, site) for seed in (0, 1) for site in ("a", "b", "é")}
    assert len(keys) == 6 and site_key(0, "a") == site_key(0, "a")


# The optimiser.


def test_vectors_do_not_decay(family: str, bases: dict[str, str]) -> None:
    encoder = load_encoder(bases[family])
    decayed, free = make_optimiser(encoder, plan(weight_decay=0.3), CPU).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    ids = {id(p) for p in free["params"]}
    for name, p in encoder.tensors().items():
        is_free = name.endswith("bias") or "norm" in name.lower()
        assert (id(p) in ids) == is_free, name
    assert len(decayed["params"]) + len(free["params"]) == len(encoder.tensors())


def test_decay_reaches_matrices_only(encoder: Encoder, notes: NoteStore, bases: dict[str, str]) -> None:
    """With and without decay, one step: matrices differ by rate * decay * weight, vectors not at all."""
    before = weights(encoder)
    settings = {"schedule": "constant", "warmup_fraction": 0.0}
    run(encoder, notes, plan(weight_decay=0.0, **settings), steps=1)
    other = load_encoder(bases["bert"])
    run(other, notes, plan(weight_decay=0.5, **settings), steps=1)
    without, decayed = weights(encoder), weights(other)
    for name, start in before.items():
        expected = without[name] - 1e-3 * 0.5 * start * (start.ndim > 1)
        torch.testing.assert_close(decayed[name], expected, atol=1e-7, rtol=1e-5)


# What a round depends on.


def test_two_rounds_are_the_same_after_a_restart(encoder: Encoder, notes: NoteStore, bases: dict[str, str]) -> None:
    run(encoder, notes, plan(), first=0)
    middle = {name: value.numpy() for name, value in weights(encoder).items()}
    unbroken = run(encoder, notes, plan(), first=4)
    torch.randn(10)
    restarted = load_encoder(bases["bert"])
    restarted.load(middle)
    assert run(restarted, notes, plan(), first=4) == unbroken
    assert equal(weights(restarted), weights(encoder))


def test_what_was_done_before_does_not_matter(encoder: Encoder, notes: NoteStore, bases: dict[str, str]) -> None:
    fresh = load_encoder(bases["bert"])
    start = weights(encoder)
    run(encoder, notes, plan(learning_rate=0.1), first=2, key=site_key(9, "other"))
    held_out_loss(encoder, mlm(encoder), notes, plan(), key=KEY, most_notes=4)
    encoder.load(start)
    torch.manual_seed(99)
    np.random.seed(99)
    run(encoder, notes, plan())
    run(fresh, notes, plan())
    assert equal(weights(encoder), weights(fresh)) and not equal(weights(encoder), start)


@pytest.mark.parametrize(
    "other",
    [{"key": site_key(4, "Northgate")}, {"key": site_key(3, "Southgate")}, {"first": 1}],
    ids=["seed", "site", "step"],
)
def test_another_key_gives_another_round(
    encoder: Encoder, notes: NoteStore, bases: dict[str, str], other: dict[str, Any]
) -> None:
    second = load_encoder(bases["bert"])
    settings = plan(schedule="constant", warmup_fraction=0.0)
    run(encoder, notes, settings)
    run(second, notes, settings, **other)
    assert not equal(weights(encoder), weights(second))


def test_dropout_is_on_and_keyed(
    notes: NoteStore, make_base: Callable[..., Any], tmp_path: Any, bases: dict[str, str]
) -> None:
    still = load_encoder(str(make_base(tmp_path / "base", "bert", dropout=0.0)))
    dropped = load_encoder(bases["bert"])
    assert equal(weights(still), weights(dropped))
    run(still, notes, plan())
    run(dropped, notes, plan())
    assert not equal(weights(still), weights(dropped))


def test_the_global_generators_are_left_alone(encoder: Encoder, notes: NoteStore) -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    run(encoder, notes, plan())
    held_out_loss(encoder, mlm(encoder), notes, plan(), key=KEY, most_notes=4)
    assert torch.equal(torch.get_rng_state(), torch_state) and np.array_equal(np.random.get_state()[1], numpy_state)


def test_only_training_notes_are_read(encoder: Encoder, notes: NoteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def spy(self: Mlm, store: NoteStore, index: int) -> Any:
        read.append(int(index))
        return as_usual(self, store, index)

    as_usual = Mlm.read
    monkeypatch.setattr(Mlm, "read", spy)
    count = len(notes.split_indices("train"))
    run(encoder, notes, plan(batch_size=64), steps=-(-count // 64))
    assert sorted(read) == notes.split_indices("train").tolist()
    read.clear()
    held_out_loss(encoder, mlm(encoder), notes, plan(), key=KEY, most_notes=1000)
    assert sorted(read) == notes.split_indices("dev").tolist()


# What a round does.


@dataclass
class ShortNotes:
    """Four notes that fit in one window, so that they can be learned by heart: what `train` asks of a store."""

    def __post_init__(self) -> None:
        self.ids = np.random.default_rng(0).integers(5, 200, (4, 12))
        self.lengths = np.full(4, 12)

    def split_indices(self, split: str) -> np.ndarray:
        return np.arange(4)

    def tokens(self, index: int) -> np.ndarray:
        return self.ids[index]

    def word_starts(self, index: int) -> np.ndarray:
        return np.ones(12, dtype=bool)


def test_the_loss_falls(encoder: Encoder) -> None:
    settings = plan(learning_rate=1e-2, schedule="constant", warmup_fraction=0.0)
    losses = [
        run(encoder, ShortNotes(), settings, first=first, steps=50, total_steps=200).loss  # type: ignore[arg-type]
        for first in range(0, 200, 50)
    ]
    assert losses == sorted(losses, reverse=True) and losses[0] > 3.5 and losses[-1] < 2.5


def test_what_is_reported(encoder: Encoder, notes: NoteStore) -> None:
    """The loss is the mean over predicted tokens of all steps, not the mean of the steps' losses."""
    done: list[tuple[int, int]] = []
    objective = mlm(encoder)
    sums: list[tuple[float, int, int]] = []
    loss = objective.loss

    def spy(*given: Any) -> Any:
        found = loss(*given)
        sums.append((float(found.mean.detach()) * found.terms, found.terms, given[1].tokens))
        return found

    objective.loss = spy  # type: ignore[method-assign]
    trained = train(
        encoder, objective, notes, plan(), key=KEY, first_step=0, steps=3, total_steps=8,
        on_step=lambda n, of: done.append((n, of)),
    )  # fmt: skip
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert trained.steps == 3 and trained.tokens == sum(tokens for *_, tokens in sums)
    assert trained.loss == pytest.approx(sum(total for total, *_ in sums) / sum(count for _, count, _ in sums))
    assert trained.parts == {}


def test_the_mean_weighs_batches_by_their_terms_and_parts_by_theirs() -> None:
    mean = Mean(CPU)
    mean.add(Loss(torch.tensor(2.0), 3, {"mlm": (torch.tensor(8.0), 4), "category": (torch.tensor(1.0), 1)}))
    mean.add(Loss(torch.tensor(4.0), 1, {"mlm": (torch.tensor(1.0), 2)}))
    assert mean.means() == (2.5, {"mlm": 1.5, "category": 1.0})
    nothing, parts = Mean(CPU).means()
    assert math.isnan(nothing) and parts == {}


def test_a_large_proximal_term_holds_the_weights(notes: NoteStore, bases: dict[str, str]) -> None:
    moved = []
    for mu in (0.0, 1000.0):
        encoder = load_encoder(bases["bert"])
        start = weights(encoder)
        settings = plan(weight_decay=0.0, schedule="constant", warmup_fraction=0.0, max_grad_norm=1e9)
        run(encoder, notes, settings, steps=20, total_steps=20, proximal_mu=mu)
        moved.append(distance(weights(encoder), start))
    assert moved[1] < moved[0] / 2


@pytest.mark.parametrize("max_norm", [1e9, 0.5])
def test_the_proximal_term_is_that_of_the_loss(
    notes: NoteStore, bases: dict[str, str], max_norm: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four steps of the loop against four with mu/2 ||w - w0||^2 in the loss itself. Plain gradient descent on both
    sides, for Adam makes a step of any gradient, however small, and so hides or inflates a difference."""

    def descent(encoder: Encoder, *_: Any) -> torch.optim.SGD:
        return torch.optim.SGD(encoder.tensors().values(), lr=0.1)

    monkeypatch.setattr(client.training, "make_optimiser", descent)
    settings = plan(schedule="constant", warmup_fraction=0.0, max_grad_norm=max_norm, learning_rate=0.1)
    mu, (ours, theirs, plain) = 3.0, (load_encoder(bases["bert"]) for _ in range(3))
    run(ours, notes, settings, proximal_mu=mu)
    _reference(theirs, notes, settings, 4, mu, descent(theirs))
    run(plain, notes, settings)
    assert distance(weights(ours), weights(theirs)) < 1e-5
    assert distance(weights(ours), weights(plain)) > 1e-2


def test_the_loop_is_plain_adamw(notes: NoteStore, bases: dict[str, str]) -> None:
    settings = plan(max_grad_norm=0.7)
    ours, theirs = load_encoder(bases["bert"]), load_encoder(bases["bert"])
    run(ours, notes, settings, steps=4)
    adamw = torch.optim.AdamW(
        [
            {"params": [p for p in theirs.tensors().values() if p.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in theirs.tensors().values() if p.ndim == 1], "weight_decay": 0.0},
        ],
        fused=False,
        foreach=False,
    )
    _reference(theirs, notes, settings, 4, 0.0, adamw)
    assert distance(weights(ours), weights(theirs)) < 1e-4


def _reference(
    encoder: Encoder, notes: NoteStore, settings: Training, steps: int, mu: float, optimiser: torch.optim.Optimizer
) -> None:
    """The same steps written out, with the loss that transformers computes."""
    objective = mlm(encoder)
    tensors = encoder.tensors()
    start = weights(encoder)
    rows = notes.split_indices("train")
    batches = Batches(np.minimum(notes.lengths[rows], 30), settings.batch_size, (*KEY, 0))
    encoder.model.train()
    with torch.random.fork_rng(devices=[]):
        for step in range(steps):
            torch.manual_seed(int(np.random.SeedSequence([*KEY, 2, step]).generate_state(1, np.uint64)[0]))
            some = [objective.read(notes, i) for i in rows[batches.at(step)]]
            t = objective.collate(some, np.random.default_rng([*KEY, 1, step])).tensors
            labels = torch.full_like(t["input_ids"], -100)
            labels.view(-1)[t["positions"]] = t["targets"]
            loss = encoder.model(input_ids=t["input_ids"], attention_mask=t["attention_mask"], labels=labels).loss
            loss = loss + mu / 2 * sum((p - start[n]).square().sum() for n, p in tensors.items())
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(list(tensors.values()), settings.max_grad_norm)
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * rate_factor(step, 8, settings)
            optimiser.step()


def test_gradients_are_clipped(encoder: Encoder, notes: NoteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    step = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, *given: Any, **named: Any) -> Any:
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(math.sqrt(sum(float(g.square().sum()) for g in grads)))
        return step(self, *given, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    run(encoder, notes, plan(max_grad_norm=0.01))
    assert norms == pytest.approx([0.01] * 4, rel=1e-3)
    norms.clear()
    run(encoder, notes, plan(max_grad_norm=1e9))
    assert min(norms) > 0.05


# bfloat16.


@pytest.mark.parametrize("precision", ["bfloat16", "auto"])
def test_other_precisions(family: str, bases: dict[str, str], stores: dict[str, NoteStore], precision: str) -> None:
    """Weights stay float32 and finite, a round can be repeated, and the way attention is computed is put back."""
    rounds = []
    for _ in range(2):
        encoder = load_encoder(bases[family])
        attention = encoder.model.config._attn_implementation
        trained = run(encoder, stores[family], plan(precision=precision), steps=2)
        assert encoder.model.config._attn_implementation == attention and math.isfinite(trained.loss)
        assert all(p.dtype == torch.float32 and p.isfinite().all() for p in encoder.tensors().values())
        rounds.append((trained, weights(encoder)))
    assert rounds[0][0] == rounds[1][0] and equal(rounds[0][1], rounds[1][1])
    exact = load_encoder(bases[family])
    assert run(exact, stores[family], plan(), steps=2).loss == pytest.approx(rounds[0][0].loss, rel=0.02)


def test_attention_is_put_back_after_an_error(encoder: Encoder, notes: NoteStore) -> None:
    attention = encoder.model.config._attn_implementation

    def fail(done: int, steps: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(encoder, notes, plan(precision="bfloat16"), on_step=fail)
    assert encoder.model.config._attn_implementation == attention
