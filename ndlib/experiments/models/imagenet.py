"""torchvision's networks for ImageNet and segmentation, deconvolved by :func:`ndlib.convert`.

They differ from those above in that nothing is built here: batch normalisation is taken out of torchvision's network
(``"none"``), left in it (``"bn"``) or replaced by deconvolution (``"nd"``). The initial weights are torchvision's.
The classifiers of ``"nd"`` are whitened in blocks of 512 features.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from ..._conversion.norms import BATCH_NORMS
from ...conversion import convert
from ...layers import DeconvConv2d
from ..baselines import rebuilt, replace_layers
from .blocks import Layers, Overrides

__all__ = ["Dense", "deeplabv3", "densenet121", "resnet18", "vgg11"]

FIFTEEN = {"n_iter": 15}  # of the first convolution, in all of the authors' networks for ImageNet


def vgg11(layers: Layers, _: int, classes: int) -> nn.Module:
    """VGG-11, 224 x 224 pixels. Deconvolved, the first convolution takes 15 Newton-Schulz steps; three whitened linear
    layers follow.

    >>> import torch
    >>> with torch.device("meta"):
    ...     vgg11(Layers("bn"), 3, 10)(torch.zeros(2, 3, 224, 224)).shape
    torch.Size([2, 10])
    """
    from torchvision import models

    net = models.vgg11_bn if layers.method == "bn" else models.vgg11
    return _as(layers, net(weights=None, num_classes=classes), {"features.0": FIFTEEN})


def resnet18(layers: Layers, _: int, classes: int) -> nn.Module:
    """ResNet-18, 224 x 224 pixels. Deconvolved, the first convolution takes 15 Newton-Schulz steps, and the 1x1
    convolutions of the shortcuts keep their batch normalisation.

    >>> import torch
    >>> with torch.device("meta"):
    ...     resnet18(Layers("bn"), 3, 10)(torch.zeros(2, 3, 224, 224)).shape
    torch.Size([2, 10])
    """
    from torchvision import models

    return _as(layers, models.resnet18(weights=None, num_classes=classes), {"conv1": FIFTEEN})


def densenet121(layers: Layers, _: int, classes: int) -> nn.Module:
    """DenseNet-121, 224 x 224 pixels. Deconvolved, the first convolution takes 15 Newton-Schulz steps.

    >>> import torch
    >>> with torch.device("meta"):
    ...     densenet121(Layers("bn"), 3, 10)(torch.zeros(2, 3, 224, 224)).shape
    torch.Size([2, 10])
    """
    from torchvision import models

    return _as(layers, models.densenet121(weights=None, num_classes=classes), {"features.conv0": FIFTEEN})


class Dense(nn.Module):
    """torchvision's DeepLabV3 with the class scores of every pixel as its output, (N, classes, H, W).

    >>> import torch
    >>> class Net(nn.Conv2d):
    ...     def forward(self, x):
    ...         return {"out": super().forward(x)}
    >>> Dense(Net(3, 5, 1))(torch.zeros(1, 3, 8, 8)).shape
    torch.Size([1, 5, 8, 8])
    """

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

    >>> import torch
    >>> with torch.device("meta"):
    ...     deeplabv3(Layers("bn"), 3, 21)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 21, 64, 64])
    """
    from torchvision.models import segmentation

    net = segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=classes, aux_loss=False)
    exceptions: dict[str, Overrides] = {
        "backbone.conv1": FIFTEEN,
        "classifier.0.convs.4.1": {"sampling_stride": 3},
        "classifier.4": {"block_size": 256},
    }
    return Dense(_as(layers, net, exceptions))


def _as(layers: Layers, net: nn.Module, exceptions: dict[str, Overrides]) -> nn.Module:
    """The network as the method has it; ``exceptions`` are options of the authors' code for single convolutions."""
    if layers.method == "none":
        return _without_norms(net)
    if layers.method == "bn":
        return net
    norms = {name: copy.deepcopy(m) for name, m in net.named_modules() if name.endswith("downsample.1")}
    net, _ = convert(net, inplace=True, **layers.recommended | layers.options)
    if layers.paper:
        instead: dict[nn.Module, nn.Module] = {net.get_submodule(name): norm for name, norm in norms.items()}
        for name, exception in exceptions.items():
            layer: Any = net.get_submodule(name)
            instead[layer] = rebuilt(layer, DeconvConv2d, **exception | layers.options)
        net = replace_layers(net, instead.get)
    return net


def _without_norms(net: nn.Module) -> nn.Module:
    """The network without batch normalisation; every convolution has a bias instead, which starts at 0."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.bias is None:
            module.bias = nn.Parameter(module.weight.new_zeros(module.out_channels))
    return replace_layers(net, lambda module: nn.Identity() if isinstance(module, BATCH_NORMS) else None)
