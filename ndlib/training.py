"""Train a classifier and measure it, training accuracy and test accuracy kept apart."""

from __future__ import annotations

import datetime
import math
import platform
import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import __version__
from .data import Dataset, load
from .layers import check_finite
from .ledger import Record
from .models import build

EVALUATION_BATCH = 500


def normaliser(data: Dataset, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over the training images, shapes (1, C, 1, 1), grey levels."""
    pixels = data.train_images.to(device).float()
    return pixels.mean((0, 2, 3), keepdim=True), pixels.std((0, 2, 3), keepdim=True)


def crop_and_flip(images: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """A random shift of up to ``padding`` pixels and a random left-right flip, drawn for each image apart.

    Zeros come in at the border. ``images``: shape (N, C, H, W); ``generator`` on the CPU.
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


def accuracy(model: nn.Module, images: Tensor, labels: Tensor, scale: tuple[Tensor, Tensor]) -> float:
    """Percent of images that the model, put into evaluation mode, classifies rightly."""
    model.eval()
    mean, std = scale
    with torch.inference_mode():
        correct: int = sum(
            int((model((x.float() - mean) / std).argmax(1) == y).sum())
            for x, y in zip(images.split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True)
        )
    return 100 * correct / len(labels)


def fit(
    model: nn.Module,
    data: Dataset,
    *,
    epochs: int,
    seed: int,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 1e-3,
    batch_size: int = 128,
    augment: bool = True,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> list[dict[str, float]]:
    """Train with SGD, its learning rate falling to zero along a cosine over all steps; test after each epoch.

    The defaults are the paper's settings for CIFAR. ``seed`` decides order and augmentation (the weights are
    the caller's). Each epoch leaves out the last incomplete batch, whose covariance would be a poor one.

    Returns:
        One dictionary an epoch: ``epoch`` (from 1), ``loss`` and ``train`` (cross-entropy and percent right, over
        the training batches as they were met), ``test`` (percent right on the test images, after the epoch),
        ``train_seconds``, ``test_seconds``.

    Raises:
        ValueError: fewer training images than a batch, or fewer than one epoch.
        FloatingPointError: the loss is no longer finite.
    """
    from tqdm.auto import tqdm

    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    if not 1 <= batch_size <= len(data.train_images):
        raise ValueError(
            f"batch_size must lie between 1 and the number of training images, {len(data.train_images)}, "
            f"got {batch_size}"
        )
    device = torch.device(device)
    model.to(device)
    images, labels = data.train_images.to(device), data.train_labels.to(device)
    test_images, test_labels = data.test_images.to(device), data.test_labels.to(device)
    mean, std = scale = normaliser(data, device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)
    steps = len(images) // batch_size
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * steps)

    curve = []
    with tqdm(total=epochs * steps, disable=not progress, unit="step") as bar:
        for epoch in range(1, epochs + 1):
            start = time.perf_counter()
            model.train()
            loss_sum = torch.zeros((), device=device)
            correct = torch.zeros((), device=device, dtype=torch.long)
            order = torch.randperm(len(images), generator=generator).to(device)
            for batch in order[: steps * batch_size].split(batch_size):
                x, y = (images[batch].float() - mean) / std, labels[batch]
                logits = model(crop_and_flip(x, generator) if augment else x)
                loss = F.cross_entropy(logits, y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                loss_sum += loss.detach()
                correct += (logits.detach().argmax(1) == y).sum()
                bar.update()
            entry = {
                "epoch": epoch,
                "loss": float(loss_sum) / steps,
                "train": 100 * int(correct) / (steps * batch_size),
            }
            check_finite(model)
            if not math.isfinite(entry["loss"]):
                raise FloatingPointError(f"the loss is not finite in epoch {epoch}; try a learning rate below {lr}")
            middle = time.perf_counter()
            entry["test"] = accuracy(model, test_images, test_labels, scale)
            entry["train_seconds"] = round(middle - start, 3)
            entry["test_seconds"] = round(time.perf_counter() - middle, 3)
            bar.set_postfix(loss=f"{entry['loss']:.3f}", train=f"{entry['train']:.1f}%", test=f"{entry['test']:.1f}%")
            curve.append(entry)
    return curve


def run(
    *,
    dataset: str,
    arch: str,
    method: str,
    epochs: int,
    seed: int,
    train_images: int | None = None,
    test_images: int | None = None,
    width: float = 1.0,
    options: dict[str, Any] | None = None,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 1e-3,
    batch_size: int = 128,
    augment: bool = True,
    device: str = "cpu",
    progress: bool = True,
    command: Sequence[str] = (),
) -> tuple[nn.Module, Record]:
    """One run from its description to its ledger record: load, build, :func:`fit`.

    ``seed`` decides the initial weights as well as order and augmentation; ``options`` are those of the
    deconvolution layers, see ``models.build``; ``command`` is what is written down as the way to repeat the run.
    """
    data = load(dataset).subset(train_images, test_images)
    torch.manual_seed(seed)
    classes, channels = len(data.classes), data.train_images.shape[1]
    model = build(arch, method=method, classes=classes, channels=channels, width=width, options=options)
    curve = fit(
        model,
        data,
        epochs=epochs,
        seed=seed,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        batch_size=batch_size,
        augment=augment,
        device=device,
        progress=progress,
    )
    record: Record = {
        "schema": 1,
        "dataset": dataset,
        "data_sha256": data.sha256(),
        "train_images": len(data.train_images),
        "test_images": len(data.test_images),
        "arch": arch,
        "width": width,
        "variant": "paper",
        "method": method,
        "options": " ".join(f"{name}={value}" for name, value in sorted((options or {}).items())),
        "epochs": epochs,
        "seed": seed,
        "optimizer": "sgd",
        "lr": lr,
        "schedule": "cosine",
        "momentum": momentum,
        "weight_decay": weight_decay,
        "batch_size": batch_size,
        "augment": "crop-flip" if augment else "none",
        "loss": "cross-entropy",
        "precision": "float32",
        "processes": 1,
        "metric": "top-1",
        **{f"{split}_best": max(e[split] for e in curve) for split in ("train", "test")},
        **{f"{split}_last": curve[-1][split] for split in ("train", "test")},
        "curve": curve,
        "train_seconds": round(sum(e["train_seconds"] for e in curve), 3),
        "test_seconds": round(sum(e["test_seconds"] for e in curve), 3),
        "params": sum(p.numel() for p in model.parameters()),
        "device": describe_device(device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ndlib": __version__,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(command),
    }
    return model, record


def describe_device(device: str) -> str:
    """What the run ran on, for the ledger: the GPU's name, or the processor's and the number of threads."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].split(":", 1)[1].strip() if lines else name
    return f"cpu: {name}, {torch.get_num_threads()} threads"


def commit() -> str | None:
    """The commit of the checkout that this package runs from, with "+" if ndlib/ differs from it; None outside one."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "training.py")  # a wheel inside some other project's checkout is not it
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
