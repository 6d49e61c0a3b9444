"""What leaves a site in one message, as its receipt has it."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np

from client.private_round import Done
from client.receipt import Receipt, SentTensor, Value
from common.encoder import tensors_digest
from common.messages import Request, Tensors, TrainReply
from common.plan import StudyPlan
from common.wire import change

_NOISED = ("loss",)  # with private training; what else leaves then tells nothing of the notes
Said = Mapping[str, float | int | str | None]


def plain_receipt(kind: str, plan: StudyPlan, run: str, round: int, said: Said) -> Receipt:
    """Of a message without weights."""
    return _receipt(kind, plan, run, round, {}, said)


def train_receipt(request: Request, reply: TrainReply, update: Tensors, done: Done | None) -> Receipt:
    """Of an update; `done` where training was private."""
    said: Said = {
        "weight": reply.notes,
        "steps": reply.steps,
        "tokens": reply.tokens,
        "loss": reply.loss,
        "seconds": reply.seconds,
        **reply.parts,
        **(reply.privacy.model_dump() if reply.privacy else {}),
    }
    found = _receipt("train", request.plan, request.run, request.round, update, said, private=done is not None)
    changed = change(update, request.arrays, request.plan.federation.wire)
    norm = math.sqrt(sum(float(np.square(value).sum()) for value in changed.values()))
    covered = {"noise": done.noise, "ledger": done.entry.hash} if done else {}
    return found.model_copy(update={"update_norm": norm, **covered})


def _receipt(
    kind: str, plan: StudyPlan, run: str, round: int, tensors: Tensors, said: Said, private: bool = False
) -> Receipt:
    sent = [
        SentTensor(name=name, shape=list(value.shape), dtype=str(value.dtype), bytes=value.nbytes)
        for name, value in tensors.items()
    ]
    return Receipt.model_validate(
        {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "run": run,
            "study": plan.study.name,
            "plan_hash": plan.hash(),
            "round": round,
            "kind": kind,
            "tensors": sent,
            "bytes": sum(one.bytes for one in sent),
            "digest": tensors_digest(tensors.items()),
            "norm": math.sqrt(sum(float(np.square(value.astype(np.float32)).sum()) for value in tensors.values())),
            "update_norm": None,
            "noise": None,
            "ledger": None,
            "values": {name: Value(value=value, noised=private and name in _NOISED) for name, value in said.items()},
        }
    )
