"""Each strategy against its formula, and across a restart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message
from flwr.serverapp.strategy import FedAvg

from common import messages
from common.messages import Tensors, TrainReply
from common.plan_sections import Federation
from server.checkpoint import State, load_checkpoint, save_checkpoint
from server.strategies import distance, make_strategy, restore_strategy, strategy_state
from simulations.engines import InProcessGrid

NOTES = (10, 30, 5, 55, 100)
STRATEGIES = ("fedavg", "fedprox", "fedadam", "fedavgm", "trimmed-mean", "median")
# Names as models have them: not in the order of the alphabet, nor of their shapes; two could stand for one another.
SHAPES: dict[str, tuple[int, ...]] = {"w.z": (3, 2), "bias": (2,), "w.a": (3, 2), "m": (2,)}

Reply = Callable[[Tensors, int], Message]


def drawn(seed: int) -> Tensors:
    rng = np.random.default_rng(seed)
    return {name: np.asarray(rng.normal(size=shape), dtype=np.float32) for name, shape in SHAPES.items()}


START = drawn(0)


@pytest.fixture
def reply(make_message: Callable[..., Message]) -> Reply:
    said = lambda notes: TrainReply(notes, 1, 1, 1.0, 1.0)
    return lambda tensors, notes: messages.for_strategy(
        messages.train_reply(said(notes), tensors, make_message()), tensors
    )


@pytest.fixture
def one_round(reply: Reply) -> Callable[..., Tensors]:
    """What the server does with a strategy in a round: configure, collect five updates, aggregate."""

    def go(strategy: FedAvg, number: int, arrays: Tensors, updates: list[Tensors] | None = None) -> Tensors:
        grid = InProcessGrid([Path("site")] * len(NOTES), lambda message, context: message)
        asked = list(strategy.configure_train(number, messages.to_arrays(arrays), ConfigRecord(), grid))
        assert len(asked) == len(NOTES)
        replies = [reply(u, n) for u, n in zip(updates or updates_of(number), NOTES, strict=True)]
        record, _ = strategy.aggregate_train(number, replies)
        return {name: record[name].numpy().astype(np.float32) for name in arrays}

    return go


def updates_of(number: int) -> list[Tensors]:
    return [drawn(100 * number + site) for site in range(len(NOTES))]


def average(updates: list[Tensors]) -> dict[str, np.ndarray]:
    return {
        name: sum(n / sum(NOTES) * u[name].astype(np.float64) for n, u in zip(NOTES, updates, strict=True))
        for name in START
    }


def close(ours: Tensors, expected: dict[str, Any]) -> None:
    assert set(ours) == set(expected)
    for name, value in ours.items():
        assert value.shape == SHAPES[name] and value.dtype == np.float32
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox"])
def test_the_average_is_weighted_by_notes(one_round: Callable[..., Tensors], strategy: str) -> None:
    close(one_round(make_strategy(Federation(strategy=strategy)), 1, START), average(updates_of(1)))


def test_fedavgm_over_rounds(one_round: Callable[..., Tensors]) -> None:
    strategy = make_strategy(Federation(strategy="fedavgm", server_learning_rate=0.5, server_momentum=0.8))
    ours, x = START, {k: v.astype(np.float64) for k, v in START.items()}
    velocity = {k: np.zeros(SHAPES[k]) for k in SHAPES}
    for number in (1, 2, 3):
        ours = one_round(strategy, number, ours)
        mean = average(updates_of(number))
        velocity = {k: 0.8 * velocity[k] + (x[k] - mean[k]) for k in x}
        x = {k: x[k] - 0.5 * velocity[k] for k in x}
        close(ours, x)


def test_fedavgm_without_momentum_is_a_step_towards_the_average(one_round: Callable[..., Tensors]) -> None:
    strategy = make_strategy(Federation(strategy="fedavgm", server_learning_rate=0.25, server_momentum=0.0))
    ours, x = START, {k: v.astype(np.float64) for k, v in START.items()}
    for number in (1, 2):
        ours = one_round(strategy, number, ours)
        x = {k: 0.75 * x[k] + 0.25 * mean for k, mean in average(updates_of(number)).items()}
        close(ours, x)


def test_fedadam_over_rounds(one_round: Callable[..., Tensors]) -> None:
    """Reddi et al. 2020 with Flower's defaults (0.9, 0.99, tau 1e-3) and its bias correction, which counts from 2."""
    strategy = make_strategy(Federation(strategy="fedadam", server_learning_rate=0.05))
    ours, x = START, {k: v.astype(np.float64) for k, v in START.items()}
    m, v = ({k: np.zeros(SHAPES[k]) for k in SHAPES} for _ in range(2))
    for number in (1, 2, 3):
        ours = one_round(strategy, number, ours)
        delta = {k: mean - x[k] for k, mean in average(updates_of(number)).items()}
        m = {k: 0.9 * m[k] + 0.1 * delta[k] for k in x}
        v = {k: 0.99 * v[k] + 0.01 * delta[k] ** 2 for k in x}
        rate = 0.05 * np.sqrt(1 - 0.99 ** (number + 1)) / (1 - 0.9 ** (number + 1))
        x = {k: x[k] + rate * m[k] / (np.sqrt(v[k]) + 1e-3) for k in x}
        close(ours, x)


@pytest.mark.parametrize(("fraction", "cut"), [(0.2, 1), (0.4, 2), (0.0, 0), (0.19, 0)])
def test_trimmed_mean(one_round: Callable[..., Tensors], fraction: float, cut: int) -> None:
    strategy = make_strategy(Federation(strategy="trimmed-mean", trim_fraction=fraction))
    stacked = {k: np.sort(np.stack([u[k] for u in updates_of(1)]), axis=0) for k in SHAPES}
    close(one_round(strategy, 1, START), {k: v[cut : 5 - cut].mean(0) for k, v in stacked.items()})


def test_median(one_round: Callable[..., Tensors]) -> None:
    stacked = {k: np.stack([u[k] for u in updates_of(1)]) for k in SHAPES}
    close(
        one_round(make_strategy(Federation(strategy="median")), 1, START),
        {k: np.median(v, 0) for k, v in stacked.items()},
    )


@pytest.mark.parametrize("strategy", ["trimmed-mean", "median"])
def test_one_wild_site_does_not_move_a_robust_strategy(one_round: Callable[..., Tensors], strategy: str) -> None:
    updates = updates_of(1)
    updates[4] = {k: np.full_like(v, 1e30) for k, v in updates[4].items()}
    mean = one_round(make_strategy(Federation(strategy=strategy)), 1, START, updates)
    assert max(np.abs(v).max() for v in mean.values()) < 10


def test_fedprox_sends_its_mu() -> None:
    grid = InProcessGrid([Path("a"), Path("b")], lambda message, context: message)
    for plan, sent in ((Federation(strategy="fedprox", proximal_mu=0.3), 0.3), (Federation(), None)):
        for message in make_strategy(plan).configure_train(
            7, messages.to_arrays(START), ConfigRecord({"plan": "p"}), grid
        ):
            config = message.content.config_records["config"]
            assert config.get("proximal-mu") == sent and config["server-round"] == 7 and config["plan"] == "p"
            assert set(message.content.array_records) == {"arrays"}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("break_after", [1, 2])
def test_a_restart_changes_nothing(
    one_round: Callable[..., Tensors], tmp_path: Path, strategy: str, break_after: int
) -> None:
    """Four rounds, and four with a restart from what a checkpoint keeps, are the same to the last bit."""
    plan = Federation(strategy=strategy)
    unbroken, arrays = make_strategy(plan), START
    for number in (1, 2, 3, 4):
        arrays = one_round(unbroken, number, arrays)

    first, broken = make_strategy(plan), START
    for number in range(1, break_after + 1):
        broken = one_round(first, number, broken)
    state = State(plan_hash="h", run="0" * 32, round=break_after, rounds=[], sites=[], left_out_sites={})
    save_checkpoint(tmp_path, state, broken, strategy_state(first, list(broken)))
    kept = load_checkpoint(tmp_path, "h")
    assert kept is not None
    _, broken, moments = kept
    second = make_strategy(plan)
    restore_strategy(second, moments, broken)
    for number in range(break_after + 1, 5):
        broken = one_round(second, number, broken)
    assert all(np.array_equal(arrays[name], broken[name]) for name in SHAPES)


@pytest.mark.parametrize("settings", [{"server_momentum": 0.0}, {"server_momentum": 0.0, "server_learning_rate": 0.5}])
def test_a_restart_of_fedavgm_without_momentum(one_round: Callable[..., Tensors], settings: dict[str, float]) -> None:
    plan = Federation(strategy="fedavgm", **settings)  # type: ignore[arg-type]
    unbroken = make_strategy(plan)
    middle = one_round(unbroken, 1, START)
    end = one_round(unbroken, 2, middle)
    again = make_strategy(plan)
    restore_strategy(again, strategy_state(unbroken, list(middle)), middle)
    resumed = one_round(again, 2, middle)
    assert all(np.array_equal(end[name], resumed[name]) for name in SHAPES)


def test_only_strategies_with_moments_keep_some(one_round: Callable[..., Tensors]) -> None:
    kept = {}
    for name in STRATEGIES:
        strategy = make_strategy(Federation(strategy=name))
        arrays = one_round(strategy, 1, START)
        kept[name] = set(strategy_state(strategy, list(arrays)))
    assert kept["fedavgm"] == {f"momentum/{n}" for n in SHAPES}
    assert kept["fedadam"] == {f"{slot}/{n}" for n in SHAPES for slot in ("m_t", "v_t")}
    assert not any(kept[name] for name in STRATEGIES if name not in ("fedavgm", "fedadam"))


def test_the_distance_is_that_of_all_numbers_together() -> None:
    """Against one long vector; of values whose squares, and whose difference, float32 cannot hold, too."""
    a, b = drawn(1), drawn(2)
    flat = [np.concatenate([v.astype(np.float64).ravel() for v in tensors.values()]) for tensors in (a, b)]
    assert distance(a, b) == pytest.approx(np.linalg.norm(flat[0] - flat[1]), rel=1e-12)
    most = {"x": np.float32([[3e38, 0.0]]), "n": np.array(0, np.float32)}
    assert distance(most, {k: -v for k, v in most.items()}) == pytest.approx(6e38, rel=1e-6)
    assert distance(a, a) == 0.0
