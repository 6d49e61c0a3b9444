"""Where a site computes, and in which number format."""

import contextlib
import ctypes
import sys
from collections.abc import Iterator

import torch

from common.encoder import Encoder


def pick_device() -> torch.device:
    """CUDA where present, else MPS, else the processor."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the hardware itself multiplies in bfloat16: emulation would be slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def _in_bfloat16(device: torch.device, precision: str) -> bool:
    return precision == "bfloat16" or (precision == "auto" and computes_bfloat16(device))


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """The context in which a step computes, for the plan's `precision`."""
    if _in_bfloat16(device, precision):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


@contextlib.contextmanager
def training_attention(encoder: Encoder, device: torch.device, precision: str) -> Iterator[None]:
    """Plain attention while training in bfloat16 on a processor: 1.3 to 1.7 times the speed of the fused kernel there.

    ModernBERT keeps the fused one, for the plain one gives NaN on padded rows outside its sliding window.
    """
    if device.type != "cpu" or not _in_bfloat16(device, precision) or encoder.model.config.model_type == "modernbert":
        yield
        return
    usual = encoder.model.config._attn_implementation
    encoder.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        encoder.model.set_attn_implementation(usual)


def release_memory() -> None:
    """Give freed memory back to the system. Steps of many sizes leave glibc's heap full of holes: without this a site
    of 22 M parameters grew to 6 GB over a study, with it it stays near what one step needs."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library has no such call, and no such need
            ctypes.CDLL("libc.so.6").malloc_trim(0)
