"""When to stop learning a task, judged on notes that are neither learned from nor tested on."""

import zlib
from collections.abc import Sequence

import numpy as np
import torch

PATIENCE = 2  # epochs without a better one before training stops
SHARE = 0.15  # of the labelled notes, where there are no dev notes
# Fewest notes that each class must give. With 2, of 16 notes a class, macro-F1 was .06 (mtsamples) and .08 (vaers) less
# than after learning from all notes through all epochs, and with 10, of 64, still .035 less (vaers): what is held out
# is missed, and what so few notes say ends training after two to four epochs of ten.
MIN_OF_CLASS = 20


def held_out(labels: np.ndarray, seed: int) -> np.ndarray:
    """Which of n labelled notes to hold out: `SHARE` of each class, [n] bool. None where a class is too small for that.

    Each class is drawn by a generator keyed by (seed, class) alone.
    """
    names, counts = np.unique(labels, return_counts=True)
    numbers = np.rint(SHARE * counts).astype(int)
    chosen = np.zeros(len(labels), dtype=bool)
    if numbers.min() < MIN_OF_CLASS:
        return chosen
    for name, number in zip(names, numbers, strict=True):
        rng = np.random.default_rng([seed, zlib.crc32(str(name).encode())])
        chosen[rng.choice(np.flatnonzero(labels == name), size=number, replace=False)] = True
    return chosen


class BestEpoch:
    """Keeps the parameters of the best epoch so far: the higher metric, and of equals the lower loss."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.parameters = parameters
        self.history: list[tuple[float, float]] = []  # (metric, loss) of each epoch
        self.number = 0  # of the best epoch, counted from 1
        self._values: list[torch.Tensor] = []

    def offer(self, metric: float, loss: float) -> bool:
        """Judge the epoch that has just ended; whether to go on."""
        self.history.append((metric, loss))
        order = [(of_epoch, -of_loss) for of_epoch, of_loss in self.history]
        if self.number == 0 or order[-1] > order[self.number - 1]:
            self.number = len(order)
            self._values = [parameter.detach().clone() for parameter in self.parameters]
        return len(order) - self.number < PATIENCE

    def load(self) -> None:
        """Put the best epoch's values into the parameters."""
        with torch.no_grad():
            for parameter, value in zip(self.parameters, self._values, strict=True):
                parameter.copy_(value)
