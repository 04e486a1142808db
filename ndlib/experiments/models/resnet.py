"""Residual networks for pictures of 32x32 pixels: a 3x3 stem without pooling, four stages of two blocks."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Classifier, Layers, SqueezeExcitation

__all__ = ["Block", "PreactBlock", "preact18", "residual_stages", "resnet18", "senet18"]

MakeBlock = Callable[[Layers, int, int, int], nn.Module]  # channels in, channels out, stride


class Block(nn.Module):
    """relu(residual(x) + shortcut(x)): two 3x3 convolutions beside the identity, or a 1x1 one where sizes change.

    >>> import torch
    >>> Block(Layers("bn"), 8, 16, 2)(torch.zeros(2, 8, 6, 6)).shape
    torch.Size([2, 16, 3, 3])
    """

    def __init__(self, layers: Layers, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *layers.conv_norm(before, after, 3, stride=stride, padding=1),
            nn.ReLU(inplace=True),
            *layers.conv_norm(after, after, 3, padding=1),
        )
        same = stride == 1 and before == after
        self.shortcut = nn.Sequential(*[] if same else layers.conv_norm(before, after, 1, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.shortcut(x))


class PreactBlock(nn.Module):
    """With a = relu(norm(x)): residual(a) + x, or residual(a) + shortcut(a) where sizes change.

    Normalisation stands before each 3x3 convolution; the shortcut, a 1x1 convolution, has none of its own.

    >>> import torch
    >>> PreactBlock(Layers("bn"), 8, 16, 2)(torch.zeros(2, 8, 6, 6)).shape
    torch.Size([2, 16, 3, 3])
    """

    def __init__(self, layers: Layers, before: int, after: int, stride: int, *, squeeze: bool = False) -> None:
        super().__init__()
        self.activation = nn.Sequential(*layers.norm(before), nn.ReLU())
        same = stride == 1 and before == after
        self.shortcut = None if same else layers.conv(before, after, 1, stride=stride)
        self.residual = nn.Sequential(
            layers.conv(before, after, 3, stride=stride, padding=1),
            *layers.norm(after),
            nn.ReLU(inplace=True),
            layers.conv(after, after, 3, padding=1),
            *[SqueezeExcitation(layers, after)] if squeeze else [],
        )

    def forward(self, x: Tensor) -> Tensor:
        a = self.activation(x)
        shortcut = x if self.shortcut is None else self.shortcut(a)
        return self.residual(a) + shortcut


def residual_stages(layers: Layers, block: MakeBlock) -> list[nn.Module]:
    """Two blocks of 64, 128, 256 and 512 channels each; all stages but the first halve the sides of the picture.

    >>> len(residual_stages(Layers("bn", width=0.25), Block))
    8
    """
    made, before = [], layers.scaled(64)
    for size, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        after = layers.scaled(size)
        made.append(block(layers, before, after, stride))
        before = after
    return made


def resnet18(layers: Layers, channels: int, classes: int) -> Classifier:
    """ResNet-18 (He et al. 2016, *Deep residual learning*).

    As in the authors' network every convolution is deconvolved with five Newton-Schulz steps: the first and the 1x1
    ones of the shortcuts too.

    >>> import torch
    >>> resnet18(Layers("nd", width=0.25), 3, 10).eval()(torch.zeros(1, 3, 16, 16)).shape
    torch.Size([1, 10])
    """
    features = [*layers.stem(channels, layers.scaled(64), 3, padding=1), *residual_stages(layers, Block)]
    return Classifier(features, layers.head(layers.scaled(512), classes))


def preact18(layers: Layers, channels: int, classes: int) -> Classifier:
    """Preact-18: ResNet-18 with normalisation and ReLU before the convolutions (He et al. 2016, *Identity mappings*).

    As in the authors' network the last block is followed by neither normalisation nor ReLU, which the original has.
    Their stem with batch normalisation holds one that is never called (128 parameters, left out here). Deconvolved,
    the first convolution takes 10 Newton-Schulz steps.

    >>> import torch
    >>> preact18(Layers("nd", width=0.25), 3, 10).eval()(torch.zeros(1, 3, 16, 16)).shape
    torch.Size([1, 10])
    """
    stem = layers.first_conv(channels, layers.scaled(64), 3, padding=1, exception={"n_iter": 10})
    return Classifier([stem, *residual_stages(layers, PreactBlock)], layers.head(layers.scaled(512), classes))


def senet18(layers: Layers, channels: int, classes: int) -> Classifier:
    """SENet-18: blocks of Preact-18 with squeeze and excitation (Hu et al. 2018), after a stem with norm and ReLU.

    The last block is followed by neither normalisation nor ReLU here either. Deconvolved, the first convolution takes
    15 Newton-Schulz steps, and the two 1x1 convolutions of each squeeze are deconvolved too.

    >>> import torch
    >>> senet18(Layers("nd", width=0.25), 3, 10).eval()(torch.zeros(1, 3, 16, 16)).shape
    torch.Size([1, 10])
    """

    def block(layers: Layers, before: int, after: int, stride: int) -> nn.Module:
        return PreactBlock(layers, before, after, stride, squeeze=True)

    stem = layers.stem(channels, layers.scaled(64), 3, padding=1, exception={"n_iter": 15})
    return Classifier([*stem, *residual_stages(layers, block)], layers.head(layers.scaled(512), classes))
