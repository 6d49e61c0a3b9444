"""Identifier completion: does the encoder fill in dates and long numbers better in notes that it was trained on?

Patients fall to training or to what is held out by a keyed hash, so that nothing else tells the two apart. Only means
over patients leave, and none that stands on fewer than `FLOOR` of them.
"""

import re
from collections.abc import Sequence

import numpy as np
import torch
from scipy import stats

from client.notes.store import NoteStore
from client.objectives.sequences import Sequences
from client.training import held_out_rows
from common.encoder import Encoder
from common.results import FLOOR, Estimate, IdentifierCompletion

IDENTIFIER = re.compile(
    r"""
      (?<!\w) \d{1,4} ([-/.]) \d{1,2} \1 \d{1,4} (?!\w)            # a date
    | (?<!\w) \d{1,2} [ ] [A-Z][a-z]{2,8} [ ] \d{2,4} (?!\w)       # a date in words
    | \+? \d [\d() -]{6,20} \d                                     # a telephone number
    | (?<!\w) [A-Za-z]{0,5} [-:#]? \d{4,} (?!\w)                   # the number of a record
    """,
    re.VERBOSE,
)
_BATCH = 16


def identifier_completion(
    encoder: Encoder, notes: NoteStore, max_length: int, key: tuple[int, int], most: int
) -> IdentifierCompletion | None:
    """The figures; None where too few patients have identifiers in their notes.

    Args:
        key, most: at most so many notes of each side, the same whenever it is asked.
    """
    sides = []
    for splits in (("train",), ("dev", "test")):
        rows = np.concatenate([notes.split_indices(split) for split in splits])
        rows = held_out_rows(notes, rows, key, most)
        kept, figures = _asked(encoder, notes, rows, max_length)
        sides.append((len(kept), _by_patient(notes.patients()[kept], figures)))
    (train_notes, train), (held_out_notes, held_out) = sides
    if min(len(train), len(held_out)) < FLOOR:
        return None
    return IdentifierCompletion(
        train_notes=train_notes,
        held_out_notes=held_out_notes,
        train_completed=float(train[:, 0].mean()),
        held_out_completed=float(held_out[:, 0].mean()),
        completed=_difference(train[:, 0], held_out[:, 0]),
        likelihood=_difference(train[:, 1], held_out[:, 1]),
    )


def identifiers(text: str) -> list[tuple[int, int]]:
    """Where identifiers stand in a text: start and end of each, in characters."""
    return [match.span() for match in IDENTIFIER.finditer(text)]


def _asked(encoder: Encoder, notes: NoteStore, rows: np.ndarray, max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """The notes that have identifiers [n], and of each the share that is completed and the log-likelihood [n, 2]."""
    sequences = Sequences(encoder.tokenizer, max_length)
    windows: list[tuple[int, np.ndarray, list[np.ndarray]]] = []
    for row in rows.tolist():
        ids, places = _places(encoder, notes.text(row))
        if not places:
            continue
        start = max(0, min(int(places[0][0]) - sequences.room // 4, len(ids) - sequences.room))
        end = start + sequences.room
        inside = [one - start for one in places if one[0] >= start and one[-1] < end]
        if inside:
            windows.append((row, ids[start:end], inside))
    found = []
    for start in range(0, len(windows), _BATCH):
        found += _completed(encoder, sequences, windows[start : start + _BATCH])
    return np.array([row for row, *_ in windows], dtype=np.int64), np.array(found).reshape(-1, 2)


def _places(encoder: Encoder, text: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """The tokens of a text [t], and the places of those of each identifier."""
    encoding = encoder.tokenizer(text, add_special_tokens=False, verbose=False).encodings[0]
    offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    found = []
    for start, end in identifiers(text):
        places = np.flatnonzero((offsets[:, 0] < end) & (offsets[:, 1] > start))
        if len(places):
            found.append(places)
    return np.array(encoding.ids, dtype=np.int64), found


def _completed(
    encoder: Encoder, sequences: Sequences, windows: Sequence[tuple[int, np.ndarray, list[np.ndarray]]]
) -> list[tuple[float, float]]:
    """Of each note: the share of identifiers whose every token is the likeliest, and the mean log-likelihood."""
    device = next(encoder.model.parameters()).device
    encoder.model.eval()
    ids, attention = sequences.padded([ids for _, ids, _ in windows])
    truth = ids.copy()
    for row, (_, _, places) in enumerate(windows):
        ids[row, np.concatenate(places) + 1] = sequences.mask_id
    found = []
    with torch.inference_mode():
        states = encoder.hidden(torch.from_numpy(ids).to(device), torch.from_numpy(attention).to(device))
        for row, (_, _, places) in enumerate(windows):
            at = np.concatenate(places) + 1
            likely = encoder.mlm_logits(states[row, torch.from_numpy(at).to(device)]).float().log_softmax(1).cpu()
            target = torch.from_numpy(truth[row, at])
            right = (likely.argmax(1) == target).numpy()
            ends = np.cumsum([len(one) for one in places])[:-1]
            whole = [bool(one.all()) for one in np.split(right, ends)]
            own = likely.gather(1, target[:, None]).double()
            found.append((float(np.mean(whole)), float(own.mean())))
    return found


def _by_patient(patients: np.ndarray, figures: np.ndarray) -> np.ndarray:
    """Means over each patient's notes, [patients, 2]: notes of one patient repeat each other."""
    return np.array([figures[patients == one].mean(0) for one in np.unique(patients)]).reshape(-1, 2)


def _difference(a: np.ndarray, b: np.ndarray) -> Estimate:
    """Of means, with Welch's interval; none where nothing varies."""
    value = float(a.mean() - b.mean())
    if a.var() + b.var() == 0:
        return Estimate(value=value)
    interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    return Estimate(value=value, low=float(interval.low), high=float(interval.high))
