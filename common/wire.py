"""How weights travel: as they are, or in half the bytes.

`float16` sends weights as float16, and what a site changed as float16; `delta-float16` sends weights as float32, and
what a site changed as float16. What a site changed is small: it travels times 1,024, so that float16 holds it to 0.05 %
of itself down to 6e-8. The coordinator adds it to weights that it keeps as float32, so that rounding never adds up from
round to round. Flower refuses bfloat16. The noise of private training is in the update before it is rounded, and
rounding what is private is private.
"""

import numpy as np

from common.encoder import tensors_digest
from common.errors import StudyError
from common.plan_sections import Wire

Tensors = dict[str, np.ndarray]

_SCALE = np.float32(1024)


def down(tensors: Tensors, wire: Wire) -> Tensors:
    """Shared tensors (float32) as they go to the sites. Raises StudyError `wire-overflow`."""
    return {name: _half(name, value) for name, value in tensors.items()} if wire == "float16" else tensors


def received(tensors: Tensors) -> Tensors:
    """At the site: what came, as float32."""
    return {name: value.astype(np.float32, copy=False) for name, value in tensors.items()}


def up(trained: Tensors, start: Tensors, wire: Wire) -> Tensors:
    """At the site: its reply. `start` is what it began from (float32). Raises StudyError `wire-overflow`."""
    if wire == "float32":
        return trained
    return {name: _half(name, _SCALE * (value - start[name])) for name, value in trained.items()}


def change(update: Tensors, start: Tensors, wire: Wire) -> Tensors:
    """What a reply says that the site changed, as float32."""
    if wire == "float32":
        return {name: value - start[name] for name, value in update.items()}
    return {name: value.astype(np.float32) / _SCALE for name, value in update.items()}


def restored(update: Tensors, start: Tensors, wire: Wire) -> Tensors:
    """At the coordinator: the site's tensors as float32. `start` is what the coordinator keeps, before it is rounded
    for the way down."""
    if wire == "float32":
        return update
    return {name: start[name] + value for name, value in change(update, start, wire).items()}


def digest(received: Tensors) -> str:
    """SHA-256 (hex) of shared tensors as a site has received them, in whatever order they stand."""
    return tensors_digest(sorted(received.items()))


def update_type(wire: Wire) -> np.dtype:
    """The number format of a reply."""
    return np.dtype(np.float32 if wire == "float32" else np.float16)


def _half(name: str, value: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        half = value.astype(np.float16)
    if not np.isfinite(half).all() and np.isfinite(value).all():
        raise StudyError(
            "wire-overflow",
            f"Tensor {name} has values of up to {np.abs(value).max():.3g}; float16 ends at 65,504.",
            'Plan federation.wire = "float32".',
        )
    return half
