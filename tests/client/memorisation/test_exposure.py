"""Exposure against its definition, and the interval of the AUC against the literature's properties."""

import itertools
import math

import numpy as np
import pytest

from client.memorisation.canaries import Canaries, Canary, make_canaries
from client.memorisation.exposure import auc, auc_interval, canary_exposure, digit_likelihoods, exposures
from common.encoder import Encoder
from common.plan import StudyPlan


def canary(secret: list[int]) -> Canary:
    nothing = np.zeros(0, dtype=np.int64)
    return Canary(nothing, nothing.astype(bool), nothing, np.array(secret))


def test_the_exposure_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    likely = rng.normal(size=(1, 3, 10))
    for secret in ([0, 0, 0], [9, 1, 4], likely[0].argmax(1).tolist(), likely[0].argmin(1).tolist()):
        sums = {s: sum(likely[0, i, d] for i, d in enumerate(s)) for s in itertools.product(range(10), repeat=3)}
        rank = 1 + sum(value > sums[tuple(secret)] + 1e-12 for value in sums.values())
        assert exposures(likely, [canary(secret)])[0] == pytest.approx(math.log2(1000) - math.log2(rank))


def test_a_model_that_tells_no_secret_from_another_gives_no_bit_more_than_the_middle() -> None:
    """Where all tie, the first of them would look like one that was learnt by heart."""
    assert exposures(np.zeros((1, 3, 10)), [canary([1, 2, 3])])[0] == pytest.approx(1.0, abs=0.01)


def test_by_chance_the_mean_is_1_44_bits() -> None:
    rng = np.random.default_rng(1)
    likely = rng.normal(size=(400, 4, 10))
    found = exposures(likely, [canary(rng.integers(10, size=4).tolist()) for _ in range(400)])
    assert found.mean() == pytest.approx(1 / math.log(2), abs=6 * 1.44 / math.sqrt(400))


def test_the_likelihoods_are_those_of_the_digits_with_all_of_them_hidden(
    encoder: Encoder, make_plan: "type[StudyPlan]"
) -> None:
    import torch

    canaries = make_canaries(make_plan(release={"canaries": 6}), encoder.tokenizer, bytes(32), "0" * 32)
    together = digit_likelihoods(encoder, canaries.planted, canaries.digit_ids, 32)
    assert together.shape == (3, 6, 10)
    for one, likely in zip(canaries.planted, together, strict=True):
        ids = [encoder.tokenizer.cls_token_id, *one.ids.tolist(), encoder.tokenizer.sep_token_id]
        for place in one.places.tolist():
            ids[place + 1] = encoder.tokenizer.mask_token_id
        given = torch.tensor([ids])
        with torch.no_grad():
            logits = encoder.model(input_ids=given, attention_mask=torch.ones_like(given)).logits[0]
        expected = logits.log_softmax(1)[one.places + 1][:, canaries.digit_ids]
        assert np.allclose(likely, expected.numpy(), atol=1e-5)
    other = [Canary(one.ids, one.word_starts, one.places, (one.secret + 1) % 10) for one in canaries.planted]
    swapped = Canaries(other, canaries.controls, canaries.digit_ids, "")
    for one in other:
        one.ids[one.places] = canaries.digit_ids[one.secret]
    assert np.allclose(digit_likelihoods(encoder, swapped.planted, canaries.digit_ids, 32), together)  # they are hidden


@pytest.mark.parametrize("family", ["roberta", "distilbert", "modernbert"])
def test_every_family_can_be_asked(bases: dict[str, str], make_plan: "type[StudyPlan]", family: str) -> None:
    from common.encoder import load_encoder

    other = load_encoder(bases[family])
    plan = make_plan(encoder={"base": bases[family]}, release={"canaries": 8})
    made = make_canaries(plan, other.tokenizer, bytes(32), "0" * 32)
    found = canary_exposure(other, made, plan.encoder.max_length, 1)
    assert found.planted == found.controls == 4 and 0 <= found.planted_mean <= found.planted_max < 20


def test_the_auc_counts_pairs() -> None:
    assert auc(np.array([2.0, 3.0]), np.array([1.0, 2.0])) == 0.875
    assert auc(np.array([1.0]), np.array([1.0])) == 0.5


@pytest.mark.parametrize(("shift", "n"), [(0.0, 10), (0.0, 50), (1.0, 25)])
def test_its_interval_holds_the_truth_as_often_as_it_says(shift: float, n: int) -> None:
    from scipy.stats import norm

    rng, truth = np.random.default_rng(7), float(norm.cdf(shift / math.sqrt(2)))
    intervals = [auc_interval(rng.normal(shift, 1, n), rng.normal(0, 1, n)) for _ in range(400)]
    held = np.mean([one.low <= truth <= one.high for one in intervals])
    assert 0.90 <= held <= 0.995


def test_it_has_a_width_where_the_two_do_not_overlap() -> None:
    high, low = auc_interval(np.arange(5) + 10.0, np.arange(5.0)), auc_interval(np.arange(5.0), np.arange(5) + 10.0)
    assert high.value == 1.0 and high.high == pytest.approx(1.0) and 0.4 < high.low < 0.8
    assert low.value == 0.0 and low.low == pytest.approx(0.0) and low.high == pytest.approx(1 - high.low)
