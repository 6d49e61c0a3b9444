"""The category head: what of it travels, what stays, and that it starts the same everywhere."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from common.encoder import Encoder, load_encoder

SHARES = ("encoder", "encoder+mlm-head")
HEAD = {"category_head.weight": (5, 32), "category_head.bias": (5,)}


@pytest.fixture
def loaded(bases: dict[str, str], family: str) -> Encoder:
    return load_encoder(bases[family])


def test_it_is_one_linear_layer_of_zeros(loaded: Encoder) -> None:
    without = set(loaded.tensors())
    loaded.set_categories(5, shared=False)
    head = {name: p for name, p in loaded.tensors().items() if name not in without}
    assert {name: tuple(p.shape) for name, p in head.items()} == HEAD
    assert all(p.requires_grad and p.dtype == torch.float32 and not p.any() for p in head.values())
    assert loaded.category_head is not None and loaded.category_head(torch.randn(2, 32)).shape == (2, 5)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("shared", [True, False])
def test_it_travels_where_it_is_shared_whatever_else_does(loaded: Encoder, share: str, shared: bool) -> None:
    travelled, stayed = set(loaded.shared(share)), set(loaded.private(share))
    loaded.set_categories(5, shared=shared)
    assert set(loaded.shared(share)) == travelled | (set(HEAD) if shared else set())
    assert set(loaded.private(share)) == stayed | (set() if shared else set(HEAD))


def test_a_new_head_takes_the_place_of_the_old(encoder: Encoder) -> None:
    encoder.set_categories(5, shared=True)
    encoder.load({"category_head.weight": np.ones((5, 32), np.float32)})
    encoder.set_categories(5, shared=True)
    assert encoder.category_head is not None and not encoder.category_head.weight.any()
    encoder.set_categories(3, shared=False)
    assert encoder.tensors()["category_head.bias"].shape == (3,)
    encoder.set_categories(0, shared=True)
    assert encoder.category_head is None and not encoder.category_head_shared
    assert not any(name.startswith("category_head") for name in encoder.tensors())


def test_it_is_loaded_by_its_name_and_its_size(encoder: Encoder) -> None:
    encoder.set_categories(5, shared=False)
    value = np.arange(160, dtype=np.float32).reshape(5, 32)
    encoder.load({"category_head.weight": value})
    assert encoder.category_head is not None
    assert np.array_equal(encoder.category_head.weight.detach().numpy(), value)
    with pytest.raises(ValueError, match=r"category_head\.bias has shape \(4,\), not \(5,\)"):
        encoder.load({"category_head.bias": np.zeros(4, np.float32)})
    encoder.set_categories(0, shared=False)
    with pytest.raises(KeyError):
        encoder.load({"category_head.weight": value})


def test_it_is_no_part_of_what_is_saved(encoder: Encoder, tmp_path: Path) -> None:
    encoder.set_categories(5, shared=True)
    encoder.save(tmp_path / "model", max_length=24)
    saved = [name for file in (tmp_path / "model").rglob("*.safetensors") for name in load_file(file)]
    assert saved and not any("category" in name for name in saved)
