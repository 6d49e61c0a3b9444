"""Which notes each step takes: batches of similar length, so that little is padded, in an order that depends on nothing
but the key and the step. A run that is resumed at any step therefore takes the same notes as an unbroken one."""

import numpy as np

_POOL = 50  # batches that are sorted by length together: long enough to save padding, short enough to mix


def epoch_batches(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """One pass over n notes of `lengths` [n] in tokens: index arrays of `batch_size` (the last may be smaller)."""
    order = rng.permutation(len(lengths))
    return _by_length([order[i : i + batch_size] for i in range(0, len(order), batch_size)], lengths, rng)


def _by_length(batches: list[np.ndarray], lengths: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Batches of the same sizes in another order, each of similar lengths: members change places within a pool."""
    found: list[np.ndarray] = []
    for start in range(0, len(batches), _POOL):
        pool = batches[start : start + _POOL]
        part = np.concatenate(pool)
        part = part[np.argsort(lengths[part], kind="stable")]
        found += np.split(part, np.cumsum([len(batch) for batch in pool])[:-1])
    return [found[i] for i in rng.permutation(len(found))]


class Batches:
    """The batch of every step of a study at one site: epochs follow one another, each in a new order.

    Args:
        lengths: tokens of each note a step would read, [n], n >= 1.
        key: integers that name this stream, such as (study seed, site).
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, key: tuple[int, ...]) -> None:
        self.lengths, self.batch_size, self.key = lengths, batch_size, key
        self.per_epoch = -(-len(lengths) // batch_size)
        self._epoch, self._batches = -1, list[np.ndarray]()

    def at(self, step: int) -> np.ndarray:
        """Note indices of a step, counted from the start of the study."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng([*self.key, epoch])
            self._epoch, self._batches = epoch, self._draw(rng)
        return self._batches[place]

    def _draw(self, rng: np.random.Generator) -> list[np.ndarray]:
        return epoch_batches(self.lengths, self.batch_size, rng)


class PairedBatches(Batches):
    """Batches of pairs of one class: whatever a note's class, another of it is in the batch, if there is one at all.

    Each epoch pairs the notes of a class at random, and so those without one; three of an odd number are together.
    There are as many batches as without pairs, of nearly the same size; classes come as often as the notes have them.

    Args:
        classes: [n] integers; -1 for none.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, key: tuple[int, ...], classes: np.ndarray) -> None:
        super().__init__(lengths, batch_size, key)
        self.classes = classes
        self.per_epoch = len(self._draw(np.random.default_rng([*key, 0])))

    def _draw(self, rng: np.random.Generator) -> list[np.ndarray]:
        pairs: list[np.ndarray] = []
        for name in np.unique(self.classes):
            of_class = rng.permutation(np.flatnonzero(self.classes == name))
            pairs += np.array_split(of_class, max(1, len(of_class) // 2))
        lengths = np.array([self.lengths[pair].max() for pair in pairs])
        count = min(len(pairs), -(-len(self.lengths) // self.batch_size))
        batches = _by_length(np.array_split(rng.permutation(len(pairs)), count), lengths, rng)
        return [np.concatenate([pairs[i] for i in batch]) for batch in batches]
