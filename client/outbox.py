"""The last updates that left, kept at the site: a request that comes again is answered by the very same reply.

To train such a round again would make other noise, or other sums under the same noise, and two answers tell more than
one. The updates have left already, so keeping them tells nobody anything.
"""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from common.encoder import tensors_digest
from common.files import explained, new_file

OUTBOX = "outbox"
_ROUNDS, _RUNS = 2, 4  # rounds of a run, and runs, that are kept


def keep(folder: Path, run: str, round: int, tensors: dict[str, np.ndarray], reply: dict[str, object]) -> None:
    """Keep what is about to leave; atomic. Older rounds of the run go, and so do the runs that were quiet longest.

    `reply` is what JSON can hold. Raises ValueError where `run` is not hex, for it becomes part of a file's name.
    """
    file = _file(folder, run, round)
    tensors = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    words = json.dumps(reply)
    with explained(file):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with new_file(file) as scratch:
        save_file(tensors, scratch, metadata={"reply": words, "digest": _digest(tensors, words)})
    _sweep(file)


def kept(folder: Path, run: str, round: int) -> tuple[dict[str, np.ndarray], dict[str, object]] | None:
    """What left in a round, byte for byte; None where it is not there, or damaged. Raises ValueError as `keep`."""
    try:
        with safe_open(_file(folder, run, round), "np") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no mapping)
    except (OSError, SafetensorError):
        return None
    words = metadata.get("reply", "")
    return (tensors, json.loads(words)) if metadata.get("digest") == _digest(tensors, words) else None


def _digest(tensors: dict[str, np.ndarray], words: str) -> str:
    """Over all that is kept: safetensors itself would not notice a number that changed on the disk."""
    ordered = sorted(tensors.items())
    forms = [(name, str(value.dtype), value.shape) for name, value in ordered]
    return hashlib.sha256(json.dumps([forms, tensors_digest(ordered), words]).encode()).hexdigest()


def _file(folder: Path, run: str, round: int) -> Path:
    if not re.fullmatch("[0-9a-f]+", run):
        raise ValueError("the id of a run is hex")
    return folder / OUTBOX / f"{run}-{round:06d}.safetensors"


def _sweep(newest: Path) -> None:
    """Remove what is no longer kept; never `newest`, whatever the clock says."""
    runs: dict[str, list[Path]] = {}
    youth = lambda file: (file == newest, _written(file), file.name)
    for file in sorted(newest.parent.glob("*.safetensors"), key=youth, reverse=True):
        runs.setdefault(file.name.partition("-")[0], []).append(file)
    for place, files in enumerate(runs.values()):
        for file in files[_ROUNDS if place < _RUNS else 0 :]:
            file.unlink(missing_ok=True)


def _written(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:  # another process has removed it
        return 0
