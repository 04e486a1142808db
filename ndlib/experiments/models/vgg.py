"""VGG networks for pictures of 32x32 pixels (Simonyan and Zisserman 2015, without the fully connected layers)."""

from __future__ import annotations

from torch import nn

from .blocks import Classifier, Layers

__all__ = ["vgg", "vgg16", "vgg_small"]

Plan = tuple[int | str, ...]  # channels of a 3x3 convolution, or "pool" for 2x2 maximum pooling

SMALL: Plan = (32, "pool", 64, "pool", 128, 128, "pool", 128, "pool")
SIXTEEN: Plan = (64, 64, "pool", 128, 128, "pool", *[256] * 3, "pool", *[512] * 3, "pool", *[512] * 3, "pool")


def vgg(plan: Plan, layers: Layers, channels: int, classes: int) -> Classifier:
    """3x3 convolutions with ReLU, pooling between them, an average over what is left of the picture, a linear layer.

    Convolutions keep their bias beside batch normalisation. In the authors' deconvolved VGG the first convolution
    takes 15 Newton-Schulz steps.

    >>> [type(m).__name__ for m in vgg((8, "pool"), Layers("nd"), 3, 10).features]
    ['DeconvConv2d', 'ReLU', 'MaxPool2d', 'AdaptiveAvgPool2d', 'Flatten']
    """
    features: list[nn.Module] = []
    for step in plan:
        if isinstance(step, str):
            features.append(nn.MaxPool2d(2))
            continue
        size = layers.scaled(step)
        if not features:
            features += layers.stem(channels, size, 3, padding=1, bias=True, exception={"n_iter": 15})
        else:
            features += [*layers.conv_norm(channels, size, 3, padding=1, bias=True), nn.ReLU(inplace=True)]
        channels = size
    return Classifier(features, layers.head(channels, classes))


def vgg_small(layers: Layers, channels: int, classes: int) -> Classifier:
    """Five convolutions (32, 64, 128, 128 and 128 channels at width 1) for the reduced runs.

    >>> import torch
    >>> vgg_small(Layers("nd", width=0.25), 3, 10).eval()(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 10])
    """
    return vgg(SMALL, layers, channels, classes)


def vgg16(layers: Layers, channels: int, classes: int) -> Classifier:
    """VGG-16: thirteen convolutions (two of 64 and of 128 channels, three of 256, six of 512 at width 1).

    >>> import torch
    >>> vgg16(Layers("nd", width=0.25), 3, 10).eval()(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 10])
    """
    return vgg(SIXTEEN, layers, channels, classes)
