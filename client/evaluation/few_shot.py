"""Few-shot scores: on the whole, natural test set after training on n labelled notes a class."""

import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import stats

from client.evaluation.metrics import accuracy, macro_f1
from common.results import Estimate, FewShot

SHOTS = (16, 32, 64, 128)
SEEDS = 5

# (rows of the train notes to learn from, seed) -> predicted label of every test note
FitPredict = Callable[[np.ndarray, int], np.ndarray]


def predict_draws(
    fit_predict: FitPredict, train_y: np.ndarray, shots: Sequence[int] = SHOTS, seeds: int = SEEDS, seed: int = 0
) -> dict[int, np.ndarray]:
    """What a model says of the test notes after each draw of n train notes a class: n -> [seeds, n_test] labels.

    Where no class has n notes every draw would be the whole train set, which is scored as such: such an n is left out.

    Args:
        fit_predict: trains on the given train rows and predicts every test note.
        train_y: [n_train] class names.
        shots: notes a class.
        seeds: draws for each n.
        seed: the study's seed; another one gives other draws.
    """
    most = max(np.unique(train_y, return_counts=True)[1])
    return {
        n: np.stack([fit_predict(draw(train_y, n, seed, number), seed + number) for number in range(seeds)])
        for n in shots
        if n <= most
    }


def few_shot(train_y: np.ndarray, test_y: np.ndarray, draws: Mapping[int, np.ndarray]) -> list[FewShot]:
    """The score at each n of `draws`, as `predict_draws` returned them.

    The interval is over draws only, and draws overlap the more the nearer n comes to all notes, so at large n it is too
    narrow; a single draw has none.

    Args:
        train_y: [n_train] class names.
        test_y: [n_test] class names.
        draws: n -> [seeds, n_test] predicted labels.
    """
    _, counts = np.unique(train_y, return_counts=True)
    results = []
    for n, predicted in draws.items():
        scores = [macro_f1(test_y, of_draw) for of_draw in predicted]
        results.append(
            FewShot(
                shots=n,
                macro_f1=_over_draws(scores),
                accuracy=_over_draws([accuracy(test_y, of_draw) for of_draw in predicted]),
                per_seed=scores,
                short_classes=int((counts < n).sum()),
            )
        )
    return results


def draw(train_y: np.ndarray, n: int, seed: int, number: int) -> np.ndarray:
    """Rows of n train notes a class (all of a class that has fewer), ascending.

    Each class is drawn by a generator keyed by (seed, number, n, class) alone, so every model of a site learns from the
    same notes, and adding a class leaves the draws of the others as they were.
    """
    rows = []
    for name in np.unique(train_y):
        rng = np.random.default_rng([seed, number, n, zlib.crc32(str(name).encode())])
        of_class = np.flatnonzero(train_y == name)
        rows.append(rng.choice(of_class, size=min(n, len(of_class)), replace=False))
    return np.sort(np.concatenate(rows))


def _over_draws(scores: list[float]) -> Estimate:
    """Mean over draws with Student's t interval, held within [0, 1], where both metrics live."""
    mean = float(np.mean(scores))
    if len(scores) < 2:
        return Estimate(value=mean)
    half = float(stats.t.ppf(0.975, len(scores) - 1) * np.std(scores, ddof=1) / np.sqrt(len(scores)))
    return Estimate(value=mean, low=max(0.0, mean - half), high=min(1.0, mean + half))
