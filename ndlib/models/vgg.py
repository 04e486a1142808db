"""VGG networks for pictures of 32x32 pixels (Simonyan and Zisserman 2015, without the fully connected layers)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .blocks import convolution, first_and_rest, head

Plan = tuple[int | str, ...]  # channels of a 3x3 convolution, or "pool" for 2x2 maximum pooling

SMALL: Plan = (32, "pool", 64, "pool", 128, 128, "pool", 128, "pool")
SIXTEEN: Plan = (64, 64, "pool", 128, 128, "pool", *[256] * 3, "pool", *[512] * 3, "pool", *[512] * 3, "pool")


class VGG(nn.Module):
    """3x3 convolutions with ReLU, pooling between them, an average over what is left of the picture, a linear layer.

    As in the authors' VGG, the first convolution of the deconvolved network takes 15 Newton-Schulz steps and
    its classifier is whitened too.
    """

    def __init__(
        self, plan: Plan, *, method: str, classes: int, channels: int, width: float, options: dict[str, Any]
    ) -> None:
        super().__init__()
        first, rest = first_and_rest(method)
        layers: list[nn.Module] = []
        for step in plan:
            if isinstance(step, str):
                layers.append(nn.MaxPool2d(2))
                continue
            size = round(step * width)
            if not layers:
                layers += convolution(first, channels, size, 3, padding=1, options={"n_iter": 15} | options)
            else:
                layers += convolution(rest, channels, size, 3, padding=1, options=options)
            layers.append(nn.ReLU(inplace=True))
            channels = size
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = head(rest, channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x))
        return logits


def vgg_small(**arguments: Any) -> VGG:
    """Five convolutions (32, 64, 128, 128 and 128 channels at width 1) for the reduced runs."""
    return VGG(SMALL, **arguments)


def vgg16(**arguments: Any) -> VGG:
    """VGG-16: thirteen convolutions (two of 64 and of 128 channels, three of 256, six of 512 at width 1)."""
    return VGG(SIXTEEN, **arguments)
