"""What left is kept to the byte for a few rounds, and given back whole or not at all."""

import os
from pathlib import Path

import numpy as np
import pytest

import client.outbox
from client.outbox import OUTBOX, keep, kept
from common.errors import MachineError
from tests.client.test_ledger import no_file_larger_than

REPLY: dict[str, object] = {"notes": 12, "loss": 0.1 + 0.2, "steps": 3, "parts": {"mlm": None}, "words": "é"}


def tensors(value: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        "b.weight": np.float32(value) * rng.normal(size=(3, 4)).astype(np.float32),
        "a.turned": rng.normal(size=(2, 5)).T,  # not in C order
        "scale": np.array(value, np.float32),
        "empty": np.zeros((0, 7), np.float32),
        "count": np.array([1, 2**40], np.int64),
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / OUTBOX).iterdir())


def test_the_same_comes_back(tmp_path: Path) -> None:
    keep(tmp_path, "aa", 3, tensors(), REPLY)
    found = kept(tmp_path, "aa", 3)
    assert found is not None
    back, reply = found
    assert reply == REPLY and set(back) == set(tensors())
    for name, value in tensors().items():
        assert back[name].dtype == value.dtype and back[name].shape == value.shape
        assert back[name].tobytes() == value.tobytes()


def test_only_the_round_that_was_asked_for(tmp_path: Path) -> None:
    keep(tmp_path, "aa", 3, tensors(), REPLY)
    assert kept(tmp_path, "aa", 2) is kept(tmp_path, "aa", 33) is kept(tmp_path, "a", 3) is None
    assert kept(tmp_path / "elsewhere", "aa", 3) is None


def test_a_round_that_is_kept_again_takes_its_place(tmp_path: Path) -> None:
    keep(tmp_path, "aa", 3, tensors(1.0), REPLY)
    keep(tmp_path, "aa", 3, tensors(2.0), {})
    found = kept(tmp_path, "aa", 3)
    assert found is not None and found[0]["scale"] == 2.0 and found[1] == {}


@pytest.mark.parametrize("run", ["", "AA", "../aa", "a-b", "aa\n", "x"])
def test_a_run_is_hex(tmp_path: Path, run: str) -> None:
    with pytest.raises(ValueError):
        keep(tmp_path, run, 1, tensors(), {})
    with pytest.raises(ValueError):
        kept(tmp_path, run, 1)
    assert list(tmp_path.iterdir()) == []


def test_two_rounds_of_each_run_are_kept_and_four_runs(tmp_path: Path) -> None:
    for number, (run, round) in enumerate(
        [("aa", r) for r in (1, 2, 3)] + [(f"b{k}", r) for k in range(4) for r in (7, 8, 9)]
    ):
        keep(tmp_path, run, round, {"x": np.zeros(1)}, {})
        file = tmp_path / OUTBOX / f"{run}-{round:06d}.safetensors"
        os.utime(file, ns=(number * 10**9, number * 10**9))
        if number == 2:
            assert names(tmp_path) == ["aa-000002.safetensors", "aa-000003.safetensors"]
    assert names(tmp_path) == [f"b{k}-{r:06d}.safetensors" for k in range(4) for r in (8, 9)]


def test_what_was_just_kept_stays_whatever_the_clock_says(tmp_path: Path) -> None:
    """A study that goes on from an earlier round, and a clock that was set back."""
    for run in ("a1", "a2", "a3", "a4"):
        for round in (8, 9):
            keep(tmp_path, run, round, {"x": np.zeros(1)}, {})
            os.utime(tmp_path / OUTBOX / f"{run}-{round:06d}.safetensors", (4e9, 4e9))
    keep(tmp_path, "a1", 2, {"x": np.zeros(1)}, {})
    assert kept(tmp_path, "a1", 2) and kept(tmp_path, "a1", 9) and not kept(tmp_path, "a1", 8)
    keep(tmp_path, "a5", 1, {"x": np.zeros(1)}, {})
    assert kept(tmp_path, "a5", 1)


def test_damage_is_nothing_kept(tmp_path: Path) -> None:
    """Any byte, or any end that is cut off: a reply that is nearly the same is a second reply."""
    keep(tmp_path, "aa", 1, tensors(), REPLY)
    (file,) = (tmp_path / OUTBOX).iterdir()
    data = file.read_bytes()
    whole = kept(tmp_path, "aa", 1)
    assert whole is not None
    for position in range(0, len(data), 3):
        file.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        found = kept(tmp_path, "aa", 1)
        if found is not None:  # the one change that may pass is one that changes nothing
            assert found[1] == REPLY and {n: v.tobytes() for n, v in found[0].items()} == {
                n: v.tobytes() for n, v in whole[0].items()
            }
    for length in range(0, len(data), 11):
        file.write_bytes(data[:length])
        assert kept(tmp_path, "aa", 1) is None


def test_the_same_bytes_as_other_numbers_are_damage(tmp_path: Path) -> None:
    keep(tmp_path, "aa", 1, {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}, REPLY)
    (file,) = (tmp_path / OUTBOX).iterdir()
    data = file.read_bytes()
    for old, new in ((b'"F32"', b'"I32"'), (b"[2,3]", b"[3,2]")):
        assert data.count(old) == 1
        file.write_bytes(data.replace(old, new))
        assert kept(tmp_path, "aa", 1) is None


def test_a_full_disk_leaves_what_was_kept(tmp_path: Path) -> None:
    keep(tmp_path, "aa", 1, tensors(), REPLY)
    with no_file_larger_than(100), pytest.raises(MachineError) as caught:
        keep(tmp_path, "aa", 2, tensors(), REPLY)
    assert caught.value.code == "disk-full"
    assert kept(tmp_path, "aa", 1) is not None and names(tmp_path) == ["aa-000001.safetensors"]


def test_a_kill_in_the_middle_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(tmp_path, "aa", 1, tensors(1.0), REPLY)

    def killed(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(client.outbox, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        keep(tmp_path, "aa", 1, tensors(2.0), REPLY)
    found = kept(tmp_path, "aa", 1)
    assert found is not None and found[0]["scale"] == 1.0
