"""A convolution with its normalisation, and a classifier, for each method compared."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..layers import DeconvConv2d, DeconvLinear

METHODS = ("none", "bn", "nd")


def convolution(
    method: str, in_channels: int, out_channels: int, kernel_size: int, *, n_iter: int = 5, **options: Any
) -> list[nn.Module]:
    """A convolution as the method has it: plain, followed by batch normalisation, or on whitened patches.

    Raises:
        ValueError: unknown method.
    """
    if method == "nd":
        return [DeconvConv2d(in_channels, out_channels, kernel_size, n_iter=n_iter, **options)]
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; there are {', '.join(METHODS)}")
    plain = nn.Conv2d(in_channels, out_channels, kernel_size, **options)
    return [plain, nn.BatchNorm2d(out_channels)] if method == "bn" else [plain]


def head(method: str, features: int, classes: int) -> nn.Module:
    """The classifier: whitened for ``"nd"``, plain otherwise."""
    return DeconvLinear(features, classes) if method == "nd" else nn.Linear(features, classes)
