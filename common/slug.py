"""Names of folders for things that people named."""

import hashlib
import re


def slug(name: str) -> str:
    """A folder name for a site, from any name; the hash keeps two names that look alike apart."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
    return plain if plain and plain == name else f"{plain or 'site'}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
