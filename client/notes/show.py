"""The tables that `fednotes notes inspect` prints."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client.notes.duplicates import MIN_WORDS
from client.notes.inspect import QUANTILES, Inspection, Use

# Rows of a table of categories or of broken rows; JSON lists them all.
MOST = 30


def show(inspection: Inspection, file: str, console: Console) -> None:
    """Prints an inspection; `file` is what it was of."""
    for table in (_notes(inspection, file), _lengths(inspection)):
        console.print(table)
    for title, counts in (
        ("Categories", inspection.categories),
        ("Labels", inspection.labels),
        ("Sites", inspection.sites),
    ):
        if counts:
            console.print(_counts(title, counts))
    if inspection.intake.skipped:
        console.print(_skipped(inspection))


def _notes(inspection: Inspection, file: str) -> Table:
    intake = inspection.intake
    # A URL may hold a password; what follows the scheme is not needed to know which it is.
    table = Table(title=escape(file if "://" not in file else f"{file.partition('://')[0]} database"))
    table.add_column("Notes")
    table.add_column("", justify="right")
    rows = {
        "read": intake.notes,
        **{f"for {side}": count for side, count in intake.splits.items()},
        "set aside": intake.set_aside,
        "  empty": intake.empty,
        f"  too short (under {MIN_WORDS} words)": intake.too_short,
        "  copy of a note on another side": intake.copies,
        "exact duplicates": intake.exact_duplicates,
        "near duplicates": intake.near_duplicates,
        "patients": intake.patients,
        "patients on several sides": intake.torn_patients,
        "broken rows left out": len(intake.skipped),
    }
    for name, count in rows.items():
        table.add_row(name, f"{count:,}")
    return table


def _lengths(inspection: Inspection) -> Table:
    table = Table(
        title="Lengths of the notes that were not set aside",
        caption=(
            f"At {inspection.max_length} tokens {inspection.truncated_notes:,} notes are cut, "
            f"and {inspection.truncated_share:.1%} of all tokens fall behind the cut."
            + (f" {_use(use)}" if (use := inspection.use) else "")
        ),
    )
    table.add_column("")
    for name in ("total", "mean", *QUANTILES):
        table.add_column(name, justify="right")
    for name, spread in (("words", inspection.words), ("tokens", inspection.tokens)):
        figures = (spread.mean, *spread.quantiles.values())
        table.add_row(name, f"{spread.total:,}", *(f"{figure:,.0f}" for figure in figures))
    return table


def _use(use: Use) -> str:
    return (
        f"The plan's objective, {use.objective}, would use {use.whole:,} of the training notes whole and "
        f"{use.shortened:,} in part; {use.too_short:,} are too short for it."
    )


def _counts(title: str, counts: dict[str, int]) -> Table:
    table = Table(title=title)
    table.add_column("")
    table.add_column("notes", justify="right")
    for name, count in list(counts.items())[:MOST]:
        table.add_row(escape(name), f"{count:,}")
    if len(counts) > MOST:
        table.add_row(f"and {len(counts) - MOST:,} more", f"{sum(list(counts.values())[MOST:]):,}")
    return table


def _skipped(inspection: Inspection) -> Table:
    table = Table(title="Broken rows that were left out")
    table.add_column("line or row", justify="right")
    table.add_column("reason")
    skipped = inspection.intake.skipped
    for number, reason in skipped[:MOST]:
        table.add_row(f"{number:,}", escape(reason))
    if len(skipped) > MOST:
        table.add_row("", f"and {len(skipped) - MOST:,} more")
    return table
