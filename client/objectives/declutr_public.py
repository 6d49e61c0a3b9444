"""DeCLUTR for private training: a unit's spans are drawn to each other and pushed from spans of public text.

The loss of a unit must not depend on any other, so its negatives cannot be other units' notes. And its keys, the
vectors that a live one is compared with, come from the model as it stood when the round began: were they live, anchors
and keys would all flee the negatives together, and the embeddings collapse.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from client.clipping import Owned
from client.device import autocast
from client.notes.store import NoteStore
from client.objectives import Batch, TokenisedNote
from client.objectives.declutr import Declutr
from client.objectives.spans import longest_span, sample_spans
from client.objectives.unit_rows import by_unit, masked_rows, mlm_losses
from common.encoder import Encoder, mean_pool
from common.errors import InputError

_POOL = 512  # public spans that a round embeds once, and steps draw from
_AT_ONCE = 64


def no_public_text() -> InputError:
    return InputError(
        "no-public-text",
        "The site has no public text with notes long enough for a span.",
        'Name a file in site.toml (public), or plan privacy.negatives = "groups".',
    )


class PublicDeclutr(Declutr):
    """Vectors are of the live model with gradient, keys of the frozen one without."""

    units_at_once = None

    @property
    def groups(self) -> bool:
        return False

    @property
    def needs_public_text(self) -> bool:
        return self.plan.contrastive_weight > 0

    def begin_round(self, encoder: Encoder, public: NoteStore | None, rng: np.random.Generator) -> None:
        """Raises InputError `no-public-text` where the site has none that is long enough."""
        plan = self.plan
        if not plan.contrastive_weight:
            return
        spans = [] if public is None else self._public_spans(public, rng)
        if not spans:
            raise no_public_text()
        self._frozen = copy.deepcopy(encoder.body).eval().requires_grad_(False)
        self._device = next(self._frozen.parameters()).device
        spans.sort(key=len)
        parts = [spans[start : start + _AT_ONCE] for start in range(0, len(spans), _AT_ONCE)]
        # In bfloat16 where there is any: unlike those of a unit, these keys are the same whoever else is in a step.
        with torch.no_grad(), autocast(self._device, "auto"):
            self._pool = torch.cat([self._keys(*self.sequences.padded(part)) for part in parts])

    def begin_step(self, rng: np.random.Generator) -> None:
        assert self.study.privacy is not None
        if self.plan.contrastive_weight:
            count = min(self.study.privacy.public_negatives, len(self._pool))
            self._negatives = self._pool[torch.from_numpy(rng.choice(len(self._pool), count, replace=False))]

    def collate_units(self, units: Sequence[Sequence[TokenisedNote]], rngs: Sequence[np.random.Generator]) -> Batch:
        """Tensors, of M anchors in all: `input_ids`, `attention_mask` and the others of `masked_rows` [M, ...], their
        `plain_ids` [M, T]; `positive_ids`, `positive_mask` [M * P, T']; `owner` [M] and `positive_owner` [M * P], the
        unit of each row; `weight` [M], 1 over the anchors of its note; `notes` [units].
        """
        plan = self.plan
        anchors: list[np.ndarray] = []
        positives: list[np.ndarray] = []
        owner: list[int] = []
        for u, (unit, rng) in enumerate(zip(units, rngs, strict=True)):
            for note in unit:
                of_note, around = self.spans(note, rng)
                anchors += of_note
                positives += around
                owner += [u] * len(of_note)
        of_row = [rngs[u] for u in owner]
        chosen = [rng.random(len(row)) < plan.mask_probability for row, rng in zip(anchors, of_row, strict=True)]
        arrays = masked_rows(self.sequences, anchors, chosen, of_row)
        arrays["plain_ids"], _ = self.sequences.padded(anchors)
        arrays["positive_ids"], arrays["positive_mask"] = self.sequences.padded(positives)
        arrays["owner"] = np.array(owner)
        arrays["positive_owner"] = np.repeat(arrays["owner"], plan.positives)
        arrays["weight"] = np.full(len(owner), 1 / plan.anchors, dtype=np.float32)
        arrays["notes"] = np.array([len(unit) for unit in units])
        tokens = int(arrays["attention_mask"].sum()) + int(arrays["positive_mask"].sum())
        return Batch({k: torch.from_numpy(v) for k, v in arrays.items()}, tokens)

    def unit_losses(self, encoder: Encoder, batch: Batch, owned: Owned) -> torch.Tensor:
        t, plan = batch.tensors, self.plan
        each = torch.zeros((), device=t["input_ids"].device)
        states = None
        if plan.mlm_weight:
            with owned(t["owner"]):
                states = encoder.hidden(t["input_ids"], t["attention_mask"])
            each = each + plan.mlm_weight * mlm_losses(encoder, states, t, owned)
        if plan.contrastive_weight:
            if plan.plain_anchors:
                with owned(t["owner"]):
                    states = encoder.hidden(t["plain_ids"], t["attention_mask"])
            assert states is not None  # one of the two has read the anchors
            with owned(t["positive_owner"]):
                around = encoder.hidden(t["positive_ids"], t["positive_mask"])
            anchors = mean_pool(states, t["attention_mask"])
            positives = mean_pool(around, t["positive_mask"]).view(len(anchors), plan.positives, -1).mean(1)
            with torch.no_grad():
                anchor_keys = self._keys_of(t["plain_ids"], t["attention_mask"])
                positive_keys = self._keys_of(t["positive_ids"], t["positive_mask"])
                positive_keys = positive_keys.view(len(anchors), plan.positives, -1).mean(1)
            contrast = (self._info_nce(anchors, positive_keys) + self._info_nce(positives, anchor_keys)) / 2
            each = each + plan.contrastive_weight * contrast
        return by_unit(each * t["weight"].to(each.dtype), t)

    def _info_nce(self, vectors: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """InfoNCE of each vector [M, H] with its key [M, H] against the step's public negatives, [M]."""
        z, k = functional.normalize(vectors, dim=1), functional.normalize(keys, dim=1)
        others = functional.normalize(self._negatives.to(z.dtype), dim=1)
        logits = torch.cat([(z * k).sum(1, keepdim=True), z @ others.T], 1) / self.plan.temperature
        first = torch.zeros(len(z), dtype=torch.long, device=z.device)
        return functional.cross_entropy(logits, first, reduction="none")

    def _keys(self, ids: np.ndarray, mask: np.ndarray) -> torch.Tensor:
        return self._keys_of(torch.from_numpy(ids).to(self._device), torch.from_numpy(mask).to(self._device))

    def _keys_of(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return mean_pool(self._frozen(input_ids=ids, attention_mask=mask).last_hidden_state, mask)

    def _public_spans(self, public: NoteStore, rng: np.random.Generator) -> list[np.ndarray]:
        """Anchors of public notes, one a note until there are enough: as long as those of the site's notes."""
        plan = self.plan
        long_enough = [i for i, n in enumerate(public.lengths) if longest_span(n, 1, plan.max_span) >= plan.min_span]
        spans = []
        for i in rng.permutation(long_enough)[:_POOL]:
            ids = public.tokens(int(i))
            (drawn,) = sample_spans(
                len(ids),
                anchors=1,
                positives=1,
                shortest=plan.min_span,
                longest=plan.max_span,
                rng=rng,
                sampling=plan.sampling,
            )
            spans.append(ids[slice(*drawn.anchor)])
        return spans
