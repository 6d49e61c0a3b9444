"""The report of a run: one HTML file that opens from disk and asks the network for nothing."""

from pathlib import Path

from common.files import write_text
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
    write_text(path, render(summary, embedding_map))
