"""Name the class of every pixel: the training loop for segmentation, and DeepLabV3 trained on a folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset

from ..diagnostics import check_finite
from .iou import IGNORED, confusion_matrix
from .models import build
from .provenance import provenance
from .segmentation_data import Arrays, Pictures, cityscapes, crop_size, pets

__all__ = ["evaluate", "fit_segmentation", "loss_of", "train_segmentation"]

Batches = DataLoader[tuple[Tensor, Tensor]]


def loss_of(output: Tensor | Mapping[str, Tensor], labels: Tensor) -> Tensor:
    """Cross-entropy over the pixels that count, and half that of the auxiliary head, where there is one.

    ``output``: the scores (N, classes, H, W), or torchvision's dictionary of them, ``out`` and perhaps ``aux``.
    ``labels``: (N, H, W), 255 where a pixel does not count.

    >>> loss_of(torch.zeros(1, 2, 3, 3), torch.zeros(1, 3, 3, dtype=torch.long)).item()  # log 2
    0.693147...
    """
    heads = output if isinstance(output, Mapping) else {"out": output}
    pixels = (labels != IGNORED).sum().clamp_min(1)
    losses = {k: F.cross_entropy(v, labels, ignore_index=IGNORED, reduction="sum") / pixels for k, v in heads.items()}
    return losses["out"] + 0.5 * losses["aux"] if "aux" in losses else losses["out"]


def evaluate(model: nn.Module, data: Pictures | Arrays, *, batch_size: int = 1, workers: int = 0) -> Tensor:
    """The confusion matrix of a network, put into evaluation mode, over all pictures of a set.

    Batches of more than one picture need pictures of one size.

    >>> data = Arrays(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.long), classes=2)
    >>> evaluate(nn.Conv2d(3, 2, 1), data).sum().item()
    32
    """
    model.eval()
    device = next(model.parameters()).device
    confusion = torch.zeros(data.classes, data.classes, dtype=torch.long, device=device)
    with torch.inference_mode():
        for x, y in DataLoader(_Drawn(data, [(n, None) for n in range(len(data))]), batch_size, num_workers=workers):
            output = model(x.to(device))
            best = (output["out"] if isinstance(output, Mapping) else output).argmax(1)
            confusion += confusion_matrix(best, y.to(device), data.classes)
    return confusion.cpu()


def fit_segmentation(
    model: nn.Module,
    train: Pictures | Arrays,
    test: Pictures | Arrays,
    *,
    epochs: int,
    seed: int,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    batch_size: int = 8,
    test_batch_size: int = 1,
    workers: int = 0,
    device: str | torch.device = "cpu",
    report: Callable[[dict[str, float]], None] | None = None,
) -> list[dict[str, float]]:
    """Train with SGD and the learning rate ``lr * (1 - step / steps) ** 0.9``; test after each epoch.

    The defaults are the published settings for Cityscapes, without an auxiliary head. (If a network has one, it learns
    at the same rate as the rest; in the authors' code, at ten times that.) ``seed`` decides order and augmentation,
    however many ``workers`` read pictures; weights and dropout are the caller's, of ``torch.manual_seed``. Each epoch
    leaves out the last incomplete batch.

    Returns:
        One dictionary an epoch, which ``report`` is called with as soon as it is there: ``epoch`` (from 1), ``loss``
        (over the training batches as they were met), the scores of ``test`` in percent, ``train_seconds``,
        ``test_seconds``.

    Raises:
        ValueError: fewer training pictures than a batch, no test picture, or fewer than one epoch.
        FloatingPointError: the loss is no longer finite.

    >>> images, labels = torch.rand(4, 3, 6, 6), torch.zeros(4, 6, 6, dtype=torch.long)
    >>> data = Arrays(images, labels, classes=2)
    >>> curve = fit_segmentation(nn.Conv2d(3, 2, 1), data, data, epochs=3, seed=0, batch_size=2)
    >>> [entry["epoch"] for entry in curve], curve[-1]["miou"]
    ([1, 2, 3], 100.0)
    """
    _check(train, test, epochs, batch_size)
    model.to(device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)
    steps = len(train) // batch_size
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 - step / (epochs * steps)) ** 0.9)
    curve: list[dict[str, float]] = []
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        batches = _training_batches(train, batch_size, generator, workers)
        entry = {"epoch": epoch, "loss": _train(model, batches, optimizer, schedule)}
        check_finite(model)
        if not math.isfinite(entry["loss"]):
            raise FloatingPointError(f"the loss is not finite in epoch {epoch}; try a learning rate below {lr}")
        middle = time.perf_counter()
        entry |= test.scores(evaluate(model, test, batch_size=test_batch_size, workers=workers))
        entry["train_seconds"] = round(middle - start, 3)
        entry["test_seconds"] = round(time.perf_counter() - middle, 3)
        curve.append(entry)
        if report:
            report(entry)
    return curve


def _check(train: Pictures | Arrays, test: Pictures | Arrays, epochs: int, batch_size: int) -> None:
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    if not 1 <= batch_size <= len(train):
        raise ValueError(f"batch_size must lie between 1 and the {len(train)} training pictures, got {batch_size}")
    if not len(test):
        raise ValueError("there is no picture to test on")


def _training_batches(data: Pictures | Arrays, size: int, generator: torch.Generator, workers: int) -> Batches:
    """Whole batches of a set in an order that is drawn anew, each picture with a seed for its augmentation."""
    order = torch.randperm(len(data), generator=generator)[: len(data) // size * size].tolist()
    seeds = torch.randint(2**60, (len(order),), generator=generator).tolist()
    return DataLoader(_Drawn(data, list(zip(order, seeds, strict=True))), size, num_workers=workers)


def _train(model: nn.Module, batches: Batches, optimizer: Optimizer, schedule: LRScheduler) -> float:
    """The steps of an epoch; their mean loss."""
    device = next(model.parameters()).device
    model.train()
    loss_sum = torch.zeros((), device=device)
    for x, y in batches:
        value = loss_of(model(x.to(device)), y.to(device))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        loss_sum += value.detach()
    return float(loss_sum) / len(batches)


def train_segmentation(
    folder: Path,
    dataset: str,
    *,
    method: str,
    classes: int = 19,
    base_size: int = 520,
    seed: int = 0,
    device: str = "cpu",
    command: str = "",
    **settings: Any,
) -> dict[str, Any]:
    """Train DeepLabV3 (ResNet-50, from random weights) on a folder: the record of the run.

    Args:
        dataset: ``"cityscapes"`` or ``"pets"``.
        method: ``"none"``, ``"bn"`` or ``"nd"``, see ``models.build``.
        classes: 19 or 21; pets have 3.
        settings: of :func:`fit_segmentation`.

    Raises:
        ValueError: an unknown data set, or settings that do not go together.
        ndlib.files.DatasetError: the data set is not in the folder.

    >>> train_segmentation(Path("nowhere"), "street", method="nd")
    Traceback (most recent call last):
        ...
    ValueError: unknown data set 'street'; there are cityscapes, pets
    """
    if dataset == "cityscapes":
        train, test = (cityscapes(folder, s, classes=classes, base_size=base_size) for s in ("train", "val"))
    elif dataset == "pets":
        train, test = (pets(folder, s, base_size=base_size) for s in ("trainval", "test"))
    else:
        raise ValueError(f"unknown data set {dataset!r}; there are cityscapes, pets")
    if settings.get("batch_size", 8) < 2:
        raise ValueError("DeepLabV3 normalises the mean of each picture over the batch: batch_size must be at least 2")
    torch.manual_seed(seed)
    model = build("deeplabv3", method=method, classes=train.classes, size=crop_size(base_size))
    curve = fit_segmentation(model, train, test, seed=seed, device=device, **settings)
    settings = {name: value for name, value in settings.items() if name not in ("report", "workers")}
    return {
        "dataset": dataset,
        "arch": "deeplabv3",
        "method": method,
        "classes": train.classes,
        "base_size": base_size,
        "seed": seed,
        **settings,
        "train_pictures": len(train),
        "test_pictures": len(test),
        "curve": curve,
        "params": sum(p.numel() for p in model.parameters()),
        **provenance(device),
        "command": command,
    }


@dataclass(frozen=True)
class _Drawn(Dataset[tuple[Tensor, Tensor]]):
    """Items in the order in which they were drawn, each with the seed of its augmentation, None for none."""

    data: Pictures | Arrays
    draws: list[tuple[int, int | None]]

    def __len__(self) -> int:
        return len(self.draws)

    def __getitem__(self, n: int) -> tuple[Tensor, Tensor]:
        index, seed = self.draws[n]
        return self.data.item(index, None if seed is None else torch.Generator().manual_seed(seed))
