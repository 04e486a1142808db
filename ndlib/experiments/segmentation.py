"""Name every pixel: Cityscapes and Oxford-IIIT Pet as data sets, a training loop, mean intersection over union.

Cityscapes tells 34 kinds of thing apart (``labelIds``). Two ways of making classes of them:

* **19 classes**, the standard: 19 kinds are classes 0 to 18; all others are ignored (255), in training and scoring.
* **21 classes**, of the authors' code: the same 19 kinds are classes 1 to 19; all others together are class 0, "void",
  which is learnt and scored like any class. The network has a 21st output, class 20, to which no pixel belongs. Ignored
  is only what was padded. The score is the mean over all 21, the class that never occurs with an IoU of 0: a perfect
  prediction scores 20/21 = 95.2 %.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..diagnostics import check_finite
from ..files import DatasetError
from .models import build
from .provenance import provenance

IGNORED, UNKNOWN = 255, 254  # UNKNOWN: what a value that no label map should hold becomes
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels, in [0, 1]
VOID, NEVER = 0, -1  # the first and the last of the 21 classes of Cityscapes

Scores = Callable[[Tensor], dict[str, float]]


# The score. ------------------------------------------------------------------------------------------------


def confusion_matrix(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    """How many pixels of each class (rows) were given to each class (columns); those with target 255 count nowhere.

    Raises:
        ValueError: shapes that differ, or a class that is neither 255 nor below ``classes``.
    """
    if predicted.shape != target.shape:
        raise ValueError(f"a prediction of shape {tuple(predicted.shape)} for labels of {tuple(target.shape)}")
    counted = target != IGNORED
    predicted, target = predicted[counted], target[counted]
    for what, values in (("the labels", target), ("the prediction", predicted)):
        if ((values < 0) | (values >= classes)).any():
            raise ValueError(f"{what} hold a class outside 0 to {classes - 1}; are there {classes} classes?")
    return torch.bincount(target * classes + predicted, minlength=classes**2).reshape(classes, classes)


def class_iou(confusion: Tensor) -> Tensor:
    """TP / (TP + FP + FN) of each class, between 0 and 1; NaN for a class that is neither there nor predicted."""
    confusion = confusion.double()
    both = confusion.diagonal()
    return both / (confusion.sum(0) + confusion.sum(1) - both)


def mean_iou(confusion: Tensor, *, absent: float | None = None) -> float:
    """The mean of :func:`class_iou`, between 0 and 1. A class that is neither there nor predicted is left out, or, if
    ``absent`` is a number, counts with that."""
    iou = class_iou(confusion)
    return float(iou.nanmean() if absent is None else iou.nan_to_num(absent).mean())


def standard_iou(confusion: Tensor) -> Tensor:
    """The IoUs of a network that has the class "void" first and one that never occurs last, over the classes between,
    as the standard counts: what happens on void pixels does not matter, and a pixel that was called void is a miss."""
    confusion = confusion.clone()
    confusion[[VOID, NEVER]] = 0
    return class_iou(confusion)[VOID + 1 : NEVER]


def scores_all(confusion: Tensor) -> dict[str, float]:
    """Percent, over all classes that are there or predicted, under the name ``miou``."""
    return {"miou": 100 * mean_iou(confusion)}


def scores_19(confusion: Tensor) -> dict[str, float]:
    """Percent, under the name ``miou_19``."""
    return {"miou_19": 100 * mean_iou(confusion)}


def scores_21(confusion: Tensor) -> dict[str, float]:
    """Percent by both counts: ``miou_19`` as the standard has it, and ``miou_21`` as the authors' code has it (which
    also adds 1e-5 pixels to each denominator; here that is left out)."""
    both = float(standard_iou(confusion).nanmean()), mean_iou(confusion, absent=0.0)
    return {"miou_19": 100 * both[0], "miou_21": 100 * both[1]}


# Pictures. -------------------------------------------------------------------------------------------------


def cityscapes(folder: str | Path, split: str, *, classes: int = 19, base_size: int = 520) -> Pictures:
    """The pictures of ``split`` ("train" or "val") with their fine labels, in 19 or 21 classes, see above.

    ``folder`` holds ``leftImg8bit`` and ``gtFine``, as the two archives of cityscapes-dataset.com unpack.

    Raises:
        ndlib.experiments.datasets.DatasetError: the folder, a part of it or a label map is not there.
    """
    from torchvision.datasets import Cityscapes

    table = cityscapes_classes(classes)
    for part in (Path(folder), *(Path(folder, name, split) for name in ("leftImg8bit", "gtFine"))):
        if not part.is_dir():
            raise DatasetError(
                f"there is no folder {part}; unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip of "
                "https://www.cityscapes-dataset.com (after registration) in one folder, and name that folder"
            )
    reader = Cityscapes(str(folder), split=split, mode="fine", target_type="semantic")
    files = sorted((Path(image), Path(target[0])) for image, target in zip(reader.images, reader.targets, strict=True))
    return Pictures(files, table, classes, base_size, scores_21 if classes == 21 else scores_19)


def cityscapes_classes(classes: int) -> NDArray[np.uint8]:
    """For each value of a ``labelIds`` file its class; 254 for a value that no such file holds."""
    from torchvision.datasets import Cityscapes

    if classes not in (19, 21):
        raise ValueError(f"Cityscapes has 19 classes, or 21 as the authors count, got {classes}")
    table = np.full(256, UNKNOWN, np.uint8)
    for kind in Cityscapes.classes:  # the licence plate has the number -1, which a file of bytes holds as 255
        standard = 0 <= kind.train_id < 19
        table[kind.id] = kind.train_id + (classes == 21) if standard else VOID if classes == 21 else IGNORED
    return table


def pets(folder: str | Path, split: str, *, base_size: int = 520) -> Pictures:
    """Oxford-IIIT Pet, ``split`` "trainval" or "test", in three classes: pet, background, border.

    ``folder`` holds ``oxford-iiit-pet``, as torchvision's downloader leaves it.

    Raises:
        ndlib.experiments.datasets.DatasetError: the folder, a part of it or a trimap is not there.
    """
    from torchvision.datasets import OxfordIIITPet

    inside = Path(folder, "oxford-iiit-pet")
    for part in (inside / "images", inside / "annotations" / "trimaps", inside / "annotations" / f"{split}.txt"):
        if not part.exists():
            raise DatasetError(
                f'there is no {part}; download the set (800 MB) with: python -c "import torchvision; '
                f"torchvision.datasets.OxfordIIITPet('{folder}', download=True)\""
            )
    reader = OxfordIIITPet(str(folder), split=split, target_types="segmentation")
    files = list(zip(reader._images, reader._segs, strict=True))
    table = np.full(256, UNKNOWN, np.uint8)
    table[1:4] = range(3)
    return Pictures(files, table, 3, base_size, scores_all)


def crop_size(base_size: int) -> int:
    """Side of the squares that a network is trained on: 480 for the published base size of 520."""
    return 480 * base_size // 520


def prepare(picture: Any, labels: Any, base_size: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """PIL pictures as a network takes them, augmented as in the published code if there is a generator.

    Training: the shorter side becomes 0.5 to 2 times the base size, every other pair is flipped, and a square of
    :func:`crop_size` is cut out; what is too small is padded right and below, black and ignored. Otherwise the shorter
    side becomes the base size. Pixels are interpolated linearly, classes are taken from the nearest pixel.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as V

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    side = base_size if generator is None else draw(base_size // 2, 2 * base_size)
    picture = V.resize(picture, [side])
    labels = V.resize(labels, [side], interpolation=InterpolationMode.NEAREST)
    if generator is not None:
        if draw(0, 1):
            picture, labels = V.horizontal_flip(picture), V.horizontal_flip(labels)
        crop = crop_size(base_size)
        missing = [0, 0, *(max(0, crop - length) for length in picture.size)]
        picture, labels = V.pad(picture, missing), V.pad(labels, missing, fill=IGNORED)
        width, height = picture.size
        corner = draw(0, height - crop), draw(0, width - crop)
        picture, labels = (V.crop(image, *corner, crop, crop) for image in (picture, labels))
    pixels = V.to_dtype(V.pil_to_tensor(picture), torch.float32, scale=True)
    return V.normalize(pixels, MEAN, STD), torch.from_numpy(np.array(labels, np.int64))


# Training. -------------------------------------------------------------------------------------------------


def loss_of(output: Tensor | Mapping[str, Tensor], labels: Tensor) -> Tensor:
    """Cross-entropy over the pixels that count, and half that of the auxiliary head, where there is one.

    ``output``: the scores (N, classes, H, W), or torchvision's dictionary of them, ``out`` and perhaps ``aux``.
    """
    heads = output if isinstance(output, Mapping) else {"out": output}
    pixels = (labels != IGNORED).sum().clamp_min(1)
    losses = {k: F.cross_entropy(v, labels, ignore_index=IGNORED, reduction="sum") / pixels for k, v in heads.items()}
    return losses["out"] + 0.5 * losses["aux"] if "aux" in losses else losses["out"]


def evaluate(model: nn.Module, data: Pictures | Arrays, *, batch_size: int = 1, workers: int = 0) -> Tensor:
    """The confusion matrix of a network, put into evaluation mode, over all pictures of a set.

    Batches of more than one picture need pictures of one size.
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
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    if not 1 <= batch_size <= len(train):
        raise ValueError(f"batch_size must lie between 1 and the {len(train)} training pictures, got {batch_size}")
    if not len(test):
        raise ValueError("there is no picture to test on")
    device = torch.device(device)
    model.to(device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)
    steps = len(train) // batch_size
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 - step / (epochs * steps)) ** 0.9)
    curve: list[dict[str, float]] = []
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        model.train()
        order = torch.randperm(len(train), generator=generator)[: steps * batch_size].tolist()
        seeds = torch.randint(2**60, (len(order),), generator=generator).tolist()
        loss_sum = torch.zeros((), device=device)
        for x, y in DataLoader(_Drawn(train, list(zip(order, seeds, strict=True))), batch_size, num_workers=workers):
            value = loss_of(model(x.to(device)), y.to(device))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            loss_sum += value.detach()
        entry = {"epoch": epoch, "loss": float(loss_sum) / steps}
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


def run(
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
        method: ``"bn"`` or ``"nd"``, see ``models.build``.
        classes: 19 or 21; pets have 3.
        settings: of :func:`fit_segmentation`.
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
class Pictures:
    """Pictures in files, each with a file that holds a value for every pixel, of which ``table`` makes classes.

    Raises:
        ndlib.experiments.datasets.DatasetError: there is no picture, or a label map is missing.
        ValueError: a base size that leaves nothing to crop.
    """

    files: list[tuple[Path, Path]]
    table: NDArray[np.uint8]
    classes: int
    base_size: int
    scores: Scores

    def __post_init__(self) -> None:
        if not self.files:
            raise DatasetError("the folders are there, but there is no picture in them; were the archives unpacked?")
        if missing := [file for pair in self.files for file in pair if not file.is_file()]:
            raise DatasetError(f"{len(missing)} files are missing, the first is {missing[0]}; unpack the archive again")
        if self.base_size < 2:
            raise ValueError(f"base_size must be at least 2, got {self.base_size}")

    def __len__(self) -> int:
        return len(self.files)

    def item(self, index: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """A picture and its classes, see :func:`prepare`."""
        from PIL import Image

        file, label_file = self.files[index]
        with Image.open(file) as picture, Image.open(label_file) as label_map:
            values = np.asarray(label_map)
            if values.ndim != 2 or values.dtype != np.uint8 or label_map.size != picture.size:
                raise DatasetError(f"{label_file} does not hold one byte for each pixel of {file}")
            labels = self.table[values]
            if (labels == UNKNOWN).any():
                value = int(values[labels == UNKNOWN][0])
                raise DatasetError(f"{label_file} holds the value {value}, which means nothing; is it the right file?")
            return prepare(picture.convert("RGB"), Image.fromarray(labels), self.base_size, generator)


@dataclass(frozen=True)
class Arrays:
    """Pictures of one size in memory, float (N, C, H, W), and their classes, int64 (N, H, W); augmented by flips."""

    images: Tensor
    labels: Tensor
    classes: int
    scores: Scores = scores_all

    def __len__(self) -> int:
        return len(self.images)

    def item(self, index: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """A picture and its classes, flipped in half of the draws if there is a generator."""
        flip = generator is not None and bool(torch.rand((), generator=generator) < 0.5)
        dims = [-1] if flip else []
        return self.images[index].flip(dims), self.labels[index].flip(dims)


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
