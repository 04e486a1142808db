"""Time and memory of one action beside others, measured in turns so that a shared machine favours none of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["Action", "Spread", "interleaved", "ratio", "saved_bytes", "spread"]

Action = Callable[[], object]
Name = TypeVar("Name", bound=Hashable)


def interleaved(
    actions: dict[Name, Action], rounds: int, *, warm_up: int = 1, device: str = "cpu"
) -> dict[Name, list[float]]:
    """Seconds that each action takes, in each of some rounds of all of them in turn.

    Args:
        rounds: how often each is timed.
        warm_up: rounds before that, which are not.
        device: waited for before the clock is read, if it is a GPU.

    >>> seconds = interleaved({"a": lambda: None, "b": lambda: sum(range(1000))}, rounds=3)
    >>> {name: len(values) for name, values in seconds.items()}
    {'a': 3, 'b': 3}
    """
    seconds: dict[Name, list[float]] = {name: [] for name in actions}
    for number in range(warm_up + rounds):
        for name, action in actions.items():
            start = _now(device)
            action()
            if number >= warm_up:
                seconds[name].append(_now(device) - start)
    return seconds


def _now(device: str) -> float:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Spread(NamedTuple):
    """Median and quartiles of some measurements, in their unit.

    >>> Spread(2.0, 1.5, 2.5).median
    2.0
    """

    median: float
    low: float
    high: float


def spread(values: list[float]) -> Spread:
    """Median and quartiles; of a single value three times that.

    >>> spread([1.0, 2.0, 3.0, 4.0, 10.0])
    Spread(median=3.0, low=2.0, high=4.0)
    """
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def ratio(seconds: dict[str, list[float]], name: str, baseline: str) -> Spread:
    """How many times as long as the baseline an action took, round by round.

    >>> ratio({"new": [2.0, 20.0], "old": [1.0, 10.0]}, "new", "old").median
    2.0
    """
    return spread([a / b for a, b in zip(seconds[name], seconds[baseline], strict=True)])


def saved_bytes(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps from a forward pass for its backward pass: every storage once, parameters left out.

    >>> linear, x = nn.Linear(100, 50), torch.randn(8, 100)
    >>> saved_bytes(linear, lambda: linear(x)) == 8 * 100 * 4  # the input, float32
    True
    """
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()  # held until the sum is taken, so that no address is used twice
        total = sum(kept.values())
    del result
    return total
