"""Which notes a step takes: each once an epoch, by the key and the step alone, with little padding."""

import numpy as np
import pytest

from client.batching import Batches, epoch_batches

KEY = (3, 14, 0)


def lengths(n: int = 1003) -> np.ndarray:
    return np.random.default_rng(0).lognormal(4, 1, n).astype(np.int64) + 1


def padded(batches: list[np.ndarray], size: np.ndarray) -> float:
    """Share of the batches' places that is padding."""
    places = sum(len(b) * int(size[b].max()) for b in batches)
    return 1 - int(size.sum()) / places


@pytest.mark.parametrize(("n", "batch_size"), [(1, 4), (3, 4), (4, 4), (5, 4), (1003, 8), (1003, 2000), (7, 1)])
def test_an_epoch_visits_each_note_once(n: int, batch_size: int) -> None:
    batches = Batches(lengths(n), batch_size, KEY)
    assert batches.per_epoch == -(-n // batch_size)
    for epoch in range(3):
        steps = range(epoch * batches.per_epoch, (epoch + 1) * batches.per_epoch)
        taken = [batches.at(step) for step in steps]
        assert sorted(np.concatenate(taken).tolist()) == list(range(n))
        assert sorted(map(len, taken), reverse=True)[:-1] == [batch_size] * (batches.per_epoch - 1)


def test_epochs_differ_and_keys_differ() -> None:
    one, other = Batches(lengths(), 8, KEY), Batches(lengths(), 8, (3, 15, 0))
    first = [one.at(step).tolist() for step in range(one.per_epoch)]
    second = [one.at(step + one.per_epoch).tolist() for step in range(one.per_epoch)]
    assert first != second and sorted(map(sorted, first)) != sorted(map(sorted, second))
    assert first != [other.at(step).tolist() for step in range(one.per_epoch)]


def test_a_step_depends_on_nothing_before_it() -> None:
    unbroken = Batches(lengths(), 8, KEY)
    taken = [unbroken.at(step).tolist() for step in range(3 * unbroken.per_epoch)]
    for step in (0, 1, unbroken.per_epoch - 1, unbroken.per_epoch, 2 * unbroken.per_epoch + 7):
        assert Batches(lengths(), 8, KEY).at(step).tolist() == taken[step]
    assert unbroken.at(2).tolist() == taken[2]  # and back again


def test_little_is_padded() -> None:
    size = lengths(5000)
    sorted_ = padded(epoch_batches(size, 16, np.random.default_rng(1)), size)
    order = np.random.default_rng(1).permutation(5000)
    at_random = padded([order[i : i + 16] for i in range(0, 5000, 16)], size)
    assert at_random > 0.5 and sorted_ < at_random / 3


def test_long_and_short_batches_are_mixed() -> None:
    size = lengths(800)
    means = np.array([size[b].mean() for b in epoch_batches(size, 16, np.random.default_rng(1))])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.4
