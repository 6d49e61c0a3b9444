"""The report of a run: one HTML file that opens from disk and asks the network for nothing."""

import os
from pathlib import Path

from common.errors import MachineError
from common.results import EmbeddingMap, Summary
from server.report.page import render

__all__ = ["render", "write_report"]


def write_report(summary: Summary, path: Path, embedding_map: EmbeddingMap | None = None) -> None:
    """Write the report of `summary` to `path`, whole or not at all.

    Args:
        embedding_map: the map of the embedding space; give one for simulated data only.

    Raises:
        MachineError: the file cannot be written; whatever was at `path` before is untouched.
    """
    page = render(summary, embedding_map)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w", encoding="utf-8", newline="\n") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        # where the folder is what failed, there is no draft to remove and the first error is the one to tell
        if draft.parent.is_dir():
            draft.unlink(missing_ok=True)
        raise MachineError(
            "report-not-written",
            f"The report cannot be written to {path}: {error.strerror or error}.",
            "Check that the folder exists, that you may write to it, and that the disk has room.",
        ) from error
