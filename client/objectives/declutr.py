"""DeCLUTR: spans of a note are drawn to spans around them and pushed from those of other notes, with MLM beside
(Giorgi et al. 2021; METHOD section 1.3).

Spans are drawn anew whenever a note is collated. All spans of a step, anchors and positives, are rows of one batch that
is sorted by length and read in pieces, so that short spans are not padded to long ones. With `spans_at_once` the pieces
are read twice and only one is in memory at a time (gradient caching, Gao et al. 2021): first all embeddings without a
gradient, then the contrastive loss and its gradient at the embeddings, then each piece again, to take it further back.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from client.batching import Batches
from client.notes.store import NoteStore
from client.objectives import Batch, Compute, Loss, Objective, TokenisedNote
from client.objectives.contrastive import nt_xent
from client.objectives.sequences import Sequences
from client.objectives.spans import sample_spans
from common.encoder import Encoder, mean_pool
from common.plan import StudyPlan
from common.plan_sections import Declutr as DeclutrPlan

_PIECES = 4  # that a batch is read in where memory is no matter: enough that little is padded, few enough to be cheap
_WIDTHS = 8  # in bfloat16, pieces are as wide as a multiple of this: the processor keeps kernels for every shape it met


class Declutr(Objective):
    """The objective over one tokeniser."""

    def __init__(self, study: StudyPlan, plan: DeclutrPlan, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(study)
        self.plan = plan
        self.sequences = Sequences(tokenizer, self.max_length)

    def read(self, notes: NoteStore, index: int) -> TokenisedNote:
        ids, starts = notes.tokens(index), notes.word_starts(index)
        if self.plan.related_negatives:
            return TokenisedNote(ids, starts)
        one = notes.view([index])
        return TokenisedNote(ids, starts, one.column("patient")[0], int(one.column("group")[0]))

    def batches(self, notes: NoteStore, rows: np.ndarray, batch_size: int, key: tuple[int, ...]) -> Batches:
        # Not by length: notes of one length may be of one kind, and a batch should hold all kinds.
        return Batches(np.zeros(len(rows), dtype=np.int64), batch_size, key)

    def collate(self, notes: Sequence[TokenisedNote], rng: np.random.Generator, cut: bool = False) -> Batch:
        """Rows are M masked anchors (for MLM), M anchors as they stand (where these are compared), then the M * P
        positives (where any are), all sorted by length, the longest first.

        Tensors: `input_ids` and `attention_mask` [R, T]; `place` [R], where each of the rows above is now; `width` [R],
        tokens in each row; `row`, `column` and `targets` [K] of the tokens to predict, by row; `apart` [M, M].
        """
        plan = self.plan
        anchors: list[np.ndarray] = []
        positives: list[np.ndarray] = []
        for note in notes:
            of_note, around = self.spans(note, rng)
            anchors += of_note
            positives += around
        rows = [
            *(anchors if plan.mlm_weight else []),
            *(anchors if plan.plain_anchors else []),
            *(positives if plan.contrastive_weight else []),
        ]
        lengths = np.array([len(row) for row in rows])
        order = np.argsort(-lengths, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        ids, attention = self.sequences.padded([rows[r] for r in order])
        row = column = targets = np.zeros(0, dtype=np.int64)
        if plan.mlm_weight:
            hidden = place[: len(anchors)]
            masked, width = ids[hidden], ids.shape[1]
            chosen = self.sequences.choose(anchors, width, plan.mask_probability, rng)
            positions, targets = self.sequences.hide(masked, chosen, rng)
            ids[hidden] = masked
            row, column = hidden[positions // width], positions % width
        by_row = np.argsort(row, kind="stable")
        arrays = {
            "input_ids": ids,
            "attention_mask": attention,
            "place": place,
            "width": lengths[order] + 2,
            "row": row[by_row],
            "column": column[by_row],
            "targets": targets[by_row],
            "apart": np.repeat(np.repeat(_apart(notes), plan.anchors, axis=0), plan.anchors, axis=1),
        }
        return Batch({k: torch.from_numpy(v) for k, v in arrays.items()}, tokens=int(attention.sum()))

    def spans(self, note: TokenisedNote, rng: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The ids of a note's anchors, and those of all their positives, an anchor's after another's."""
        plan = self.plan
        drawn = sample_spans(
            len(note.ids),
            anchors=plan.anchors,
            positives=plan.positives,
            shortest=plan.min_span,
            longest=plan.max_span,
            rng=rng,
            sampling=plan.sampling,
        )
        around = [note.ids[slice(*positive)] for spans in drawn for positive in spans.positives]
        return [note.ids[slice(*spans.anchor)] for spans in drawn], around

    def loss(self, encoder: Encoder, batch: Batch) -> Loss:
        """Contrastive loss averaged over the 2M vectors, and cross-entropy over the masked tokens, by their weights."""
        found = [self._read(encoder, batch, piece) for piece in self._pieces(batch, _PIECES)]
        mlm = torch.stack([loss for _, loss in found]).sum()
        return self._loss(batch, self._contrast(batch, torch.cat([vectors for vectors, _ in found])), mlm)

    def backward(self, encoder: Encoder, batch: Batch, compute: Compute) -> Loss:
        with _sparse_words(encoder):
            return self._backward(encoder, batch, compute)

    def _backward(self, encoder: Encoder, batch: Batch, compute: Compute) -> Loss:
        rows, at_once = len(batch.tensors["width"]), self.plan.spans_at_once
        if at_once is None or rows <= at_once:
            return super().backward(encoder, batch, compute)
        pieces = list(self._pieces(batch, -(-rows // at_once)))
        device = batch.tensors["input_ids"].device
        seen: list[torch.Tensor] = []
        dice: list[torch.Tensor] = []
        # A number format of its own for each reading: within one, torch may use weights again that it cast without a
        # gradient.
        with torch.no_grad(), compute():
            for piece in pieces if self.plan.contrastive_weight else []:
                dice.append(_dice(device))
                seen.append(self._read(encoder, batch, piece, predict=False)[0])
        vectors = torch.cat(seen).requires_grad_() if seen else torch.zeros(0, device=device)
        contrast = self._contrast(batch, vectors)
        if seen:
            (self.plan.contrastive_weight * contrast).backward()
        count = len(batch.tensors["targets"])
        mlm = torch.zeros((), device=device)
        for number, piece in enumerate(pieces):
            if seen:
                _throw_again(dice[number], device)  # the same dropout as when it was first read
            with compute():
                again, part = self._read(encoder, batch, piece)
            surrogate = self.plan.mlm_weight * part / max(1, count)
            if seen:
                assert vectors.grad is not None  # its loss has gone through backward
                surrogate = surrogate + (again * vectors.grad[piece]).sum()
            if surrogate.requires_grad:
                surrogate.backward()
            mlm += part.detach()
        return self._loss(batch, contrast.detach(), mlm)

    @property
    def groups(self) -> bool:
        return self.study.privacy is not None

    @property
    def reads_mlm_head(self) -> bool:
        return self.plan.mlm_weight > 0

    def _pieces(self, batch: Batch, number: int) -> Iterator[slice]:
        """Up to `number` slices of the rows, of one size."""
        rows = len(batch.tensors["width"])
        size = -(-rows // number)
        return (slice(start, min(start + size, rows)) for start in range(0, rows, size))

    def _read(
        self, encoder: Encoder, batch: Batch, piece: slice, predict: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings [r, H] of a piece of the rows, and the summed cross-entropy of its masked tokens."""
        t = batch.tensors
        ids, width = t["input_ids"], int(t["width"][piece.start])  # the longest first
        if torch.is_autocast_enabled(ids.device.type):
            width = min(-(-width // _WIDTHS) * _WIDTHS, ids.shape[1])
        attention = t["attention_mask"][piece, :width]
        states = encoder.hidden(ids[piece, :width], attention)
        mlm = torch.zeros((), device=states.device)
        here = (t["row"] >= piece.start) & (t["row"] < piece.stop)
        if predict and here.any():
            logits = encoder.mlm_logits(states[t["row"][here] - piece.start, t["column"][here]])
            mlm = functional.cross_entropy(logits.float(), t["targets"][here], reduction="sum")
        return mean_pool(states, attention).float(), mlm

    def _contrast(self, batch: Batch, vectors: torch.Tensor) -> torch.Tensor:
        """The contrastive loss of the rows' embeddings [R, H]."""
        t, plan = batch.tensors, self.plan
        if not plan.contrastive_weight:
            return torch.zeros((), device=vectors.device)
        pairs = len(t["apart"])
        first = pairs if plan.mlm_weight and plan.plain_anchors else 0
        anchors = vectors[t["place"][first : first + pairs]]
        positives = vectors[t["place"][first + pairs :]].view(pairs, plan.positives, -1).mean(dim=1)
        return nt_xent(anchors, positives, plan.temperature, t["apart"])

    def _loss(self, batch: Batch, contrast: torch.Tensor, mlm_sum: torch.Tensor) -> Loss:
        plan, pairs, count = self.plan, len(batch.tensors["apart"]), len(batch.tensors["targets"])
        parts: dict[str, tuple[torch.Tensor, int]] = {}
        if plan.contrastive_weight:
            parts["contrastive"] = (contrast.detach() * pairs, pairs)
        if plan.mlm_weight:
            parts["mlm"] = (mlm_sum.detach(), count)
        return Loss(plan.contrastive_weight * contrast + plan.mlm_weight * mlm_sum / max(1, count), pairs, parts)


def _apart(notes: Sequence[TokenisedNote]) -> np.ndarray:
    """Which notes [N, N] may be negatives for each other: not copies, nor two notes of one patient.

    Anchors of one note may: they are its hard negatives, on purpose.
    """
    apart = np.ones((len(notes), len(notes)), dtype=bool)
    for a, one in enumerate(notes):
        for b, other in enumerate(notes[:a]):
            same_patient = one.patient is not None and one.patient == other.patient
            if same_patient or (one.group >= 0 and one.group == other.group):
                apart[a, b] = apart[b, a] = False
    return apart


@contextlib.contextmanager
def _sparse_words(encoder: Encoder) -> Iterator[None]:
    """Each piece adds to the gradient of the word embeddings only in the rows of its own words.

    On a processor, a matrix of the whole vocabulary for each piece took a tenth of a step.
    """
    words = cast(torch.nn.Embedding, encoder.body.get_input_embeddings())
    if words.weight.device.type != "cpu" or not words.weight.requires_grad:
        yield
        return
    if words.weight.grad is None:
        words.weight.grad = torch.zeros_like(words.weight)
    words.sparse = True
    try:
        yield
    finally:
        words.sparse = False


def _dice(device: torch.device) -> torch.Tensor:
    """The state of the generator that dropout draws from."""
    if device.type == "mps":
        return torch.mps.get_rng_state()
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _throw_again(state: torch.Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state)
    else:
        torch.set_rng_state(state)
