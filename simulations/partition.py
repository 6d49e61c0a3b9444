"""How the notes of one source fall to virtual hospitals, and their folders on disk."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tomli_w

from client.notes.store import NoteStore
from client.site import SITE_FILE, SiteConfig
from common.errors import InputError

MIN_NOTES = 20  # training notes below which a virtual hospital cannot take part


@dataclass(frozen=True)
class Partition:
    """Rows of the source for each site that takes part, and why the others do not."""

    rows: dict[str, np.ndarray]
    left_out: dict[str, str]


def by_column(notes: NoteStore) -> Partition:
    """A site for each value of the notes' site column. Notes without a value go to no site."""
    values = notes.column("site")
    names = sorted({str(v) for v in values if v is not None})
    return _enough(notes, {name: np.flatnonzero(values == name) for name in names}, int(sum(v is None for v in values)))


def at_random(notes: NoteStore, sites: int, seed: int) -> Partition:
    """`sites` hospitals of about equal size; the notes of a patient (or copies of a note) fall together."""
    patients, groups = notes.column("patient"), notes.column("group")
    units = [
        f"p{patient}" if patient is not None else (f"g{group}" if group >= 0 else f"n{index}")
        for index, (patient, group) in enumerate(zip(patients, groups, strict=True))
    ]
    draw = np.array([_hash(f"{seed}:{unit}") % sites for unit in units], dtype=np.int64)
    width = len(str(sites))
    return _enough(notes, {f"site-{i + 1:0{width}d}": np.flatnonzero(draw == i) for i in range(sites)}, 0)


def _enough(notes: NoteStore, rows: dict[str, np.ndarray], nameless: int) -> Partition:
    left_out = {"(no site)": f"{nameless} notes name no site."} if nameless else {}
    taking_part = {}
    for name, indices in rows.items():
        train = len(notes.view(indices).split_indices("train"))
        if train < MIN_NOTES:
            left_out[name] = f"It has {train} training notes; at least {MIN_NOTES} are needed."
        else:
            taking_part[name] = indices
    if not taking_part:
        raise InputError(
            "too-few-notes",
            f"No site has the {MIN_NOTES} training notes that are needed: "
            + "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:5]),
            "Give more notes, or fewer sites.",
        )
    return Partition(taking_part, left_out)


def write_site(folder: Path, config: SiteConfig, rows: np.ndarray) -> Path:
    """Make the folder of a virtual hospital: `site.toml` and the row numbers of its notes."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "rows.npy", rows)
    settings = config.model_copy(update={"rows": Path("rows.npy")}).model_dump(mode="json", exclude_none=True)
    (folder / SITE_FILE).write_text(tomli_w.dumps(settings), encoding="utf-8")
    return folder


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
