"""The licence of a base, as its own files state it."""

import re
from pathlib import Path

from common.encoder import locate
from common.errors import FednotesError

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,40}")


def base_licence(base: str) -> str:
    """Such as `apache-2.0`, of the card beside the base's weights; empty where it is not stated, or not here."""
    from huggingface_hub import metadata_load
    from transformers.utils import cached_file

    try:
        card = cached_file(
            locate(base), "README.md", _raise_exceptions_for_missing_entries=False, local_files_only=True
        )
        said = (metadata_load(Path(card)) or {}).get("license") if card else None
    except (OSError, ValueError, FednotesError):
        return ""
    return said if isinstance(said, str) and _NAME.fullmatch(said) else ""
