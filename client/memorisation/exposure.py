"""Exposure: how far a canary's secret ranks above chance under the MLM head (Carlini et al. 2019).

All digits of a secret are masked at once, so that the likelihood of every secret there could have been is a sum of ten
numbers a place: the rank is exact, over all of them.
"""

import math

import numpy as np
import torch
from scipy.optimize import brentq

from client.memorisation.canaries import DIGITS, Canaries, Canary
from common.encoder import Encoder
from common.results import CanaryExposure, Estimate

_BATCH = 64
_Z = 1.959964  # of an interval of 95 %


def canary_exposure(encoder: Encoder, canaries: Canaries, max_length: int, repeats: int) -> CanaryExposure:
    """The figures of all canaries of a site.

    Args:
        max_length: in tokens, of what the encoder reads: of a longer canary its end.
    """
    planted, controls = (
        exposures(digit_likelihoods(encoder, some, canaries.digit_ids, max_length), some)
        for some in (canaries.planted, canaries.controls)
    )
    return CanaryExposure(
        planted=len(planted),
        controls=len(controls),
        repeats=repeats,
        references=10**DIGITS,
        planted_mean=float(planted.mean()),
        planted_max=float(planted.max()),
        controls_mean=float(controls.mean()),
        auc=auc_interval(planted, controls),
    )


def digit_likelihoods(encoder: Encoder, canaries: list[Canary], digit_ids: np.ndarray, max_length: int) -> np.ndarray:
    """Log-likelihoods [canaries, DIGITS, 10] of each digit at each place, all places masked."""
    tokenizer, room = encoder.tokenizer, max_length - 2
    device = next(encoder.model.parameters()).device
    encoder.model.eval()
    found = []
    for start in range(0, len(canaries), _BATCH):
        part = canaries[start : start + _BATCH]
        width = max(min(len(canary.ids), room) for canary in part) + 2
        ids = np.full((len(part), width), tokenizer.pad_token_id, dtype=np.int64)
        attention = np.zeros((len(part), width), dtype=np.int64)
        places = np.zeros((len(part), DIGITS), dtype=np.int64)
        for row, canary in enumerate(part):
            cut = max(0, len(canary.ids) - room)
            masked = canary.ids.copy()
            masked[canary.places] = tokenizer.mask_token_id
            n = len(canary.ids) - cut
            ids[row, : n + 2] = [tokenizer.cls_token_id, *masked[cut:], tokenizer.sep_token_id]
            attention[row, : n + 2] = 1
            places[row] = canary.places - cut + 1
        with torch.inference_mode():
            states = encoder.hidden(torch.from_numpy(ids).to(device), torch.from_numpy(attention).to(device))
            rows = torch.arange(len(part), device=device)[:, None]
            logits = encoder.mlm_logits(states[rows, torch.from_numpy(places).to(device)].flatten(0, 1)).float()
        likely = logits.log_softmax(1)[:, torch.from_numpy(digit_ids).to(device)].view(len(part), DIGITS, 10)
        found.append(likely.double().cpu().numpy())
    return np.concatenate(found)


def exposures(likelihoods: np.ndarray, canaries: list[Canary]) -> np.ndarray:
    """Bits [canaries], of log-likelihoods [canaries, DIGITS, 10]; of secrets that tie, the middle rank counts."""
    found = []
    for likely, canary in zip(likelihoods, canaries, strict=True):
        sums = np.zeros(1)
        for place in likely:
            sums = np.add.outer(sums, place).ravel()
        own = sums[int("".join(map(str, canary.secret.tolist())))]
        rank = int((sums > own).sum()) + (int((sums == own).sum()) + 1) / 2
        found.append(math.log2(len(sums)) - math.log2(rank))
    return np.array(found)


def auc(positives: np.ndarray, negatives: np.ndarray) -> float:
    """The chance that one of the first is above one of the second; ties count half."""
    above = np.sign(positives[:, None] - negatives[None, :])
    return float((above.mean() + 1) / 2)


def auc_interval(positives: np.ndarray, negatives: np.ndarray) -> Estimate:
    """With a score interval of 95 % (Newcombe 2006, method 5), which has a width even where the two do not overlap."""
    value, pairs = auc(positives, negatives), len(positives) * len(negatives)
    more = (len(positives) + len(negatives)) / 2 - 1

    def beyond(true: float) -> float:
        spread = true * (1 - true) * (1 + more * (1 - true) / (2 - true) + more * true / (1 + true)) / pairs
        return (value - true) ** 2 - _Z**2 * spread

    least, most = 1e-9, 1 - 1e-9
    low = brentq(beyond, least, min(value, most)) if value > least else 0.0
    high = brentq(beyond, max(value, least), most) if value < most else 1.0
    return Estimate(value=value, low=float(low), high=float(high))
