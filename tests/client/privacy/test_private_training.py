"""A round of private training as a whole: what it is where privacy has no cost, and what it leaves as it was."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from private_helpers import Bench, bench, flat, key_of, only
from private_statistics import CERTAIN, Z, p_of_variance, z_of_mean

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
    assert set(handed) == set(grads)
    assert float((flat(handed) - flat(grads)).norm()) < 1e-4 * float(flat(grads).norm())

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


def test_gradients_that_a_failed_round_left_are_not_stepped_on(
    bases: dict[str, str], notes: NoteStore, few: Few
) -> None:
    """A model stays in memory from one study to the next, and these have no noise."""
    made, clean = (bench("declutr-alone", bases["bert"], notes, **SINGLE) for _ in range(2))
    for p in made.encoder.tensors().values():
        p.grad = torch.ones_like(p)
    for one in (made, clean):
        one.round(notes, few(one), KEY)
    assert torch.equal(weights(made), weights(clean))


def test_the_loss_that_leaves_is_near_the_true_one_where_noise_is_small(
    bases: dict[str, str], notes: NoteStore
) -> None:
    made = bench("mlm", bases["bert"], notes, **SINGLE)
    units = made.units(notes)
    _, (count, loss) = made.exact(notes, units, KEY, rate=0.5)
    true = loss / dpsgd._LOSS * dpsgd._MOST_LOSS / (count / dpsgd._COUNT)
    assert 5 < true < 7  # the logarithm of the vocabulary is 5.99
    trained, _ = made.round(notes, units, KEY, noise=0.01, rate=0.5, learning_rate=1e-9)
    assert 0 < abs(trained.loss - true) < 0.5
    assert trained.tokens == 0 and trained.parts == {}


def test_it_has_the_noise_that_was_charged_for(bases: dict[str, str], notes: NoteStore, few: Few) -> None:
    """Of the loss, which is a quotient, the noise is that of its numerator and of its denominator."""
    made = bench("mlm", bases["bert"], notes, "biases", **SINGLE)
    units, noise = few(made), 0.02

    def noises(claimed: float) -> np.ndarray:
        found = []
        for number in range(60):
            key = key_of("loss", number)
            _, (count, loss) = made.exact(notes, units, key)
            true = loss / dpsgd._LOSS * dpsgd._MOST_LOSS / (count / dpsgd._COUNT)
            trained, _ = made.round(notes, units, key, noise=noise, learning_rate=1e-12)
            spread = np.hypot(dpsgd._MOST_LOSS / dpsgd._LOSS, true / dpsgd._COUNT) * claimed / len(units)
            found.append((trained.loss - true) / spread)
        return np.array(found)

    drawn = noises(noise)
    assert p_of_variance(drawn, 1.0) > CERTAIN and abs(z_of_mean(drawn)) < Z
    assert p_of_variance(drawn, 2.0) < CERTAIN  # half of what was charged for would be found


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
    handed, after, start = {}, {}, weights(bench("mlm", bases["bert"], notes, **SINGLE))
    for mu in (0.0, 50.0):
        made = bench("mlm", bases["bert"], notes, **SINGLE)
        steps: list[torch.Tensor] = []
        see = lambda *_, made=made, steps=steps: steps.append(flat(made.tensors).clone())
        _, given = made.round(notes, only(few(made)), KEY, noise=1e-6, steps=3, proximal_mu=mu, on_step=see)
        handed[mu], after[mu] = [flat(g) for g in given], steps
    assert torch.equal(handed[0.0][0], handed[50.0][0])  # at the start there is nothing to pull
    for step in (1, 2):
        added = handed[50.0][step] - handed[0.0][step]
        torch.testing.assert_close(added, 50 * (after[50.0][step - 1] - start), rtol=1e-3, atol=1e-4)
    assert float((after[50.0][2] - start).norm()) < 0.7 * float((after[0.0][2] - start).norm())


def test_without_public_text_a_contrast_with_it_is_refused(bases: dict[str, str], notes: NoteStore, few: Few) -> None:
    made = bench("declutr", bases["bert"], notes, **SINGLE)
    before = weights(made)
    with pytest.raises(InputError) as caught:
        made.round(notes, few(made), KEY, public=None)
    assert caught.value.code == "no-public-text" and torch.equal(weights(made), before)
