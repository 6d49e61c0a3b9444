"""Random numbers that nobody outside the site can foretell: AES-256 in counter mode, under a key that never leaves it.

Which units a step draws, and the noise on their sum, rest on these. PyTorch's and NumPy's own generators are made for
speed: from enough of their output the rest can be computed. A stream is named by its purpose and step, so that a round
that is done again after a crash has the same noise, and no two steps ever share any.
"""

import hashlib
import hmac
import math

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

_BLOCK = 1 << 20  # numbers made at once: small enough for the processor's cache


class SecretStream:
    """One stream of random numbers.

    Args:
        key: 32 secret bytes.
        purpose: names the stream, together with `step`: equal names give equal numbers.
    """

    def __init__(self, key: bytes, purpose: str, step: int = 0) -> None:
        if len(key) != 32:
            raise ValueError("the key is not 32 bytes")
        own = hmac.digest(key, f"{purpose}/{step}".encode(), hashlib.sha256)
        self._keystream = Cipher(AES256(own), CTR(bytes(16))).encryptor()

    def integers(self, count: int) -> np.ndarray:
        """`count` uniform integers of 64 bits."""
        return np.frombuffer(self._keystream.update(bytes(8 * count)), dtype=np.uint64)

    def uniform(self, count: int) -> np.ndarray:
        """`count` numbers in (0, 1], each a multiple of 2^-53."""
        return ((self.integers(count) >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53

    def normal(self, count: int) -> torch.Tensor:
        """`count` standard normal numbers [count], float32, by Box and Muller in double precision."""
        found = torch.empty(count + count % 2, dtype=torch.float32)
        for start in range(0, len(found), _BLOCK):
            part = found[start : start + _BLOCK]
            uniform = torch.from_numpy(self.uniform(len(part)))
            half = len(part) // 2
            radius = uniform[:half].log_().mul_(-2).sqrt_()
            angle = uniform[half:].mul_(2 * math.pi)
            torch.mul(radius, angle.cos(), out=part[:half])
            torch.mul(radius, angle.sin_(), out=part[half:])
        return found[:count]
