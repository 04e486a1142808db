"""A convolution with its normalisation, and a classifier, for each method compared."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..layers import DeconvConv2d, DeconvLinear

METHODS = ("none", "bn", "nd", "nd-first")


def first_and_rest(method: str) -> tuple[str, str]:
    """What a method is in the first convolution and in all others: ``"nd-first"`` is ND there and BN elsewhere.

    Raises:
        ValueError: unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; there are {', '.join(METHODS)}")
    return ("nd", "bn") if method == "nd-first" else (method, method)


def convolution(
    method: str, in_channels: int, out_channels: int, kernel_size: int, *, options: dict[str, Any], **arguments: Any
) -> list[nn.Module]:
    """A convolution as the method has it: plain, followed by batch normalisation, or on whitened patches.

    Args:
        method: ``"none"``, ``"bn"`` or ``"nd"``.
        options: of the layer on whitened patches alone.
        arguments: of every convolution, such as ``padding``.
    """
    if method == "nd":
        return [DeconvConv2d(in_channels, out_channels, kernel_size, **arguments, **options)]
    plain = nn.Conv2d(in_channels, out_channels, kernel_size, **arguments)
    return [plain, nn.BatchNorm2d(out_channels)] if method == "bn" else [plain]


def head(method: str, features: int, classes: int) -> nn.Module:
    """The classifier: whitened for ``"nd"``, plain otherwise."""
    return DeconvLinear(features, classes) if method == "nd" else nn.Linear(features, classes)
