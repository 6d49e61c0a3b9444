"""`fednotes site`: a hospital's part in studies; here, what private training has spent, and what left the site."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import client.node.cli
import client.setup.cli
from common.errors import InputError

if TYPE_CHECKING:
    from client.ledger import Entry
    from client.receipt import Receipt, Value

app = typer.Typer(
    help="A hospital's part: set up, approve, take part, see what was spent and what has left.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
client.setup.cli.register(app)
client.node.cli.register(app)

Folder = Annotated[Path, typer.Argument(help="The site's folder, with its site.toml.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

_EXIT_CODES = "Exit codes: 0 whole, 2 wrong input, 3 the ledger or a receipt is damaged."
_LEDGER = f"""
Examples:

    fednotes site ledger hospital

    fednotes site ledger runs/first/sites/north --json

{_EXIT_CODES}
"""
_RECEIPTS = f"""
Examples:

    fednotes site receipts hospital

    fednotes site receipts hospital --round 3 --json

{_EXIT_CODES}
"""


@app.command("ledger", epilog=_LEDGER)
def ledger_command(folder: Folder, as_json: Json = False) -> None:
    """Check the privacy ledger of a site, and print what each round of private training has spent.

    FOLDER is the site's, with its site.toml. Each line of the ledger is checked against the line before it, and the
    ledger against the receipts of what left.

    EPSILON OF THE STUDY is what its rounds so far have spent together; EPSILON IN ALL is that of all studies.
    """
    _check(folder)

    # Imported here, so that --help does not wait for numpy.
    from client.ledger import Ledger
    from client.receipt import verify

    verify(folder)
    entries = Ledger(folder).entries()
    spent = _spent(entries)
    if as_json:
        lines = [entry.model_dump(exclude={"nonce"}) for entry in entries]
        print(json.dumps({"entries": lines, "spent": spent}, indent=2))
        return
    console = Console()
    if not entries:
        console.print("Nothing was spent: no round of private training was charged here.", soft_wrap=True)
        return
    console.print(_ledger_table(entries))
    for total in spent:
        console.print(_sentence(total), highlight=False, soft_wrap=True)
    count = len(entries)
    console.print(f"The chain is whole: {_count(count, 'entry', 'entries')}.", highlight=False, soft_wrap=True)


@app.command("receipts", epilog=_RECEIPTS)
def receipts_command(
    folder: Folder,
    as_json: Json = False,
    number: Annotated[int | None, typer.Option("--round", help="Only those of this round.", min=0)] = None,
) -> None:
    """Print what has left a site: each message, its tensors and its values, and which of them have noise.

    FOLDER is the site's, with its site.toml. The receipts hold no text of notes and no weights; they stay there.
    """
    _check(folder)

    from client.receipt import receipts

    chosen = [receipt for receipt in receipts(folder) if number is None or receipt.round == number]
    if as_json:
        print(json.dumps([receipt.model_dump(mode="json") for receipt in chosen], indent=2))
    elif chosen:
        Console().print(_receipts_table(chosen))
    else:
        print("Nothing has left this site." if number is None else f"Nothing has left this site in round {number}.")


def _check(folder: Path) -> None:
    """Raise InputError where it is not a site's folder: of a wrong one it must not be said that nothing was spent."""
    from client.site import SITE_FILE

    if not (folder / SITE_FILE).is_file():
        raise InputError("site-missing", f"{folder} has no {SITE_FILE}.", "Give a site's folder.")


def _spent(entries: "list[Entry]") -> list[dict[str, Any]]:
    """For each unit that was charged: the epsilon of all rounds that protect it.

    What protects a patient protects each of the patient's notes, too; what protects notes alone bounds nothing for a
    patient who has several.
    """
    from common.privacy import epsilon_of

    found = []
    for unit in sorted({entry.unit for entry in entries}, reverse=True):
        covered = [entry for entry in entries if unit == "note" or entry.unit == "patient"]
        last = covered[-1]
        epsilon = last.epsilon_total
        if len(covered) < len(entries):
            history = [(entry.noise_multiplier, entry.sample_rate, entry.steps) for entry in covered]
            epsilon = epsilon_of(history, last.delta, last.accountant)
        found.append(
            {
                "unit": unit,
                "epsilon": epsilon,
                "delta": last.delta,
                "studies": len({entry.run for entry in covered}),
                "studies_without_bound": len({entry.run for entry in entries} - {entry.run for entry in covered}),
            }
        )
    return found


def _sentence(spent: dict[str, Any]) -> str:
    words = (
        f"Spent for each {spent['unit']}: epsilon {spent['epsilon']:.3f} in all at delta {spent['delta']:g}, "
        f"over {_count(spent['studies'], 'study', 'studies')}."
    )
    if spent["studies_without_bound"]:
        more = _count(spent["studies_without_bound"], "study", "studies")
        words += f" Not counted: {more} that protected notes only, and so bound nothing for a patient."
    return words


def _ledger_table(entries: "list[Entry]") -> Table:
    table = Table(
        title="Charged before training",
        caption="A study that was run twice is counted as two.",
        box=None,  # so that all of it fits 80 columns
        pad_edge=False,
    )
    for name in ("", "time (UTC)", "study, run", "round", "units", "noise", "rate", "steps"):
        table.add_column(name, justify="left" if name in ("time (UTC)", "study, run") else "right")
    table.add_column("epsilon of\nthe study", justify="right")
    table.add_column("epsilon\nin all", justify="right")
    for entry in entries:
        table.add_row(
            str(entry.number),
            _minute(entry.time),
            f"{escape(entry.study)} {entry.run[:6]}",
            str(entry.round),
            _count(entry.units, entry.unit, f"{entry.unit}s"),
            f"{entry.noise_multiplier:g}",
            f"{entry.sample_rate:.4g}",
            f"{entry.steps:,}",
            f"{entry.epsilon_study:.3f}",
            f"{entry.epsilon_total:.3f}",
        )
    return table


def _receipts_table(chosen: "list[Receipt]") -> Table:
    table = Table(title="What has left", box=None, pad_edge=False)
    for name in ("time (UTC)", "study, run", "what"):
        table.add_column(name)
    for name in ("round", "tensors", "bytes", "norm"):
        table.add_column(name, justify="right")
    table.add_column("noise")
    table.add_column("values", overflow="fold")
    for receipt in chosen:
        noise = receipt.noise
        table.add_row(
            _minute(receipt.time),
            f"{escape(receipt.study)} {escape(receipt.run[:6])}",
            receipt.kind,
            str(receipt.round),
            str(len(receipt.tensors)),
            f"{receipt.bytes:,}",
            f"{receipt.norm:.4g}" if receipt.tensors else "",
            f"{noise.noise_multiplier:g} x {_count(noise.steps, 'step', 'steps')}" if noise else "none",
            "\n".join(f"{escape(name)}: {_value(value)}" for name, value in receipt.values.items()),
        )
    return table


def _value(value: "Value") -> str:
    number = f"{value.value:.6g}" if isinstance(value.value, float) else escape(str(value.value))
    return f"{number}, {'with noise' if value.noised else 'exact'}"


def _minute(time: str) -> str:
    return escape(time[:16].replace("T", " "))


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
