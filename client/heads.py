"""The tensors that stay at a site, kept on its disk from round to round.

Each round's are a file of their own, written before the update leaves, so that a study that resumes at any round finds
here exactly what the site had then.
"""

from pathlib import Path

from safetensors.torch import load_file, save_file

from common.encoder import Encoder
from common.files import new_file

HEADS = "heads"
_KEPT = 3


def load_heads(folder: Path, before_round: int, encoder: Encoder) -> bool:
    """Load the newest heads from a round earlier than `before_round` into the encoder; whether there were any."""
    rounds = [n for n in _rounds(folder) if n < before_round]
    if not rounds:
        return False
    encoder.load(load_file(_file(folder, max(rounds))))
    return True


def save_heads(folder: Path, number: int, encoder: Encoder, share: str) -> None:
    """Keep the tensors that `share` leaves at the site; atomic, and the oldest files go."""
    tensors = {name: p.detach().cpu().contiguous() for name, p in encoder.private(share).items()}
    if not tensors:
        return
    with new_file(_file(folder, number)) as scratch:
        save_file(tensors, scratch)
    for old in [n for n in sorted(_rounds(folder)) if n <= number][:-_KEPT]:
        _file(folder, old).unlink(missing_ok=True)


def _file(folder: Path, number: int) -> Path:
    return folder / f"heads-{number:06d}.safetensors"


def _rounds(folder: Path) -> list[int]:
    return [int(path.stem.removeprefix("heads-")) for path in folder.glob("heads-*.safetensors")]
