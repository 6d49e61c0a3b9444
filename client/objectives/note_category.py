"""Note category: MLM, and a loss that tells the notes' categories apart by their pooled embedding (METHOD section 1.4).

The category is metadata that a hospital has anyway. Three losses: a linear head with cross-entropy; the same on the
cosine to a learned prototype of each category; or supervised contrastive loss, for which batches are made of pairs of
one category, so that a rare one has a positive, too. Notes without a category are read for MLM alone. Categories differ
between hospitals: each site has its own list and keeps its head, unless the plan names one list for all; then the head
is shared like the encoder.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from client.batching import Batches, PairedBatches
from client.clipping import Owned
from client.notes.store import NoteStore
from client.objectives import Batch, Loss, Objective, TokenisedNote
from client.objectives.contrastive import supervised_contrastive
from client.objectives.sequences import Sequences
from client.objectives.unit_rows import by_unit, masked_rows, mlm_losses
from common.encoder import Encoder, mean_pool
from common.errors import InputError
from common.plan import StudyPlan
from common.plan_sections import NoteCategory as NoteCategoryPlan

_FEWEST = 2  # training notes that make a category of a site's own


def site_categories(plan: NoteCategoryPlan, notes: NoteStore) -> list[str]:
    """The categories that the site tells apart: the plan's, or its own, those of two training notes or more.

    Raises:
        InputError: `too-few-categories`.
    """
    counts = Counter(value for value in notes.column("category")[notes.split_indices("train")] if value is not None)
    known = plan.categories or sorted(name for name, count in counts.items() if count >= _FEWEST)
    if len(present := set(known) & set(counts)) < 2:
        raise InputError(
            "too-few-categories",
            f"The training notes are of {len(present)} of the categories that can be told apart; two are needed.",
            "Name the category column, or give the plan the categories that the notes have.",
        )
    return known


class NoteCategory(Objective):
    """The objective over one tokeniser, for a site's `categories`."""

    def __init__(
        self, study: StudyPlan, plan: NoteCategoryPlan, tokenizer: PreTrainedTokenizerBase, categories: list[str]
    ) -> None:
        super().__init__(study)
        self.plan, self.tokenizer = plan, tokenizer
        self.sequences = Sequences(tokenizer, self.max_length)
        self.code = {name: number for number, name in enumerate(categories)}
        self.headings = heading_pattern(categories)

    def attach(self, encoder: Encoder) -> None:
        count = 0 if self.plan.loss == "contrastive" else len(self.code)
        encoder.set_categories(count, self.plan.categories is not None, bias=self.plan.loss == "linear")

    def read(self, notes: NoteStore, index: int) -> TokenisedNote:
        category = notes.view([index]).column("category")[0]
        ids, starts = notes.tokens(index), notes.word_starts(index)
        if self.plan.strip_headings and self.headings.search(text := notes.text(index)):
            encoding = self.tokenizer(self.headings.sub("", text), add_special_tokens=False, verbose=False).encodings[0]
            if encoding.ids:  # a note of headings only stays as it is
                words = np.array(encoding.word_ids, dtype=np.float64)
                ids, starts = np.array(encoding.ids), np.diff(words, prepend=np.nan) != 0
        return TokenisedNote(ids, starts, category=category)

    def batches(self, notes: NoteStore, rows: np.ndarray, batch_size: int, key: tuple[int, ...]) -> Batches:
        if self.plan.loss != "contrastive":
            return super().batches(notes, rows, batch_size, key)
        classes = [self.code.get(category, -1) for category in notes.column("category")[rows]]
        lengths = np.minimum(notes.lengths[rows], self.max_length - 2)
        return PairedBatches(lengths, batch_size, key, np.array(classes))

    def collate(self, notes: Sequence[TokenisedNote], rng: np.random.Generator, cut: bool = False) -> Batch:
        """Tensors: those of MLM, `categories` [B] (-1 for none), and unless `masked` the `plain_ids` [B, T]."""
        windows = [self.sequences.window(note, rng, cut).ids for note in notes]
        ids, attention = self.sequences.padded(windows)
        arrays = {"attention_mask": attention} | ({} if self.plan.masked else {"plain_ids": ids.copy()})
        chosen = self.sequences.choose(windows, ids.shape[1], self.plan.mask_probability, rng)
        positions, targets = self.sequences.hide(ids, chosen, rng)
        categories = np.array([-1 if note.category is None else self.code.get(note.category, -1) for note in notes])
        arrays |= {"input_ids": ids, "positions": positions, "targets": targets, "categories": categories}
        readings = 1 if self.plan.masked else 2
        return Batch({k: torch.from_numpy(v) for k, v in arrays.items()}, tokens=readings * int(attention.sum()))

    def loss(self, encoder: Encoder, batch: Batch) -> Loss:
        """MLM plus the weighted category loss, each averaged over its own terms."""
        t, plan = batch.tensors, self.plan
        states = encoder.hidden(t["input_ids"], t["attention_mask"])
        logits = encoder.mlm_logits(states.flatten(0, 1)[t["positions"]])
        mlm = functional.cross_entropy(logits.float(), t["targets"])
        if plan.masked:
            pooled = mean_pool(states, t["attention_mask"])
        else:
            pooled = encoder.embed(t["plain_ids"], t["attention_mask"])
        known = t["categories"] >= 0
        told, count = self._told(encoder, pooled[known].float(), t["categories"][known])
        parts = {"mlm": (mlm.detach() * len(t["targets"]), len(t["targets"]))}
        if count:
            parts["category"] = (told.detach() * count, count)
        return Loss(mlm + plan.weight * told, len(t["categories"]), parts)

    def _told(self, encoder: Encoder, pooled: torch.Tensor, classes: torch.Tensor) -> tuple[torch.Tensor, int]:
        """The category loss of notes that have one, and over how many it is averaged."""
        if not len(classes):
            return pooled.sum() * 0.0, 0
        if self.plan.loss == "contrastive":
            _, counts = torch.unique(classes, return_counts=True)
            return supervised_contrastive(pooled, classes, self.plan.temperature), int(counts[counts > 1].sum())
        return functional.cross_entropy(self._logits(encoder, pooled).float(), classes), len(classes)

    def _logits(self, encoder: Encoder, pooled: torch.Tensor) -> torch.Tensor:
        """Scores [N, categories] of pooled embeddings [N, H]."""
        assert encoder.category_head is not None  # `attach` has made it
        if self.plan.loss == "linear":
            return encoder.category_head(pooled)
        return encoder.category_head(functional.normalize(pooled, dim=1)) / self.plan.temperature

    units_at_once = None

    def collate_units(self, units: Sequence[Sequence[TokenisedNote]], rngs: Sequence[np.random.Generator]) -> Batch:
        """Tensors: those of `masked_rows`, a row a note; `owner` and `categories` (-1 for none) [R]; `notes` [units];
        unless `masked` the `plain_ids` [R, T]."""
        owner = [u for u, unit in enumerate(units) for _ in unit]
        notes = [note for unit in units for note in unit]
        of_row = [rngs[u] for u in owner]
        windows = [self.sequences.window(note, rng, False).ids for note, rng in zip(notes, of_row, strict=True)]
        chosen = [rng.random(len(row)) < self.plan.mask_probability for row, rng in zip(windows, of_row, strict=True)]
        arrays = masked_rows(self.sequences, windows, chosen, of_row)
        if not self.plan.masked:
            arrays["plain_ids"], _ = self.sequences.padded(windows)
        arrays["owner"] = np.array(owner)
        arrays["notes"] = np.array([len(unit) for unit in units])
        arrays["categories"] = np.array(
            [-1 if note.category is None else self.code.get(note.category, -1) for note in notes]
        )
        readings = 1 if self.plan.masked else 2
        tokens = readings * int(arrays["attention_mask"].sum())
        return Batch({k: torch.from_numpy(v) for k, v in arrays.items()}, tokens)

    def unit_losses(self, encoder: Encoder, batch: Batch, owned: Owned) -> torch.Tensor:
        t, plan = batch.tensors, self.plan
        with owned(t["owner"]):
            states = encoder.hidden(t["input_ids"], t["attention_mask"])
            plain = states if plan.masked else encoder.hidden(t["plain_ids"], t["attention_mask"])
            logits = self._logits(encoder, mean_pool(plain, t["attention_mask"]))
        known = t["categories"] >= 0
        told = functional.cross_entropy(logits, t["categories"].clamp(min=0), reduction="none") * known
        return by_unit(mlm_losses(encoder, states, t, owned) + plan.weight * told, t)


def heading_pattern(categories: Sequence[str]) -> re.Pattern[str]:
    """Finds headings that name a category: a line of nothing else, or one that begins with it and a colon."""
    names = "|".join(re.escape(name) for name in sorted(categories, key=len, reverse=True))
    marks = r"(?:[^\w\n]|_)*"  # blanks, and what a heading is adorned with
    return re.compile(rf"^{marks}(?:{names}){marks}(?:$|:)", re.IGNORECASE | re.MULTILINE)
