"""The first stage of the cache: notes read once, checked, compared and split, with their texts in a file of their own.

`texts.arrow` holds one string a note, in batches; `notes.arrow` everything else about it; `intake.json` the counts.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from client.notes.check import Note
from client.notes.duplicates import MIN_WORDS, Groups, find_groups
from client.notes.folders import publish, scratch
from client.notes.read import BadRow, file_format, read_notes, refuse_broken
from client.notes.shingles import Fingerprints, fingerprint
from client.notes.source import NotesSource
from client.notes.split import SET_ASIDE, SIDES, assign_splits
from common.errors import InputError

# Part of the cache's key: raise it when anything below or in what it calls changes what is written.
VERSION = 1
TEXTS = "texts.arrow"
NOTES = "notes.arrow"
INTAKE = "intake.json"
STRINGS = ("id", "patient", "category", "label", "date", "split", "site")
# A batch ends at whichever comes first: 1000 short notes, or two long ones.
BATCH_NOTES = 1000
BATCH_CHARACTERS = 2_000_000

Progress = Callable[[str, int], None]


class Intake(BaseModel):
    """What came in. `notes` are all that were read, of which `set_aside` are on no side, for one of three reasons:
    `empty`, `too_short`, or `copies` of a note on a more protected side. `exact_duplicates` and `near_duplicates` count
    the notes that repeat another. `torn_patients` are on several sides, by a given split. `skipped` rows are broken.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    notes: int
    splits: dict[str, int]
    set_aside: int
    empty: int
    too_short: int
    copies: int
    exact_duplicates: int
    near_duplicates: int
    patients: int
    torn_patients: int
    skipped: list[BadRow]


@dataclass(frozen=True)
class _Read:
    """Everything about n notes that is kept in memory: all but their texts."""

    columns: pa.Table
    prints: Fingerprints


def take_in(source: NotesSource, key: bytes, cache: Path, progress: Progress) -> Path:
    """The folder in `cache` with the notes of `source`, made now unless it is there. `key` is the split's.

    Raises:
        InputError: see `read_notes`; or the file changed while it was read.
        MachineError: the cache cannot be written, or its disk is full.
    """
    # A file is known by its bytes before it is read; a query only once its rows have come.
    content = _bytes_digest(source) if not source.is_database else None
    if content and (target := cache / _folder_name(content, source, key)).is_dir():
        return _checked(target, source)
    with scratch(cache) as folder:
        skipped: list[BadRow] = []
        rows = hashlib.sha256()
        read = _read_all(_hashed(read_notes(source, skipped), rows), folder / TEXTS, progress)
        rows.update(repr(skipped).encode())
        if content and _bytes_digest(source) != content:
            raise InputError("notes-changed", f"{source.source} changed while it was read.", "Run this again.")
        target = cache / _folder_name(content or rows.hexdigest(), source, key)
        if not target.is_dir():
            _write_decisions(read, key, skipped, folder, progress)
            publish(folder, target)
    return _checked(target, source)


def _checked(target: Path, source: NotesSource) -> Path:
    """Made under a `skip_bad` that may have been larger than now."""
    refuse_broken(source, load_intake(target).skipped)
    return target


def load_intake(folder: Path) -> Intake:
    return Intake.model_validate_json((folder / INTAKE).read_bytes())


def _bytes_digest(source: NotesSource) -> str:
    file_format(source)
    with Path(source.source).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _folder_name(content: str, source: NotesSource, key: bytes) -> str:
    parts = (
        str(VERSION),
        content,
        file_format(source),
        source.columns.model_dump_json(),
        hashlib.sha256(key).hexdigest(),
    )
    return f"notes-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:32]}"


def _hashed(notes: Iterator[Note], digest: "hashlib._Hash") -> Iterator[Note]:
    for note in notes:
        digest.update(repr(note).encode())
        yield note


def _batches(notes: Iterator[Note]) -> Iterator[list[Note]]:
    batch: list[Note] = []
    characters = 0
    for note in notes:
        batch.append(note)
        characters += len(note.text)
        if len(batch) == BATCH_NOTES or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _read_all(notes: Iterator[Note], texts: Path, progress: Progress) -> _Read:
    """Writes the texts and keeps the rest."""
    columns: list[pa.RecordBatch] = []
    prints: list[Fingerprints] = []
    done = 0
    schema = pa.schema([("text", pa.string())])
    with texts.open("wb") as stream, pa.ipc.new_file(stream, schema) as writer:
        for batch in _batches(notes):
            strings = [note.text for note in batch]
            writer.write_batch(pa.record_batch([pa.array(strings, pa.string())], schema=schema))
            prints.append(fingerprint(strings))
            columns.append(
                pa.record_batch(
                    {
                        "row": pa.array([note.row for note in batch], pa.int64()),
                        **{name: pa.array([getattr(note, name) for note in batch], pa.string()) for name in STRINGS},
                    }
                )
            )
            done += len(batch)
            progress("read", done)
    return _Read(pa.Table.from_batches(columns), Fingerprints.join(prints))


def _write_decisions(read: _Read, key: bytes, skipped: list[BadRow], folder: Path, progress: Progress) -> None:
    """Compares and splits the notes, and writes what is known about each and about all."""
    prints, table = read.prints, read.columns
    groups: Groups = find_groups(prints, lambda bands: progress("compare", bands))
    patients = table["patient"].to_pylist()
    splits = assign_splits(patients, table["split"].to_pylist(), groups, key)
    table = table.set_column(table.column_names.index("split"), "split", pa.array(splits.split, pa.string()))
    table = table.append_column("group", pa.array(groups.group)).append_column("words", pa.array(prints.words))
    with (folder / NOTES).open("wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    intake = Intake(
        notes=len(table),
        splits={side: int((splits.split == side).sum()) for side in SIDES},
        set_aside=int((splits.split == SET_ASIDE).sum()),
        empty=int((prints.words == 0).sum()),
        too_short=int(((prints.words > 0) & (prints.words < MIN_WORDS)).sum()),
        copies=splits.copies,
        exact_duplicates=groups.exact,
        near_duplicates=groups.near,
        patients=len({patient for patient in patients if patient is not None}),
        torn_patients=splits.torn_patients,
        skipped=skipped,
    )
    (folder / INTAKE).write_text(intake.model_dump_json(indent=2), encoding="utf-8")
