"""An encoder that is trained for a while and then given back as it was."""

import contextlib
from collections.abc import Iterator

import torch

from common.encoder import Encoder

RANK_TO_ALPHA = 2  # LoRA's alpha is this many times its rank, so its output is scaled by 2 whatever the rank
LORA_DROPOUT = 0.1

# The projections that get adapters. ModernBERT has query, key and value in one matrix, so its key is adapted, too; with
# rank r that makes 4 r H weights a layer in every family.
_PROJECTIONS = {
    "bert": ("query", "value"),
    "roberta": ("query", "value"),
    "distilbert": ("q_lin", "v_lin"),
    "modernbert": ("Wqkv",),
}


@contextlib.contextmanager
def borrowed(encoder: Encoder) -> Iterator[None]:
    """Within it the encoder may be trained; after it, also after an exception, every bit of it is as before.

    That is weights, buffers, gradients, what requires them, and whether each module is in training or evaluation mode.
    It holds a second copy of the weights.
    """
    model = encoder.model
    tensors = [*model.parameters(), *model.buffers()]
    values = [tensor.detach().clone() for tensor in tensors]
    grads = [(parameter, parameter.grad, parameter.requires_grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    for parameter, _, _ in grads:
        parameter.grad = None
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)
        for parameter, grad, required in grads:
            parameter.grad, parameter.requires_grad = grad, required
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def adapted(encoder: Encoder, rank: int) -> Iterator[None]:
    """Within it the body has fresh LoRA adapters (Hu et al. 2021), and nothing else in it can be trained.

    After it the modules are those of before: the adapters' own are gone. `requires_grad` is for `borrowed` to put back.
    """
    from peft import LoraConfig, inject_adapter_in_model

    body = encoder.body
    names = _PROJECTIONS[encoder.model.config.model_type]
    plain = {name: module for name, module in body.named_modules() if name.rpartition(".")[2] in names}
    config = LoraConfig(
        r=rank, lora_alpha=RANK_TO_ALPHA * rank, lora_dropout=LORA_DROPOUT, target_modules=list(plain), bias="none"
    )
    try:
        inject_adapter_in_model(config, body)
        yield
    finally:
        # By hand, because peft's own way back draws a progress bar and leaves its configuration behind.
        for name, module in plain.items():
            parent, _, child = name.rpartition(".")
            setattr(body.get_submodule(parent), child, module)
        vars(body).pop("peft_config", None)
