"""The reports of a run and of a table: HTML files that open from disk and ask the network for nothing."""

from pathlib import Path

from common.files import write_text
from common.results import EmbeddingMap, Summary
from common.table import Table
from server.report.page import render
from server.report.table_page import render_table

__all__ = ["render", "render_table", "write_report", "write_table_report"]


def write_report(summary: Summary, path: Path, embedding_map: EmbeddingMap | None = None) -> None:
    """Write the report of `summary` to `path`, whole or not at all.

    Args:
        embedding_map: the map of the embedding space; give one for simulated data only.

    Raises:
        MachineError: the file cannot be written; whatever was at `path` before is untouched.
    """
    write_text(path, render(summary, embedding_map))


def write_table_report(table: Table, path: Path, map: EmbeddingMap | None = None) -> None:
    """Write the report of `table`, finished or growing, to `path`, whole or not at all.

    Args:
        map: the map of the embedding space; give one for simulated data only.

    Raises:
        MachineError: the file cannot be written; whatever was at `path` before is untouched.
    """
    write_text(path, render_table(table, map))
