"""Opacus' gradients of single rows (Yousefpour et al. 2021), summed to units and clipped here.

Exact where every layer is read once a step; then it is a check on the other two by somebody else's code.
"""

import torch
from opacus.grad_sample import GradSampleModule

from client.clipping import Clipper, Losses, factors
from common.encoder import Encoder


class Opacus(Clipper):
    def __init__(self, encoder: Encoder, tensors: dict[str, torch.nn.Parameter], bound: float) -> None:
        super().__init__(encoder, tensors, bound)
        self._owners: list[torch.Tensor] = []
        self._hidden: list[tuple[torch.nn.Module, str, torch.nn.Parameter]] = []
        self._frozen: list[torch.nn.Parameter] = []

    def __enter__(self) -> "Opacus":
        model = self.encoder.model
        for module in list(model.modules()):
            # A head that names its decoder's bias has no use of its own for it, and Opacus takes it for a layer.
            if type(module).__name__.endswith("LMPredictionHead") or type(module).__name__.endswith("LMHead"):
                for name, p in list(module._parameters.items()):
                    if p is not None:
                        self._hidden.append((module, name, p))
                        del module._parameters[name]
            # Opacus reads a norm's bias without asking whether there is one.
            if isinstance(module, torch.nn.LayerNorm) and module.bias is None:
                module.bias = torch.nn.Parameter(torch.zeros_like(module.weight), requires_grad=False)
                self._frozen.append(module.bias)
        parts = {"model": model} | ({"head": self.encoder.category_head} if self.encoder.category_head else {})
        self._whole = GradSampleModule(torch.nn.ModuleDict(parts), strict=False, loss_reduction="sum")
        for module in self._whole.modules():
            # Opacus leaves a layer alone that is not in training; of those with weights none does other things then.
            module.training = bool(module._parameters)
        return self

    def __exit__(self, *_: object) -> None:
        self._whole.to_standard_module()
        self._whole.eval()
        for p in self.tensors.values():
            p.grad = None
        for module in self.encoder.model.modules():
            if isinstance(module, torch.nn.LayerNorm) and any(module.bias is bias for bias in self._frozen):
                module._parameters["bias"] = None
        for module, name, p in self._hidden:
            module._parameters[name] = p
        self._frozen, self._hidden = [], []

    def add(self, losses: Losses, units: int) -> torch.Tensor:
        owners: list[torch.Tensor] = []
        found = losses(lambda owner: _Noted(owners, owner))
        if any(not torch.equal(owner, owners[0]) for owner in owners):
            raise RuntimeError("Opacus cannot tell the units of layers that are read in different rows")
        found.sum().backward()
        with torch.no_grad():
            grads = {
                name: p.new_zeros(units, *p.shape).index_add_(0, owners[0], rows)
                for name, p in self.tensors.items()
                if (rows := getattr(p, "grad_sample", None)) is not None
            }
            squares = sum(g.flatten(1).square().sum(1) for g in grads.values())
            assert isinstance(squares, torch.Tensor)
            factor = factors(squares.sqrt(), self.bound)
            for name, g in grads.items():
                part = torch.where((factor > 0).view(-1, *[1] * (g.dim() - 1)), g, torch.zeros_like(g))
                self.sums[name].add_(torch.einsum("u,u...->...", factor, part))
            self._whole.zero_grad()
        return found.detach()


class _Noted:
    def __init__(self, owners: list[torch.Tensor], owner: torch.Tensor) -> None:
        owners.append(owner)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...
