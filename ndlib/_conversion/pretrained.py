"""What keeps the function of a trained network while its layers are replaced: fusing, measuring, undoing."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .._core.folding import undo_whitening
from .._core.hooks import before_forward
from .._core.whitening import Deconvolution
from .counterparts import DECONV_OF, own_product
from .following import arguments_of
from .norms import fuse_into
from .planning import Path, is_computed, plans_of

__all__ = ["batches_of", "fuse", "input_dimensions", "measure_and_undo", "tied"]


def batches_of(net: nn.Module, images: Any) -> Iterator[Any]:
    """What to call the network with: tuples of positional arguments, or mappings of keyword arguments."""
    if isinstance(images, (Tensor, tuple, Mapping)):
        yield images
        return
    taken = inspect.signature(net.forward).parameters.values()
    for batch in images:
        if isinstance(batch, Mapping):
            everything = any(p.kind is p.VAR_KEYWORD for p in taken)
            names = [p.name for p in taken]
            batch = {name: value for name, value in batch.items() if everything or name in names}
            if not batch:
                raise ValueError(f"a batch holds none of the arguments of {type(net).__name__}: {', '.join(names)}")
        yield batch[0] if isinstance(batch, (tuple, list)) else batch


def run(net: nn.Module, batch: Any) -> Any:
    args, kwargs = arguments_of(batch)
    return net(*args, **kwargs)


def measure_and_undo(net: nn.Module, layers: dict[str, nn.Module], first: Any, others: Iterator[Any]) -> None:
    """Let each layer average mean and root of its input over the batches, and undo them in its weights.

    It undoes them after every batch, so that the network computes the same all the time.
    """
    plain: dict[str, Any] = {n: (layer.weight, layer.bias) for n, layer in layers.items()}
    counted = dict.fromkeys(layers, 0)
    waiting: set[str] = set()

    def measure(name: str, layer: nn.Module, x: Tensor) -> None:
        if name in waiting:
            waiting.remove(name)
            counted[name] += 1
            undo_whitening(layer, x, 1 / counted[name], *plain[name])

    with before_forward(layers, measure):
        for batch in itertools.chain([first], others):
            waiting |= set(layers)
            run(net, batch)


def tied(net: nn.Module) -> dict[str, str]:
    """Of each layer that shares its weight with another module, what its row is to say."""
    owners: dict[Any, list[str]] = {}
    for name, module in net.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(parameter, []).append(name)
    shared = [names for names in owners.values() if len(names) > 1]
    return {
        n: f"its weights are no longer tied to those of {', '.join({*names} - {n})}" for names in shared for n in names
    }


def fuse(net: nn.Module, path: Path, example: Any) -> dict[str, str]:
    """Fuse batch normalisation into the layers directly before it; what to report of those that may go."""
    norms = {p.name: p.module for p in plans_of(net, path, "all", True) if p.norm and p.action == "dropped"}
    norms = {n: m for n, m in norms.items() if getattr(m, "track_running_stats", True)}
    dimensions = input_dimensions(net, norms, example)
    fused: dict[str, str] = {}
    for name, norm in norms.items():
        before = path.layer_before(name)
        layer: Any = path.modules.get(before) if before else None
        computed = layer is not None and (is_computed(layer) or parametrize.is_parametrized(layer))
        if computed or not isinstance(layer, tuple(DECONV_OF)) or isinstance(layer, Deconvolution):
            continue
        own = own_product(layer)
        if type(layer) not in DECONV_OF and (own is None or own.computes_weight):
            continue
        # Features must be the last dimension and the second at once.
        if not isinstance(layer, nn.Linear) or dimensions.get(name) == 2:
            fuse_into(layer, norm)
            fused[name] = f"fused into {before}"
    return fused


def input_dimensions(model: nn.Module, layers: Mapping[str, nn.Module], x: Any) -> dict[str, int]:
    """Number of dimensions of the input of each of these layers that is reached."""
    found: dict[str, int] = {}

    def note(name: str, _: nn.Module, seen: Tensor) -> None:
        found[name] = seen.dim()

    with torch.no_grad(), before_forward(layers, note):
        run(model, x)
    return found
