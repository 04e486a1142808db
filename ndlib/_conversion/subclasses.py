"""Convolutions and linear layers of other people's classes: what their forward does beside multiplying."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["OwnInput", "OwnWeight", "Product", "product_of"]

CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d, torch.conv1d, torch.conv2d, torch.conv3d)
TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
NAMES = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
NAMES_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
Part = Literal["input", "weight"]


@dataclass(frozen=True)
class Product:
    """The one convolution or linear product that a layer's forward ends with."""

    arguments: dict[str, Any]
    pads: bool  # its input is not the layer's, but made of it
    computes_weight: bool  # its weight is not the layer's, but made of it
    writes: bool  # to its input


class _Watch(TorchFunctionMode):
    """Notes the products; or answers with one of their arguments in their place."""

    def __init__(self, answer: Part | None = None) -> None:
        super().__init__()
        self.answer, self.seen, self.results = answer, [], []  # type: ignore[var-annotated]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in (*CONVOLUTIONS, *TRANSPOSED, F.linear):
            return func(*args, **kwargs or {})
        names = NAMES_TRANSPOSED if func in TRANSPOSED else NAMES
        given = dict(zip(names, args, strict=False)) | (kwargs or {})
        self.seen.append(given)
        if self.answer is not None:
            return given[self.answer]
        self.results.append(func(*args, **kwargs or {}))
        return self.results[-1]


def product_of(layer: Any) -> Product | None:
    """What a subclass of a convolution or linear layer computes, if that is one product; else None.

    >>> class Standardised(nn.Linear):
    ...     def forward(self, x):
    ...         return F.linear(x, self.weight / self.weight.std(), self.bias)
    >>> product_of(Standardised(3, 4)).computes_weight, product_of(nn.Linear(3, 4)).computes_weight
    (True, False)
    """
    found = [_tried(layer, training) for training in (True, False)]
    if None in found or any((f.pads, f.computes_weight) != (found[0].pads, found[0].computes_weight) for f in found):  # type: ignore[union-attr]
        return None
    return found[0]


def _tried(layer: Any, training: bool) -> Product | None:
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            trial = copy.deepcopy(layer).cpu().float().train(training)
            x = torch.randn_like(_smallest(layer, 3))
            trial.weight.normal_(0, 10)  # large, so that a limit of its norm shows
            before = x.clone(), trial.weight.clone()
            with _Watch() as watch:
                result = trial(x)
    except Exception:  # whatever a forward of somebody else's raises for this input
        return None
    if len(watch.seen) != 1 or result is not watch.results[0]:
        return None
    given = watch.seen[0]
    settings = {name: getattr(layer, name) for name in ("stride", "dilation", "groups") if hasattr(layer, name)}
    same = all(_plain(given.get(name, 1)) == _plain(value) for name, value in settings.items())
    if not same or given.get("bias") is not trial.bias:
        return None
    if not torch.equal(trial.weight, before[1]):  # it changes its own weight for good
        return None
    writes = not torch.equal(x, before[0])
    return Product(given, given["input"] is not x or writes, given["weight"] is not trial.weight, writes)


def _plain(value: Any) -> Any:
    return set(value) if isinstance(value, (tuple, list)) else {value}


def _smallest(layer: Any, more: int, **kind: Any) -> Tensor:
    """Zeros that a layer takes: feature maps as large as its kernel and some pixels more, or features."""
    if isinstance(layer, nn.Linear):
        return torch.zeros(2, layer.in_features, **kind)
    sides = [(k - 1) * d + 1 + more for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
    return torch.zeros(2, layer.in_channels, *sides, **kind)


class OwnInput:
    """What a subclass does to its input before the product, as a hook before the forward of the layer in its place."""

    def __init__(self, layer: nn.Module) -> None:
        self.own = copy.deepcopy(layer).to("meta")  # only the shape of its weight is asked for

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given, *others = *args, *kwargs.values()  # whatever the subclass calls it
        with _Watch("input"):
            return (self.own(given), *others), {}


class OwnWeight(nn.Module):
    """What a subclass makes of its weight before the product, as a parametrisation of the layer in its place."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.own = copy.deepcopy(layer)
        self.own.bias = None
        del self.own.weight

    def forward(self, weight: Tensor) -> Any:
        self.own.weight = weight
        try:
            with _Watch("weight"):
                return self.own(_smallest(self.own, 0, dtype=weight.dtype, device=weight.device))
        finally:
            del self.own.weight
