"""Batch normalisation in somebody else's network: what it computes, what is left without it, what it is fused into."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from .folding import turned

__all__ = ["BATCH_NORMS", "Copy", "fuse_into", "instead_of", "is_followed_by_its_children"]

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Copy(nn.Module):
    """Stands for a normalisation that was dropped before an operation in place, which may write to what it returns.

    >>> x = torch.zeros(3)
    >>> Copy()(x).add_(1), x
    (tensor([1., 1., 1.]), tensor([0., 0., 0.]))
    """

    def forward(self, input: Tensor) -> Tensor:
        return input.clone()


def is_followed_by_its_children(norm: Any) -> bool:
    """Whether a subclass of batch normalisation computes that and then what its children do, in their order.

    That is tried in evaluation, on random numbers with random averages; the user's random numbers stay as they are.

    >>> is_followed_by_its_children(nn.BatchNorm2d(3))
    True
    """
    draw = torch.Generator().manual_seed(0)
    trial = copy.deepcopy(norm).cpu().float().eval()
    x = torch.randn(4, norm.num_features, *[2] * (1 if isinstance(norm, nn.BatchNorm1d) else 2), generator=draw)
    x = x.unsqueeze(-1) if isinstance(norm, nn.BatchNorm3d) else x
    try:
        with torch.no_grad():
            trial.running_mean.normal_(generator=draw)
            trial.running_var.uniform_(0.5, 2, generator=draw)
            averages = trial.running_mean, trial.running_var
            normalised = nn.functional.batch_norm(x, *averages, trial.weight, trial.bias, eps=trial.eps)
            return torch.equal(trial(x.clone()), nn.Sequential(*trial.children())(normalised))
    except Exception:  # whatever a forward of somebody else's raises for this input
        return False


def instead_of(norm: Any, overwritten: bool) -> nn.Module:
    """What stays of a normalisation that is dropped."""
    if type(norm) in BATCH_NORMS:
        return Copy() if overwritten else nn.Identity()
    rest = [m for m in norm.children() if not isinstance(m, nn.Identity)]
    writes = any(getattr(m, "inplace", False) for m in rest)
    return nn.Sequential(*([Copy()] if writes or overwritten else []), *rest)


def fuse_into(layer: Any, norm: Any) -> None:
    """Let a layer compute what it and the normalisation behind it compute; what can be trained stays what could be."""
    trains = layer.weight.requires_grad, layer.weight.requires_grad if layer.bias is None else layer.bias.requires_grad
    affine = copy.copy(norm)
    if norm.weight is None:  # torch's fusion of a linear layer wants the factors that are not there
        affine.weight, affine.bias = (nn.Parameter(f(norm.running_mean)) for f in (torch.ones_like, torch.zeros_like))
    joined = (fuse_linear_bn_eval if isinstance(layer, nn.Linear) else _fuse_convolution)(layer, affine)
    layer.weight, layer.bias = joined.weight.requires_grad_(trains[0]), joined.bias.requires_grad_(trains[1])


def _fuse_convolution(layer: Any, norm: Any) -> Any:
    """torch's fusion; a transposed convolution as an ordinary one, for torch's own way fails where it has groups."""
    if not layer.transposed:
        return fuse_conv_bn_eval(layer, norm)
    ordinary = copy.copy(layer)
    ordinary._parameters = {"weight": nn.Parameter(turned(layer.weight, layer.groups)), "bias": layer.bias}
    joined = fuse_conv_bn_eval(ordinary, norm)
    joined.weight = nn.Parameter(turned(joined.weight, layer.groups))
    return joined
