"""What ``python -m ndlib models`` shows: size, cost and placement of deconvolution of each architecture.

Everything is read off the networks themselves, built on PyTorch's meta device, which has shapes but no numbers.
"""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ..._core.whitening import block_size_for
from ...files import path
from ...layers import DeconvConv2d, Deconvolution
from .. import ledger
from ..operations import forward_operations, whitening_operations
from . import ARCHITECTURES, build, one_of
from .blocks import METHODS

__all__ = ["Summary", "describe_architecture", "exceptions", "list_architectures", "net_sizes", "on_meta", "pictures"]

BATCH = 128


VARIANTS = ("paper", "uniform")  # "recommended" deconvolves the layers of "uniform"


@dataclass(frozen=True)
class Summary:
    """One architecture at width 1, on pictures of the size it was published for.

    ``parameters`` by form. ``published``: net size of table 1, in millions. ``plain``: floating-point operations of the
    plain form on one picture, forward; a multiplication with its addition counts as two. ``extra``: what deconvolution
    adds to that in training, forward, in the published algorithm at a batch of 128 pictures, of which each pays its
    share. ``deconvolved`` and ``kept`` convolutions of the deconvolved form, ``norms`` that it keeps, ``exceptions``
    in words.

    >>> describe_architecture("vgg-small").deconvolved
    5
    """

    arch: str
    parameters: dict[str, int]
    published: float | None
    plain: float
    extra: float
    deconvolved: int
    kept: int
    norms: int
    exceptions: str

    @property
    def difference(self) -> float | None:
        """Percent by which the deconvolved form has more parameters than table 1 says."""
        return None if self.published is None else 100 * (self.parameters["nd"] / 1e6 / self.published - 1)


@cache
def net_sizes() -> dict[str, float]:
    """Net sizes of table 1 in millions, by the names used there.

    >>> net_sizes()["VGG-16"]
    14.71
    """
    with path("published/table1_original_ye2020.csv").open() as stream:
        return {row["architecture"]: float(row["net_size_millions"]) for row in csv.DictReader(stream)}


def on_meta(arch: str, method: str, **arguments: Any) -> nn.Module:
    """A network without numbers: shapes only, and no memory.

    >>> on_meta("vgg16", "nd").features[0].weight.is_meta
    True
    """
    architecture = ARCHITECTURES[arch]
    sizes: dict[str, Any] = {"classes": architecture.classes, "channels": architecture.channels}
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build(arch, method=method, **sizes | arguments).eval()


def pictures(arch: str, count: int = BATCH) -> Tensor:
    """Pictures without numbers, of the size the architecture was published for.

    >>> pictures("vgg16").shape
    torch.Size([128, 3, 32, 32])
    """
    architecture = ARCHITECTURES[arch]
    return torch.empty(count, architecture.channels, architecture.size, architecture.size, device="meta")


def exceptions(model: nn.Module) -> str:
    """How deconvolved convolutions of a network differ from the defaults, in words: "first: 15 steps" for instance.

    >>> exceptions(on_meta("vgg16", "nd"))
    'first: 15 steps'
    """
    convolutions = [m for m in model.modules() if isinstance(m, DeconvConv2d)]
    alike: dict[tuple[Any, ...], list[int]] = {}  # block sizes of the layers that are said in one phrase
    for i, layer in enumerate(convolutions):
        steps, block = layer.options.n_iter, layer.columns // math.prod(layer.kernel_size)
        other_block = layer.groups == 1 and block != block_size_for(layer.in_channels, 64)
        phrase = (i == 0, _kind(layer), steps, layer.sampling_stride, steps == 5 and other_block)
        alike.setdefault(phrase, []).append(block if other_block else 64)
    phrases = []
    for (first, kind, steps, stride, _), blocks in alike.items():
        words = [f"{steps} step{'s' * (steps > 1)}"] * (steps != 5) + [f"sampling stride {stride}"] * (stride != 3)
        if set(blocks) != {64}:
            words.append(f"blocks of {min(blocks)}" + f" to {max(blocks)}" * (len(set(blocks)) > 1))
        if words:
            phrases.append(f"{'first' if first else f'{len(blocks)} {kind}'}: {', '.join(words)}")
    return "; ".join(phrases)


def _kind(layer: nn.Conv2d) -> str:
    if layer.groups == 1:
        return f"{layer.kernel_size[0]}x{layer.kernel_size[1]}"
    return "depthwise" if layer.groups == layer.in_channels else "grouped"


@cache
def describe_architecture(arch: str, variant: str = "paper") -> Summary:
    """Everything about one architecture.

    >>> about = describe_architecture("vgg-small")
    >>> about.parameters["nd"], about.deconvolved, about.exceptions
    (389706, 5, 'first: 15 steps')
    """
    nets = {method: on_meta(arch, method, variant=variant) for method in ARCHITECTURES[arch].methods}
    deconvolved = nets["nd"]
    convolutions = [m for m in deconvolved.modules() if isinstance(m, nn.Conv2d)]
    whitened = sum(isinstance(m, Deconvolution) for m in convolutions)
    x = pictures(arch)
    return Summary(
        arch=arch,
        parameters={method: sum(p.numel() for p in net.parameters()) for method, net in nets.items()},
        published=net_sizes().get(ledger.display_name(arch)),
        plain=forward_operations(nets["none"], x[:1]),
        extra=whitening_operations(deconvolved, x) / len(x),
        deconvolved=whitened,
        kept=len(convolutions) - whitened,
        norms=sum(isinstance(m, nn.BatchNorm2d) for m in deconvolved.modules()),
        exceptions=exceptions(deconvolved),
    )


def list_architectures(archs: Collection[str] = (), variant: str = "paper") -> Iterator[str]:
    """What :func:`describe_architecture` says of some architectures, or of all, line by line as it is found out.

    Raises:
        ValueError: unknown architecture or variant; the message lists the valid ones.

    >>> lines = list(list_architectures(["vgg-small"]))
    >>> lines[1].split()[:3]
    ['vgg-small', '0.39', '0.39']
    """
    for arch in archs:
        one_of("architecture", arch, ARCHITECTURES)
    one_of("variant", variant, VARIANTS)
    yield _line("", METHODS, "table 1", "differs", "GFLOP", "ND adds", "whitened")
    for arch in archs or ARCHITECTURES:
        s = describe_architecture(arch, variant)
        millions = [f"{s.parameters[m] / 1e6:.2f}" if m in s.parameters else "" for m in METHODS]
        published = "" if s.published is None else f"{s.published:.2f}"
        differs = "" if s.difference is None else f"{s.difference:+.2f} %"
        yield _line(arch, millions, published, differs, _gflop(s.plain), _gflop(s.extra), _whitened(s))
    yield from ("", *LEGEND)


def _line(arch: str, forms: Iterable[str], published: str, differs: str, plain: str, extra: str, whitened: str) -> str:
    sizes = "".join(f"{form:>{max(8, len(method) + 2)}}" for form, method in zip(forms, METHODS, strict=True))
    return f"{arch:20}{sizes}{published:>9}{differs:>10}{plain:>11}{extra:>11}  {whitened}".rstrip()


LEGEND = (
    "none to kronecker: parameters in millions, by form. Table 1 counts the deconvolved form with 10 classes, in two",
    "decimals, VGG-16's cut off, the others rounded; the 0.13 of PNASNetA leaves room for 4 %.",
    "GFLOP: plain form, one picture, forward. ND adds: in training, forward, a picture's share in a batch of 128.",
    "whitened: convolutions deconvolved, of all, and what differs from 5 steps, blocks of 64 and sampling stride 3.",
)


def _gflop(operations: float) -> str:
    digits = max(0, 2 - math.floor(math.log10(operations / 1e9)))  # three in all
    return f"{operations / 1e9:.{digits}f}"


def _whitened(s: Summary) -> str:
    convolutions = s.deconvolved + s.kept
    words = [f"{s.deconvolved} of {convolutions}" if convolutions else "no convolutions: features in blocks of 32"]
    words += [f"BN kept: {s.norms}"] * (s.norms > 0) + [s.exceptions] * bool(s.exceptions)
    return "; ".join(words)
