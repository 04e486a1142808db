"""DenseNet for pictures of 32x32 pixels (Huang et al. 2017): a 3x3 stem without pooling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import Classifier, Layers

__all__ = ["DenseLayer", "densenet121"]


class DenseLayer(nn.Sequential):
    """New channels in front of those that came in: norm, ReLU, 1x1 convolution; norm, ReLU, 3x3 convolution.

    >>> DenseLayer(Layers("bn"), 8, 4)(torch.zeros(2, 8, 6, 6)).shape
    torch.Size([2, 12, 6, 6])
    """

    def __init__(self, layers: Layers, channels: int, growth: int) -> None:
        super().__init__(
            *layers.norm(channels),
            nn.ReLU(),
            layers.conv(channels, 4 * growth, 1),
            *layers.norm(4 * growth),
            nn.ReLU(inplace=True),
            layers.conv(4 * growth, growth, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([super().forward(x), x], 1)


def densenet121(layers: Layers, channels: int, classes: int) -> Classifier:
    """DenseNet-121: 6, 12, 24 and 16 dense layers that add 32 channels each, transitions that halve channels and sides.

    As in the authors' network every convolution is deconvolved with five Newton-Schulz steps, the first too. Batch
    normalisation stands before the convolutions, and once more before the mean over the picture; none follows the stem.

    >>> densenet121(Layers("nd", width=0.25), 3, 10).eval()(torch.zeros(1, 3, 16, 16)).shape
    torch.Size([1, 10])
    """
    growth = layers.scaled(32)
    size = 2 * growth
    features = [layers.first_conv(channels, size, 3, padding=1)]
    for stage, count in enumerate((6, 12, 24, 16)):
        if stage > 0:
            transition = [*layers.norm(size), nn.ReLU(), layers.conv(size, size // 2, 1), nn.AvgPool2d(2)]
            features += transition
            size //= 2
        for _ in range(count):
            features.append(DenseLayer(layers, size, growth))
            size += growth
    return Classifier([*features, *layers.norm(size), nn.ReLU(inplace=True)], layers.head(size, classes))
