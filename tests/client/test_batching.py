"""Which notes a step takes: each once an epoch, by the key and the step alone, with little padding."""

import numpy as np
import pytest

from client.batching import Batches, PairedBatches, epoch_batches

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


# Batches of pairs.

SHARES = {0: 480, 1: 301, 2: 141, 3: 17, 4: 3, 5: 2, 6: 1, -1: 58}  # notes a class, as unequal as a hospital's


def classes() -> np.ndarray:
    every = np.concatenate([np.full(count, name) for name, count in SHARES.items()])
    return np.random.default_rng(2).permutation(every)


def paired(batch_size: int = 16) -> PairedBatches:
    return PairedBatches(lengths(1003), batch_size, KEY, classes())


def test_the_counts_are_as_many_as_the_lengths() -> None:
    assert len(classes()) == len(lengths()) and classes()[:20].tolist() != sorted(classes()[:20])


@pytest.mark.parametrize("batch_size", [1, 2, 5, 16, 4000])
def test_an_epoch_of_pairs_visits_each_note_once(batch_size: int) -> None:
    """In as many batches as without pairs, and of about one size, but for the threes of odd numbers."""
    batches = paired(batch_size)
    for epoch in range(3):
        taken = [batches.at(epoch * batches.per_epoch + place) for place in range(batches.per_epoch)]
        assert sorted(np.concatenate(taken).tolist()) == list(range(1003))
        threes = sum(count % 2 for count in SHARES.values() if count > 1)
        if batch_size > 2:
            assert batches.per_epoch == -(-1003 // batch_size)
        assert min(map(len, taken)) > 0 and max(map(len, taken)) <= max(2, batch_size + batch_size % 2) + threes
        sizes = np.array([len(batch) for batch in taken])
        assert (np.abs(sizes - 1003 / batches.per_epoch) > 2).sum() <= threes


def test_whoever_has_a_partner_has_it_in_the_batch() -> None:
    batches, of = paired(), classes()
    for step in range(3 * batches.per_epoch):
        batch = of[batches.at(step)].tolist()
        assert all(batch.count(name) > 1 for name in batch if SHARES[name] > 1), step


def test_partners_change() -> None:
    batches, of = paired(batch_size=2), classes()
    one = int(np.flatnonzero(of == 2)[0])
    partners = set()
    for step in range(8 * batches.per_epoch):
        batch = batches.at(step).tolist()
        partners |= set(batch) - {one} if one in batch else set()
    assert len(partners) >= 6 and set(of[list(partners)]) == {2}


def test_a_step_of_pairs_depends_on_nothing_before_it() -> None:
    unbroken = paired()
    taken = [unbroken.at(step).tolist() for step in range(3 * unbroken.per_epoch)]
    for step in (0, 1, unbroken.per_epoch - 1, unbroken.per_epoch, 2 * unbroken.per_epoch + 7):
        assert paired().at(step).tolist() == taken[step]
    other = PairedBatches(lengths(1003), 16, (3, 15, 0), classes())
    assert other.at(0).tolist() != taken[0]


def test_little_is_padded_in_pairs() -> None:
    """More than where notes go by length alone, for a pair is seldom of one length; still less than at random."""
    size, batches = lengths(1003), paired()
    in_pairs = padded([batches.at(step) for step in range(batches.per_epoch)], size)
    order = np.random.default_rng(1).permutation(1003)
    assert in_pairs < padded([order[i : i + 16] for i in range(0, 1003, 16)], size) - 0.1
