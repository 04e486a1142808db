"""Residual networks for pictures of 32x32 pixels (He et al. 2016: basic blocks, a 3x3 stem without pooling)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import convolution, first_and_rest, head


class Block(nn.Module):
    """relu(residual(x) + shortcut(x)): two 3x3 convolutions beside the identity, or a 1x1 one where sizes change."""

    def __init__(
        self, method: str, in_channels: int, out_channels: int, *, stride: int, options: dict[str, Any]
    ) -> None:
        super().__init__()
        every: dict[str, Any] = {"options": options, "bias": method != "bn"}
        self.residual = nn.Sequential(
            *convolution(method, in_channels, out_channels, 3, stride=stride, padding=1, **every),
            nn.ReLU(inplace=True),
            *convolution(method, out_channels, out_channels, 3, padding=1, **every),
        )
        same = stride == 1 and in_channels == out_channels
        shortcut = [] if same else convolution(method, in_channels, out_channels, 1, stride=stride, **every)
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.shortcut(x))


class ResNet(nn.Module):
    """A 3x3 convolution, four stages of blocks (each but the first halves the picture), a mean over it, a linear layer.

    As in the authors' ResNet for CIFAR, every convolution is deconvolved, with five Newton-Schulz steps: the first
    and the 1x1 ones of the shortcuts too.
    """

    def __init__(
        self,
        blocks: tuple[int, ...],
        *,
        method: str,
        classes: int,
        channels: int,
        width: float,
        options: dict[str, Any],
    ) -> None:
        super().__init__()
        first, rest = first_and_rest(method)
        size = round(64 * width)
        layers = convolution(first, channels, size, 3, padding=1, options=options, bias=first != "bn")
        layers.append(nn.ReLU(inplace=True))
        before = size
        for stage, count in enumerate(blocks):
            size = round(64 * width * 2**stage)
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(Block(rest, before, size, stride=stride, options=options))
                before = size
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = head(rest, before, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x))
        return logits


def resnet18(**arguments: Any) -> ResNet:
    """ResNet-18: two blocks of 64, 128, 256 and 512 channels each at width 1."""
    return ResNet((2, 2, 2, 2), **arguments)
