"""Synthetic clinical notes, for demonstrations and experiments that need no patient's data.

A patient comes to a hospital with a problem of one specialty, which is the label, and with others of any: one active,
some of the past, and the many that the notes deny. So a word counts for little by itself; what the stay is for does.
`problems.py` holds what patients can have, `note_types.py` and `phrases.py` how it is written, `hospitals.py` where.
"""

import gzip
import json
import os
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from random import Random

from .hospitals import Hospital, hospitals_of
from .note_types import NOTE_TYPES
from .patients import Patient, weighted
from .scribe import Scribe

FIRST_DAY = date(2019, 1, 7)
DAYS = 5 * 365
NOTES_A_PATIENT = (2, 6)
# How often a note is the last one over again, as in real records: whole, or with a line added.
COPIED = 0.015

__all__ = ["synthetic_notes", "write_jsonl"]


def synthetic_notes(seed: int = 7, notes: int = 2400, hospitals: int = 4) -> Iterator[dict[str, str]]:
    """Yield notes as dicts with id, text, patient, category, label, date and site: by hospital, by patient, by date."""
    sites = hospitals_of(hospitals, Random(f"{seed}/hospitals"))
    edges = [0.0]
    for site in sites:
        edges.append(edges[-1] + site.size)
    marks = [round(notes * edge / edges[-1]) for edge in edges]
    for site, first, last in zip(sites, marks, marks[1:], strict=False):
        # A stream of random numbers for each, so that a hospital's patients do not hang on its neighbours'.
        yield from _notes_of(site, last - first, Random(f"{seed}/{site.name}"))


def _notes_of(site: Hospital, notes: int, rng: Random) -> Iterator[dict[str, str]]:
    patients = 0
    while notes > 0:
        count = min(rng.randint(*NOTES_A_PATIENT), notes)
        if notes - count == 1:
            count = notes
        patients += 1
        notes -= count
        patient = Patient.admit(f"{site.name}-p{patients:04}", weighted(site.specialties, rng), rng)
        yield from _stay(site, patient, count, rng)


def _stay(site: Hospital, patient: Patient, count: int, rng: Random) -> Iterator[dict[str, str]]:
    admitted = FIRST_DAY + timedelta(rng.randrange(DAYS))
    scribe = Scribe(site, patient, rng)
    category = text = ""
    for number, (day, drawn) in enumerate(_plan(site, count, rng), start=1):
        when = admitted + timedelta(day)
        if text and rng.random() < COPIED:
            text += rng.choice(("", "\nNo change since."))
        else:
            category, text = drawn, scribe.note(drawn, when)
        yield {
            "id": f"{patient.id}-{number}",
            "text": text,
            "patient": patient.id,
            "category": category,
            "label": patient.main.specialty,
            "date": when.isoformat(),
            "site": site.name,
        }


def _plan(site: Hospital, count: int, rng: Random) -> list[tuple[int, str]]:
    """The days of a stay on which a note is written, and the type of each."""
    pool = dict(site.note_types)
    plan = []
    for _ in range(count):
        category = weighted(pool, rng)
        if NOTE_TYPES[category].once:
            del pool[category]
        plan.append((rng.randint(*NOTE_TYPES[category].days), category))
    return sorted(plan)


def write_jsonl(path: Path | str, seed: int = 7, notes: int = 2400, hospitals: int = 4) -> None:
    """Write the notes as JSON Lines, gzipped if the name ends in `.gz`: the same bytes for the same arguments."""
    path = Path(path)
    lines = "".join(json.dumps(note, ensure_ascii=False) + "\n" for note in synthetic_notes(seed, notes, hospitals))
    content = lines.encode()
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)
    # A reader sees the whole file or none.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
