"""The tensors that stay at a site, kept on its disk from round to round.

Each round's are a file of their own, written before the update leaves, so that a study that resumes at any round finds
here exactly what the site had then; and each run has a folder of its own, for a site takes part in one study after
another, and in two at once.
"""

import re
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from common.encoder import Encoder
from common.files import new_file

HEADS = "heads"
_KEPT, _RUNS = 3, 8


def load_heads(site: Path, run: str, before_round: int, encoder: Encoder) -> bool:
    """Load the newest heads of a run (32 hex digits) from a round earlier than `before_round` into the encoder; whether
    there were any."""
    folder = site / HEADS / run
    rounds = [n for n in _rounds(folder) if n < before_round]
    if not rounds:
        return False
    encoder.load(load_file(_file(folder, max(rounds))))
    return True


def save_heads(site: Path, run: str, number: int, encoder: Encoder, share: str) -> None:
    """Keep the tensors that `share` leaves at the site; atomic. The oldest files go, and the runs that were quiet
    longest."""
    tensors = {name: p.detach().cpu().contiguous() for name, p in encoder.private(share).items()}
    if not tensors:
        return
    folder = site / HEADS / run
    with new_file(_file(folder, number)) as scratch:
        save_file(tensors, scratch)
    for old in [n for n in sorted(_rounds(folder)) if n <= number][:-_KEPT]:
        _file(folder, old).unlink(missing_ok=True)
    runs = [one for one in (site / HEADS).iterdir() if re.fullmatch("[0-9a-f]{32}", one.name) and one != folder]
    for quiet in sorted(runs, key=lambda one: one.stat().st_mtime_ns)[: -(_RUNS - 1)]:
        shutil.rmtree(quiet, ignore_errors=True)


def _file(folder: Path, number: int) -> Path:
    return folder / f"heads-{number:06d}.safetensors"


def _rounds(folder: Path) -> list[int]:
    return [int(path.stem.removeprefix("heads-")) for path in folder.glob("heads-*.safetensors")]
