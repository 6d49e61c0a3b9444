"""Which notes each step takes: batches of similar length, so that little is padded, in an order that depends on nothing
but the key and the step. A run that is resumed at any step therefore takes the same notes as an unbroken one."""

import numpy as np

_POOL = 50  # batches that are sorted by length together: long enough to save padding, short enough to mix


def epoch_batches(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """One pass over n notes of `lengths` [n] in tokens: index arrays of `batch_size` (the last may be smaller)."""
    order = rng.permutation(len(lengths))
    pool = batch_size * _POOL
    batches: list[np.ndarray] = []
    for start in range(0, len(order), pool):
        part = order[start : start + pool]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


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
            self._epoch, self._batches = epoch, epoch_batches(self.lengths, self.batch_size, rng)
        return self._batches[place]
