"""Receipts: each message that leaves a site is written down there, in `receipts/<number>.json`.

A receipt has no note's text and no weights: names, shapes, sizes and norms of the tensors, and the values that went
with them, each marked as exact or with noise.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from client.ledger import LEDGER_FILE, Ledger, locked
from common.errors import MachineError
from common.files import explained, write_text

RECEIPTS = "receipts"


class _Part(BaseModel):
    # A figure may be NaN, which JSON cannot say as a number.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class SentTensor(_Part):
    name: str
    shape: list[int]
    dtype: str
    bytes: int


class Noise(_Part):
    """What noise each of the round's steps had; `standard_deviation` is of a coordinate of the summed gradient."""

    noise_multiplier: float
    standard_deviation: float
    steps: int


class Value(_Part):
    """A value that left; `noised` where it went through the mechanism that the ledger accounts for."""

    value: float | int | str | None
    noised: bool


class Receipt(_Part):
    """One message. `digest` is a SHA-256 over names and bytes of the tensors (`common.encoder.tensors_digest`), `norm`
    the L2 norm of all of them together, `update_norm` that of their change from what came. `ledger` is the hash of the
    entry that covers the message."""

    time: str
    run: str
    study: str
    plan_hash: str
    round: int
    kind: Literal["describe", "train", "evaluate", "memorisation", "scores", "error"]
    tensors: list[SentTensor]
    bytes: int
    digest: str
    norm: float
    update_norm: float | None
    noise: Noise | None
    ledger: str | None
    values: dict[str, Value]


def write_receipt(folder: Path, receipt: Receipt) -> Path:
    """Write it under the next number; atomic, and safe from other processes that write theirs."""
    place = folder / RECEIPTS
    with explained(place):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(place / ".lock"):
        file = place / f"{max(map(_number, _files(folder)), default=0) + 1:08d}.json"
        write_text(file, receipt.model_dump_json(indent=2) + "\n")
    return file


def receipts(folder: Path) -> list[Receipt]:
    """All receipts of a site, oldest first. Raises MachineError "receipt-damaged"."""
    return [_read(file) for file in _files(folder)]


def verify(folder: Path) -> list[Receipt]:
    """All receipts, checked against the ledger: what left must stand in it, which finds one whose end was cut off.

    Raises MachineError "ledger-damaged" or "receipt-damaged".
    """
    written = receipts(folder)  # before the ledger is read: an entry is always older than its receipt
    entries = {entry.hash for entry in Ledger(folder).entries()}
    lost = [receipt for receipt in written if receipt.ledger is not None and receipt.ledger not in entries]
    if lost:
        raise MachineError(
            "ledger-damaged",
            f"The privacy ledger {folder / LEDGER_FILE} has lost entries: round {lost[0].round} of study "
            f"{lost[0].study} left this site, and is not in it.",
            "Put it back from a backup: without a whole ledger the site takes part in no private training.",
        )
    return written


def _files(folder: Path) -> list[Path]:
    return sorted((file for file in (folder / RECEIPTS).glob("*.json") if file.stem.isdecimal()), key=_number)


def _number(file: Path) -> int:
    return int(file.stem)


def _read(file: Path) -> Receipt:
    with explained(file):
        text = file.read_bytes()
    try:
        return Receipt.model_validate_json(text)
    except ValidationError:
        raise MachineError(
            "receipt-damaged", f"The receipt {file} is damaged.", "Put it back from a backup, or move it elsewhere."
        ) from None
