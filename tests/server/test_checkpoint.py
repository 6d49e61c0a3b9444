"""Checkpoints: complete or absent, the newest intact one is taken."""

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import server.checkpoint
from common.errors import MachineError, StudyError
from common.messages import Tensors
from common.results import HeldOut, Round, SiteFacts, SiteRound
from server.checkpoint import KEPT, State, load_checkpoint, save_checkpoint

PLAN, RUN = "0" * 64, "c0ffee" + "0" * 26
FACTS = SiteFacts(name="Élise", train=3, dev=2, test=1, set_aside=0, tokens=99, whole=2, shortened=1, too_short=0)


def state(number: int, plan: str = PLAN) -> State:
    site = SiteRound(site="Élise", state="returned", loss=0.1 + 0.2, update_norm=1 / 3)
    one = Round(
        number=number, attempts=1, seconds=0.1, sites=[site], held_out={"Élise": HeldOut(loss=1.5, notes=2, tokens=9)}
    )
    return State(plan_hash=plan, run=RUN, round=number, rounds=[one], sites=[FACTS], left_out_sites={"node 3": "late"})


def shared(number: int) -> Tensors:
    return {"b": np.full((2, 3), number, np.float32), "a": np.float32([number, 1 / 3])}


def moments(number: int) -> Tensors:
    return {"m_t/a": np.float32([number / 7])}


def save(folder: Path, *rounds: int) -> None:
    for number in rounds:
        save_checkpoint(folder, state(number), shared(number), moments(number))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def taken(folder: Path) -> int:
    kept = load_checkpoint(folder, PLAN)
    assert kept is not None
    number = kept[0].round
    assert kept[0].rounds == state(number).rounds and kept[0].sites == [FACTS] and kept[0].run == RUN
    assert all(np.array_equal(kept[1][n], v) and kept[1][n].dtype == v.dtype for n, v in shared(number).items())
    assert all(np.array_equal(kept[2][n], v) for n, v in moments(number).items()) and len(kept[1]) == 2
    return number


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save(tmp_path / "checkpoints", 0)
    assert taken(tmp_path / "checkpoints") == 0
    assert names(tmp_path / "checkpoints" / "round-0000") == [
        "shared.safetensors",
        "state.json",
        "strategy.safetensors",
    ]


def test_nothing_there(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "checkpoints", PLAN) is None
    assert load_checkpoint(tmp_path, PLAN) is None


def test_no_moments(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(1), shared(1), {})
    kept = load_checkpoint(tmp_path, PLAN)
    assert kept is not None and kept[2] == {}


def test_the_newest_is_taken_and_the_oldest_go(tmp_path: Path) -> None:
    save(tmp_path, *range(12))
    assert taken(tmp_path) == 11
    assert names(tmp_path) == [f"round-{n:04d}" for n in range(12 - KEPT, 12)]


def test_rounds_are_ordered_as_numbers(tmp_path: Path) -> None:
    save(tmp_path, 9999, 10_000)
    assert taken(tmp_path) == 10_000


def test_a_round_is_saved_again(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save_checkpoint(tmp_path, state(1), {"a": np.float32([9])}, {})
    kept = load_checkpoint(tmp_path, PLAN)
    assert kept is not None and set(kept[1]) == {"a"} and kept[2] == {} and names(tmp_path) == ["round-0001"]


def test_what_a_killed_writer_left_is_ignored(tmp_path: Path) -> None:
    save(tmp_path, 1)
    left = tmp_path / ".round-0002.4711.tmp"
    left.mkdir()
    (left / "state.json").write_text(state(2).model_dump_json())
    (tmp_path / "round-0009").write_text("a file")
    assert taken(tmp_path) == 1


def test_a_folder_of_another_name_is_ignored(tmp_path: Path) -> None:
    """A person may keep a copy beside the others."""
    save(tmp_path, 1)
    (tmp_path / "round-0001 copy").mkdir()
    assert taken(tmp_path) == 1
    save(tmp_path, 2)
    assert taken(tmp_path) == 2


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _binary(path: Path) -> None:
    path.write_bytes(b"\xff\x00" * 50)


@pytest.mark.parametrize("damage", [_truncate, _flip, _empty, _binary, Path.unlink])
@pytest.mark.parametrize("file", ["shared.safetensors", "strategy.safetensors", "state.json"])
def test_a_damaged_one_gives_way_to_the_one_before(tmp_path: Path, file: str, damage: Callable[[Path], None]) -> None:
    save(tmp_path, 1, 2, 3)
    damage(tmp_path / "round-0003" / file)
    if file == "state.json" and damage is _flip:  # "}" becomes "|"
        assert (tmp_path / "round-0003" / file).read_text().endswith("|")
    assert taken(tmp_path) == 2
    save(tmp_path, 3)
    assert taken(tmp_path) == 3


def test_none_intact(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    for number in (1, 2):
        _flip(tmp_path / f"round-{number:04d}" / "shared.safetensors")
    with pytest.raises(StudyError) as caught:
        load_checkpoint(tmp_path, PLAN)
    assert caught.value.code == "checkpoint-damaged"


def test_a_record_that_names_no_run_is_not_intact(tmp_path: Path) -> None:
    """Under another id a site would train a round anew, and pay for it twice."""
    save(tmp_path, 1, 2)
    path = tmp_path / "round-0002" / "state.json"
    path.write_text(path.read_text().replace(f'"run":"{RUN}",', ""))
    assert taken(tmp_path) == 1


def test_another_plan_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(StudyError) as caught:
        load_checkpoint(tmp_path, "1" * 64)
    assert caught.value.code == "plan-changed"


def test_the_order_of_tensors_is_kept(tmp_path: Path) -> None:
    """Some strategies go by place: what comes back must stand where it stood."""
    save(tmp_path, 1)
    kept = load_checkpoint(tmp_path, PLAN)
    assert kept is not None and list(kept[1]) == list(shared(1))


def test_a_full_disk_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)
    write = server.checkpoint.save_file

    def full(tensors: Tensors, path: Path) -> None:
        if path.name == "strategy.safetensors":
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(tensors, path)

    monkeypatch.setattr(server.checkpoint, "save_file", full)
    with pytest.raises(MachineError) as caught:
        save(tmp_path, 2)
    assert caught.value.code == "disk-full" and names(tmp_path) == ["round-0001"] and taken(tmp_path) == 1


def test_a_full_disk_as_safetensors_tells_it(tmp_path: Path) -> None:
    save(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(MachineError) as caught:
            save_checkpoint(tmp_path, state(2), {"a": np.zeros(10_000, np.float32)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.code == "disk-full" and names(tmp_path) == ["round-0001"]


def test_a_kill_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)

    def killed(tensors: Tensors, path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(server.checkpoint, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 2)
    assert names(tmp_path) == ["round-0001"] and taken(tmp_path) == 1
