"""What stays at a site: kept round by round, the newest earlier one taken."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import client.heads
from client.heads import HEADS, load_heads, save_heads
from common.encoder import Encoder

RUN = "0123456789abcdef" * 2
SHARE = "encoder"


def fill(encoder: Encoder, value: float) -> None:
    encoder.load({name: torch.full_like(p, value) for name, p in encoder.tensors().items()})


def head_values(encoder: Encoder) -> set[float]:
    return {float(v) for p in encoder.private(SHARE).values() for v in p.detach().unique()}


def keep(folder: Path, encoder: Encoder, *rounds: int) -> None:
    for number in rounds:
        fill(encoder, float(number))
        save_heads(folder, RUN, number, encoder, SHARE)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(f"{HEADS}/{RUN}/*"))


@pytest.mark.parametrize(("before", "taken"), [(1, None), (2, 1.0), (3, 1.0), (5, 4.0), (9, 4.0), (10, 9.0), (99, 9.0)])
def test_the_newest_earlier_round_is_taken(tmp_path: Path, encoder: Encoder, before: int, taken: float | None) -> None:
    keep(tmp_path, encoder, 1, 4, 9)
    fill(encoder, -1.0)
    assert load_heads(tmp_path, RUN, before, encoder) is (taken is not None)
    assert head_values(encoder) == {-1.0 if taken is None else taken}
    assert {float(v) for p in encoder.shared(SHARE).values() for v in p.detach().unique()} == {-1.0}


def test_a_site_without_any_says_so(tmp_path: Path, encoder: Encoder) -> None:
    assert not load_heads(tmp_path, RUN, 5, encoder)


def test_three_are_kept(tmp_path: Path, encoder: Encoder) -> None:
    keep(tmp_path, encoder, *range(1, 12))
    assert files(tmp_path) == [f"heads-{n:06d}.safetensors" for n in (9, 10, 11)]


def test_a_round_that_is_done_again_takes_its_place(tmp_path: Path, encoder: Encoder) -> None:
    """A study that goes on from round 8 though round 10 was under way must still find round 8's."""
    keep(tmp_path, encoder, 8, 9, 10)
    fill(encoder, 90.0)
    save_heads(tmp_path, RUN, 9, encoder, SHARE)
    for before, value in ((10, 90.0), (9, 8.0), (11, 10.0)):
        assert load_heads(tmp_path, RUN, before, encoder) and head_values(encoder) == {value}


def test_only_what_stays_is_written(tmp_path: Path, encoder: Encoder) -> None:
    keep(tmp_path, encoder, 1)
    assert set(load_file(tmp_path / HEADS / RUN / "heads-000001.safetensors")) == set(encoder.private(SHARE))


def test_nothing_is_written_where_all_is_shared(tmp_path: Path, encoder: Encoder) -> None:
    save_heads(tmp_path, RUN, 1, encoder, "encoder+mlm-head")
    assert not (tmp_path / "heads").exists()


@pytest.mark.parametrize("shared", [True, False])
def test_a_category_head_is_kept_unless_it_travels(tmp_path: Path, encoder: Encoder, shared: bool) -> None:
    encoder.set_categories(3, shared=shared)
    fill(encoder, 2.0)
    save_heads(tmp_path, RUN, 1, encoder, "encoder+mlm-head")
    assert files(tmp_path) == ([] if shared else ["heads-000001.safetensors"])
    encoder.set_categories(3, shared=shared)  # fresh, as in another process
    assert load_heads(tmp_path, RUN, 2, encoder) is not shared
    assert encoder.category_head is not None
    assert encoder.category_head.weight.unique().tolist() == [0.0 if shared else 2.0]


def test_a_failure_leaves_the_old_file(tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(tmp_path, encoder, 1)

    def killed(tensors: dict[str, torch.Tensor], path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(client.heads, "save_file", killed)
    fill(encoder, 7.0)
    with pytest.raises(KeyboardInterrupt):
        save_heads(tmp_path, RUN, 1, encoder, SHARE)
    assert load_heads(tmp_path, RUN, 2, encoder) and head_values(encoder) == {1.0}


def test_runs_do_not_share_heads_and_the_quiet_ones_go(tmp_path: Path, encoder: Encoder) -> None:
    (tmp_path / HEADS / "a file of another hand").mkdir(parents=True)
    for number in range(12):
        save_heads(tmp_path, f"{number:032x}", 1, encoder, SHARE)
        os.utime(tmp_path / HEADS / f"{number:032x}", (number, number))  # a clock ticks more slowly than this loop
    kept = {path.name for path in (tmp_path / HEADS).iterdir()} - {"a file of another hand"}
    assert sorted(int(name, 16) for name in kept) == list(range(4, 12))
    assert load_heads(tmp_path, f"{4:032x}", 2, encoder) and not load_heads(tmp_path, f"{99:032x}", 2, encoder)
    assert (tmp_path / HEADS / "a file of another hand").exists()
