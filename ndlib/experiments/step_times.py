"""The time of a training step of each network, in turns with batch normalisation's."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .baselines import official, straightforward
from .models import ARCHITECTURES, build
from .operations import begin_cycle
from .timing import Action, Spread, interleaved, ratio, saved_bytes, spread

__all__ = [
    "CHANCE",
    "KINDS",
    "TARGETS",
    "Measurement",
    "Networks",
    "as_trained",
    "network",
    "networks",
    "pictures",
    "quietly",
    "spreads",
    "time_price",
    "time_steps",
    "training_step",
]

Networks = dict[str, Callable[[], nn.Module]]
Measurement = dict[str, Any]


@contextmanager
def quietly() -> Iterator[None]:
    """Without the warning of few rows, which small batches bring with them and which speed does not depend on.

    >>> with quietly():
    ...     warnings.warn("2 rows for a covariance of 9 columns")
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*rows for a covariance")
        yield


KINDS: dict[str, dict[str, Any]] = {
    "BN": {"method": "bn"},
    "BN again": {"method": "bn"},  # what chance does to a ratio
    "no normalisation": {"method": "none"},
    "ND": {"method": "nd"},
    "ND, recommended": {"method": "nd", "variant": "recommended"},
    "ND, block 32": {"method": "nd", "options": {"block_size": 32}},
    "ND, block 16": {"method": "nd", "options": {"block_size": 16}},
    "ND, block 16, every 4th": {"method": "nd", "options": {"block_size": 16, "update_every": 4}},
    "ND, root detached": {"method": "nd", "options": {"detach_root": True}},
    "ND, frozen": {"method": "nd", "options": {"freeze_after": 1}},  # what update_every pays between updates
    "ND, Kronecker": {"method": "kronecker"},
    "ND first, then BN": {"method": "nd-first"},
}


def network(arch: str, kind: str, checkout: Path | None = None, width: float = 1.0) -> nn.Module:
    """One of :func:`networks`: one of ``KINDS``, else "as published", or the authors' if there is a checkout.

    >>> type(network("vgg-small", "as published", width=0.1).features[0]).__name__
    'Straightforward'
    """
    with quietly():
        if kind in KINDS:
            return build(arch, classes=10, width=width, **KINDS[kind])
        plain = build(arch, method="nd", classes=10, width=width)
        return straightforward(plain) if checkout is None else official(plain, checkout)


def networks(arch: str, checkout: Path | None = None, width: float = 1.0) -> Networks:
    """What is compared for one architecture: BN, ND and its cheaper modes, and the published algorithm done plainly.

    Also the authors' own layers if there is a checkout of their repository. Functions that make them.

    >>> [kind for kind in networks("vgg-small") if kind not in KINDS]
    ['as published']
    """
    kinds = [*KINDS, "as published"]
    made: Networks = {kind: lambda kind=kind: as_trained(network(arch, kind, width=width)) for kind in kinds}  # type: ignore[misc]
    if checkout is not None:
        made["the authors' layer"] = lambda: network(arch, "the authors' layer", checkout, width)
    return made


def as_trained(model: nn.Module) -> nn.Module:
    """Channels last in memory, as ``training.fit`` has a network; the weights of the authors' layer cannot lie so.

    >>> as_trained(nn.Conv2d(3, 4, 3)).weight.is_contiguous(memory_format=torch.channels_last)
    True
    """
    return model.to(memory_format=torch.channels_last)


def training_step(model: nn.Module, x: Tensor, labels: Tensor) -> Action:
    """A step of SGD on one batch, as a function without arguments.

    >>> net = nn.Linear(2, 2)
    >>> before = net.weight.detach().clone()
    >>> training_step(net, torch.ones(4, 2), torch.zeros(4, dtype=torch.long))()
    >>> torch.equal(net.weight, before)
    False
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return step


def time_steps(kinds: Networks, *, batch_size: int = 128, rounds: int = 5, device: str = "cpu") -> Measurement:
    """Time and memory of a training step of some networks, each in turns with BN, on 32 x 32 pictures.

    A pair at a time: with more networks in a process, memory is found in another state than a training run finds it in,
    and batch normalisation, which writes most, takes up to a third less time.

    >>> make = lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    >>> list(time_steps({"BN": make, "another": make}, batch_size=2, rounds=1)["seconds"])
    ['BN', 'another']
    """
    torch.manual_seed(0)
    x, labels = pictures(batch_size, device), torch.randint(10, (batch_size,), device=device)
    taken: dict[str, list[float]] = {"BN": []}
    memory: dict[str, int] = {}
    for kind in kinds:
        if kind == "BN":
            continue
        pair = {name: kinds[name]().to(device) for name in ("BN", kind)}
        every = {name: begin_cycle(model) for name, model in pair.items()}
        with quietly():
            actions = {name: _repeated(training_step(model, x, labels), every[name]) for name, model in pair.items()}
            found = interleaved(actions, rounds, device=device)
            memory |= {name: _memory(model, x, labels, device) for name, model in pair.items()}
        seconds = {name: [s / every[name] for s in values] for name, values in found.items()}
        taken["BN"] += seconds["BN"]
        taken[kind] = seconds[kind]
    return {
        "batch_size": batch_size,
        "rounds": rounds,
        "seconds": spreads(taken),
        "bytes": memory,
    }


TARGETS = {"recommended of BN": 1.0, "added to no normalisation": 0.1}  # at most
CHANCE = (0.97, 1.03)  # within which BN again must take the time of BN, or the process is measured again


def time_price(arch: str, *, width: float = 1.0, batch_size: int = 128, rounds: int = 15) -> Measurement:
    """What the recommended layer costs over a cycle of ``update_every`` steps, beside BN and no normalisation.

    All networks in one process, in turns. With m the time of a step that measures its batch, u that of one that does
    not and k = ``update_every``, a step costs (m + (k - 1) u) / k after the warm-up. Ratios are taken round by round.

    >>> measurement = time_price("vgg-small", width=0.1, batch_size=4, rounds=2)
    >>> list(measurement["ratios"])
    ['recommended of BN', 'added to no normalisation', 'BN again of BN', 'BN of no normalisation']
    """
    torch.manual_seed(0)
    side = ARCHITECTURES[arch].size
    x, labels = pictures(batch_size, "cpu", side), torch.randint(10, (batch_size,))
    with quietly():
        models = {kind: as_trained(network(arch, kind, width=width)) for kind in PRICED}
        steps = {kind: training_step(model, x, labels) for kind, model in models.items()}
        recommended = models["ND, recommended"]

        between = steps.pop("ND, recommended")  # what follows a measured step is not measured

        def measured() -> None:
            begin_cycle(recommended)
            between()

        seconds = interleaved(steps | {"measured": measured, "between": between}, rounds)
    every = begin_cycle(recommended)
    pairs = zip(seconds["measured"], seconds["between"], strict=True)
    cycle = [(m + (every - 1) * u) / every for m, u in pairs]
    seconds["recommended"] = cycle
    none = seconds["no normalisation"]
    seconds["added"] = [a - b for a, b in zip(cycle, none, strict=True)]
    found = {
        "recommended of BN": ratio(seconds, "recommended", "BN"),
        "added to no normalisation": ratio(seconds, "added", "no normalisation"),
        "BN again of BN": ratio(seconds, "BN again", "BN"),
        "BN of no normalisation": ratio(seconds, "BN", "no normalisation"),
    }
    return {"batch_size": batch_size, "rounds": rounds, "seconds": spreads(seconds), "ratios": found}


PRICED = ("BN", "BN again", "no normalisation", "ND, recommended")


def spreads(seconds: dict[str, list[float]]) -> dict[str, Spread]:
    """Median and quartiles of each.

    >>> spreads({"BN": [1.0, 2.0, 3.0]})["BN"].median
    2.0
    """
    return {name: spread(values) for name, values in seconds.items()}


def pictures(batch_size: int, device: str, side: int = 32) -> Tensor:
    """Random ones, channels last in memory, as ``training.fit`` has them: all networks are faster so, and BN most.

    >>> pictures(2, "cpu").shape
    torch.Size([2, 3, 32, 32])
    """
    return torch.randn(batch_size, 3, side, side, device=device).to(memory_format=torch.channels_last)


def _repeated(action: Action, times: int) -> Action:
    return lambda: [action() for _ in range(times)]


def _memory(model: nn.Module, x: Tensor, labels: Tensor, device: str) -> int:
    """Bytes kept for the backward pass; on a GPU the peak of what is allocated during a step."""
    if torch.device(device).type != "cuda":
        return saved_bytes(model, lambda: F.cross_entropy(model(x), labels))
    torch.cuda.reset_peak_memory_stats(device)
    F.cross_entropy(model(x), labels).backward()
    return torch.cuda.max_memory_allocated(device)
