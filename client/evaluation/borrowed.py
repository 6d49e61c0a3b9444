"""An encoder that is trained for a while and then given back as it was."""

import contextlib
from collections.abc import Iterator

import torch

from common.encoder import Encoder
from common.trainable import add_adapters, remove_adapters

LORA_DROPOUT = 0.1


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
    plain = add_adapters(encoder, rank, LORA_DROPOUT)
    try:
        yield
    finally:
        remove_adapters(encoder, plain)
