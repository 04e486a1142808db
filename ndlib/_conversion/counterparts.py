"""Which plain layer stands for which deconvolution layer, and the way from these to plain ones."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from .._core.samples import SampleNorm
from .._core.warn import warn
from .._core.whitening import Deconvolution
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
from .subclasses import Product, product_of

__all__ = ["DECONV_OF", "PLAIN_OF", "own_product", "plain_channels", "plain_layer", "refuse_merged", "shape_of"]

FEW = 0.1  # of the weights are zero by chance at most

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


def own_product(layer: Any) -> Product | None:
    """What a subclass of a plain layer computes, see :func:`.product_of`; None of torch's own, parametrised or not."""
    return None if parametrize.type_before_parametrizations(layer) in DECONV_OF else product_of(layer)


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
    _warn_of_filled_zeros(module, plain.weight)
    if module.sample_norm is None:
        return plain
    return nn.Sequential(SampleNorm(module.sample_norm, module.weight.dim() - 1), plain)


def _warn_of_filled_zeros(module: Any, folded: Tensor) -> None:
    before, after = (float((weight == 0).float().mean()) for weight in (module.weight, folded))
    if before >= FEW and after < before / 2:
        warn(
            f"{module}: {before:.0%} of its weights w are zero, and {after:.0%} of the plain layer's, which are D w; "
            "prune the plain network, after to_plain"
        )


def refuse_merged(model: nn.Module) -> None:
    """Refuse adapters (LoRA) that were added to weights of deconvolution layers, as far as they say so."""
    for name, module in model.named_modules():
        if getattr(module, "merged", False) is True and any(isinstance(m, Deconvolution) for m in module.modules()):
            raise ValueError(
                f"to_plain: the adapter {name or type(module).__name__} is merged into weights that meet whitened "
                "patches, where its change means another one; unmerge it, call to_plain, and merge it then"
            )


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
