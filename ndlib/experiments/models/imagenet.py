"""torchvision's networks for ImageNet and segmentation, deconvolved by :func:`ndlib.convert`.

They differ from those above in that nothing is built here: batch normalisation is taken out of torchvision's network
(``"none"``), left in it (``"bn"``) or replaced by deconvolution (``"nd"``). The initial weights are torchvision's.
The classifiers of ``"nd"`` are whitened in blocks of 512 features.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from ..._core.tracing import BATCH_NORMS
from ...conversion import convert
from ...layers import DeconvConv2d
from .blocks import Layers, Options

FIFTEEN = {"n_iter": 15}  # of the first convolution, in all of the authors' networks for ImageNet


def vgg11(layers: Layers, _: int, classes: int) -> nn.Module:
    """VGG-11, 224 x 224 pixels. Deconvolved, the first convolution takes 15 Newton-Schulz steps; three whitened linear
    layers follow."""
    from torchvision import models

    net = models.vgg11_bn if layers.method == "bn" else models.vgg11
    return _as(layers, net(weights=None, num_classes=classes), {"features.0": FIFTEEN})


def resnet18(layers: Layers, _: int, classes: int) -> nn.Module:
    """ResNet-18, 224 x 224 pixels. Deconvolved, the first convolution takes 15 Newton-Schulz steps, and the 1x1
    convolutions of the shortcuts keep their batch normalisation."""
    from torchvision import models

    return _as(layers, models.resnet18(weights=None, num_classes=classes), {"conv1": FIFTEEN})


def densenet121(layers: Layers, _: int, classes: int) -> nn.Module:
    """DenseNet-121, 224 x 224 pixels. Deconvolved, the first convolution takes 15 Newton-Schulz steps."""
    from torchvision import models

    return _as(layers, models.densenet121(weights=None, num_classes=classes), {"features.conv0": FIFTEEN})


class Dense(nn.Module):
    """torchvision's DeepLabV3 with the class scores of every pixel as its output, (N, classes, H, W)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net(x)["out"]
        return scores


def deeplabv3(layers: Layers, _: int, classes: int) -> nn.Module:
    """DeepLabV3 on ResNet-50, without the auxiliary classifier.

    In the authors' deconvolved network the first convolution takes 15 Newton-Schulz steps, the 1x1 convolutions of the
    shortcuts keep their batch normalisation, the last convolution whitens its 256 channels in one block, and the
    convolution behind the global mean takes every ninth image as a sample, so that a batch of 8 gives one. The variant
    ``"uniform"`` is what ``convert`` does by itself, which takes every image there.
    """
    from torchvision.models import segmentation

    net = segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=classes, aux_loss=False)
    exceptions: dict[str, Options] = {
        "backbone.conv1": FIFTEEN,
        "classifier.0.convs.4.1": {"sampling_stride": 3},
        "classifier.4": {"block_size": 256},
    }
    return Dense(_as(layers, net, exceptions))


def _as(layers: Layers, net: nn.Module, exceptions: dict[str, Options]) -> nn.Module:
    """The network as the method has it; ``exceptions`` are options of the authors' code for single convolutions."""
    if layers.method == "none":
        return _without_norms(net)
    if layers.method == "bn":
        return net
    norms = {name: copy.deepcopy(m) for name, m in net.named_modules() if name.endswith("downsample.1")}
    net, _ = convert(net, inplace=True, **layers.options)
    if layers.paper:
        for name, norm in norms.items():
            _put(net, name, norm)
        for name, exception in exceptions.items():
            _put(net, name, _changed(net.get_submodule(name), exception | layers.options))
    return net


def _without_norms(net: nn.Module) -> nn.Module:
    """The network without batch normalisation, its convolutions with a bias in its stead, which starts at 0."""
    for name, module in list(net.named_modules()):
        if isinstance(module, BATCH_NORMS):
            _put(net, name, nn.Identity())
        elif isinstance(module, nn.Conv2d) and module.bias is None:
            module.bias = nn.Parameter(module.weight.new_zeros(module.out_channels))
    return net


def _changed(layer: Any, options: Options) -> DeconvConv2d:
    """The same convolution, weights and all, with other options."""
    sizes = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    made = DeconvConv2d(*sizes, device=layer.weight.device, **options)
    made.weight, made.bias = layer.weight, layer.bias
    return made


def _put(net: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(net.get_submodule(parent), child, module)
