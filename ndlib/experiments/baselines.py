"""What the layers are compared with: the published algorithm done plainly, the authors' own layers, and a variant."""

from __future__ import annotations

import importlib
import math
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..functional import moments, patch_matrix, split_columns
from ..layers import DeconvConv2d, DeconvLinear, Deconvolution

__all__ = [
    "KroneckerConv2d",
    "Straightforward",
    "check_checkout",
    "official",
    "rebuilt",
    "refuse_options",
    "replace_layers",
    "straightforward",
]

Layer = TypeVar("Layer", bound=DeconvConv2d)


def refuse_options(layer: Deconvolution, **only: Any) -> None:
    """Raise ValueError if an option of a layer has another value than the one that its class has.

    >>> refuse_options(DeconvConv2d(3, 4, 3, running="covariance"), running="root")
    Traceback (most recent call last):
        ...
    ValueError: DeconvConv2d has running='root' only, got 'covariance'
    """
    for name, value in only.items():
        given = getattr(layer.options, name)
        if given != value:
            raise ValueError(f"{type(layer).__name__} has {name}={value!r} only, got {given!r}")


class Straightforward(DeconvConv2d):
    """The published algorithm as it is written down, with nothing done to make it fast: a baseline.

    The same outputs and gradients as :class:`.DeconvConv2d`, by autograd through the covariance and through all three
    products of every Newton-Schulz step. Arguments are those of :class:`.DeconvConv2d`.

    Source: Ye et al. 2020, algorithm 1.

    Raises:
        ValueError: groups, padding other than zeros, or an option of which this algorithm knows nothing.

    >>> ours, plainly = DeconvConv2d(3, 4, 3), Straightforward(3, 4, 3)
    >>> _ = plainly.load_state_dict(ours.state_dict())
    >>> x = torch.linspace(-1, 1, 3 * 100).sin().view(1, 3, 10, 10).repeat(9, 1, 1, 1)
    >>> torch.allclose(ours(x), plainly(x), rtol=1e-3, atol=1e-3)
    True
    """

    def __init__(self, *sizes: Any, **arguments: Any) -> None:
        super().__init__(*sizes, **arguments)
        if self.groups > 1 or self.padding_mode != "zeros":
            raise ValueError(f"Straightforward has no groups and pads with zeros, got {self}")
        refuse_options(self, solver="newton_schulz", centering="shared", detach_root=False, process_group=None)

    def measure(self, x: Tensor) -> tuple[Tensor, Tensor]:
        strides = [self.sampling_stride * s for s in self.stride]
        if math.prod(self.kernel_size) == 1:
            rows = x.movedim(1, -1).reshape(-1, x.shape[1])[:: math.prod(strides)]
        else:
            rows = patch_matrix(x, self.kernel_size, stride=strides, padding=self.padding, dilation=self.dilation)  # type: ignore[arg-type]
        rows = split_columns(rows, self.n_blocks, self.options.grouping).flatten(0, 1)
        mean = rows.mean(0)
        centred = rows - mean
        return mean.view(1, 1, -1), (centred.T @ centred / len(rows)).unsqueeze(0)

    def root(self, cov: Tensor) -> Tensor:
        eye = torch.eye(self.columns, dtype=cov.dtype, device=cov.device)
        a = cov[0] + self.options.eps * eye
        norm = a.norm()
        y, z = a / norm, eye
        for _ in range(self.options.n_iter):
            t = 1.5 * eye - 0.5 * z @ y
            y, z = y @ t, t @ z
        return (z / norm.sqrt()).unsqueeze(0)


class KroneckerConv2d(DeconvConv2d):
    """A convolution that whitens channels and pixels of the patches apart: y = ((x - mu) D) w + b.

    The covariance of the patches, C channels of P pixels, is taken for a Kronecker product, with which it shares the
    mean over pixels and the mean over channels,

        Cov = C_c x C_p,   D = (C_c + eps I)^(-1/2) x (C_p + eps I)^(-1/2)

    with C_c of shape (C, C) in squared units of the input, and C_p of shape (P, P) the other mean plus eps I, divided
    by its mean diagonal. All channels of a group make one block. An experiment of chapter 7, for one process.

    Args:
        before, after: channels.
        arguments: of :class:`.DeconvConv2d`, but for ``block_size``; ``running``, ``centering`` and ``grouping`` have
            their defaults.

    Raises:
        ValueError: an option that the layer does not have.

    >>> layer = KroneckerConv2d(3, 4, 3)
    >>> [tuple(root.shape) for root in layer.running_whitening()[1:]]
    [(1, 3, 3), (1, 9, 9)]
    """

    def __init__(self, before: int, after: int, kernel_size: int, **arguments: Any) -> None:
        if "block_size" in arguments:
            raise ValueError("KroneckerConv2d whitens all channels of a group together; leave out block_size")
        super().__init__(before, after, kernel_size, **arguments | {"block_size": before})
        refuse_options(self, running="root", centering="shared", grouping="interleaved", process_group=None)
        self.pixels = math.prod(self.kernel_size)
        del self.running_deconv
        for name, n in (("channels", before // self.groups), ("pixels", self.pixels)):
            self.register_buffer(f"running_{name}", torch.eye(n).repeat(self.groups, 1, 1))

    def batch_whitening(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """Mean (groups, 1, n) and roots (groups, C, C) and (groups, P, P) of this batch; they enter the averages."""
        refuse_options(self, process_group=None)  # which a training of several processes sets
        rows = self.samples(x).squeeze(1)
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        mean = rows.mean(1, keepdim=True)
        patches = (rows - mean).unflatten(2, (-1, self.pixels))  # groups, rows, channels, pixels
        across = patches.transpose(2, 3).flatten(1, 2), patches.flatten(1, 2)
        channels, pixels = (moments(t)[1] for t in across)  # whose columns have no mean
        pixels = pixels + self.options.eps * torch.eye(self.pixels).to(pixels)  # of a constant input: I
        pixels = pixels / pixels.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
        found = {"mean": mean, "channels": self.root(channels), "pixels": self.root(pixels)}
        self.remember(**{f"running_{name}": value for name, value in found.items()})
        return mean, found["channels"], found["pixels"]

    def running_whitening(self) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        mean = self.running_mean.view(self.groups, 1, -1)
        return mean, self.get_buffer("running_channels"), self.get_buffer("running_pixels")

    def fold(  # type: ignore[override]
        self, weight: Tensor, bias: Tensor | None, mean: Tensor, channels: Tensor, pixels: Tensor
    ) -> tuple[Tensor, Tensor]:
        filters = weight.flatten(2).unflatten(0, (self.groups, -1))  # groups, out, channels, pixels
        filters = channels.unsqueeze(1) @ filters @ pixels.unsqueeze(1)
        shift = (filters.flatten(2) @ mean.mT).flatten()
        return filters.reshape(weight.shape), -shift if bias is None else bias - shift


def rebuilt(layer: DeconvConv2d, kind: type[Layer], **options: Any) -> Layer:
    """A layer of another kind, or with other options, that has the sizes and the very weights of this one.

    >>> layer = DeconvConv2d(8, 4, 3, eps=0.1)
    >>> other = rebuilt(layer, DeconvConv2d, n_iter=15)
    >>> other.weight is layer.weight, other.options.eps, other.options.n_iter
    (True, 0.1, 15)
    """
    sizes = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    same: dict[str, Any] = {
        "groups": layer.groups,
        "bias": layer.bias is not None,
        "padding_mode": layer.padding_mode,
        "device": layer.weight.device,
        "dtype": layer.weight.dtype,
        **vars(layer.options),
    }
    made = kind(*sizes, **same | options)
    made.weight, made.bias = layer.weight, layer.bias
    return made.train(layer.training)


def replace_layers(model: nn.Module, new: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """The model with another layer in the place of each for which ``new`` makes one; the model itself may be one.

    >>> net = replace_layers(nn.Sequential(nn.ReLU(), nn.Tanh()), lambda m: nn.GELU() if type(m) is nn.ReLU else None)
    >>> [type(m).__name__ for m in net]
    ['GELU', 'Tanh']
    """
    if (made := new(model)) is not None:
        return made
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if (made := new(layer)) is not None:
                setattr(parent, name, made)
    return model


def straightforward(model: nn.Module) -> nn.Module:
    """The model with every deconvolved convolution computed by :class:`Straightforward`; the weights are shared.

    >>> type(straightforward(nn.Sequential(DeconvConv2d(3, 4, 3)))[0]).__name__
    'Straightforward'
    """

    def plainly(layer: nn.Module) -> nn.Module | None:
        if type(layer) is not DeconvConv2d:
            return None
        made = rebuilt(layer, Straightforward)
        made.load_state_dict(layer.state_dict())
        return made

    return replace_layers(model, plainly)


def check_checkout(checkout: Path) -> None:
    """Raise ValueError if a folder does not hold the authors' repository.

    >>> check_checkout(Path("nowhere"))
    Traceback (most recent call last):
        ...
    ValueError: nowhere is no checkout of yechengxi/deconvolution: it has no models/deconv.py
    """
    if not (checkout / "models" / "deconv.py").exists():
        raise ValueError(f"{checkout} is no checkout of yechengxi/deconvolution: it has no models/deconv.py")


def official(model: nn.Module, checkout: Path) -> nn.Module:
    """The model with the authors' own layers in place of ours, with our weights in them.

    Args:
        checkout: folder with a copy of their repository, ``deconvolution`` of ``yechengxi`` on GitHub.

    Raises:
        ValueError: there is no ``models/deconv.py`` in it.

    >>> official(nn.Sequential(), Path("nowhere"))
    Traceback (most recent call last):
        ...
    ValueError: nowhere is no checkout of yechengxi/deconvolution: it has no models/deconv.py
    """
    check_checkout(checkout)
    sys.path.insert(0, str(checkout / "models"))
    try:
        theirs = importlib.import_module("deconv")
    finally:
        sys.path.pop(0)

    def new(layer: nn.Module) -> nn.Module | None:
        made = _official_layer(theirs, layer)
        if made is not None:
            made.load_state_dict(layer.state_dict(), strict=False)
        return made

    return replace_layers(model, new)


def _official_layer(theirs: types.ModuleType, layer: nn.Module) -> nn.Module | None:
    """A layer of the authors of the sizes of this one; None if this is no deconvolution."""
    made: nn.Module | None = None
    if isinstance(layer, DeconvConv2d):
        made = theirs.FastDeconv(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size[0],
            stride=layer.stride[0],
            padding=layer.padding[0],
            bias=True,
            eps=layer.options.eps,
            n_iter=layer.options.n_iter,
            block=64,
            sampling_stride=layer.sampling_stride,
        )
    elif isinstance(layer, DeconvLinear):
        made = theirs.Delinear(layer.in_features, layer.out_features, bias=True, block=512)
    return made
