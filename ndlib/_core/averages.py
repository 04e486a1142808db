"""What a layer remembers of its batches: the running averages that whiten in evaluation.

Of mean and root (``running="root"``, the published layer), from 0 and I, or of mean and covariance
(``running="covariance"``), without a start value: divided by 1 - (1 - momentum)^t after t batches. Both live in buffers
of the layer, so that they travel with its state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .private_torch import version_of

if TYPE_CHECKING:
    from .whitening import Deconvolution

__all__ = ["add_buffers", "enter", "is_fresh", "mark_fresh", "refresh_root", "running_whitening", "take_root"]


def add_buffers(layer: Deconvolution, means: int, square: tuple[int, ...], kind: dict[str, Any]) -> None:
    """``means`` numbers of the mean, a root of shape ``square``; ``kind``: device and dtype."""
    averages_root = layer.options.running == "root"
    layer.register_buffer("running_mean", torch.zeros(means, **kind))
    identity = torch.eye(square[-1], **kind).expand(square).clone()
    layer.register_buffer("running_deconv", identity, persistent=averages_root)
    if not averages_root:
        layer.register_buffer("running_cov", torch.zeros(square, **kind))
        layer.register_buffer("running_weight", torch.zeros((), **kind))


@torch.no_grad()
def enter(layer: Deconvolution, momentum: float, values: dict[str, Tensor]) -> None:
    """Let values of the batch just measured enter the buffers of these names."""
    for name, value in values.items():
        buffer = layer.get_buffer(name)
        value = value.to(buffer.dtype).view_as(buffer)
        average = buffer.lerp(value, momentum)
        if layer.first_batch_starts:
            average = torch.where(layer.num_batches_tracked == 1, value, average)
        buffer.copy_(average)


def running_whitening(layer: Deconvolution) -> tuple[Tensor, Tensor]:
    """Mean (groups, 1 or blocks, n) and root (groups, n, n) of the averages; (0, I) before any training step."""
    mean = layer.running_mean.view(layer.n_groups, -1, layer.columns)
    if layer.options.running == "covariance":
        refresh_root(layer)
        weight = layer.get_buffer("running_weight")
        mean = mean / weight.clamp(min=torch.finfo(weight.dtype).tiny)  # 0 / 0 before the first batch
    return mean, layer.running_deconv.view(layer.n_groups, layer.columns, layer.columns)


def refresh_root(layer: Deconvolution) -> None:
    """Take the root of the averaged covariance if this is another than that of the root at hand.

    Another tensor, or one that was written to since: a moving average of models, ``functional_call`` and others change
    buffers without asking the layer. A compiled step cannot ask.
    """
    if not torch.compiler.is_compiling() and not is_fresh(layer):
        take_root(layer)


@torch.no_grad()
def take_root(layer: Deconvolution) -> None:
    """Let ``running_deconv`` be the root of the averaged covariance; I before the first batch."""
    cov, weight = layer.get_buffer("running_cov"), layer.get_buffer("running_weight")
    started, eye = weight > 0, torch.eye(layer.columns, dtype=cov.dtype, device=cov.device)
    average = torch.where(started, cov / weight, eye)
    root = layer.root(average.view(layer.n_groups, layer.columns, layer.columns))
    layer.running_deconv.copy_(torch.where(started, root.view_as(cov), eye))
    if not torch.compiler.is_compiling():
        mark_fresh(layer)


def mark_fresh(layer: Deconvolution) -> None:
    """Note that ``running_deconv`` is the root of the averaged covariance as it is now."""
    cov = layer.get_buffer("running_cov")
    layer.root_of = cov, version_of(cov)


def is_fresh(layer: Deconvolution) -> bool:
    """Whether ``running_deconv`` is the root of the averaged covariance as it is now."""
    cov = layer.get_buffer("running_cov")
    return layer.root_of is not None and layer.root_of[0] is cov and layer.root_of[1] == version_of(cov)
