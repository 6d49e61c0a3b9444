"""A borrowed encoder comes back bit for bit, with no module of an adapter in it."""

import copy
from typing import Any

import pytest
import torch

from client.evaluation.borrowed import adapted, borrowed
from common.encoder import Encoder, load_encoder


def state(encoder: Encoder) -> dict[str, Any]:
    """Everything that a caller could notice, as copies."""
    model = encoder.model
    return {
        "tensors": {n: t.detach().clone() for n, t in [*model.named_parameters(), *model.named_buffers()]},
        "same": {n: (id(p), p.requires_grad) for n, p in model.named_parameters()},
        "grads": {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()},
        "modules": {n: (id(m), type(m), m.training, sorted(vars(m))) for n, m in model.named_modules()},
        "children": {n: list(m._modules) for n, m in model.named_modules()},
        "hooks": {n: (len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()},
        "attention": model.config._attn_implementation,
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for kind in ("tensors", "grads"):
        left, right = before.pop(kind), after.pop(kind)
        assert left.keys() == right.keys()
        for name, value in left.items():
            assert (value is None) == (right[name] is None), name
            assert value is None or torch.equal(value, right[name]), name
    assert before == after


def spoil(encoder: Encoder) -> None:
    """What training does to an encoder, and more."""
    encoder.model.train()
    ids = torch.full((2, 8), 5)
    encoder.embed(ids, torch.ones_like(ids)).pow(2).sum().backward()
    with torch.no_grad():
        for tensor in [*encoder.model.parameters(), *encoder.model.buffers()]:
            tensor.zero_()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("lora", [False, True])
def test_all_of_it_comes_back(bases: dict[str, str], family: str, lora: bool, fails: bool) -> None:
    encoder = load_encoder(bases[family])
    encoder.model.train()
    encoder.body.eval()  # a mixture, which model.train() would level
    first = next(iter(encoder.tensors().values()))
    first.grad = torch.ones_like(first)
    first.requires_grad = False
    before = state(encoder)
    with pytest.raises(KeyError) if fails else borrowed(encoder), borrowed(encoder):
        if lora:
            with adapted(encoder, rank=4):
                spoil(encoder)
                if fails:
                    raise KeyError
        else:
            first.requires_grad = True
            spoil(encoder)
            if fails:
                raise KeyError
    assert_same(before, state(encoder))
    encoder.tensors()  # names without any of peft's
    assert not any("lora" in name or "base_layer" in name for name in encoder.tensors())


def test_adapters_are_on_query_and_value_and_alone_can_learn(bases: dict[str, str], family: str) -> None:
    encoder, rank = load_encoder(bases[family]), 4
    plain = set(encoder.tensors())
    with borrowed(encoder), adapted(encoder, rank):
        learn = {name: p for name, p in encoder.body.named_parameters() if p.requires_grad}
        assert all("lora_" in name for name in learn)
        # two layers of H = 32: a rank-r pair on query and on value, or one on ModernBERT's three in one
        assert sum(p.numel() for p in learn.values()) == 2 * 4 * rank * 32
        owners = {name.split(".lora_")[0].rpartition(".")[2] for name in learn}
        assert owners in ({"query", "value"}, {"q_lin", "v_lin"}, {"Wqkv"})
        assert all(not p.any() for name, p in learn.items() if "lora_B" in name)  # begins as the encoder that was given
    assert set(encoder.tensors()) == plain


def test_an_adapter_that_cannot_be_made_leaves_nothing(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    import peft

    inject = peft.inject_adapter_in_model

    def half_way(config: Any, body: torch.nn.Module) -> None:
        inject(config, body)
        raise MemoryError

    monkeypatch.setattr(peft, "inject_adapter_in_model", half_way)
    before = state(encoder)
    with pytest.raises(MemoryError), borrowed(encoder), adapted(encoder, 4):
        pass
    assert_same(before, state(encoder))


def test_adapters_can_be_made_again(encoder: Encoder) -> None:
    ids = torch.full((2, 8), 5)
    encoder.model.eval()
    plain = copy.deepcopy(encoder.embed(ids, torch.ones_like(ids)).detach())
    for rank in (2, 4):
        with borrowed(encoder), adapted(encoder, rank):
            assert encoder.embed(ids, torch.ones_like(ids)).requires_grad
    assert torch.equal(encoder.embed(ids, torch.ones_like(ids)), plain)
