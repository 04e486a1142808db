"""MobileNet v2 for pictures of 32x32 pixels (Sandler et al. 2018): the first two halvings left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from .blocks import Classifier, Layers, Overrides

__all__ = ["Block", "inverted_residuals", "mobilenetv2"]

# (expansion, channels, blocks, stride of the first block)
PLAN = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class Block(nn.Module):
    """1x1 expansion, 3x3 depthwise convolution, 1x1 projection; at stride 1 beside the identity or a 1x1 convolution.

    In the original only blocks that keep the number of channels have a shortcut.

    >>> import torch
    >>> Block(Layers("bn"), 8, 16, 6, 2)(torch.zeros(2, 8, 6, 6)).shape
    torch.Size([2, 16, 3, 3])
    """

    def __init__(self, layers: Layers, before: int, after: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = expansion * before
        depthwise: Overrides = {"groups": hidden, "exception": {"n_iter": 1}}
        self.residual = nn.Sequential(
            *layers.conv_norm(before, hidden, 1),
            nn.ReLU(inplace=True),
            *layers.conv_norm(hidden, hidden, 3, stride=stride, padding=1, **depthwise),
            nn.ReLU(inplace=True),
            *layers.conv_norm(hidden, after, 1, exception={"n_iter": 1, "block_size": before}),
        )
        shortcut = layers.conv_norm(before, after, 1) if before != after else []
        self.shortcut = nn.Sequential(*shortcut) if stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.residual(x)
        return y if self.shortcut is None else y + self.shortcut(x)


def inverted_residuals(
    layers: Layers, before: int, plan: Iterable[tuple[int, int, int, int]], make: Callable[..., nn.Module] = Block
) -> tuple[list[nn.Module], int]:
    """Inverted residual blocks after a plan as ``PLAN``, and the channels that leave the last one.

    >>> made, channels = inverted_residuals(Layers("bn"), 8, [(6, 16, 3, 2)])
    >>> len(made), channels
    (3, 16)
    """
    made = []
    for expansion, size, blocks, stride in plan:
        for block in range(blocks):
            after = layers.scaled(size)
            made.append(make(layers, before, after, expansion, stride if block == 0 else 1))
            before = after
    return made, before


def mobilenetv2(layers: Layers, channels: int, classes: int) -> Classifier:
    """MobileNet v2: a stem, 17 blocks, a 1x1 convolution to 1280 channels.

    In the authors' deconvolved network the stem takes 10 Newton-Schulz steps; depthwise convolutions and projections
    take a single one, which whitens next to nothing; projections have blocks of as many channels as come into
    their inverted residual block.

    >>> import torch
    >>> mobilenetv2(Layers("nd", width=0.25), 3, 10).eval()(torch.zeros(1, 3, 16, 16)).shape
    torch.Size([1, 10])
    """
    before, last = layers.scaled(32), layers.scaled(1280)
    stem = layers.stem(channels, before, 3, padding=1, exception={"n_iter": 10})
    blocks, before = inverted_residuals(layers, before, PLAN)
    features = [*stem, *blocks, *layers.conv_norm(before, last, 1), nn.ReLU(inplace=True)]
    return Classifier(features, layers.head(last, classes))
