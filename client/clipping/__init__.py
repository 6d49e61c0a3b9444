"""Three ways to sum the gradients of a step's units, each clipped to a bound: equal but for rounding, told apart by
tests. `book_keeping` needs one backward pass for many units; `loop` is plain autograd, a unit at a time, and what the
others are tested against; `opacus` takes the gradients of rows that Opacus computes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal

import torch

from common.encoder import Encoder

# Opened around each reading of the encoder or a head of it: which unit each row of the input belongs to, [rows].
Owned = Callable[[torch.Tensor], AbstractContextManager[object]]
# The loss of each unit of a chunk, [units]: entry i must depend on unit i alone.
Losses = Callable[[Owned], torch.Tensor]

_ROUNDING = 1e-5  # room for float32: a clipped gradient is never longer than the bound


class Clipper(ABC):
    """Clips the units of a round's steps; opened around them all.

    Attributes:
        units_at_once: in a chunk: a matter of speed and memory alone.
        sums: by the name of a tensor that learns, the sum of the clipped gradients since `clear`.
    """

    units_at_once = 8

    def __init__(self, encoder: Encoder, tensors: dict[str, torch.nn.Parameter], bound: float) -> None:
        self.encoder, self.tensors, self.bound = encoder, tensors, bound
        self.sums = {name: torch.zeros_like(p) for name, p in tensors.items()}

    def clear(self) -> None:
        for total in self.sums.values():
            total.zero_()

    @abstractmethod
    def add(self, losses: Losses, units: int) -> torch.Tensor:
        """Add the clipped gradients of a chunk of `units` units to the sums; returns their losses, [units]."""

    def __enter__(self) -> "Clipper":
        return self

    def __exit__(self, *_: object) -> None:
        return None


def factors(norms: torch.Tensor, bound: float) -> torch.Tensor:
    """What each gradient of norm [U] is multiplied by to have at most the norm `bound`; 0 where it is not finite."""
    shrunk = (bound * (1 - _ROUNDING) / norms.clamp(min=torch.finfo(norms.dtype).tiny)).clamp(max=1.0)
    return torch.where(torch.isfinite(norms), shrunk, torch.zeros_like(shrunk))


def make_clipper(
    engine: Literal["book-keeping", "loop", "opacus"],
    encoder: Encoder,
    tensors: dict[str, torch.nn.Parameter],
    bound: float,
) -> Clipper:
    """Raises InputError `clipping-unsupported`: a tensor that learns is of a kind that the engine has no rule for."""
    if engine == "loop":
        from client.clipping.loop import Loop

        return Loop(encoder, tensors, bound)
    if engine == "opacus":
        from client.clipping.opacus import Opacus

        return Opacus(encoder, tensors, bound)
    from client.clipping.book_keeping import BookKeeping

    return BookKeeping(encoder, tensors, bound)
