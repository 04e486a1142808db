"""Optimisers that were made before a conversion, told by what they leave still."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from .._core.warn import warn

__all__ = ["watch_optimisers"]

STEPS = 10  # of one optimiser, after which nothing more is expected
LOOKS = 100  # at steps of any


def watch_optimisers(before: Mapping[str, nn.Parameter], net: nn.Module) -> None:
    """Warn, in the first steps after a conversion, of an optimiser that was made before it.

    Two signs are sure. It holds the weights of ``net``, and parameters that conversion added have a gradient, and no
    optimiser holds them though each has had a step. Or it holds the parameters ``before``, which have no gradient,
    while those of ``net``, a copy, have one.

    >>> watch_optimisers({}, nn.Sequential(nn.Conv2d(3, 4, 3, bias=False)))
    """
    for watch in [w for w in _watches if w.done or w.looks > LOOKS or w.net() is None]:
        watch.handle.remove()
        _watches.remove(watch)
    _watches.append(_Watch(before, net))


class _Watch:
    def __init__(self, before: Mapping[str, nn.Parameter], net: nn.Module) -> None:
        now = dict(net.named_parameters())
        own = {id(p) for p in now.values()}
        self.net = weakref.ref(net)
        self.before = [weakref.ref(p) for p in before.values() if id(p) not in own]
        self.added = [weakref.ref(p) for name, p in now.items() if name not in before]
        self.held: set[int] = set()  # by optimisers that took a step
        self.steps: dict[int, int] = {}
        self.done, self.looks = False, 0
        self.handle = register_optimizer_step_pre_hook(self.look)

    def look(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        net = self.net()
        self.looks += 1
        if net is None or self.done or self.looks > LOOKS:
            return
        holds = {id(p): p for group in optimizer.param_groups for p in group["params"]}
        if any(id(p) in holds for p in net.parameters()):
            self.held |= set(holds)
            step = self.steps[id(optimizer)] = self.steps.get(id(optimizer), 0) + 1
            left = [p for p in _alive(self.added) if p.grad is not None and id(p) not in self.held]
            if left and step == 2:
                self.say(f"does not hold {len(left)} parameters that conversion added, and no other does")
            self.done = self.done or step == STEPS
        elif any(id(p) in holds for p in _alive(self.before)):
            still = all(p.grad is None for p in holds.values())
            if still and any(p.grad is not None for p in net.parameters()):
                self.say("holds the parameters of the network before conversion, without a gradient, and moves nothing")

    def say(self, what: str) -> None:
        self.done = True
        warn(f"this optimiser {what}; make the optimiser after ndlib.convert")


_watches: list[_Watch] = []


def _alive(references: list[weakref.ref[nn.Parameter]]) -> list[nn.Parameter]:
    return [p for reference in references if (p := reference()) is not None]
