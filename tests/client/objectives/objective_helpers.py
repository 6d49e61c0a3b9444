"""What the tests of the objectives share: plans, notes of known ids, and gradients by name."""

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from client.objectives import Batch, TokenisedNote
from client.objectives.declutr import Declutr
from client.objectives.note_category import NoteCategory
from client.objectives.spans import sample_spans
from common.encoder import Encoder
from common.plan import StudyPlan
from common.plan_sections import Declutr as DeclutrPlan
from common.plan_sections import NoteCategory as NoteCategoryPlan


def study(objective: dict[str, Any], training: dict[str, Any] | None = None, max_length: int = 32) -> StudyPlan:
    sections = {"study": {"name": "test"}, "encoder": {"max_length": max_length}, "objective": objective}
    return StudyPlan.model_validate(sections | {"training": training or {}})


def declutr(encoder: Encoder, **settings: Any) -> Declutr:
    """The objective on short spans: of 3 to 12 tokens, so of notes of 12 tokens or more."""
    plan = study({"kind": "declutr", "min_span": 3, "max_span": 12} | settings)
    assert isinstance(plan.objective, DeclutrPlan)
    return Declutr(plan, plan.objective, encoder.tokenizer)


def note_category(encoder: Encoder, categories: list[str], **settings: Any) -> NoteCategory:
    """The objective for these categories, with its head on the encoder."""
    plan = study({"kind": "note-category"} | settings)
    assert isinstance(plan.objective, NoteCategoryPlan)
    objective = NoteCategory(plan, plan.objective, encoder.tokenizer, categories)
    objective.attach(encoder)
    return objective


def note(n: int, seed: int = 0, **known: Any) -> TokenisedNote:
    """A note of n random tokens, none of them special."""
    ids = np.random.default_rng([7, seed]).integers(5, 390, n)
    return TokenisedNote(ids, np.ones(n, dtype=bool), **known)


def some_notes() -> list[TokenisedNote]:
    """Of many lengths: some leave room for the longest spans, some only for shorter ones."""
    return [note(n, seed) for seed, n in enumerate((12, 90, 30, 55, 17, 48))]


def sampled(objective: Declutr, notes: list[TokenisedNote], seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The anchors and the positives (all of an anchor together) that `collate` draws first from a generator."""
    plan, rng = objective.plan, np.random.default_rng(seed)
    anchors, positives = [], []
    for one in notes:
        for spans in sample_spans(
            len(one.ids), anchors=plan.anchors, positives=plan.positives, shortest=plan.min_span,
            longest=plan.max_span, rng=rng, sampling=plan.sampling,
        ):  # fmt: skip
            anchors.append(one.ids[spans.anchor[0] : spans.anchor[1]])
            positives += [one.ids[start:end] for start, end in spans.positives]
    return anchors, positives


def rows_of(batch: Batch, unmask: bool = True) -> list[np.ndarray]:
    """The ids between the special tokens of every row, in the order before rows were sorted."""
    ids = batch.tensors["input_ids"].clone()
    if unmask:
        ids[batch.tensors["row"], batch.tensors["column"]] = batch.tensors["targets"]
    lengths = batch.tensors["attention_mask"].sum(1)
    return [ids[place, 1 : lengths[place] - 1].numpy() for place in batch.tensors["place"]]


def alone(encoder: Encoder, ids: np.ndarray) -> torch.Tensor:
    """Token states [T, H] of one sequence, read by itself."""
    tokenizer = encoder.tokenizer
    row = torch.tensor([[tokenizer.cls_token_id, *ids.tolist(), tokenizer.sep_token_id]])
    return encoder.hidden(row, torch.ones_like(row))[0]


def simple_nt_xent(anchors: torch.Tensor, positives: torch.Tensor, t: float, apart: torch.Tensor) -> torch.Tensor:
    """One vector after another, with gradient."""
    z = functional.normalize(torch.cat([anchors, positives]), dim=1)
    m, losses = len(anchors), []
    for i in range(2 * m):
        others = [k for k in range(2 * m) if k % m != i % m and apart[i % m, k % m]]
        logits = torch.stack([z[i] @ z[(i + m) % (2 * m)], *(z[i] @ z[k] for k in others)]) / t
        losses.append(torch.logsumexp(logits, 0) - logits[0])
    return torch.stack(losses).mean()


def gradients(encoder: Encoder) -> dict[str, torch.Tensor]:
    """What backward has left; zeros where it has left nothing. Clears it."""
    found = {}
    for name, p in encoder.tensors().items():
        found[name] = torch.zeros_like(p) if p.grad is None else p.grad.clone()
        p.grad = None
    return found


def furthest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)
