"""What a layer remembers of its batches: the running averages that whiten in evaluation.

Of mean and root (``running="root"``, the published layer), from 0 and I, or of mean and covariance
(``running="covariance"``), without a start value: divided by 1 - (1 - momentum)^t after t batches. Both live in buffers
of the layer, so that they travel with its state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .private_torch import version_of

if TYPE_CHECKING:
    from .whitening import Deconvolution

__all__ = ["RootOf", "add_buffers", "enter", "is_fresh", "mark_fresh", "refresh_root", "running_whitening", "take_root"]


class RootOf(NamedTuple):
    """The averaged covariance that a running root was taken of: the tensor, its version, and its values then.

    Values are kept in evaluation alone: in training, where the root is soon another, they would be copied in vain.
    """

    tensor: Tensor
    version: int | None
    values: tuple[Tensor, Tensor] | None


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
        buffer.view(-1).copy_(average.view(-1))  # torch.compile of 2.9 loses what is written to a single number


def running_whitening(layer: Deconvolution) -> tuple[Tensor, Tensor]:
    """Mean (groups, 1 or blocks, n) and root (groups, n, n) of the averages; (0, I) before any training step.

    Copies where a gradient may flow back to weights: the next training step changes the averages in place.
    """
    mean, root = layer.running_mean, layer.running_deconv
    if layer.options.running == "covariance":
        refresh_root(layer)
        weight = layer.get_buffer("running_weight")
        # 0 / 0 before the first batch.
        mean, root = mean / weight.clamp(min=torch.finfo(weight.dtype).tiny), layer.running_deconv
    if torch.is_grad_enabled():
        mean, root = mean.clone(), root.clone()
    return mean.view(layer.n_groups, -1, layer.columns), root.view(layer.n_groups, layer.columns, layer.columns)


def refresh_root(layer: Deconvolution) -> None:
    """Take the root of the averaged covariance if this is another than that of the root at hand.

    A moving average of models, ``functional_call``, a loader and others change buffers without asking the layer, and
    not all of them leave a trace in the tensor's version. So values are compared; only between two training steps, when
    every step counts, does the version have to do. A compiled step cannot ask.
    """
    if torch.compiler.is_compiling() or layer.running_mean.is_meta:
        return
    if not (is_same_tensor(layer) if layer.training else is_fresh(layer)):
        take_root(layer)


@torch.no_grad()
def take_root(layer: Deconvolution) -> None:
    """Let ``running_deconv`` be the root of the averaged covariance; I before the first batch."""
    cov, weight = layer.get_buffer("running_cov"), layer.get_buffer("running_weight")
    started, eye = weight > 0, torch.eye(layer.columns, dtype=cov.dtype, device=cov.device)
    average = torch.where(started, cov / weight, eye)
    root = layer.root(average.view(layer.n_groups, layer.columns, layer.columns))
    root = torch.where(started, root.view_as(cov), eye)
    if torch.compiler.is_compiling():
        layer.running_deconv.copy_(root)
        return
    layer.running_deconv = root.to(cov.dtype)  # another tensor: the old one may be on the meta device, or in a graph
    mark_fresh(layer)


def mark_fresh(layer: Deconvolution) -> None:
    """Note that ``running_deconv`` is the root of the averaged covariance as it is now."""
    cov, weight = layer.get_buffer("running_cov"), layer.get_buffer("running_weight")
    values = None if layer.training else (cov.detach().clone(), weight.detach().clone())
    layer.root_of = RootOf(cov, version_of(cov), values)


def is_same_tensor(layer: Deconvolution) -> bool:
    """Whether the averaged covariance is the tensor that the root was taken of, and was not written to since."""
    cov, of = layer.get_buffer("running_cov"), layer.root_of
    return of is not None and of.tensor is cov and of.version is not None and of.version == version_of(cov)


def is_fresh(layer: Deconvolution) -> bool:
    """Whether ``running_deconv`` is the root of the averaged covariance as it is now, by its values."""
    cov, weight, of = layer.get_buffer("running_cov"), layer.get_buffer("running_weight"), layer.root_of
    if of is None or of.values is None or of.values[0].device != cov.device or of.values[0].dtype != cov.dtype:
        return False
    return torch.equal(of.values[0], cov) and torch.equal(of.values[1], weight)
