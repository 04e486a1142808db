"""The architectures of the benchmarks, each written once with the normalisation as a parameter.

Ten networks for 32x32 pixels (``vgg16`` to ``efficientnet``, table 1 of Ye et al. 2020) and a small one, perceptrons,
and torchvision's networks for ImageNet and segmentation. ``python -m ndlib models`` lists them.

Forms (``method``):

* ``none``: neither normalisation nor deconvolution; every convolution has a bias.
* ``bn``: batch normalisation where the architecture has it, before or behind the convolution.
* ``nd``: deconvolution in the place of batch normalisation, and a whitened classifier.
* ``nd-first``: only the first convolution deconvolved, batch normalisation everywhere else.
* ``bn-frozen``: the same, but the first convolution whitens with the mean and the exact root of the training images,
  set once by :func:`fit_whitening`.
* ``kronecker``: as ``nd``, but channels and pixels of the patches are whitened apart.

Variants of the two deconvolved forms: ``paper`` deconvolves what the authors' code deconvolves, with its exceptions,
which the docstring of each architecture names; ``uniform`` deconvolves every convolution with the same defaults;
``recommended`` is what ``ndlib.convert(net, **ndlib.RECOMMENDED)`` makes of the network with batch normalisation. One
exception is left out of all: most of the authors' networks freeze the running averages of the first layer in cycles
(101 training steps measured, 899 not); here that layer measures every step.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..._conversion.norms import BATCH_NORMS
from ..._core.options import ABOUT, parse_option
from ...files import written_whole
from . import imagenet
from .blocks import METHODS, VARIANTS, FrozenConv2d, Layers
from .densenet import densenet121
from .dpn import dpn92
from .efficientnet import efficientnet
from .mobilenet import mobilenetv2
from .perceptron import logistic, mlp_relu, mlp_sigmoid
from .pnasnet import pnasneta
from .resnet import preact18, resnet18, senet18
from .resnext import resnext29
from .vgg import vgg16, vgg_small

__all__ = [
    "ARCHITECTURES",
    "METHODS",
    "VARIANTS",
    "Architecture",
    "build",
    "fit_whitening",
    "load_network",
    "one_of",
    "save_network",
]


@dataclass(frozen=True)
class Architecture:
    """How to make a network, and what it is made for.

    Args:
        make: from ``Layers``, the input channels (or the values of a picture, if ``flat``) and the number of classes.
        methods: that it exists in.
        size, channels, classes: of the pictures it was published for: side in pixels.
        smallest: side that it can take.
        scalable: whether there are widths other than 1.
        torchvision: whether the network is torchvision's, which takes colour pictures alone.
        flat: whether it takes a picture as a vector.

    >>> ARCHITECTURES["vgg16"].smallest
    32
    """

    make: Callable[[Layers, int, int], nn.Module]
    methods: tuple[str, ...] = METHODS
    size: int = 32
    channels: int = 3
    classes: int = 10
    smallest: int = 1
    scalable: bool = True
    torchvision: bool = False
    flat: bool = False


_IMAGENET: dict[str, Any] = {"methods": ("none", "bn", "nd"), "size": 224, "classes": 1000, "smallest": 32}
_IMAGENET |= {"scalable": False, "torchvision": True}
_MLP: dict[str, Any] = {"methods": ("none", "bn", "nd"), "size": 28, "channels": 1, "flat": True}

ARCHITECTURES: dict[str, Architecture] = {
    "vgg-small": Architecture(vgg_small, smallest=16),
    "vgg16": Architecture(vgg16, smallest=32),
    "resnet18": Architecture(resnet18),
    "preact18": Architecture(preact18),
    "densenet121": Architecture(densenet121, smallest=8),
    "resnext29": Architecture(resnext29),
    "mobilenetv2": Architecture(mobilenetv2),
    "dpn92": Architecture(dpn92),
    "pnasneta": Architecture(pnasneta),
    "senet18": Architecture(senet18),
    "efficientnet": Architecture(efficientnet),
    "mlp-sigmoid": Architecture(mlp_sigmoid, **_MLP),
    "mlp-relu": Architecture(mlp_relu, **_MLP),
    "logistic": Architecture(logistic, methods=("none", "nd"), flat=True, scalable=False),
    "imagenet-vgg11": Architecture(imagenet.vgg11, **_IMAGENET),
    "imagenet-resnet18": Architecture(imagenet.resnet18, **_IMAGENET),
    "imagenet-densenet121": Architecture(imagenet.densenet121, **_IMAGENET),
    "deeplabv3": Architecture(imagenet.deeplabv3, **_IMAGENET | {"size": 480, "classes": 21}),
}


def build(
    arch: str,
    *,
    method: str,
    classes: int,
    channels: int = 3,
    size: int | None = None,
    width: float = 1.0,
    variant: str = "paper",
    options: dict[str, Any] | None = None,
) -> nn.Module:
    """A network by name.

    Args:
        arch: one of ``ARCHITECTURES``.
        method: ``"none"``, ``"bn"``, ``"nd"``, ``"nd-first"``, ``"bn-frozen"`` or ``"kronecker"``, see above; not
            every architecture has all of them.
        classes, channels: outputs and input channels.
        size: side of the pictures in pixels. None: that of the data set the architecture was published for. Only the
            perceptrons need it; of the others it checks that the network can take such pictures.
        width: factor on the number of channels of every hidden layer; where it is not 1 they are multiples of 8.
        variant: where deconvolution stands: ``"paper"``, ``"uniform"`` or ``"recommended"``.
        options: of every deconvolved convolution, such as ``{"block_size": 16}``; they replace what the architecture
            has. ``"bn-frozen"`` takes ``eps``, ``block_size`` and ``grouping`` only, ``"bn"`` the ``momentum`` of its
            running averages.

    Raises:
        ValueError: an unknown name, for which the message lists the valid ones, or a combination that does not exist.

    >>> net = build("vgg-small", method="nd", classes=10, width=0.25, options={"block_size": 8})
    >>> net.eval()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    >>> build("lenet", method="nd", classes=10)
    Traceback (most recent call last):
        ...
    ValueError: unknown architecture 'lenet'; there are vgg-small, vgg16, resnet18, ...
    """
    one_of("architecture", arch, ARCHITECTURES)
    one_of("method", method, METHODS)
    one_of("variant", variant, VARIANTS)
    architecture, options = ARCHITECTURES[arch], options or {}
    if method not in architecture.methods:
        raise ValueError(f"{arch} has no form {method!r}; it has {', '.join(architecture.methods)}")
    for name in options:
        one_of("option", name, _options(method))
    if not width > 0 or (width != 1 and not architecture.scalable):
        wanted = "positive" if architecture.scalable else f"1, {arch} has no other"
        raise ValueError(f"width must be {wanted}, got {width:g}")
    if architecture.torchvision and channels != 3:
        raise ValueError(f"{arch} takes pictures of 3 channels, got channels={channels}")
    if variant == "recommended" and (architecture.flat or method == "kronecker"):
        raise ValueError(f"the recommended setting is that of convolutions: {arch} has none as {method!r}")
    side = architecture.size if size is None else size
    if side < architecture.smallest:
        raise ValueError(f"{arch} needs pictures of at least {architecture.smallest} pixels a side, got size={side}")
    inputs = channels * side**2 if architecture.flat else channels
    model = architecture.make(Layers(method, variant, options, width), inputs, classes)
    if method == "bn" and "momentum" in options:
        for module in model.modules():
            if isinstance(module, BATCH_NORMS):
                module.momentum = options["momentum"]
    model.sizes = {"classes": classes, "channels": channels, "size": size}  # type: ignore[assignment]  # for load_network
    return model


def one_of(what: str, name: str, valid: Collection[str]) -> None:
    """Raise ValueError, with the valid names in its message, unless this is one of them.

    >>> one_of("colour", "blue", ("red", "green"))
    Traceback (most recent call last):
        ...
    ValueError: unknown colour 'blue'; there are red, green
    """
    if name not in valid:
        there = f"there are {', '.join(valid)}" if valid else "this method takes none"
        raise ValueError(f"unknown {what} {name!r}; {there}")


def _options(method: str) -> list[str]:
    """Overrides that the layers of a method take."""
    if method == "bn-frozen":
        return ["eps", "block_size", "grouping"]
    if method == "kronecker":
        names = ("detach_root", "eps", "freeze_after", "momentum", "n_iter", "sampling_stride", "solver")
        return [*names, "update_every"]
    if method == "none":
        return []
    if method == "bn":
        return ["momentum"]
    return sorted(ABOUT)


def fit_whitening(model: nn.Module, images: Tensor) -> None:
    """Set the frozen first convolution of a ``bn-frozen`` network from training images, before the network is used.

    The same images give the same whitening; a few thousand are enough for the covariance of 3x3 patches.

    Args:
        model: of ``build(..., method="bn-frozen")``.
        images: as the network will see them, normalised and on any device, shape (N, C, H, W).

    Raises:
        ValueError: the model has no such layer.

    >>> net = build("vgg-small", method="bn-frozen", classes=10, width=0.25)
    >>> fit_whitening(net, torch.randn(50, 3, 16, 16))
    >>> net.features[0].running_deconv.shape
    torch.Size([27, 27])
    """
    frozen = [m for m in model.modules() if isinstance(m, FrozenConv2d)]
    if not frozen:
        raise ValueError("the network has no frozen whitening to fit; method='bn-frozen' builds one")
    for layer in frozen:
        layer.fit(images)


def save_network(model: nn.Module, file: Path, record: dict[str, Any]) -> None:
    """Write a trained network for reading, not for training on: half precision, with the record of its run.

    Of the symmetric running roots only the upper triangle is stored.

    >>> net = build("vgg-small", method="bn", classes=10, width=0.25)
    >>> record = {"arch": "vgg-small", "method": "bn", "width": 0.25, "variant": "paper", "options": ""}
    >>> save_network(net, Path("net.npz"), record)
    >>> load_network(Path("net.npz"))[1]["method"]
    'bn'
    >>> Path("net.npz").unlink()
    """
    arrays: dict[str, Any] = {"record": np.array(json.dumps(record)), "sizes": np.array(json.dumps(model.sizes))}
    for name, tensor in model.state_dict().items():
        array = tensor.cpu().numpy()
        if name.endswith("running_deconv"):
            array = array[..., *np.triu_indices(array.shape[-1])]
        arrays[name] = array.astype(np.float16) if array.dtype.kind == "f" else array
    with written_whole(file) as stream:
        np.savez_compressed(stream, **arrays)


def load_network(file: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network that :func:`save_network` wrote, in evaluation mode and single precision, and its run's record.

    Raises:
        OSError: the file cannot be read.

    >>> from ndlib.files import path
    >>> network, record = load_network(path("weights/vgg-small-nd.npz"))
    >>> record["arch"], network.training
    ('vgg-small', False)
    """
    with np.load(file, allow_pickle=False) as stored:
        arrays = dict(stored)
    record = json.loads(str(arrays.pop("record")))
    sizes = json.loads(str(arrays.pop("sizes"))) if "sizes" in arrays else None
    state = {}
    for name, array in arrays.items():
        tensor = torch.from_numpy(array)
        if name.endswith("running_deconv"):
            tensor = _from_triangle(tensor)
        state[name] = tensor.float() if tensor.is_floating_point() else tensor
    if sizes is None:  # written before there were networks whose weights do not tell them
        sizes = {"classes": state["classifier.weight"].shape[0], "channels": state["features.0.weight"].shape[1]}
    form = {name: record[name] for name in ("method", "width", "variant")}
    model = build(record["arch"], **form, **sizes, options=dict(map(parse_option, record["options"].split())))
    model.load_state_dict(state)
    return model.eval(), record


def _from_triangle(values: Tensor) -> Tensor:
    n = (math.isqrt(8 * values.shape[-1] + 1) - 1) // 2
    i, j = torch.triu_indices(n, n)
    full = values.new_zeros(*values.shape[:-1], n, n)
    full[..., i, j] = full[..., j, i] = values
    return full
