"""The versions of what results rest on."""

import platform
from importlib.metadata import version

_PACKAGES = ("fednotes", "flwr", "torch", "transformers", "scikit-learn", "numpy")


def versions() -> dict[str, str]:
    """Of Python, of Fednotes, and of the libraries that compute."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
