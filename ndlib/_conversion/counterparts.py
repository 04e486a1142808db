"""Which plain layer stands for which deconvolution layer, and the way from these to plain ones."""

from __future__ import annotations

from typing import Any

from torch import nn

from .._core.samples import SampleNorm
from ..layers import (
    ChannelDeconv,
    DeconvConv1d,
    DeconvConv2d,
    DeconvConv3d,
    DeconvConvTranspose1d,
    DeconvConvTranspose2d,
    DeconvConvTranspose3d,
    DeconvLinear,
)
from .calls import TRANSPOSED

__all__ = ["DECONV_OF", "PLAIN_OF", "plain_channels", "plain_layer", "shape_of"]

PLAIN_OF: dict[Any, type[nn.Module]] = {
    DeconvConv1d: nn.Conv1d,
    DeconvConv2d: nn.Conv2d,
    DeconvConv3d: nn.Conv3d,
    DeconvConvTranspose1d: nn.ConvTranspose1d,
    DeconvConvTranspose2d: nn.ConvTranspose2d,
    DeconvConvTranspose3d: nn.ConvTranspose3d,
    DeconvLinear: nn.Linear,
}
DECONV_OF: dict[Any, Any] = {plain: deconv for deconv, plain in PLAIN_OF.items()}


def shape_of(convolution: Any) -> dict[str, Any]:
    """The arguments that a convolution was made with."""
    names = ["in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"]
    names += ["output_padding"] if isinstance(convolution, TRANSPOSED) else []
    return {name: getattr(convolution, name) for name in names}


def plain_layer(module: Any) -> nn.Module:
    """The plain layer with the outputs of a deconvolution layer in evaluation; without a gradient."""
    weight, bias = module.folded(module.weight, module.weight, module.bias)
    kind: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
    if isinstance(module, DeconvLinear):
        plain: Any = nn.Linear(module.in_features, module.out_features, **kind)
    else:
        convolution: Any = next(plain for deconv, plain in PLAIN_OF.items() if isinstance(module, deconv))
        plain = convolution(**shape_of(module), **kind)
    plain.weight.copy_(weight)
    plain.bias.copy_(bias)
    if module.sample_norm is None:
        return plain
    return nn.Sequential(SampleNorm(module.sample_norm, module.weight.dim() - 1), plain)


def plain_channels(module: ChannelDeconv, dimensions: int) -> nn.Module:
    """The same of a ``ChannelDeconv`` whose input has so many dimensions."""
    matrix, offset = module.affine()
    c = module.num_features
    kind: dict[str, Any] = {"device": matrix.device, "dtype": matrix.dtype}
    if dimensions == 2:
        plain: Any = nn.Linear(c, c, **kind)
    else:
        plain = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 3](c, c, 1, **kind)
    plain.weight.copy_(matrix.reshape(plain.weight.shape))
    plain.bias.copy_(offset)
    return plain
