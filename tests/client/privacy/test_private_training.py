"""A round of private training as a whole: what it is where privacy has no cost, and what it leaves as it was."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from private_helpers import Bench, bench, flat, key_of, only

from client import dpsgd
from client.notes.store import NoteStore
from client.training import make_optimiser
from client.units import Units
from common.errors import InputError

KEY = key_of("training")
SINGLE = {"dtype": torch.float32}
Few = Callable[[Bench], Units]


@pytest.fixture
def few(notes: NoteStore) -> Few:
    return lambda made: Units(made.units(notes).members[:6])


def weights(made: Bench) -> torch.Tensor:
    return flat(made.encoder.tensors())


@pytest.mark.parametrize("objective", ["mlm", "declutr", "declutr-groups"])
def test_a_round_is_the_same_again_with_the_same_key_and_no_other(
    bases: dict[str, str], notes: NoteStore, few: Few, objective: str
) -> None:
    found = []
    for key in (KEY, KEY, key_of("another")):
        made = bench(objective, bases["bert"], notes, **SINGLE)
        torch.manual_seed(len(found))  # of no matter
        trained, _ = made.round(notes, few(made), key, rate=0.5, steps=3)
        found.append((weights(made), trained.loss))
    assert torch.equal(found[0][0], found[1][0]) and str(found[0][1]) == str(found[1][1])
    assert not torch.equal(found[0][0], found[2][0]) and str(found[0][1]) != str(found[2][1])


@pytest.mark.parametrize("objective", ["mlm", "declutr", "category", "declutr-groups"])
def test_with_no_noise_or_bound_it_is_a_plain_step_on_the_mean_of_the_losses(
    bases: dict[str, str], notes: NoteStore, few: Few, objective: str
) -> None:
    """Units of one note, so that each is its own loss: all units in one group, where there are groups."""
    made, plain = (bench(objective, bases["bert"], notes, **SINGLE) for _ in range(2))
    units = Units([members[:1] for members in few(made).members])
    batches: list = []
    collate = made.objective.collate_units
    made.objective.collate_units = lambda *given: batches.append(collate(*given)) or batches[-1]  # type: ignore[method-assign]
    trained, (handed,) = made.round(notes, units, KEY, noise=0.0, max_grad_norm=1e6, group_size=64, learning_rate=1e-3)

    objective_of_plain = plain.objective
    if hasattr(made.objective, "_pool"):
        objective_of_plain.__dict__ |= {name: getattr(made.objective, name) for name in ("_frozen", "_negatives")}
    losses = torch.cat(
        [objective_of_plain.unit_losses(plain.encoder, batch, lambda owner: torch.enable_grad()) for batch in batches]
    )
    (losses.sum() / len(units)).backward()
    grads = {name: p.grad for name, p in plain.tensors.items()}
    assert float(flat(grads).norm()) > 0.01
    torch.testing.assert_close(handed, grads, rtol=1e-4, atol=1e-6)

    optimiser = make_optimiser(plain.encoder, plain.plan.training, torch.device("cpu"))
    optimiser.step()
    clear = flat(grads).abs() > 1e-4  # of less, AdamW makes as much, and rounding decides the sign
    assert float(clear.float().mean()) > 0.1
    torch.testing.assert_close(weights(made)[clear], flat(plain.tensors)[clear], rtol=0, atol=1e-5)
    notes_read = sum(int(batch.tensors["notes"].sum()) for batch in batches)
    assert trained.loss == pytest.approx(float(losses.detach().sum()) / notes_read, rel=1e-5)


@pytest.mark.parametrize("step", range(4))
def test_a_sum_is_divided_by_the_expected_number_of_units(
    bases: dict[str, str], notes: NoteStore, few: Few, step: int
) -> None:
    made = bench("mlm", bases["bert"], notes, **SINGLE)
    units, key = few(made), key_of("divided", step)
    exact, _ = made.exact(notes, units, key, rate=0.4)
    _, (handed,) = made.round(notes, units, key, noise=0.0, rate=0.4)
    drawn = len(units.draw(0.4, key, 0))
    torch.testing.assert_close(handed, {name: g / (0.4 * 6) for name, g in exact.items()})
    assert drawn != 2.4 and (drawn == 0) == (float(flat(handed).norm()) == 0)


def test_an_empty_draw_is_a_step_of_noise_alone(bases: dict[str, str], notes: NoteStore, few: Few) -> None:
    made = bench("mlm", bases["bert"], notes, **SINGLE)
    units, before = few(made), weights(made)
    assert not any(len(units.draw(1e-9, KEY, step)) for step in range(3))
    told: list[tuple[int, int]] = []
    trained, handed = made.round(notes, units, KEY, rate=1e-9, steps=3, on_step=lambda *done: told.append(done))
    assert trained.steps == len(handed) == 3 and told == [(1, 3), (2, 3), (3, 3)]
    same = bench("mlm", bases["bert"], notes, **SINGLE)
    _, of_nothing = same.round(notes, only(units), KEY, rate=1e-9, steps=3)
    assert torch.equal(flat(handed[1]), flat(of_nothing[1])) and torch.equal(weights(made), weights(same))
    assert bool(torch.isfinite(weights(made)).all()) and float((weights(made) - before).abs().min()) > 0


@pytest.mark.parametrize("trainable", ["no-embeddings", "biases", "lora"])
def test_what_is_frozen_stays_as_it_was(bases: dict[str, str], notes: NoteStore, few: Few, trainable: str) -> None:
    made = bench("mlm", bases["bert"], notes, trainable, **SINGLE)
    learns = set(made.encoder.tensors())
    before = {name: p.detach().clone() for name, p in made.encoder.model.named_parameters()}
    _, handed = made.round(notes, few(made), KEY, steps=2)
    moved = {name for name, p in made.encoder.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == learns == set(handed[0]) and 0 < len(learns) < len(before)


def test_a_head_that_nothing_reads_is_left_alone(bases: dict[str, str], notes: NoteStore, few: Few) -> None:
    made = bench("declutr-alone", bases["bert"], notes, **SINGLE)
    before = {name: p.detach().clone() for name, p in made.encoder.tensors().items()}
    _, handed = made.round(notes, few(made), KEY, steps=2)
    moved = {name for name, p in made.encoder.tensors().items() if not torch.equal(p, before[name])}
    assert moved == set(handed[0]) == {name for name in before if name.startswith("bert.")} != set(before)
    assert all(p.grad is None and p.requires_grad for p in made.encoder.tensors().values())


def true_loss(made: Bench, notes: NoteStore, units: Units, rate: float) -> float:
    """Of the first step."""
    _, (count, loss) = made.exact(notes, units, KEY, rate=rate)
    return loss / dpsgd._LOSS * dpsgd._MOST_LOSS / (count / dpsgd._COUNT)


def test_the_loss_that_leaves_is_near_the_true_one_where_noise_is_small(bases: dict[str, str], notes: NoteStore) -> None:
    made = bench("mlm", bases["bert"], notes, **SINGLE)
    units = made.units(notes)
    true = true_loss(made, notes, units, 0.5)
    assert 5 < true < 7  # the logarithm of the vocabulary is 5.99
    trained, _ = made.round(notes, units, KEY, noise=0.01, rate=0.5, learning_rate=1e-9)
    assert 0 < abs(trained.loss - true) < 0.5
    assert trained.tokens == 0 and trained.parts == {}


def test_it_has_noise_of_its_own_and_as_much_as_was_charged_for(bases: dict[str, str], notes: NoteStore, few: Few) -> None:
    """Of the loss, which is a quotient, the noise is that of its numerator and its denominator."""
    made = bench("mlm", bases["bert"], notes, "biases", **SINGLE)
    units, noise = few(made), 0.02
    true, found = true_loss(made, notes, units, 1.0), []
    for number in range(60):
        trained, _ = made.round(notes, units, key_of("loss", number), noise=noise, learning_rate=1e-12)
        found.append(trained.loss)
    count = len(units)
    expected = np.hypot(dpsgd._MOST_LOSS / dpsgd._LOSS * noise / count, true / dpsgd._COUNT * noise / count)
    coins = 0.25  # the masks are others each time
    assert 0.6 * expected < np.std(found) < 1.5 * np.hypot(expected, coins)


def test_a_loss_that_noise_drowned_or_the_plan_keeps_is_no_number(
    bases: dict[str, str], notes: NoteStore, few: Few
) -> None:
    made = bench("mlm", bases["bert"], notes, "biases", **SINGLE)
    losses = [made.round(notes, only(few(made)), key_of(number), noise=5.0)[0].loss for number in range(16)]
    assert 4 <= sum(map(math.isnan, losses)) <= 16 and all(math.isnan(loss) or loss > 0 for loss in losses)
    kept, (handed,) = made.round(notes, few(made), KEY, noise=0.0, release_loss=False, max_grad_norm=1e-3)
    assert math.isnan(kept.loss)
    whole, (less,) = made.round(notes, few(made), KEY, noise=0.0, max_grad_norm=1e-3, learning_rate=1e-9)
    assert math.isfinite(whole.loss)
    assert float(flat(less).norm() / flat(handed).norm()) == pytest.approx(math.sqrt(0.98), rel=0.05)


def test_a_huge_loss_counts_as_twenty(bases: dict[str, str], notes: NoteStore, few: Few) -> None:
    made = bench("category", bases["bert"], notes, **SINGLE)
    made.objective.plan = made.objective.plan.model_copy(update={"weight": 1000.0})  # type: ignore[attr-defined]
    _, (count, loss) = made.exact(notes, few(made), KEY)
    assert loss <= dpsgd._LOSS * 6 and count == pytest.approx(dpsgd._COUNT * 6)
    assert loss > 0.9 * dpsgd._LOSS * 6  # it was clamped
    with torch.no_grad():
        made.encoder.category_head.weight.fill_(torch.nan)  # type: ignore[union-attr]
    _, (count, loss) = made.exact(notes, few(made), KEY)
    assert loss == pytest.approx(dpsgd._LOSS * 6) and count == pytest.approx(dpsgd._COUNT * 6)


def test_the_proximal_term_pulls_towards_the_start_of_the_round(
    bases: dict[str, str], notes: NoteStore, few: Few
) -> None:
    plain, pulled = (bench("mlm", bases["bert"], notes, **SINGLE) for _ in range(2))
    start = weights(plain)
    (_, free), (_, held) = (
        made.round(notes, only(few(made)), KEY, noise=1e-6, steps=3, proximal_mu=mu)
        for made, mu in ((plain, 0.0), (pulled, 50.0))
    )
    assert torch.equal(flat(free[0]), flat(held[0]))  # at the start there is nothing to pull
    again = bench("mlm", bases["bert"], notes, **SINGLE)
    again.round(notes, only(few(again)), KEY, noise=1e-6, steps=1, proximal_mu=50.0)
    assert float((weights(pulled) - start).norm()) < 0.7 * float((weights(plain) - start).norm())
    # Weights decay while they are pulled, so what was added is told from what the noise is.
    added = flat(held[1]) - flat(free[1])
    assert float(torch.nn.functional.cosine_similarity(added, held_change(bases, notes, few), dim=0)) > 0.999


def held_change(bases: dict[str, str], notes: NoteStore, few: Few) -> torch.Tensor:
    """How far the first of three steps moves the weights."""
    made = bench("mlm", bases["bert"], notes, **SINGLE)
    start, after = weights(made), []
    made.round(
        notes, only(few(made)), KEY, noise=1e-6, steps=3, on_step=lambda *_: after.append(weights(made).clone())
    )
    return after[0] - start


def test_without_public_text_a_contrast_with_it_is_refused(bases: dict[str, str], notes: NoteStore, few: Few) -> None:
    made = bench("declutr", bases["bert"], notes, **SINGLE)
    before = copy.deepcopy(weights(made))
    with pytest.raises(InputError) as caught:
        made.round(notes, few(made), KEY, public=None)
    assert caught.value.code == "no-public-text" and torch.equal(weights(made), before)
