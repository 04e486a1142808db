"""Dual path network for pictures of 32x32 pixels (Chen et al. 2017)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Classifier, Layers

__all__ = ["Block", "dpn92"]

# (hidden channels, channels of the residual path, blocks, channels that each block adds to the dense path)
PLAN = ((96, 256, 3, 16), (192, 512, 4, 32), (384, 1024, 20, 24), (768, 2048, 3, 128))


class Block(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolution; part of their output is added to the input, the rest appended to it.

    >>> block = Block(Layers("bn"), 8, 4, 8, 2, groups=2, stride=1, first=True)
    >>> block(torch.zeros(2, 8, 6, 6)).shape  # 8 residual channels, 2 dense ones
    torch.Size([2, 12, 6, 6])
    """

    def __init__(
        self,
        layers: Layers,
        before: int,
        hidden: int,
        residual: int,
        dense: int,
        *,
        groups: int,
        stride: int,
        first: bool,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.layers = nn.Sequential(
            *layers.conv_norm(before, hidden, 1),
            nn.ReLU(inplace=True),
            *layers.conv_norm(hidden, hidden, 3, stride=stride, padding=1, groups=groups),
            nn.ReLU(inplace=True),
            *layers.conv_norm(hidden, residual + dense, 1),
        )
        shortcut = layers.conv_norm(before, residual + dense, 1, stride=stride) if first else []
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y, x = self.layers(x), self.shortcut(x)
        d = self.residual
        return F.relu(torch.cat([x[:, :d] + y[:, :d], x[:, d:], y[:, d:]], 1))


def dpn92(layers: Layers, channels: int, classes: int) -> Classifier:
    """DPN-92: four stages of 3, 4, 20 and 3 blocks, 32 groups of 3 to 24 channels. Width scales the groups, too.

    In the authors' deconvolved network the stem takes 10 Newton-Schulz steps, all other convolutions 5.

    >>> dpn92(Layers("nd", width=0.25), 3, 10).eval()(torch.zeros(1, 3, 16, 16)).shape
    torch.Size([1, 10])
    """
    groups, before = max(1, round(32 * layers.width)), layers.scaled(64)
    features = layers.stem(channels, before, 3, padding=1, exception={"n_iter": 10})
    for stage, (hidden, residual, blocks, dense) in enumerate(PLAN):
        residual, dense = layers.scaled(residual), layers.scaled(dense)
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            sizes = (before, hidden // 32 * groups, residual, dense)
            features.append(Block(layers, *sizes, groups=groups, stride=stride, first=block == 0))
            before = residual + (block + 2) * dense
    return Classifier(features, layers.head(before, classes))
