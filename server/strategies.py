"""Flower's strategies, as the plan names them, and the state they carry from round to round."""

import logging
import math
from typing import Any

import numpy as np
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, FedMedian, FedProx, FedTrimmedAvg, Strategy

from common.messages import ARRAYS, CONFIG, WEIGHT, Tensors, to_arrays
from common.plan_sections import Federation

logging.getLogger("flwr").setLevel(logging.ERROR)  # a page of INFO lines a round; our record says what matters


def make_strategy(plan: Federation) -> FedAvg:
    """The plan's strategy over every site that answers; how many are enough is decided in `server.rounds`."""
    every: dict[str, Any] = {
        "fraction_train": 1.0,
        "fraction_evaluate": 1.0,
        "min_train_nodes": 1,
        "min_evaluate_nodes": 1,
        "min_available_nodes": 1,
        "weighted_by_key": WEIGHT,
        "arrayrecord_key": ARRAYS,
        "configrecord_key": CONFIG,
    }
    settings: Any = plan  # the plan has filled in what its strategy needs
    match plan.strategy:
        case "fedavg":
            return FedAvg(**every)
        case "fedprox":
            return FedProx(proximal_mu=settings.proximal_mu, **every)
        case "fedadam":
            return FedAdam(eta=settings.server_learning_rate, **every)
        case "fedavgm":
            return FedAvgM(
                server_learning_rate=settings.server_learning_rate, server_momentum=settings.server_momentum, **every
            )
        case "trimmed-mean":
            return FedTrimmedAvg(beta=settings.trim_fraction, **every)
        case "median":
            return FedMedian(**every)


def strategy_state(strategy: Strategy, names: list[str]) -> Tensors:
    """What must be kept so that the next round goes on as if nothing had happened: moments, by `slot/tensor`."""
    state: Tensors = {}
    for slot in ("m_t", "v_t"):
        for name, value in (getattr(strategy, slot, None) or {}).items():
            state[f"{slot}/{name}"] = value
    momentum: list[np.ndarray] | None = getattr(strategy, "momentum_vector", None)
    if momentum is not None:
        state |= {f"momentum/{name}": value for name, value in zip(names, momentum, strict=True)}
    return state


def restore_strategy(strategy: Strategy, state: Tensors, arrays: Tensors) -> None:
    """Put a kept state back into a fresh strategy; `arrays` are the shared tensors of the same round."""
    slots: dict[str, Tensors] = {}
    for key, value in state.items():
        slot, name = key.split("/", 1)
        slots.setdefault(slot, {})[name] = value
    if isinstance(strategy, FedAdam) and "m_t" in slots:
        strategy.m_t, strategy.v_t = slots["m_t"], slots["v_t"]
    if isinstance(strategy, FedAvgM) and "momentum" in slots:
        strategy.momentum_vector = [slots["momentum"][name] for name in arrays]
        strategy.current_arrays = to_arrays(arrays)


def distance(a: Tensors, b: Tensors) -> float:
    """L2 norm of a - b over all tensors, in float64: no two float32 values are too far apart for it."""
    squares = 0.0
    for name, value in b.items():
        difference = (a[name].astype(np.float64) - value).ravel()
        squares += float(difference @ difference)
    return math.sqrt(squares)
