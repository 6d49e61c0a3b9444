"""The installed package, as one digest: coordinator and site compare it before round 1."""

import functools
import hashlib
from pathlib import Path

PARTS = ("common", "client", "server", "simulations", "fednotes.py")
_DATA = {".py", ".toml", ".html", ".css", ".js", ".jinja", ".conf", ".service", ".yaml"}


@functools.lru_cache(maxsize=1)
def package_digest() -> str:
    """SHA-256 (hex) over names and contents of all code and data files that are installed."""
    root = Path(__file__).resolve().parents[1]
    found = hashlib.sha256()
    for part in PARTS:
        place = root / part
        for file in [place] if place.is_file() else sorted(place.rglob("*")):
            if file.suffix in _DATA and file.is_file():
                content = file.read_bytes()
                found.update(f"{file.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return found.hexdigest()
