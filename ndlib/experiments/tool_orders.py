"""What it costs to use a tool of the PyTorch world in the wrong order beside deconvolution, measured on pictures.

    python -m ndlib.experiments.tool_orders     # writes data/results/tool-orders.json; some minutes of one core

A small network of the published layers learns CIFAR-10; then each tool is used as it would be with batch normalisation,
and as the page "Beside other tools" says. One record for each tool, order and seed.
"""

from __future__ import annotations

import copy
import itertools
import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from .. import files
from ..averages import freeze_statistics, keep_statistics, update_statistics
from ..conversion import convert, to_plain
from .datasets import load
from .provenance import provenance

__all__ = ["RIGHT"]

SEEDS = range(1, 4)
IMAGES, HELD_OUT, BATCH, EPOCHS, RATE, MOMENTUM = 4_000, 2_000, 64, 3, 0.1, 0.9  # a constant rate, as averaging wants
EMA_DECAY, SAM_RADIUS, PRUNED, LEVELS, RANK = 0.98, 0.05, 0.5, 3, 2
# The order that the page tells, for each tool.
RIGHT = {
    "SWA": "update_statistics, then evaluated",
    "EMA": "update_statistics, then evaluated",
    "SAM": "second pass within keep_statistics",
    "pruning": "after to_plain",
    "quantising": "after to_plain",
    "LoRA": "after to_plain",
}
Part = tuple[Tensor, Tensor]  # pictures, labels
Found = Iterator[tuple[str, str, dict[str, float]]]  # a tool, an order, and what was measured


def pictures() -> tuple[Part, Part]:
    """For training and for testing; values with mean 0 and variance 1."""
    data = load("cifar10").subset(IMAGES, HELD_OUT)
    images = [x.float() / 255 for x in (data.train_images, data.test_images)]
    mean, std = images[0].mean(), images[0].std()
    train, test = ((x - mean) / std for x in images)
    return (train, data.train_labels), (test, data.test_labels)


def network(seed: int) -> nn.Module:
    """Three convolutions and a classifier, all whitened as published."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1)]
    return convert(nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)))[0]


def accuracy(model: nn.Module, test: Part) -> float:
    """Percent of the pictures that are named rightly."""
    with torch.no_grad():
        return 100 * (model.eval()(test[0]).argmax(1) == test[1]).float().mean().item()


def batches(train: Part, seed: int, epochs: int = EPOCHS) -> Iterator[Part]:
    draw = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for chosen in torch.randperm(len(train[0]), generator=draw).split(BATCH):
            yield train[0][chosen], train[1][chosen]


def gradient(model: nn.Module, x: Tensor, labels: Tensor) -> None:
    model.zero_grad()
    F.cross_entropy(model(x), labels).backward()


def trained(
    train: Part,
    seed: int,
    after: Callable[[nn.Module, int], None] = lambda *_: None,
    step: Callable[[nn.Module, Tensor, Tensor], None] = gradient,
) -> nn.Module:
    """A trained network; ``step`` computes the gradient, ``after`` is called behind each step, with its number."""
    model = network(seed).train()
    optimizer = torch.optim.SGD(model.parameters(), RATE, MOMENTUM)
    for number, (x, labels) in enumerate(batches(train, seed)):
        step(model, x, labels)
        optimizer.step()
        after(model, number)
    return model


# One function for each tool. -------------------------------------------------------------------------------


def averaging(train: Part, test: Part, seed: int) -> Found:
    """Of an average of the weights, by itself and with the averages of the layers measured again."""
    swa = AveragedModel(network(seed))  # of all weights from the second epoch on
    ema = AveragedModel(network(seed), multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True)

    def add(model: nn.Module, number: int) -> None:
        ema.update_parameters(model)
        if number >= len(train[0]) // BATCH:
            swa.update_parameters(model)

    model = trained(train, seed, add)
    for tool, average in (("SWA", swa), ("EMA", ema)):
        yield tool, "no averaging", {"accuracy": accuracy(model, test)}
        update_bn(train[0].split(BATCH), average)
        yield tool, "update_bn, then evaluated", {"accuracy": accuracy(average, test)}
        update_statistics(average, train[0].split(BATCH))
        yield tool, RIGHT[tool], {"accuracy": accuracy(average, test)}


def sharpness_aware(keep: bool) -> Callable[[nn.Module, Tensor, Tensor], None]:
    """The gradient at the worst point nearby, as sharpness-aware minimisation takes it."""

    def step(model: nn.Module, x: Tensor, labels: Tensor) -> None:
        gradient(model, x, labels)
        parameters: list[Tensor] = list(model.parameters())
        norm = torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()
        moves = [SAM_RADIUS * p.grad / norm for p in parameters if p.grad is not None]
        with torch.no_grad():
            torch._foreach_add_(parameters, moves)
        if keep:
            with keep_statistics(model):
                gradient(model, x, labels)
        else:
            gradient(model, x, labels)
        with torch.no_grad():
            torch._foreach_sub_(parameters, moves)

    return step


def sam(train: Part, test: Part, seed: int) -> Found:
    for order, keep in (("second pass measured too", False), (RIGHT["SAM"], True)):
        yield "SAM", order, {"accuracy": accuracy(trained(train, seed, step=sharpness_aware(keep)), test)}


def weights_of(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if isinstance(getattr(m, "weight", None), nn.Parameter)]


def pruning(model: nn.Module, test: Part) -> Found:
    """The smallest weights of each layer become zero."""
    yield "pruning", "no pruning", {"accuracy": accuracy(model, test), "zeros": zeros(to_plain(model))}
    for order, folded_first in (("before to_plain", False), (RIGHT["pruning"], True)):
        network = to_plain(model) if folded_first else copy.deepcopy(model)
        for layer in weights_of(network):
            prune.l1_unstructured(layer, "weight", PRUNED)
            prune.remove(layer, "weight")
        plain = network if folded_first else to_plain(network)
        yield "pruning", order, {"accuracy": accuracy(plain, test), "zeros": zeros(plain)}


def zeros(plain: nn.Module) -> float:
    """Percent of the weights that are zero."""
    weights = torch.cat([layer.weight.flatten() for layer in weights_of(plain)])
    return 100 * (weights == 0).float().mean().item()


def quantising(model: nn.Module, test: Part) -> Found:
    """Each filter is rounded to 2 * 3 + 1 = 7 levels (three bits), the largest of its weights being the last."""
    yield "quantising", "no quantising", {"accuracy": accuracy(model, test), "levels": levels(to_plain(model))}
    for order, folded_first in (("before to_plain", False), (RIGHT["quantising"], True)):
        network = to_plain(model) if folded_first else copy.deepcopy(model)
        for layer in weights_of(network):
            rows = layer.weight.data.flatten(1)
            step = rows.abs().amax(1, keepdim=True) / LEVELS
            layer.weight.data = ((rows / step).round() * step).view_as(layer.weight)
        plain = network if folded_first else to_plain(network)
        yield "quantising", order, {"accuracy": accuracy(plain, test), "levels": levels(plain)}


def levels(plain: nn.Module) -> float:
    """How many different values a filter has, on average."""
    filters = [row for layer in weights_of(plain) for row in layer.weight.flatten(1)]
    return sum(len(row.unique()) for row in filters) / len(filters)


class Adapted(nn.Module):
    """A layer and, beside it, a change of low rank."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer
        if isinstance(layer, nn.Linear):
            self.down: Any = nn.Linear(layer.in_features, RANK, bias=False)
            self.up: Any = nn.Linear(RANK, layer.out_features, bias=False)
        else:
            self.down = nn.Conv2d(layer.in_channels, RANK, layer.kernel_size, layer.stride, layer.padding, bias=False)
            self.up = nn.Conv2d(RANK, layer.out_channels, 1, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.up(self.down(x))

    def merged(self) -> Any:
        change = self.up.weight.flatten(1) @ self.down.weight.flatten(1)
        self.layer.weight.data += change.view_as(self.layer.weight)
        return self.layer


def adapting(model: nn.Module, train: Part, test: Part, seed: int) -> Found:
    """The task changes, to negatives of the pictures, and adapters alone learn it for an epoch."""
    negatives, unseen = ((-x, labels) for x, labels in (train, test))
    yield "LoRA", "no adapters", {"accuracy": accuracy(model, unseen)}
    for order, folded_first in (("before to_plain", False), (RIGHT["LoRA"], True)):
        base: Any = to_plain(model) if folded_first else freeze_statistics(copy.deepcopy(model))
        base.requires_grad_(False)
        torch.manual_seed(seed)
        adapted = nn.Sequential(*[Adapted(m) if hasattr(m, "weight") else m for m in base])
        optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], RATE / 10, MOMENTUM)
        for x, labels in batches(negatives, seed, 1):
            gradient(adapted, x, labels)
            optimizer.step()
        beside = accuracy(adapted, unseen)
        merged = nn.Sequential(*[m.merged() if isinstance(m, Adapted) else m for m in adapted]).eval()
        plain = merged if folded_first else to_plain(merged)
        yield "LoRA", order, {"accuracy": accuracy(plain, unseen), "before merging": beside}


def study() -> Iterator[dict[str, Any]]:
    """A record for each tool, order and seed."""
    train, test = pictures()
    for seed in SEEDS:
        model = trained(train, seed).eval()
        uses = averaging(train, test, seed), sam(train, test, seed), pruning(model, test), quantising(model, test)
        for tool, order, measured in itertools.chain(*uses, adapting(model, train, test, seed)):
            rounded = {name: round(value, 3) for name, value in measured.items()}
            yield {"tool": tool, "order": order, "seed": seed, **rounded}


def main() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", ".*rows for a covariance")  # of the classifier's
    warnings.filterwarnings("ignore", ".*of its weights w are zero")  # which is what is shown
    source = {"command": "python -m ndlib.experiments.tool_orders", **provenance("cpu")}
    lines = ",\n".join(json.dumps(record) for record in study())
    file = files.path("results/cifar10.jsonl").with_name("tool-orders.json")
    file.write_text(f'{{"source": {json.dumps(source)},\n"runs": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
