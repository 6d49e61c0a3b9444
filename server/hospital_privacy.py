"""Differential privacy of whole hospitals: each update is clipped, and the coordinator adds noise to their mean.

Flower's wrapper averages, adds the noise, counts epsilon and stops at the budget. It is the one that takes updates as
clipped, for Flower 1.41's own clipping fails on an update of zero, passes numbers without a dimension, and makes NaN of
what overflows. docs/hospital-privacy.md says what the guarantee is worth.
"""

import json
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid, NeighboringRelation, PrivacyConfig, SamplingMethod
from flwr.serverapp.exception import PrivacyBudgetExhausted
from flwr.serverapp.strategy import DifferentialPrivacyClientSideFixedClipping, FedAvg

from common.errors import MachineError, StudyError
from common.files import write_text
from common.messages import ARRAYS, METRICS, WEIGHT, Tensors, from_arrays, to_arrays
from common.plan_sections import HospitalPrivacy
from server.strategies import distance

LEDGER = "hospital-privacy.json"  # beside the checkpoints


class HospitalNoise(DifferentialPrivacyClientSideFixedClipping):
    """The mean of the hospitals' updates, each clipped and with the same weight, plus noise that hides any one of them.

    The noise is made for a fixed number of hospitals, so all of them take part in every round or nothing is released.

    Args:
        nodes: of the hospitals that take part in the run.
        ledger: what was spent, in a file of its own: it is written before a mean is released, and so counts the rounds
            that a kill, or a damaged checkpoint, makes the run do again.
        released: rounds that the checkpoint holds; the ledger must know of as many.
    """

    def __init__(
        self, average: FedAvg, plan: HospitalPrivacy, nodes: Collection[int], ledger: Path, released: int
    ) -> None:
        config = PrivacyConfig(
            target_delta=plan.delta,
            population_size=len(nodes),
            neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
            sampling_method=SamplingMethod.NO_AMPLIFICATION,
            max_epsilon=plan.epsilon,
        )
        try:
            from flwr.serverapp import RdpAccountant

            self._account = RdpAccountant(config)
        except ImportError:
            raise MachineError(
                "dp-accounting-missing",
                "[hospital_privacy] needs dp-accounting, which counts what is spent.",
                'Install it: pip install "fednotes[hospital-privacy]".',
            ) from None
        super().__init__(average, plan.noise_multiplier, plan.clipping_norm, len(nodes), accountant=self._account)
        self._plan, self._nodes, self._ledger = plan, frozenset(nodes), ledger
        self._start: Tensors = {}
        self._restore(released)

    @property
    def epsilon(self) -> float:
        """Spent so far, at the plan's delta."""
        return self._account.get_privacy_spent().epsilon

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Requests to the hospitals of the run. Raises StudyError where the round would exceed the budget."""
        self._start = from_arrays(arrays)
        self._pending_events.pop(server_round, None)  # of an attempt that failed, which released nothing
        asked = [
            request
            for request in self.strategy.configure_train(server_round, arrays, config, grid)
            if request.metadata.dst_node_id in self._nodes
        ]
        if len(asked) < self.num_sampled_clients:
            return asked  # one is away; Flower refuses to aggregate a round that was not prepared
        try:
            return self._prepare_accounting(server_round, asked)
        except PrivacyBudgetExhausted:
            raise StudyError(
                "hospital-budget-spent",
                f"Round {server_round} would exceed hospital_privacy.epsilon = {self._plan.epsilon:g} at delta "
                f"{self._plan.delta:g}; {self.epsilon:.3f} is spent.",
                "The last checkpoint is the model of this budget. A new run needs fewer rounds, or more noise.",
            ) from None

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The noisy mean in float64, or None, with nothing spent, where a hospital's reply is missing."""
        replies = list(replies)
        for reply in replies:
            tensors = from_arrays(reply.content.array_records[ARRAYS])
            reply.content[ARRAYS] = to_arrays(clipped(tensors, self._start, self.clipping_norm))
            reply.content.metric_records[METRICS][WEIGHT] = 1
        # Flower draws from numpy's global generator. Nothing in Fednotes seeds it; should a library do so, this undoes
        # it, with entropy of the system, so that no round's noise can be told from a seed or from another round's.
        np.random.seed()
        mean, metrics = super().aggregate_train(server_round, replies)
        write_text(self._ledger, json.dumps(self._account.state_dict()))
        return mean, metrics

    def _restore(self, released: int) -> None:
        try:
            if self._ledger.exists():
                self._account.load_state_dict(json.loads(self._ledger.read_text("utf-8")))
            if self._account.num_releases < released:
                raise ValueError
        except (OSError, ValueError, AttributeError):  # the last where it is JSON, but no dictionary
            raise StudyError(
                "checkpoint-damaged",
                f"{self._ledger} does not hold what was spent in {released} rounds.",
                "Put the file back, or start a new run.",
            ) from None


def clipped(tensors: Tensors, start: Tensors, norm: float) -> Tensors:
    """`tensors` drawn towards `start`, so that they differ from it by an L2 norm of at most `norm`.

    In float64, as is the mean of them: rounding to float32 before there is noise could tell more than `norm` allows.
    """
    length = distance(tensors, start)
    share = min(1.0, norm / length) if length else 1.0
    return {name: value + share * (tensors[name] - value.astype(np.float64)) for name, value in start.items()}
