"""Normalisation in somebody else's network: what it computes, what is left without it, what it is fused into."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from .._core.folding import turned

__all__ = [
    "BATCH_NORMS",
    "Copy",
    "fuse_into",
    "instead_of",
    "is_batch_norm",
    "is_followed_by_its_children",
    "is_other_norm",
]

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
OTHER_NORMS = (
    *(nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.LocalResponseNorm),
    *([nn.RMSNorm] if hasattr(nn, "RMSNorm") else []),
)


class Copy(nn.Module):
    """Stands for a normalisation that was dropped before an operation in place, which may write to what it returns.

    >>> x = torch.zeros(3)
    >>> Copy()(x).add_(1), x
    (tensor([1., 1., 1.]), tensor([0., 0., 0.]))
    """

    def forward(self, input: Tensor) -> Tensor:
        return input.clone()


def is_batch_norm(module: Any) -> bool:
    """Whether a module holds the running mean and variance of channels, whatever its class: frozen ones included.

    >>> from torchvision.ops import FrozenBatchNorm2d
    >>> is_batch_norm(FrozenBatchNorm2d(3)), is_batch_norm(nn.InstanceNorm2d(3, track_running_stats=True))
    (True, False)
    """
    if isinstance(module, BATCH_NORMS):
        return True
    mean, var = (getattr(module, name, None) for name in ("running_mean", "running_var"))
    averages = isinstance(mean, Tensor) and isinstance(var, Tensor) and mean.dim() == 1 and mean.shape == var.shape
    return averages and not isinstance(module, OTHER_NORMS)


def is_other_norm(module: nn.Module) -> bool:
    """Whether a module normalises each example by itself, as torch's do and as others say by their name."""
    if isinstance(module, OTHER_NORMS):
        return True
    if type(module).__module__.startswith("torch.nn.utils"):  # a parametrisation that normalises weights
        return False
    named = type(module).__name__.lower().removesuffix("2d").removesuffix("3d").endswith("norm")
    return named and not is_batch_norm(module) and next(module.children(), None) is None


def is_followed_by_its_children(norm: Any) -> bool:
    """Whether a module computes batch normalisation and then what its children do, in their order.

    That is tried in evaluation, on random numbers with random averages; the user's random numbers stay as they are.

    >>> is_followed_by_its_children(nn.BatchNorm2d(3))
    True
    """
    draw = torch.Generator().manual_seed(0)
    for sides in ([3, 3], [3, 3, 3], [3], []):
        try:
            with torch.no_grad():
                trial = copy.deepcopy(norm).cpu().float().eval()
                trial.running_mean.normal_(generator=draw)
                trial.running_var.uniform_(0.5, 2, generator=draw)[0] = 1e-5  # where eps shows
                x = torch.randn(4, len(trial.running_mean), *sides, generator=draw)
                normalised = nn.functional.batch_norm(x, **_values(trial))
                rest = nn.Sequential(*trial.children())
                return torch.allclose(trial(x.clone()), rest(normalised), rtol=1e-4, atol=1e-5)
        except Exception:  # whatever a forward of somebody else's raises for this input
            continue
    return False


def _values(norm: Any) -> dict[str, Any]:
    """What a normalisation computes with in evaluation."""
    eps = getattr(norm, "eps", getattr(norm, "epsilon", 1e-5))  # detectors that freeze it write the last into forward
    named = {name: getattr(norm, name, None) for name in ("running_mean", "running_var", "weight", "bias")}
    return {**named, "eps": eps}


def instead_of(norm: Any, overwritten: bool) -> nn.Module:
    """What stays of a normalisation that is dropped."""
    rest = [m for m in norm.children() if not isinstance(m, nn.Identity)]
    copies = overwritten or any(getattr(m, "inplace", False) for m in rest)
    if rest:
        return nn.Sequential(*([Copy()] if copies else []), *rest)
    return Copy() if copies else nn.Identity()


def fuse_into(layer: Any, norm: Any) -> None:
    """Let a layer compute what it and the normalisation behind it compute; what can be trained stays what could be."""
    trains = layer.weight.requires_grad, layer.weight.requires_grad if layer.bias is None else layer.bias.requires_grad
    values = _values(norm)
    mean = values["running_mean"]
    affine: Any = nn.BatchNorm1d(len(mean), values.pop("eps"), device=mean.device, dtype=mean.dtype).eval()
    for name, value in values.items():
        if value is not None:
            getattr(affine, name).data = value.data
    joined = (fuse_linear_bn_eval if isinstance(layer, nn.Linear) else _fuse_convolution)(layer, affine)
    layer.weight, layer.bias = joined.weight.requires_grad_(trains[0]), joined.bias.requires_grad_(trains[1])


def _fuse_convolution(layer: Any, norm: Any) -> Any:
    """torch's fusion; a transposed convolution as an ordinary one, for torch's own way fails where it has groups."""
    if not layer.transposed:
        return fuse_conv_bn_eval(layer, norm)
    ordinary = copy.deepcopy(layer)
    ordinary.weight = nn.Parameter(turned(layer.weight, layer.groups))
    joined = fuse_conv_bn_eval(ordinary, norm)
    joined.weight = nn.Parameter(turned(joined.weight, layer.groups))
    return joined
