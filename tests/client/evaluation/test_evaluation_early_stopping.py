"""Which notes are held out, and which epoch is the best."""

import math

import numpy as np
import torch

from client.evaluation.early_stopping import PATIENCE, BestEpoch, held_out

LABELS = np.random.default_rng(0).permutation(np.array(["a"] * 400 + ["b"] * 200 + ["c"] * 140))


def test_a_share_of_each_class_is_held_out():
    held = held_out(LABELS, seed=0)
    names, counts = np.unique(LABELS[held], return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {"a": 60, "b": 30, "c": 21}
    assert set(LABELS[~held]) == {"a", "b", "c"}


def test_the_seed_decides_and_other_classes_do_not():
    held = held_out(LABELS, seed=0)
    assert (held == held_out(LABELS, seed=0)).all() and (held != held_out(LABELS, seed=1)).any()
    renamed = np.where(LABELS == "a", "z", LABELS)
    others = LABELS != "a"
    assert (held_out(renamed, seed=0) == held)[others].all()


def test_nothing_is_held_out_of_classes_that_are_too_small():
    assert not held_out(np.array(["a"] * 400 + ["b"] * 129), seed=0).any()
    assert not held_out(np.array(["a", "b"]), seed=0).any()


def run(epochs: list[tuple[float, float]]) -> tuple[BestEpoch, torch.nn.Parameter, int]:
    """Epoch i ends with the parameter at i; returns how many epochs there were, too."""
    parameter = torch.nn.Parameter(torch.zeros(3))
    best = BestEpoch([parameter])
    for number, (metric, loss) in enumerate(epochs, 1):
        parameter.data.fill_(number)
        if not best.offer(metric, loss):
            break
    best.load()
    return best, parameter, number


def test_the_best_epoch_is_loaded_and_patience_ends_the_rest():
    best, parameter, epochs = run([(0.3, 2.0), (0.6, 1.5), (0.5, 1.0), (0.5, 0.9), (0.9, 0.1)])
    assert (best.number, epochs) == (2, 2 + PATIENCE) and parameter.tolist() == [2.0, 2.0, 2.0]
    assert best.history == [(0.3, 2.0), (0.6, 1.5), (0.5, 1.0), (0.5, 0.9)]


def test_of_equal_metrics_the_lower_loss_is_better():
    best, parameter, epochs = run([(0.5, 1.0), (0.5, 0.9), (0.5, 0.9), (0.4, 0.1), (1.0, 0.0)])
    assert (best.number, epochs, parameter[0].item()) == (2, 4, 2.0)
    assert math.isclose(best.history[1][1], 0.9)


def test_the_first_epoch_is_the_best_where_all_others_are_worse():
    best, parameter, epochs = run([(0.0, 9.0)] + [(0.0, 10.0)] * 5)
    assert (best.number, epochs, parameter[0].item()) == (1, 3, 1.0)
