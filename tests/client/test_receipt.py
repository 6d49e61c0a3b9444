"""Receipts: one for each message, numbered without gaps, and the witness of a ledger whose end was cut off."""

import json
import math
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from client.ledger import LEDGER_FILE, Ledger
from client.receipt import RECEIPTS, Receipt, receipts, verify, write_receipt
from common.errors import MachineError
from tests.client.test_ledger import RUN, acknowledged, charged, in_child, lines_of, no_file_larger_than, put


def receipt(**changed: Any) -> Receipt:
    given = {
        "time": "2026-03-01T10:20:30+00:00",
        "run": RUN,
        "study": "first",
        "plan_hash": "ab" * 32,
        "round": 1,
        "kind": "train",
        "tensors": [{"name": "layer.weight", "shape": [2, 3], "dtype": "float32", "bytes": 24}],
        "bytes": 24,
        "digest": "ef" * 32,
        "norm": 2.5,
        "update_norm": 0.5,
        "noise": {"noise_multiplier": 1.1, "standard_deviation": 1.1, "steps": 20},
        "ledger": None,
        "values": {"loss": {"value": 2.25, "noised": True}, "units": {"value": 100, "noised": False}},
    }
    return Receipt.model_validate(given | changed)


def left(folder: Path, *rounds: int) -> None:
    """Rounds that were charged, and whose updates left."""
    for entry in charged(folder, *rounds):
        write_receipt(folder, receipt(round=entry.round, ledger=entry.hash))


def test_receipts_are_numbered_and_come_back(tmp_path: Path) -> None:
    written = [receipt(round=n) for n in range(1, 12)]
    files = [write_receipt(tmp_path, one) for one in written]
    assert [file.name for file in files] == [f"{n:08d}.json" for n in range(1, 12)]
    assert receipts(tmp_path) == written
    assert json.loads(files[0].read_text())["values"]["loss"] == {"value": 2.25, "noised": True}


def test_none_is_none(tmp_path: Path) -> None:
    assert receipts(tmp_path) == [] and list(tmp_path.iterdir()) == []


def test_a_number_is_not_given_twice(tmp_path: Path) -> None:
    """Also where receipts were moved away: the next one is after the last that is there."""
    for number in range(1, 4):
        write_receipt(tmp_path, receipt(round=number))
    (tmp_path / RECEIPTS / "00000001.json").unlink()
    (tmp_path / RECEIPTS / "00000003.json").rename(tmp_path / RECEIPTS / "99999999.json")
    assert write_receipt(tmp_path, receipt(round=4)).name == "100000000.json"
    assert [one.round for one in receipts(tmp_path)] == [2, 3, 4]


@pytest.mark.parametrize(
    "value", [1, 1.0, "1", None, -0.0, 1e300, "NaN", 2**60], ids=lambda value: f"{type(value).__name__}-{value}"
)
def test_a_value_keeps_its_type(tmp_path: Path, value: Any) -> None:
    write_receipt(tmp_path, receipt(values={"v": {"value": value, "noised": False}}))
    (back,) = receipts(tmp_path)
    assert back.values["v"].value == value and type(back.values["v"].value) is type(value)


def test_what_is_not_finite_is_written_in_words(tmp_path: Path) -> None:
    file = write_receipt(tmp_path, receipt(norm=math.nan, values={"loss": {"value": math.inf, "noised": True}}))
    json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    (back,) = receipts(tmp_path)
    assert math.isnan(back.norm) and back.values["loss"].value == "Infinity"


@pytest.mark.parametrize("changed", [{"kind": "embed"}, {"text": "a note"}, {"round": None}])
def test_a_receipt_says_nothing_else(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        receipt(**changed)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"time": 1}'])
def test_a_damaged_receipt_is_named(tmp_path: Path, content: bytes) -> None:
    file = write_receipt(tmp_path, receipt())
    file.write_bytes(content)
    for act in (receipts, verify):
        with pytest.raises(MachineError, match=r"00000001\.json") as caught:
            act(tmp_path)
        assert caught.value.code == "receipt-damaged"


def test_a_full_disk_leaves_no_half_receipt(tmp_path: Path) -> None:
    write_receipt(tmp_path, receipt())
    with no_file_larger_than(50), pytest.raises(MachineError) as caught:
        write_receipt(tmp_path, receipt(round=2))
    assert caught.value.code == "disk-full"
    assert write_receipt(tmp_path, receipt(round=3)).name == "00000002.json"


def write_twenty(connection: Connection, folder: Path, round: int) -> None:
    connection.recv()
    for _ in range(20):
        connection.send(write_receipt(folder, receipt(round=round)).name)


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    children = [in_child(write_twenty, tmp_path, number) for number in (1, 2)]
    for _, connection in children:
        connection.send("go")
    said = [name for _, connection in children for name in acknowledged(connection)]
    assert sorted(said) == [f"{n:08d}.json" for n in range(1, 41)]
    assert sorted(one.round for one in receipts(tmp_path)) == [1] * 20 + [2] * 20


# The ledger, by its receipts.


def test_a_whole_ledger_is_verified(tmp_path: Path) -> None:
    verify(tmp_path)
    write_receipt(tmp_path, receipt(kind="describe", round=0))
    left(tmp_path, 1, 2)
    write_receipt(tmp_path, receipt(kind="train", round=2, ledger=Ledger(tmp_path).entries()[1].hash))
    charged(tmp_path, 3)  # charged, and not left: no receipt
    verify(tmp_path)


def test_a_cut_end_is_found(tmp_path: Path) -> None:
    left(tmp_path, 1, 2, 3)
    whole = lines_of(tmp_path)
    for kept in range(3):
        put(tmp_path, whole[:kept])
        assert len(Ledger(tmp_path).entries()) == kept  # the chain alone says nothing
        with pytest.raises(MachineError, match=f"round {kept + 1} of study first") as caught:
            verify(tmp_path)
        assert caught.value.code == "ledger-damaged"
    put(tmp_path, whole)
    verify(tmp_path)


def forged(lines: list[str], folder: Path) -> None:
    """A ledger made anew with less spending, its chain and all."""
    (folder / LEDGER_FILE).unlink()
    charged(folder, 1, 2, 3, steps=1)


@pytest.mark.parametrize(
    "spoil",
    [
        forged,
        lambda lines, folder: (folder / LEDGER_FILE).unlink(),
        lambda lines, folder: put(folder, ["x", *lines[1:]]),
        lambda lines, folder: (folder / LEDGER_FILE).write_text("\n".join(lines)[:-9]),  # looks torn by a crash
    ],
)
def test_other_losses_are_found(tmp_path: Path, spoil: Callable[[list[str], Path], object]) -> None:
    left(tmp_path, 1, 2, 3)
    spoil(lines_of(tmp_path), tmp_path)
    with pytest.raises(MachineError) as caught:
        verify(tmp_path)
    assert caught.value.code == "ledger-damaged"
