"""Book-keeping: the clipped sum of many units' gradients in one backward pass (Bu et al. 2022; Li et al. 2022).

Hooks on linear, embedding and normalisation layers keep what came in and the gradient at what went out. From these the
norm of each unit's gradient follows without the gradient itself ("ghost" norm), and then the sum, each unit weighted by
its factor. Meanwhile no weight requires a gradient: no path exists by which an unclipped one could slip in.

A unit may own several rows of an input, and the encoder may be read several times in a step. A decoder that is tied to
the word embeddings has one gradient from both uses; its norm has a cross term.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from client.clipping import Clipper, Losses, factors
from common.encoder import Encoder
from common.errors import InputError

_Pair = tuple[torch.Tensor, torch.Tensor]
_ROUNDINGS = 100  # units of rounding by which a sum of products of thousands of numbers may be wrong


@dataclass
class _Call:
    """One use of a layer: its input, the unit of each row, and (after the backward pass) the gradient at its output."""

    layer: torch.nn.Module
    entered: torch.Tensor
    owner: torch.Tensor
    grad: torch.Tensor | None = None

    def keep(self, grad: torch.Tensor) -> None:
        self.grad = grad


class BookKeeping(Clipper):
    def __init__(self, encoder: Encoder, tensors: dict[str, torch.nn.Parameter], bound: float) -> None:
        super().__init__(encoder, tensors, bound)
        self._names = {id(p): name for name, p in tensors.items()}
        modules = [*encoder.model.modules(), *([encoder.category_head] if encoder.category_head else [])]
        self._layers = [m for m in modules if any(id(p) in self._names for p in m.parameters(recurse=False))]
        kinds = (torch.nn.Linear, torch.nn.Embedding, torch.nn.LayerNorm)
        ruled = {id(p) for m in self._layers if type(m) in kinds for p in m.parameters(recurse=False)}
        if missing := [name for name, p in tensors.items() if id(p) not in ruled]:
            raise InputError(
                "clipping-unsupported",
                f"{missing[0]} is of a layer that private training has no fast rule for.",
                'Set privacy.engine = "loop".',
            )
        # A head may name a tensor that a layer below it uses: the layer's rule is the one.
        self._layers = [m for m in self._layers if type(m) in kinds]
        self._owner: torch.Tensor | None = None
        self._units = 0
        self._calls: list[_Call] = []
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "BookKeeping":
        for p in self.tensors.values():
            p.requires_grad = False
        self._handles = [layer.register_forward_hook(self._keep) for layer in self._layers]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        for p in self.tensors.values():
            p.requires_grad = True
        self._calls = []

    def _keep(self, layer: torch.nn.Module, entered: tuple[torch.Tensor, ...], left: torch.Tensor) -> None:
        owner = self._owner
        if owner is None and self._units == 1:
            owner = torch.zeros(left.shape[0], dtype=torch.long, device=left.device)  # all of it is the only unit's
        if owner is None or left.shape[0] != len(owner):
            raise RuntimeError("a layer was read in rows that are not those of the units")
        if not left.requires_grad:
            left.requires_grad_()  # the first layer that learns: below it nothing else asks for a gradient
        call = _Call(layer, entered[0].detach(), owner)
        left.register_hook(call.keep)
        self._calls.append(call)

    def add(self, losses: Losses, units: int) -> torch.Tensor:
        self._calls, self._units = [], units
        found = losses(lambda owner: _Reading(self, owner))
        found.sum().backward()
        with torch.no_grad():
            kept = _Kept(self._names, units)
            for call in self._calls:
                if call.grad is not None:
                    kept.take(call)
            self._calls = []
            kept.add_to(self.sums, factors(kept.norms(next(iter(self.sums.values()))), self.bound))
        return found.detach()


class _Reading:
    """Within it every row that a layer reads belongs to a known unit."""

    def __init__(self, clipper: BookKeeping, owner: torch.Tensor) -> None:
        self.clipper, self.owner = clipper, owner

    def __enter__(self) -> None:
        self.clipper._owner = self.owner

    def __exit__(self, *_: object) -> None:
        self.clipper._owner = None


class _Kept:
    """What a chunk's layers kept, by tensor: pairs [U, n, d] of linear layers, pairs of ids [U, n] and gradients
    [U, n, d] of embeddings, and the whole gradients [U, ...] of vectors."""

    def __init__(self, names: dict[int, str], units: int) -> None:
        self.names, self.units = names, units
        self._pairs: dict[str, list[_Pair]] = {}
        self._tables: dict[str, list[_Pair]] = {}
        self.vectors: dict[str, torch.Tensor] = {}

    def take(self, call: _Call) -> None:
        assert call.grad is not None
        layer = call.layer
        weight, bias = self.names.get(id(layer.weight)), self.names.get(id(getattr(layer, "bias", None)))
        grad = self._by_unit(call.grad, call.owner)
        if isinstance(layer, torch.nn.LayerNorm):
            if weight:
                normal = functional.layer_norm(call.entered, layer.normalized_shape, eps=layer.eps)
                self._vector(weight, (grad * self._by_unit(normal, call.owner)).sum(1))
        elif weight:
            kept = self._tables if isinstance(layer, torch.nn.Embedding) else self._pairs
            kept.setdefault(weight, []).append((self._by_unit(call.entered, call.owner), grad))
        if bias:
            self._vector(bias, grad.sum(1))

    def _vector(self, name: str, grads: torch.Tensor) -> None:
        self.vectors[name] = self.vectors[name] + grads if name in self.vectors else grads

    def _by_unit(self, rows: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
        """[rows, T, ...] or [rows, d] as [U, n, ...]: the rows of a unit one after another, then zeros."""
        if rows.dim() < 3 and rows.is_floating_point():
            rows = rows.unsqueeze(1)
        if len(owner) == self.units and bool((owner == torch.arange(self.units, device=owner.device)).all()):
            return rows
        counts = torch.bincount(owner, minlength=self.units)
        order = torch.argsort(owner, stable=True)
        first = torch.cumsum(counts, 0) - counts
        place = torch.arange(len(owner), device=owner.device) - first[owner[order]]
        found = rows.new_zeros(self.units, int(counts.max()), *rows.shape[1:])
        found[owner[order], place] = rows[order]
        return found.flatten(1, 2)

    @staticmethod
    def _joined(pairs: list[_Pair]) -> _Pair:
        return (
            (torch.cat([a for a, _ in pairs], 1), torch.cat([b for _, b in pairs], 1)) if len(pairs) > 1 else pairs[0]
        )

    def norms(self, like: torch.Tensor) -> torch.Tensor:
        """The norm of each unit's gradient over all tensors, [U]; where parts of it cancel so far that rounding could
        hide a long gradient, or are so small that their squares vanish, more than it is, never less."""
        self.linear = {name: self._joined(pairs) for name, pairs in self._pairs.items()}
        self.tables = {name: self._joined(pairs) for name, pairs in self._tables.items()}
        total = like.new_zeros(self.units)
        most = {name: like.new_zeros(self.units) for name in self.linear | self.tables}  # norms, did nothing cancel
        unseen = [like.new_zeros(self.units)]  # norms of what is too small for its square to be a number
        least = torch.finfo(like.dtype).tiny ** 0.5
        for name, (a, b) in self.linear.items():
            if 2 * a.shape[1] ** 2 <= a.shape[2] * b.shape[2]:
                of_a, of_b = a @ a.mT, b @ b.mT
                total += (of_a * of_b).sum((1, 2))
                long_a, long_b = _diagonal(of_a).sqrt(), _diagonal(of_b).sqrt()
            else:
                total += (b.mT @ a).square().sum((1, 2))
                long_a, long_b = a.norm(dim=2), b.norm(dim=2)
            most[name] += (long_a * long_b).sum(1)
            unseen.append(least * (b.shape[2] ** 0.5 * long_a + a.shape[2] ** 0.5 * long_b).sum(1))
        for name, (ids, e) in self.tables.items():
            of_e = e @ e.mT
            total += ((ids[:, :, None] == ids[:, None, :]) * of_e).sum((1, 2))
            most[name] += _diagonal(of_e).sqrt().sum(1)
            if name in self.linear:  # the tied decoder: twice the inner product of the two gradients of one table
                a, b = self.linear[name]
                at_ids = b.gather(2, ids[:, None, :].expand(-1, b.shape[1], -1))
                total += 2 * (at_ids * (a @ e.mT)).sum((1, 2))
        for grads in self.vectors.values():
            total += grads.square().sum(1)
        # The sums above are right to some units of rounding of what was added up, not of what is left of it. A
        # coordinator could send weights that make all but nothing left.
        if most:
            rounding = torch.finfo(like.dtype).eps
            bound = torch.stack([norm.square() for norm in most.values()]).sum(0)
            total = torch.maximum(total, rounding**0.5 * bound) + _ROUNDINGS * rounding * bound
        return total.clamp(min=0).sqrt() + torch.stack(unseen).norm(dim=0)

    def add_to(self, sums: dict[str, torch.Tensor], factor: torch.Tensor) -> None:
        keep = factor > 0
        for name, (a, b) in self.linear.items():
            known = a if bool(keep.all()) else torch.where(keep.view(-1, 1, 1), a, torch.zeros_like(a))
            sums[name].addmm_(_weighted(b, factor, keep).flatten(0, 1).T, known.flatten(0, 1))
        for name, (ids, e) in self.tables.items():
            sums[name].index_add_(0, ids.flatten(), _weighted(e, factor, keep).flatten(0, 1))
        for name, grads in self.vectors.items():
            sums[name].add_(_weighted(grads, factor, keep).sum(0))


def _diagonal(grams: torch.Tensor) -> torch.Tensor:
    """The diagonals of [U, n, n], which rounding may have made negative, as [U, n]."""
    return grams.diagonal(dim1=1, dim2=2).clamp(min=0)


def _weighted(grads: torch.Tensor, factor: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Each unit's part times its factor; where that is 0 the part may hold NaN, and is left out."""
    shape = (-1,) + (1,) * (grads.dim() - 1)
    found = grads * factor.view(shape)
    return found if bool(keep.all()) else torch.where(keep.view(shape), found, torch.zeros_like(found))
