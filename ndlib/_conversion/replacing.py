"""Putting modules in the place of others, and wrappers off and on again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from .._core.private_torch import compiled_module, pass_hooks

__all__ = ["put_in_place", "unwrapped"]


def put_in_place(net: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of another, wherever in the network that one is registered, with its hooks."""
    old = net.get_submodule(name)
    pass_hooks(old, module)
    places = [place for place, m in net.named_modules(remove_duplicate=False) if m is old]
    for place in places:
        parent, _, key = place.rpartition(".")
        setattr(net.get_submodule(parent), key, module)


def unwrapped(net: nn.Module) -> tuple[nn.Module, Callable[[nn.Module], nn.Module], list[str]]:
    """The network inside its wrappers, what puts those that can be put back around another one, and the others.

    >>> inside, put_back, off = unwrapped(nn.DataParallel(nn.ReLU()))
    >>> type(inside), type(put_back(nn.Tanh())).__name__, off
    (<class 'torch.nn.modules.activation.ReLU'>, 'DataParallel', [])
    """
    inner = compiled_module(net)
    parallel = isinstance(net, (nn.DataParallel, nn.parallel.DistributedDataParallel))
    if inner is None and not parallel:
        return net, lambda new: new, []
    wrapper: Any = net
    inside, put_back, off = unwrapped(wrapper.module if inner is None else inner)
    if isinstance(net, nn.parallel.DistributedDataParallel):  # it has counted and bucketed the old parameters
        return inside, put_back, [type(net).__name__, *off]

    def back(new: nn.Module) -> nn.Module:
        new = put_back(new)
        if inner is not None:
            return wrapper.dynamo_ctx(new)
        if not wrapper.device_ids:  # on a processor
            return nn.DataParallel(new)
        return nn.DataParallel(new, wrapper.device_ids, wrapper.output_device, wrapper.dim)

    return inside, back, off
