"""Train a classifier and measure it, training accuracy and test accuracy kept apart."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..diagnostics import check_finite
from ..layers import Deconvolution
from .checkpoints import Checkpoint, stretches_in
from .datasets import Dataset
from .optimizers import optimizers
from .picture_folders import MEAN, STD, Pictures
from .settings import Hyperparameters, check_choices

__all__ = [
    "AUGMENTATIONS",
    "LOSSES",
    "PRECISIONS",
    "accuracy",
    "crop_and_flip",
    "fit",
    "normaliser",
    "resized_crop_and_flip",
    "squared_error",
]

EVALUATION_BATCH = 500
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def normaliser(data: Dataset, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over the training images, shapes (1, C, 1, 1), grey levels.

    For pictures in files they are those of ImageNet, whatever the pictures.

    >>> images = torch.tensor([0, 2, 4, 6], dtype=torch.uint8).view(4, 1, 1, 1)
    >>> data = Dataset("made", images, torch.zeros(4), images, torch.zeros(4), ("only",))
    >>> normaliser(data, torch.device("cpu"))[0].item()
    3.0
    """
    if isinstance(data.train_images, Pictures):
        mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, STD))
        return mean, std
    pixels = data.train_images.to(device).float()
    return pixels.mean((0, 2, 3), keepdim=True), pixels.std((0, 2, 3), keepdim=True)


def crop_and_flip(images: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """A random shift of up to ``padding`` pixels and a random left-right flip, drawn for each image apart.

    Zeros come in at the border. ``images``: shape (N, C, H, W); ``generator`` on the CPU.

    >>> crop_and_flip(torch.ones(2, 3, 8, 8), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 8, 8])
    """
    n, _, height, width = images.shape
    shifts = torch.randint(2 * padding + 1, (2, n, 1), generator=generator)
    rows = shifts[0] + torch.arange(height)
    columns = shifts[1] + torch.arange(width)
    flip = torch.rand(n, 1, generator=generator) < 0.5
    columns = torch.where(flip, columns.flip(1), columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    padded = F.pad(images, [padding] * 4)
    picked = padded[torch.arange(n, device=images.device)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)


def resized_crop_and_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random part of each image, enlarged to the whole, and a random left-right flip: for pictures of objects.

    The part has 8 to 100 % of the area and sides in a ratio of 3:4 to 4:3 (of ten draws the first that fits inside,
    else the whole), as in ``torchvision.transforms.RandomResizedCrop``. ``images``: shape (N, C, H, W).

    >>> resized_crop_and_flip(torch.ones(2, 3, 8, 8), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 8, 8])
    """
    n = len(images)
    area = 0.08 + 0.92 * torch.rand(n, 10, generator=generator)
    root_of_ratio = ((2 * torch.rand(n, 10, generator=generator) - 1) * math.log(4 / 3) / 2).exp()
    sides = torch.stack([area.sqrt() * root_of_ratio, area.sqrt() / root_of_ratio], 2)  # width, height; whole: 1
    fits = (sides <= 1).all(2)
    first = fits.int().argmax(1)
    size = torch.where(fits.any(1)[:, None], sides[torch.arange(n), first], 1.0)
    centre = (2 * torch.rand(n, 2, generator=generator) - 1) * (1 - size)
    flip = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = size[:, 0] * flip, size[:, 1], centre
    grid = F.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Half the squared distance of the outputs from the one-hot label, mean over the batch (the paper's L2 loss).

    The mean over the batch of ``|logits - onehot(label)|^2 / 2``; logits have shape (N, classes), labels (N,).

    >>> squared_error(torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([0])).item()
    2.0
    """
    return (logits - F.one_hot(labels, logits.shape[1])).square().sum(1).mean() / 2


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "crop-flip": crop_and_flip,
    "resized-crop-flip": resized_crop_and_flip,
    "none": lambda images, _: images,
}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross-entropy": F.cross_entropy,
    "squared-error": squared_error,
}


def accuracy(model: nn.Module, images: Tensor | Pictures, labels: Tensor, scale: tuple[Tensor, Tensor]) -> float:
    """Percent of images that the model, put into evaluation mode, classifies rightly; processes share the work.

    Args:
        images: uint8, shape (N, C, H, W), or pictures in files. The model sees (images - mean) / std.
        labels: the right classes, shape (N,).
        scale: mean and standard deviation, see :func:`normaliser`.

    >>> scale = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    >>> images = torch.eye(2).view(2, 2, 1, 1)
    >>> accuracy(nn.Flatten(), images, torch.tensor([0, 0]), scale)
    50.0
    """
    model.eval()
    mean, std = scale
    rank, processes = _processes()
    correct = torch.zeros((), device=images.device, dtype=torch.long)
    mine = images[rank::processes]
    if isinstance(mine, Pictures):
        batches = mine.batches([(n, 0) for n in range(len(mine))], EVALUATION_BATCH, "none")
    else:
        batches = iter(mine.split(EVALUATION_BATCH))
    with torch.inference_mode():
        for x, y in zip(batches, labels[rank::processes].split(EVALUATION_BATCH), strict=True):
            correct += (model((x.float() - mean) / std).argmax(1) == y).sum()
    return 100 * int(_sum(correct)) / len(labels)


def fit(
    model: nn.Module,
    data: Dataset,
    hyperparameters: Hyperparameters,
    *,
    device: str | torch.device = "cpu",
    progress: bool = True,
    checkpoint: Checkpoint | None = None,
    about: dict[str, Any] | None = None,
) -> list[dict[str, float]]:
    """Train, the learning rate falling to zero along a cosine over all steps; test after each epoch.

    The weights that the training begins with are the caller's. Each epoch leaves out the last incomplete batch, whose
    covariance would be a poor one. ``precision="bfloat16"`` runs the network under autocast; deconvolution layers keep
    their root in float32.

    Under ``torch.distributed`` each process takes its share of every batch. Gradients are averaged and deconvolution
    layers measure the whole batch, so that the result is that of one process up to rounding; batch normalisation does
    so on CUDA only. Rounding grows: sums over processes are added in another order, and steps of Newton-Schulz amplify
    the difference. With 5 steps in the first layer the first losses agree to 1e-6, with 15 to three digits.

    Args:
        checkpoint: written after each epoch; where it holds an unfinished run, that run goes on.
        about: what this stretch of the run runs on, kept in the checkpoint for the record.

    Returns:
        One dictionary an epoch, with ``epoch`` (from 1), ``loss`` and ``train`` (the loss and percent right, over
        the training batches as they were met), ``test`` (percent right on the test images, after the epoch),
        ``train_seconds``, ``test_seconds``.

    Raises:
        ValueError: fewer training images than a batch, fewer than one epoch, an unknown name, or a batch that the
            processes cannot share evenly.
        FloatingPointError: the loss is no longer finite.

    >>> images, labels = torch.zeros(8, 1, 4, 4, dtype=torch.uint8), torch.arange(8) % 2
    >>> images[labels == 1] = 255
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    >>> data = Dataset("made", images, labels, images, labels, ("black", "white"))
    >>> curve = fit(net, data, Hyperparameters(epochs=2, batch_size=4, augment="none"), progress=False)
    >>> curve[-1]["test"]
    100.0
    """
    from tqdm.auto import tqdm

    rank, processes = _processes()
    _check(hyperparameters, data, processes)
    loop = _prepared(model, data, hyperparameters, torch.device(device))
    earlier = stretches_in(checkpoint)
    curve = loop.restored(checkpoint)
    before = len(curve)
    total, done = hyperparameters.epochs * loop.steps, len(curve) * loop.steps
    with tqdm(total=total, initial=done, disable=not progress or rank > 0, unit="step") as bar:
        for epoch in range(len(curve) + 1, hyperparameters.epochs + 1):
            entry = _epoch(loop, epoch, bar)
            bar.set_postfix(loss=f"{entry['loss']:.3f}", train=f"{entry['train']:.1f}%", test=f"{entry['test']:.1f}%")
            curve.append(entry)
            if checkpoint and rank == 0:
                stretch = {"epochs": len(curve) - before, **(about or {})}
                checkpoint.save({**loop.state(), "curve": curve, "stretches": [*earlier, stretch]})
    return curve


def _check(hyperparameters: Hyperparameters, data: Dataset, processes: int) -> None:
    epochs, batch_size, images = hyperparameters.epochs, hyperparameters.batch_size, len(data.train_images)
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    if not 1 <= batch_size <= images:
        raise ValueError(f"batch_size must lie between 1 and the number of training images, {images}, got {batch_size}")
    if batch_size % processes:
        raise ValueError(f"batch_size must be a multiple of the number of processes, {processes}, got {batch_size}")
    check_choices(hyperparameters)


@dataclass(frozen=True)
class _Loop:
    """What all epochs of a run share. Images and labels are on the device of the model."""

    chosen: Hyperparameters
    model: nn.Module
    network: nn.Module  # the model, or what one of several processes trains of it
    train: tuple[Tensor | Pictures, Tensor]
    test: tuple[Tensor | Pictures, Tensor]
    scale: tuple[Tensor, Tensor]
    generator: torch.Generator
    updates: list[Optimizer]
    schedules: list[LRScheduler]

    @property
    def steps(self) -> int:
        """Training steps of an epoch."""
        return len(self.train[0]) // self.chosen.batch_size

    def autocast(self) -> torch.autocast:
        precision = self.chosen.precision
        kind = self.train[1].device.type
        return torch.autocast(kind, PRECISIONS[precision], enabled=precision != "float32")

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"model": self.model}
        for number, (update, schedule) in enumerate(zip(self.updates, self.schedules, strict=True)):
            parts |= {f"optimizer {number}": update, f"schedule {number}": schedule}
        return parts

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, but for the curve."""
        states = {name: part.state_dict() for name, part in self._parts().items()}
        return {**states, "generator": self.generator.get_state(), "torch": torch.get_rng_state()}

    def restored(self, checkpoint: Checkpoint | None) -> list[dict[str, float]]:
        """The curve of the unfinished run in a checkpoint, whose state the parts take on; empty where there is none."""
        if checkpoint is None or (state := checkpoint.load()) is None:
            return []
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        curve: list[dict[str, float]] = state["curve"]
        return curve


def _prepared(model: nn.Module, data: Dataset, chosen: Hyperparameters, device: torch.device) -> _Loop:
    model.to(device)
    if device.type == "cuda":
        model.to(memory_format=torch.channels_last)  # what its convolutions prefer
    updates = optimizers(
        model, chosen.optimizer, lr=chosen.lr, momentum=chosen.momentum, weight_decay=chosen.weight_decay
    )
    total = chosen.epochs * (len(data.train_images) // chosen.batch_size)
    return _Loop(
        chosen=chosen,
        model=model,
        network=_shared(model, device) if _processes()[1] > 1 else model,
        train=(data.train_images.to(device), data.train_labels.to(device)),
        test=(data.test_images.to(device), data.test_labels.to(device)),
        scale=normaliser(data, device),
        generator=torch.Generator().manual_seed(chosen.seed),
        updates=updates,
        schedules=[torch.optim.lr_scheduler.CosineAnnealingLR(update, T_max=total) for update in updates],
    )


def _epoch(loop: _Loop, epoch: int, bar: Any) -> dict[str, float]:
    """Train and test once: the entry of the curve."""
    start = time.perf_counter()
    loss, right = _train(loop, bar)
    entry = {"epoch": epoch, "loss": loss, "train": right}
    check_finite(loop.model)
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss is not finite in epoch {epoch}; try a learning rate below {loop.chosen.lr}")
    middle = time.perf_counter()
    with loop.autocast():
        entry["test"] = accuracy(loop.model, *loop.test, loop.scale)
    entry["train_seconds"] = round(middle - start, 3)
    entry["test_seconds"] = round(time.perf_counter() - middle, 3)
    return entry


def _train(loop: _Loop, bar: Any) -> tuple[float, float]:
    """All steps of an epoch: their mean loss, and the percent of images classified rightly as they were met."""
    _, processes = _processes()
    device = loop.train[1].device
    loop.model.train()
    loss_sum = torch.zeros((), device=device)
    correct = torch.zeros((), device=device, dtype=torch.long)
    for x, y in _batches(loop):
        with loop.autocast():
            logits = loop.network(x)
            value = LOSSES[loop.chosen.loss](logits, y)
        loop.model.zero_grad()
        value.backward()
        for update, schedule in zip(loop.updates, loop.schedules, strict=True):
            update.step()
            schedule.step()
        loss_sum += value.detach()
        correct += (logits.detach().argmax(1) == y).sum()
        bar.update()
    met = loop.steps * loop.chosen.batch_size
    return float(_sum(loss_sum)) / loop.steps / processes, 100 * int(_sum(correct)) / met


def _batches(loop: _Loop) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's share of every batch of an epoch, normalised and augmented, and its labels."""
    rank, processes = _processes()
    images, labels = loop.train
    mean, std = loop.scale
    batch_size, augment = loop.chosen.batch_size, AUGMENTATIONS[loop.chosen.augment]
    order = torch.randperm(len(images), generator=loop.generator)
    batches = order[: loop.steps * batch_size].split(batch_size)
    if isinstance(images, Pictures):
        seeds = torch.randint(2**62, (len(order),), generator=loop.generator)
        mine = torch.cat([batch[rank::processes] for batch in batches])
        examples = list(zip(mine.tolist(), seeds[mine].tolist(), strict=True))
        for x, y in zip(
            images.batches(examples, batch_size // processes, loop.chosen.augment),
            labels[mine.to(labels.device)].split(batch_size // processes),
            strict=True,
        ):
            yield (x.float() - mean) / std, y
        return
    for batch in batches:
        batch = batch.to(labels.device)
        x = augment((images[batch].float() - mean) / std, loop.generator)
        yield x[rank::processes], labels[batch][rank::processes]


def _processes() -> tuple[int, int]:
    """The number of this process, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _sum(count: Tensor) -> Tensor:
    """The sum over all processes."""
    if dist.is_initialized():
        dist.all_reduce(count)
    return count


def _shared(model: nn.Module, device: torch.device) -> nn.Module:
    """The model as one of several processes trains it."""
    for module in model.modules():
        if isinstance(module, Deconvolution):
            module.process_group = "world"
    if device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
