"""ResNeXt for pictures of 32x32 pixels (Xie et al. 2017): residual blocks whose 3x3 convolution has groups."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Classifier, Layers, Overrides

__all__ = ["Block", "resnext29"]


class Block(nn.Module):
    """relu(residual(x) + shortcut(x)): 1x1, grouped 3x3 and 1x1 convolution beside the identity or a 1x1 one.

    >>> import torch
    >>> Block(Layers("bn"), 8, 8, 2, 2)(torch.zeros(2, 8, 6, 6)).shape
    torch.Size([2, 16, 3, 3])
    """

    def __init__(self, layers: Layers, before: int, hidden: int, groups: int, stride: int) -> None:
        super().__init__()
        after = 2 * hidden
        grouped: Overrides = {"groups": groups, "exception": {"n_iter": 3}}
        self.residual = nn.Sequential(
            *layers.conv_norm(before, hidden, 1),
            nn.ReLU(inplace=True),
            *layers.conv_norm(hidden, hidden, 3, stride=stride, padding=1, **grouped),
            nn.ReLU(inplace=True),
            *layers.conv_norm(hidden, after, 1),
        )
        same = stride == 1 and before == after
        self.shortcut = nn.Sequential(*[] if same else layers.conv_norm(before, after, 1, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.shortcut(x))


def resnext29(layers: Layers, channels: int, classes: int) -> Classifier:
    """ResNeXt-29 (32x4d): three stages of three blocks, 32 groups of 4, 8 and 16 channels. Width scales the groups.

    As in the authors' network the stem is a 1x1 convolution, so that its deconvolution sees single pixels: a 3x3
    covariance of the colours, 10 Newton-Schulz steps. The grouped convolutions take 3 steps, the others 5.

    >>> import torch
    >>> resnext29(Layers("nd", width=0.25), 3, 10).eval()(torch.zeros(1, 3, 16, 16)).shape
    torch.Size([1, 10])
    """
    groups, before = max(1, round(32 * layers.width)), layers.scaled(64)
    features = layers.stem(channels, before, 1, exception={"n_iter": 10})
    for stage in range(3):
        hidden = groups * 4 * 2**stage
        for block in range(3):
            stride = 2 if stage > 0 and block == 0 else 1
            features.append(Block(layers, before, hidden, groups, stride))
            before = 2 * hidden
    return Classifier(features, layers.head(before, classes))
