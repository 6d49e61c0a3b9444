"""Noise that protects a whole hospital: attempts to refute its size, the clipping, the budget and the book of it."""

import json
import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message
from opacus.accountants import RDPAccountant
from scripted_sites import NAMES, START, Scripted, killed, moved, refuse

from common import messages
from common.errors import MachineError, StudyError
from common.messages import Tensors, TrainReply
from common.plan import StudyPlan
from common.plan_sections import Federation, HospitalPrivacy
from server.hospital_privacy import LEDGER, HospitalNoise, clipped
from server.strategies import distance, make_strategy
from simulations.engines import InProcessGrid

DELTA = 1e-2
LARGE: Tensors = {"v": np.zeros((500, 400), np.float32), "n": np.array(3, np.float32), "a": np.ones(7, np.float32)}

MakeNoise = Callable[..., HospitalNoise]
MakeStudy = Callable[..., Scripted]


def opacus_epsilon(noise: float, rounds: int) -> float:
    """Of Gaussian releases without amplification, by another accountant than the one that is tested."""
    account = RDPAccountant()
    account.history = [(noise, 1.0, rounds)]
    return float(account.get_epsilon(delta=DELTA))


def exact_epsilon(noise: float, rounds: int) -> float:
    """The least epsilon that holds: Balle and Wang 2018, theorem 8, by bisection."""
    mu, normal = math.sqrt(rounds) / noise, NormalDist()

    def delta(epsilon: float) -> float:
        return normal.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * normal.cdf(-mu / 2 - epsilon / mu)

    low, high = 0.0, 500.0
    while high - low > 1e-9:
        low, high = ((low + high) / 2, high) if delta((low + high) / 2) > DELTA else (low, (low + high) / 2)
    return high


@pytest.fixture
def make_noise(tmp_path: Path) -> MakeNoise:
    """The strategy over so many hospitals, with nodes that count from 2 as the grid's do."""

    def make(hospitals: int, noise: float, norm: float, epsilon: float = 1000.0) -> HospitalNoise:
        plan = HospitalPrivacy(noise_multiplier=noise, clipping_norm=norm, epsilon=epsilon, delta=DELTA)
        nodes = range(2, 2 + hospitals)
        return HospitalNoise(make_strategy(Federation()), plan, nodes, tmp_path / "checkpoints" / LEDGER, 0)

    return make


@pytest.fixture
def one_round(make_message: Callable[..., Message]) -> Callable[..., Tensors | None]:
    """Configure a round, collect updates, aggregate; the hospitals claim that they weigh what `notes` says."""

    def go(
        strategy: HospitalNoise, start: Tensors, updates: Iterable[Tensors], number: int = 1, notes: Iterable[int] = ()
    ) -> Tensors | None:
        updates = list(updates)
        asked = ask(strategy, start, number)
        assert [message.metadata.dst_node_id for message in asked] == list(range(2, 2 + strategy.num_sampled_clients))
        replies = [
            messages.for_strategy(messages.train_reply(TrainReply(n, 1, 1, 1.0, 1.0), tensors, make_message()), tensors)
            for tensors, n in zip(updates, list(notes) or [1] * len(updates), strict=True)
        ]
        mean, _ = strategy.aggregate_train(number, replies)
        return mean and {name: value.numpy() for name, value in mean.items()}

    return go


def ask(strategy: HospitalNoise, start: Tensors, number: int, nodes: int | None = None) -> list[Message]:
    grid = InProcessGrid([Path("site")] * (nodes or strategy.num_sampled_clients), lambda message, context: message)
    found = list(strategy.configure_train(number, messages.to_arrays(start), ConfigRecord(), grid))
    return sorted(found, key=lambda message: message.metadata.dst_node_id)


def minus(a: Tensors, b: Tensors) -> np.ndarray:
    return np.concatenate([(a[name].astype(np.float64) - b[name]).ravel() for name in b])


# The noise.


@pytest.mark.parametrize(("hospitals", "noise", "norm"), [(2, 1.0, 0.5), (5, 3.0, 2.0), (20, 0.4, 10.0)])
def test_the_noise_on_the_mean_is_sigma_times_the_norm_over_the_hospitals(
    make_noise: MakeNoise, one_round: Callable[..., Tensors], hospitals: int, noise: float, norm: float
) -> None:
    mean = one_round(make_noise(hospitals, noise, norm), LARGE, [LARGE] * hospitals)
    found, expected = minus(mean, LARGE), noise * norm / hospitals
    # 200,000 draws: the deviation's own deviation is 0.16 %.
    assert found.std() == pytest.approx(expected, rel=0.01) and abs(found.mean()) < 6 * expected / math.sqrt(found.size)
    assert (found != 0).all(), "some number has no noise"
    share = np.mean(np.abs(found) > 3 * expected)
    assert 0.0020 < share < 0.0034, "it is not Gaussian: 0.27 % lie beyond three deviations"


def test_a_seeded_generator_does_not_make_the_noise_known(
    make_noise: MakeNoise, one_round: Callable[..., Tensors]
) -> None:
    strategy, found = make_noise(2, 1.0, 1.0), []
    for number in (1, 2, 3):
        np.random.seed(0)
        found.append(minus(one_round(strategy, LARGE, [LARGE] * 2, number), LARGE))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(found[a], found[b])[0, 1]) < 6 / math.sqrt(found[0].size)


def test_tensors_of_one_shape_have_noise_of_their_own(make_noise: MakeNoise, one_round: Callable[..., Tensors]) -> None:
    start = {"b": np.zeros(100_000, np.float32), "a": np.zeros(100_000, np.float32)}
    mean = one_round(make_noise(2, 1.0, 1.0), start, [start] * 2)
    assert abs(np.corrcoef(mean["a"], mean["b"])[0, 1]) < 6 / math.sqrt(100_000)


# The clipping.


@pytest.mark.parametrize("length", [0.5, 1.0, 50.0, 1e6, 1e15, 1e30, 3e38])
def test_one_hospital_moves_the_mean_by_no_more_than_the_norm_over_their_number(
    make_noise: MakeNoise, one_round: Callable[..., Tensors], length: float
) -> None:
    hospitals, norm, noise = 4, 1.0, 0.03
    # Towards all of "v" and the number without a dimension.
    direction = {"v": np.full((500, 400), 1 / 500, np.float32), "n": np.array(0.6, np.float32)}
    direction["v"] *= np.float32(0.8 / np.linalg.norm(direction["v"]))
    pushed = LARGE | {name: LARGE[name] + np.float32(length) * value for name, value in direction.items()}
    mean = one_round(make_noise(hospitals, noise, norm), LARGE, [pushed, *[LARGE] * 3])
    moved_by = sum(float(np.sum((mean[name] - LARGE[name]) * value)) for name, value in direction.items())
    # Along a direction of length 1 the noise has its own deviation, 0.0075.
    assert moved_by == pytest.approx(min(length, norm) / hospitals, abs=6 * noise * norm / hospitals)
    assert all(np.isfinite(value).all() for value in mean.values())


def test_clipping_keeps_the_direction_and_what_is_short() -> None:
    rng = np.random.default_rng(0)
    for scale in (1e-3, 1.0, 1e4, 1e30):
        update = {
            name: value + np.float32(scale) * rng.normal(size=value.shape).astype(np.float32)
            for name, value in START.items()
        }
        length = distance(update, START)
        near = clipped(update, START, 0.7)
        if length <= 0.7:
            assert all(np.array_equal(near[name], update[name]) for name in START)
        assert distance(near, START) <= 0.7 * (1 + 1e-9)
        assert np.allclose(minus(near, START), minus(update, START) * min(1, 0.7 / length), rtol=1e-9, atol=1e-12)
        assert {name: value.shape for name, value in near.items()} == {n: v.shape for n, v in START.items()}


def test_a_small_norm_is_not_lost_in_the_rounding_of_large_weights() -> None:
    """In float32 an update of 1e-6 on a weight of 100 would be rounded to nothing, or to eight times as much."""
    start = {"w": np.full(1000, 100, np.float32)}
    far = {"w": start["w"] + np.float32(1)}
    assert distance(clipped(far, start, 1e-4), start) == pytest.approx(1e-4, rel=1e-6)


def test_an_update_of_nothing_is_an_update(make_noise: MakeNoise, one_round: Callable[..., Tensors]) -> None:
    assert clipped(START, START, 1.0).keys() == START.keys() and distance(clipped(START, START, 1.0), START) == 0
    assert one_round(make_noise(2, 1.0, 1.0), START, [START, START]) is not None


def test_a_hospital_has_no_more_weight_for_its_size(make_noise: MakeNoise, one_round: Callable[..., Tensors]) -> None:
    updates = [moved(START, 1.0), START, START, START]
    mean = one_round(make_noise(4, 0.03, 1.0), START, updates, notes=[100_000, 1, 1, 1])
    assert mean["bias"][0] - START["bias"][0] == pytest.approx(1 / 4, abs=6 * 0.03 / 4)


# Who takes part.


def test_a_round_that_one_hospital_missed_is_not_released(
    make_noise: MakeNoise, one_round: Callable[..., Tensors | None]
) -> None:
    strategy = make_noise(3, 1.0, 1.0)
    assert one_round(strategy, START, [START] * 2) is None and strategy.epsilon == 0
    assert one_round(strategy, START, [START] * 3) is not None  # asked once more, it may succeed
    assert strategy.epsilon == pytest.approx(opacus_epsilon(1.0, 1), rel=0.01)


def test_an_attempt_that_failed_does_not_stop_the_next(make_noise: MakeNoise) -> None:
    strategy = make_noise(3, 1.0, 1.0)
    assert [len(ask(strategy, START, 1)) for _ in range(3)] == [3, 3, 3] and strategy.epsilon == 0


def test_nodes_beside_the_hospitals_are_not_asked(make_noise: MakeNoise) -> None:
    assert [m.metadata.dst_node_id for m in ask(make_noise(3, 1.0, 1.0), START, 1, nodes=6)] == [2, 3, 4]


def test_without_all_hospitals_online_nothing_can_be_released(
    make_noise: MakeNoise, make_message: Callable[..., Message]
) -> None:
    strategy = make_noise(3, 1.0, 1.0)
    assert len(ask(strategy, START, 1, nodes=2)) == 2
    said = TrainReply(1, 1, 1, 1.0, 1.0)
    replies = [messages.for_strategy(messages.train_reply(said, START, make_message()), START) for _ in range(3)]
    with pytest.raises(ValueError, match="no pending privacy event"):
        strategy.aggregate_train(1, replies)
    assert strategy.epsilon == 0


# The account.


@pytest.mark.parametrize("noise", [0.4, 1.3, 6.0])
def test_epsilon_is_that_of_other_accountants(
    make_noise: MakeNoise, one_round: Callable[..., Tensors], noise: float
) -> None:
    strategy = make_noise(3, noise, 1.0)
    for number in range(1, 11):
        one_round(strategy, START, [START] * 3, number)
        assert strategy.epsilon == pytest.approx(opacus_epsilon(noise, number), rel=0.01)
        # An upper bound, and not a wasteful one.
        assert 1 <= strategy.epsilon / exact_epsilon(noise, number) < 1.5


def test_without_the_accountant_there_is_no_study(make_noise: MakeNoise, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(MachineError) as caught:
        make_noise(3, 1.0, 1.0)
    assert caught.value.code == "dp-accounting-missing" and "hospital-privacy" in caught.value.next_step


# A study.


@pytest.fixture
def make_study(tmp_path: Path, make_plan: Callable[..., StudyPlan]) -> MakeStudy:
    """Noise of 1.5 hardly moves the weights, for updates are clipped to 0.01."""

    def make(epsilon: float = 1000.0, rounds: int = 5, **sections: Any) -> Scripted:
        privacy = {"noise_multiplier": 1.5, "clipping_norm": 0.01, "epsilon": epsilon, "delta": DELTA}
        plan = make_plan(hospital_privacy=privacy, federation={"rounds": rounds}, **sections)
        return Scripted(plan, tmp_path / "checkpoints")

    return make


def epsilons(study: Scripted) -> list[float | None]:
    return [one.hospital_epsilon for one in study.kept[0].rounds]


def expected(*releases: int) -> Any:
    return pytest.approx([opacus_epsilon(1.5, number) for number in releases], rel=0.01)


def test_every_round_says_what_is_spent(make_study: MakeStudy) -> None:
    study = make_study()
    state = study.run()
    assert epsilons(study) == [None, *(one.hospital_epsilon for one in state.rounds[1:])]
    assert epsilons(study)[1:] == expected(1, 2, 3, 4, 5)
    weights = study.kept[1]
    assert all(value.dtype == np.float32 for value in weights.values())
    # Five rounds of an update of norm 1, clipped to 0.01, and noise of 0.005 a round on each number.
    assert weights["bias"][0] == pytest.approx(1.05, abs=6 * 0.005 * math.sqrt(5))


def test_a_study_without_it_has_no_such_epsilon(tmp_path: Path, make_plan: Callable[..., StudyPlan]) -> None:
    study = Scripted(make_plan(), tmp_path / "checkpoints")
    study.run()
    assert epsilons(study) == [None] * 3 and not (study.folder / LEDGER).exists()


@pytest.mark.parametrize("restarts", [0, 2])
def test_the_budget_stops_a_study_before_it_is_exceeded(make_study: MakeStudy, restarts: int) -> None:
    limit = opacus_epsilon(1.5, 3) * 1.001
    assert opacus_epsilon(1.5, 4) > limit * 1.1
    study = make_study(epsilon=limit)
    for _ in range(restarts + 1):
        study.asked.clear()
        with pytest.raises(StudyError, match="Round 4 would exceed") as caught:
            study.run()
        assert caught.value.code == "hospital-budget-spent" and f"{opacus_epsilon(1.5, 3):.2f}" in caught.value.message
        assert study.kept[0].round == 3 and not study.trained(4)
    assert epsilons(study)[1:] == expected(1, 2, 3)


def test_a_budget_for_no_round_at_all(make_study: MakeStudy) -> None:
    study = make_study(epsilon=opacus_epsilon(1.5, 1) * 0.99)
    with pytest.raises(StudyError, match="Round 1 would exceed") as caught:
        study.run()
    assert caught.value.code == "hospital-budget-spent" and study.kept[0].round == 0 and not study.trained(1)


def test_what_was_released_and_then_lost_is_spent(make_study: MakeStudy) -> None:
    """The sites saw the noisy mean of round 2, to measure their held-out loss; then the server was killed."""
    study = make_study(epsilon=opacus_epsilon(1.5, 4) * 1.001)
    study.answers["millbrook", "evaluate", 2] = killed
    with pytest.raises(KeyboardInterrupt):
        study.run()
    seen = messages.unpacked(study.sent[-1].content.array_records["arrays"])
    assert study.kept[0].round == 1
    study.answers.clear()
    with pytest.raises(StudyError, match="Round 4 would exceed"):
        study.run()
    assert epsilons(study)[1:] == expected(1, 3, 4)
    again = next(m for m in study.sent if m.metadata.message_type == "train" and number_of(m) == 3)
    assert distance(messages.unpacked(again.content.array_records["arrays"]), seen) > 0, "the same noise, twice"


def number_of(message: Message) -> int:
    return int(message.content.config_records["config"]["server-round"])  # type: ignore[arg-type]


def test_a_damaged_checkpoint_makes_nothing_unspent(make_study: MakeStudy) -> None:
    study = make_study(rounds=3)
    study.run()
    (study.folder / "round-0003" / "state.json").write_text("{")
    state = study.run()
    assert state.round == 3 and epsilons(study)[1:] == expected(1, 2, 4)


def _without(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _a_list(path: Path) -> None:
    path.write_text("[]")


def _earlier(path: Path) -> None:
    content = json.loads(path.read_text())
    del content["compositions"][1:]
    path.write_text(json.dumps(content))


def _larger_budget(path: Path) -> None:
    content = json.loads(path.read_text())
    content["config"]["max_epsilon"] = 9999.0
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("damage", [_without, _cut, _a_list, _earlier, _larger_budget])
def test_a_run_whose_book_is_gone_is_not_resumed(make_study: MakeStudy, damage: Callable[[Path], None]) -> None:
    study = make_study()
    study.answers["millbrook", "train", 3] = killed
    with pytest.raises(KeyboardInterrupt):
        study.run()
    damage(study.folder / LEDGER)
    study.answers.clear()
    study.asked.clear()
    with pytest.raises(StudyError) as caught:
        study.run()
    assert caught.value.code == "checkpoint-damaged" and {kind for _, kind, _ in study.asked} == {"query"}


def test_a_missing_site_stops_the_round_and_costs_nothing(make_study: MakeStudy) -> None:
    """Though min_sites is 1: the mean of two would have noise for three, and one hospital's share is larger."""
    study = make_study(rounds=3)
    study.answers["millbrook", "train", 2] = refuse("out-of-memory")
    with pytest.raises(StudyError) as caught:
        study.run()
    assert caught.value.code == "round-failed" and study.kept[0].round == 1
    assert "Round 2 had 2 good replies; [hospital_privacy] needs all 3." in caught.value.message
    assert "\n  millbrook: the site reports out-of-memory" in caught.value.message
    study.answers.clear()
    study.run()
    assert epsilons(study)[1:] == expected(1, 2, 3)


def test_a_second_attempt_with_all_sites_is_a_round(make_study: MakeStudy) -> None:
    study = make_study(rounds=1)

    def once(message: Message) -> Message:
        study.answers.clear()
        return messages.error_reply("out-of-memory", message)

    study.answers["millbrook", "train", 1] = once
    state = study.run()
    assert state.rounds[1].attempts == 2 and epsilons(study)[1:] == expected(1)


def test_a_node_that_cannot_take_part_does_not_count(make_study: MakeStudy) -> None:
    study = make_study(rounds=1)
    study.names = [*NAMES, "few"]
    study.answers["few", "query", None] = refuse("too-few-notes")
    state = study.run()
    assert [s.state for s in state.rounds[1].sites] == ["returned"] * 3 and "few" not in study.trained(1)
    assert study.kept[1]["bias"][0] == pytest.approx(1.01, abs=6 * 1.5 * 0.01 / 3)


@pytest.mark.parametrize("names", [NAMES[:2], [*NAMES, "southport"], [*NAMES[:2], "southport"]])
def test_a_run_goes_on_with_the_sites_that_it_began_with(make_study: MakeStudy, names: list[str]) -> None:
    study = make_study()
    study.answers["millbrook", "train", 3] = killed
    with pytest.raises(KeyboardInterrupt):
        study.run()
    study.answers.clear()
    study.asked.clear()
    study.names = names
    with pytest.raises(StudyError, match="eastholme, millbrook, northgate; now there are") as caught:
        study.run()
    assert caught.value.code == "sites-changed" and {kind for _, kind, _ in study.asked} == {"query"}


def test_a_site_that_leaves_ends_such_a_study(make_study: MakeStudy) -> None:
    study = make_study(privacy={"epsilon": 3.0})
    study.answers["millbrook", "train", 2] = refuse("budget-spent")
    with pytest.raises(StudyError, match="needs all 3") as caught:
        study.run()
    assert "\n  millbrook: it has left" in caught.value.message and study.trained(2) == NAMES
