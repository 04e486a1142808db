"""What deconvolution costs, counted: floating-point operations, and operators that a device is asked to run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._core.counting import WARM_UP
from .._core.private_torch import TorchDispatchMode
from ..layers import ChannelDeconv, DeconvConv2d, DeconvLinear, Deconvolution

__all__ = [
    "STAGES",
    "begin_cycle",
    "forward_operations",
    "inputs_of",
    "launches",
    "predicted_operations",
    "whitening_operations",
]

STAGES = ("convolution", "statistics", "root", "folding")


def predicted_operations(layer: DeconvConv2d, shape: tuple[int, ...]) -> dict[str, float]:
    """Floating-point operations of the stages of a training step, forward and backward, in the published algorithm.

    A product of an (a, b) by a (b, c) matrix counts 2 a b c. With R sampled patches of n columns in G blocks:
    covariance 2 G R n^2; three products of 2 n^3 in each Newton-Schulz step; folding 2 G n^2 for each output. The
    backward pass of a product takes two. Elementwise work is not counted.

    Args:
        shape: of the input, (N, C, H, W).

    Source: Ye et al. 2020, algorithm 1.

    >>> counts = predicted_operations(DeconvConv2d(3, 4, 3, stride=2), (1, 3, 9, 9))
    >>> counts["convolution"] == 3 * 2 * 16 * 4 * 27
    True
    """
    padding: Any = layer.padding  # numbers: the networks here have no other
    sizes = [
        (side + 2 * p - d * (k - 1) - 1, s)
        for side, p, d, k, s in zip(shape[2:], padding, layer.dilation, layer.kernel_size, layer.stride, strict=True)
    ]
    positions = shape[0] * math.prod(free // s + 1 for free, s in sizes)
    sampled = shape[0] * math.prod(free // (s * layer.sampling_stride) + 1 for free, s in sizes)
    n, blocks, groups = layer.columns, layer.n_blocks, layer.n_groups
    steps = layer.options.n_iter
    return {
        "convolution": 3 * 2 * positions * layer.out_channels * blocks * n,
        "statistics": 3 * 2 * groups * blocks * sampled * n**2,
        "root": 3 * 2 * groups * 3 * steps * n**3,
        "folding": 3 * 2 * layer.out_channels * blocks * n**2,
    }


def inputs_of(model: nn.Module, x: Tensor) -> dict[str, tuple[DeconvConv2d, Tensor]]:
    """Every deconvolved convolution of a model, by name, with the input that it meets for this batch.

    >>> net = nn.Sequential(DeconvConv2d(3, 4, 3), DeconvConv2d(4, 2, 1)).eval()
    >>> {name: tuple(x.shape) for name, (_, x) in inputs_of(net, torch.zeros(1, 3, 8, 8)).items()}
    {'0': (1, 3, 8, 8), '1': (1, 4, 6, 6)}
    """
    found = {}
    hooks = [
        module.register_forward_pre_hook(lambda m, args, name=name: found.update({name: (m, args[0].detach())}))
        for name, module in model.named_modules()
        if isinstance(module, DeconvConv2d)
    ]
    model(x)
    for hook in hooks:
        hook.remove()
    return found


def forward_operations(model: nn.Module, x: Tensor) -> int:
    """Floating-point operations of all convolutions and linear layers for a batch, forward; the rest is not counted.

    A multiplication with its addition counts as two. On the meta device nothing is computed.

    >>> forward_operations(nn.Linear(3, 2), torch.empty(10, 3)) == 10 * 2 * (3 * 2)
    True
    """
    total = 0

    def count(module: Any, _: tuple[Tensor, ...], y: Tensor) -> None:
        nonlocal total
        total += 2 * y.numel() * module.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    model(x)
    for hook in hooks:
        hook.remove()
    return total


def whitening_operations(model: nn.Module, x: Tensor) -> float:
    """Operations that deconvolution adds for a batch in training, forward, in the published algorithm.

    Covariance, root and folding as in :func:`predicted_operations`, of linear layers and ``ChannelDeconv`` too; the
    latter multiplies the data by its root instead of folding it.

    >>> layer = DeconvLinear(4, 2)
    >>> whitening_operations(layer, torch.randn(10, 4)) == 2 * 10 * 4**2 + 5 * 3 * 2 * 4**3 + 2 * 2 * 4**2
    True
    """
    total = 0.0
    for layer, seen in inputs_of(model, x).values():
        counts = predicted_operations(layer, tuple(seen.shape))  # forward and backward, the latter twice the former
        total += sum(counts[stage] for stage in ("statistics", "root", "folding")) / 3
    for module in model.modules():
        if isinstance(module, (DeconvLinear, ChannelDeconv)):  # which meet vectors here, one a picture
            n, blocks = module.columns, module.n_blocks
            multiplied = module.out_features if isinstance(module, DeconvLinear) else len(x)
            total += 2 * len(x) * blocks * n**2 + 2 * multiplied * blocks * n**2
            total += 3 * module.options.n_iter * 2 * n**3
    return total


class _Calls(TorchDispatchMode):
    """Counts the operators that compute something: no views, no empty memory, no questions about types."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        schema = func._schema
        returned = [r for r in schema.returns if str(r.type).startswith("Tensor")]
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in returned)
        idle = schema.name.startswith("aten::empty") or schema.name in ("aten::_unsafe_view", "aten::resize_")
        self.number += bool(returned) and not view and not idle
        return func(*args, **(kwargs or {}))


def launches(make: Callable[[], nn.Module], *, batch_size: int = 128) -> float:
    """Operators that a training step (without the optimiser's) of a network for 32x32 colour pictures issues.

    With ``update_every`` the mean over a whole cycle of steps after the warm-up. That is about the number of kernels
    that a GPU is asked to start one by one, whatever their size. Counted on the meta device, where the layers take the
    way that they take on a GPU and nothing is computed.

    Args:
        make: makes the network, ten classes.

    >>> launches(lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)))  # product, loss, and their gradients
    8.0
    """
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*rows for a covariance")
        model = make()
        x, labels = torch.empty(batch_size, 3, 32, 32), torch.empty(batch_size, dtype=torch.long)
        every = begin_cycle(model)
        with _Calls() as calls:
            for _ in range(every):
                F.cross_entropy(model(x), labels).backward()
    return calls.number / every


def begin_cycle(model: nn.Module) -> int:
    """Have the warm-up of ``update_every`` behind it; how many steps then make a cycle.

    >>> begin_cycle(DeconvConv2d(3, 4, 3, update_every=4)), begin_cycle(nn.Linear(2, 2))
    (4, 1)
    """
    layers = [m for m in model.modules() if isinstance(m, Deconvolution)]
    for layer in layers:
        layer.restart(WARM_UP)
    return max((layer.options.update_every for layer in layers), default=1)
