"""EfficientNet as the authors of network deconvolution have it, for pictures of 32x32 pixels."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from . import mobilenet
from .blocks import Classifier, Layers, SqueezeExcitation

__all__ = ["Block", "efficientnet"]

# (expansion, channels, blocks, stride of the first block)
PLAN = ((1, 16, 1, 2), (6, 24, 2, 1), (6, 40, 2, 2), (6, 80, 3, 2), (6, 112, 3, 1), (6, 192, 4, 2), (6, 320, 1, 2))


class Block(mobilenet.Block):
    """With r = residual(x), as in MobileNet v2: squeeze(r) + shortcut(x) at stride 1, squeeze(r) + r at stride 2.

    >>> import torch
    >>> Block(Layers("bn"), 8, 16, 6, 2)(torch.zeros(2, 8, 6, 6)).shape
    torch.Size([2, 16, 3, 3])
    """

    def __init__(self, layers: Layers, before: int, after: int, expansion: int, stride: int) -> None:
        super().__init__(layers, before, after, expansion, stride)
        self.squeeze = SqueezeExcitation(layers, after)

    def forward(self, x: Tensor) -> Tensor:
        r = self.residual(x)
        shortcut = r if self.shortcut is None else self.shortcut(x)
        y: Tensor = self.squeeze(r) + shortcut
        return y


def efficientnet(layers: Layers, channels: int, classes: int) -> Classifier:
    """EfficientNet (after Tan and Le 2019, B0): a stem, 16 blocks, no 1x1 convolution before the classifier.

    What differs from EfficientNet-B0, as in the authors' network: ReLU; 3x3 kernels throughout; the squeeze stands at
    the end of a block and has a sixteenth of its channels; a block of stride 2 adds its own output as if it were a
    shortcut (so that its squeeze multiplies by factors between 1 and 2); 2.9 instead of 4.0 million parameters (without
    classifiers).

    In the authors' deconvolved network only the very first convolution (10 Newton-Schulz steps) and the classifier are
    whitened: the flag that reaches the blocks is a constant None, and every block keeps its batch normalisation. The
    variant ``"uniform"`` deconvolves all of them.

    >>> import torch
    >>> efficientnet(Layers("nd", width=0.25), 3, 10).eval()(torch.zeros(1, 3, 16, 16)).shape
    torch.Size([1, 10])
    """
    inside = replace(layers, method="bn") if layers.paper and layers.method == "nd" else layers
    before = layers.scaled(32)
    stem = layers.stem(channels, before, 3, padding=1, exception={"n_iter": 10})
    blocks, before = mobilenet.inverted_residuals(inside, before, PLAN, Block)
    return Classifier([*stem, *blocks], layers.head(before, classes))
