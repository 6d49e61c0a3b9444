"""Which weights learn: patterns over four families, adapters that are the same everywhere, and their way back."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from common.encoder import Encoder, load_encoder
from common.trainable import add_adapters, merged, remove_adapters, train_only


def names(encoder: Encoder) -> set[str]:
    return set(encoder.tensors())


def test_all_changes_nothing(bases: dict[str, str], family: str) -> None:
    encoder = load_encoder(bases[family])
    before = names(encoder)
    train_only(encoder, "all", 8, 0)
    assert names(encoder) == before


def test_without_embeddings_no_table_learns_and_all_else_does(bases: dict[str, str], family: str) -> None:
    encoder = load_encoder(bases[family])
    tables = {
        f"{place}.weight" for place, module in encoder.model.named_modules() if isinstance(module, torch.nn.Embedding)
    }
    whole = names(encoder)
    train_only(encoder, "no-embeddings", 8, 0)
    assert tables and names(encoder) == whole - tables


def test_biases_are_vectors_only(bases: dict[str, str], family: str) -> None:
    encoder = load_encoder(bases[family])
    vectors = {name for name, p in encoder.tensors().items() if p.ndim == 1}
    train_only(encoder, "biases", 8, 0)
    assert vectors and names(encoder) == vectors


def test_adapters_are_the_same_at_every_site_and_begin_as_nothing(bases: dict[str, str], family: str) -> None:
    ids = torch.arange(5, 25).view(2, 10)
    mask = torch.ones_like(ids)
    plain = load_encoder(bases[family])
    plain.model.eval()
    one, two, other = (load_encoder(bases[family]) for _ in range(3))
    torch.manual_seed(1)
    train_only(one, "lora", 4, 7)
    torch.manual_seed(2)
    train_only(two, "lora", 4, 7)
    train_only(other, "lora", 4, 8)
    assert names(one) and all("lora_" in name for name in names(one))
    assert all(torch.equal(p, two.tensors()[name]) for name, p in one.tensors().items())
    assert not all(torch.equal(p, other.tensors()[name]) for name, p in one.tensors().items())
    one.model.eval()
    assert torch.equal(one.embed(ids, mask), plain.embed(ids, mask))


def test_merged_weights_embed_as_the_adapters_do(bases: dict[str, str], family: str) -> None:
    encoder, plain = load_encoder(bases[family]), load_encoder(bases[family])
    train_only(encoder, "lora", 4, 0)
    with torch.no_grad():
        for p in encoder.tensors().values():
            p.normal_(std=0.3)
    encoder.model.eval()
    plain.model.eval()
    ids = torch.arange(5, 25).view(2, 10)
    mask = torch.ones_like(ids)
    before = plain.embed(ids, mask)
    base = {name: p.detach().numpy() for name, p in plain.tensors().items()}
    plain.load(merged({name: p.detach().numpy() for name, p in encoder.tensors().items()}, base))
    found = plain.embed(ids, mask)
    torch.testing.assert_close(found, encoder.embed(ids, mask), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, before, atol=1e-2)


def test_tensors_without_adapters_come_back_as_they_are() -> None:
    tensors = {"a": np.ones(2), "b.weight": np.zeros((2, 2))}
    assert merged(tensors, {}) == tensors


@pytest.mark.parametrize("trainable", ["no-embeddings", "biases", "lora"])
def test_a_fresh_mlm_head_learns_in_any_case(make_base: Callable[..., Path], tmp_path: Path, trainable: str) -> None:
    encoder = load_encoder(str(make_base(tmp_path / "headless", "bert", head=False)))
    assert encoder.fresh_head
    head = {name for name in names(encoder) if not name.startswith("bert.")}
    train_only(encoder, trainable, 4, 0)  # type: ignore[arg-type]
    assert head and head <= names(encoder)
    assert "bert.embeddings.word_embeddings.weight" not in names(encoder)  # its decoder


def test_adapters_go_without_a_trace(encoder: Encoder) -> None:
    before = dict(encoder.model.named_modules())
    plain = add_adapters(encoder, 4, dropout=0.0)
    assert any("lora" in name for name, _ in encoder.model.named_modules())
    remove_adapters(encoder, plain)
    assert dict(encoder.model.named_modules()) == before
