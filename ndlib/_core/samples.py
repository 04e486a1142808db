"""Normalisation of each sample by itself, as the authors' follow-up puts it before whitening."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["SampleNorm", "SampleNormKind", "normalise_samples"]

SampleNormKind = Literal["l1", "layernorm"]
EPS = 1e-4  # added to the standard deviation


def normalise_samples(x: Tensor, kind: SampleNormKind, dimensions: int) -> Tensor:
    """x / mean |x|, or (x - mean) / (standard deviation + 1e-4), over the last ``dimensions``; in float32 at least.

    A sample that is zero everywhere stays so.

    >>> normalise_samples(torch.tensor([[1.0, -3.0], [0.0, 0.0]]), "l1", 1).tolist()
    [[0.5, -1.5], [0.0, 0.0]]
    """
    sample = tuple(range(-dimensions, 0))
    values = x.to(torch.promote_types(x.dtype, torch.float32))
    if kind == "l1":
        size = values.abs().mean(sample, keepdim=True)
        return (values / torch.where(size > 0, size, 1)).to(x.dtype)
    centred = values - values.mean(sample, keepdim=True)
    return (centred / (values.std(sample, keepdim=True) + EPS)).to(x.dtype)


class SampleNorm(nn.Module):
    """The same as a module, which stays before a plain layer: no weights can do it.

    >>> SampleNorm("l1", 3)(torch.tensor([[[[2.0, -2.0]]]])).tolist()
    [[[[1.0, -1.0]]]]
    """

    def __init__(self, kind: SampleNormKind, dimensions: int) -> None:
        super().__init__()
        self.kind, self.dimensions = kind, dimensions

    def forward(self, input: Tensor) -> Tensor:
        return normalise_samples(input, self.kind, self.dimensions)

    def extra_repr(self) -> str:
        return f"{self.kind}, the last {self.dimensions} dimensions"
