"""Whitening and weights as one linear map, with a gradient of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .patches import Patches, into_blocks, out_of_blocks
from .products import backward_pass, in_full_precision, product

__all__ = ["fold", "turned", "undo_whitening"]

MANY = 16  # blocks from which on they are folded as columns


def fold(weight: Tensor, bias: Tensor | None, mean: Tensor, root: Tensor, patches: Patches) -> tuple[Tensor, Tensor]:
    """Weight W D and bias b - W D mu of a plain layer; ``mean`` of shape (groups, 1 or blocks, n)."""
    columns = patches.grouping == "interleaved" and patches.blocks >= MANY
    folded, shift = _Fold.apply(weight, mean, root, patches, columns)
    return folded, -shift if bias is None else bias - shift


@in_full_precision
def undo_whitening(layer: Any, x: Tensor, momentum: float, plain_weight: Tensor, plain_bias: Tensor | None) -> None:
    """Let the running averages take this input up, and undo them by weight and bias that compute what plain ones do."""
    options = layer.options
    layer.options = replace(options, momentum=momentum)
    layer.restart(1)
    layer.batch_whitening(layer.prepared(x))
    layer.options = options
    mean, root = (t.double() for t in layer.running_whitening())
    weight, bias = plain_weight.double(), None if plain_bias is None else plain_bias.double()
    unwhitened, _ = layer.fold(weight, None, mean, torch.linalg.inv(root))
    _, shifted = layer.fold(weight, bias, -mean, torch.eye(layer.columns).to(root).expand_as(root))
    for name, value, old in (("weight", unwhitened, plain_weight), ("bias", shifted, plain_bias)):
        requires_grad = plain_weight.requires_grad if old is None else old.requires_grad
        value = value.to(plain_weight.dtype).contiguous()
        setattr(layer, name, nn.Parameter(value, requires_grad=requires_grad))


def turned(weight: Tensor, groups: int) -> Tensor:
    """The kernel of a transposed convolution as that of the ordinary one that it is, or the other way round.

    Inputs and outputs of each group change places, and the taps their order.

    >>> turned(torch.arange(4.0).view(1, 2, 2), 1).tolist()
    [[[1.0, 0.0]], [[3.0, 2.0]]]
    """
    by_group = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    return by_group.flip(tuple(range(2, weight.dim())))


class _Fold(torch.autograd.Function):
    """The weights times the root, W D, with all blocks in one product, and W D mu.

    A filter is a row like those of the patches, and cut into blocks as they are. Or, as it lies in memory, it is a
    matrix of n rows whose columns are the interleaved blocks: D multiplies these from the left, and nothing is put into
    order, but with few columns this product is slow.

    With G and g the gradients of the two, those of W, mu and D are (G + g mu') D', D' W' g and W' (G + g mu').
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, mean: Tensor, root: Tensor, patches: Patches, columns: bool) -> tuple[Tensor, Tensor]:
        blocks = _cut(weight, root, patches, columns)
        white = product(root.mT.unsqueeze(1), blocks) if columns else product(blocks, root)
        by_filter = len(root), len(weight) // len(root), -1
        shift = product(white.view(by_filter), _means(mean, patches, columns).mT)
        return _joined(white, weight, patches, columns), shift.flatten()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.patches, ctx.columns = inputs[3:]

    @staticmethod
    @backward_pass
    def backward(
        ctx: Any, grad_weight: Tensor, grad_shift: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        weight, mean, root = ctx.saved_tensors
        patches, columns, (of_weight, of_mean, of_root, *_) = ctx.patches, ctx.columns, ctx.needs_input_grad
        by_filter, grad_shift = (len(root), len(weight) // len(root), -1), grad_shift.view(len(root), -1, 1)
        grad = _cut(grad_weight, root, patches, columns)
        grad = torch.addcmul(grad.view(by_filter), grad_shift, _means(mean, patches, columns)).view_as(grad)
        new_weight = None
        if of_weight:
            through = product(root.unsqueeze(1), grad) if columns else product(grad, root.mT)
            new_weight = _joined(through, weight, patches, columns)
        if not (of_mean or of_root):  # where the running averages serve
            return new_weight, None, None, None, None
        blocks = _cut(weight, root, patches, columns)
        of_blocks = product(grad_shift.mT, blocks.view(by_filter))
        if columns:
            of_blocks = of_blocks.view(len(root), -1, patches.blocks).mT
            blocks, grad = (t.movedim(2, 1).flatten(2).mT for t in (blocks, grad))
        else:
            of_blocks = of_blocks.view(len(root), patches.blocks, -1)
        new_mean = product(of_blocks if mean.shape[1] > 1 else of_blocks.sum(1, keepdim=True), root)
        return new_weight, new_mean, product(blocks.mT, grad) if of_root else None, None, None


def _cut(weight: Tensor, root: Tensor, patches: Patches, columns: bool) -> Tensor:
    """The blocks of all filters: rows, (groups, filters * blocks, n), or columns, (groups, filters, n, blocks)."""
    if columns:
        return weight.reshape(len(root), -1, root.shape[-1], patches.blocks)
    return into_blocks(weight.movedim(1, -1), patches).reshape(len(root), -1, root.shape[-1])


def _joined(blocks: Tensor, like: Tensor, patches: Patches, columns: bool) -> Tensor:
    """Undo :func:`_cut`."""
    if columns:
        return blocks.view(like.shape)
    samples = blocks.view(len(like), 1, patches.blocks, -1)
    return out_of_blocks(samples, (*like.shape[2:], like.shape[1]), patches).movedim(-1, 1)


def _means(mean: Tensor, patches: Patches, columns: bool) -> Tensor:
    """The mean of a whole filter in the order of :func:`_cut`, shape (groups, 1, blocks * n)."""
    means = mean.expand(-1, patches.blocks, -1)
    return (means.mT if columns else means).flatten(1).unsqueeze(1)
