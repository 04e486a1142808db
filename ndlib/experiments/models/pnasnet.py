"""PNASNet with its simplest cell, for pictures of 32x32 pixels (after Liu et al. 2018)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Classifier, Layers

__all__ = ["CellA", "pnasneta"]


class CellA(nn.Module):
    """relu(7x7 convolution(x) + 3x3 maximum(x)), the maximum behind a 1x1 convolution where sizes change.

    The 7x7 convolution has a group for each channel and no 1x1 convolution behind it, so that it mixes no channels:
    the authors call it separable, of which it is the first half. Channels meet in the two cells of stride 2 only.

    >>> import torch
    >>> CellA(Layers("bn"), 8, 16, 2)(torch.zeros(2, 8, 6, 6)).shape
    torch.Size([2, 16, 3, 3])
    """

    def __init__(self, layers: Layers, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Sequential(
            *layers.conv_norm(before, after, 7, stride=stride, padding=3, groups=before),
        )
        self.pooled = nn.Sequential(
            nn.MaxPool2d(3, stride, padding=1), *layers.conv_norm(before, after, 1) if stride == 2 else []
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.depthwise(x) + self.pooled(x))


def pnasneta(layers: Layers, channels: int, classes: int) -> Classifier:
    """PNASNetA: three times six cells of 44, 88 and 176 channels, a cell of stride 2 between them.

    In the authors' deconvolved network the stem takes 10 Newton-Schulz steps, all other convolutions 5.

    >>> import torch
    >>> pnasneta(Layers("nd", width=0.25), 3, 10).eval()(torch.zeros(1, 3, 16, 16)).shape
    torch.Size([1, 10])
    """
    before = layers.scaled(44)
    features = layers.stem(channels, before, 3, padding=1, exception={"n_iter": 10})
    for stage, cells in enumerate((6, 7, 7)):
        after = layers.scaled(44) * 2**stage
        for cell in range(cells):
            features.append(CellA(layers, before, after, stride=2 if stage > 0 and cell == 0 else 1))
            before = after
    return Classifier(features, layers.head(before, classes))
