"""VGG networks for pictures of 32x32 pixels (Simonyan and Zisserman 2015, without the fully connected layers)."""

from __future__ import annotations

from torch import Tensor, nn

from .blocks import convolution, head

Plan = tuple[int | str, ...]  # channels of a 3x3 convolution, or "pool" for 2x2 maximum pooling

SMALL: Plan = (32, "pool", 64, "pool", 128, 128, "pool", 128, "pool")


class VGG(nn.Module):
    """3x3 convolutions with ReLU, pooling between them, an average over what is left of the picture, a linear layer.

    As in the authors' VGG, the first convolution of the deconvolved network takes 15 Newton-Schulz steps and
    its classifier is whitened too.
    """

    def __init__(self, plan: Plan, *, method: str, classes: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for step in plan:
            if isinstance(step, str):
                layers.append(nn.MaxPool2d(2))
            else:
                layers += convolution(method, channels, step, 3, padding=1, n_iter=5 if layers else 15)
                layers.append(nn.ReLU(inplace=True))
                channels = step
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = head(method, channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x))
        return logits


def vgg_small(*, method: str, classes: int, channels: int = 3, width: float = 1.0) -> VGG:
    """Five convolutions (32, 64, 128, 128 and 128 channels at width 1) for the reduced runs."""
    plan = tuple(step if isinstance(step, str) else round(step * width) for step in SMALL)
    return VGG(plan, method=method, classes=classes, channels=channels)
