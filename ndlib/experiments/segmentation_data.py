"""Pictures with a class for every pixel: Cityscapes, Oxford-IIIT Pet, and pictures in memory.

The two ways of making classes of Cityscapes' 34 kinds of thing are described in :mod:`.iou`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..files import DatasetError
from .iou import IGNORED, VOID, Scores, scores_19, scores_21, scores_all

__all__ = [
    "MEAN",
    "STD",
    "UNKNOWN",
    "Arrays",
    "Pictures",
    "cityscapes",
    "cityscapes_classes",
    "crop_size",
    "pets",
    "prepare",
]

UNKNOWN = 254  # what a value that no label map should hold becomes
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels, in [0, 1]


def cityscapes(folder: str | Path, split: str, *, classes: int = 19, base_size: int = 520) -> Pictures:
    """The pictures of ``split`` ("train" or "val") with their fine labels, in 19 or 21 classes, see :mod:`.iou`.

    ``folder`` holds ``leftImg8bit`` and ``gtFine``, as the two archives of cityscapes-dataset.com unpack. Hidden files
    and what is no picture are passed over.

    Raises:
        ndlib.files.DatasetError: the folder, a part of it or a label map is not there.

    >>> cityscapes("nowhere", "train")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ndlib.files.DatasetError: there is no folder nowhere; unpack leftImg8bit_trainvaltest.zip and ...
    """
    from torchvision.datasets.folder import is_image_file

    table = cityscapes_classes(classes)
    images, targets = (Path(folder, name, split) for name in ("leftImg8bit", "gtFine"))
    for part in (Path(folder), images, targets):
        if not part.is_dir():
            raise DatasetError(
                f"there is no folder {part}; unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip of "
                "https://www.cityscapes-dataset.com (after registration) in one folder, and name that folder"
            )
    # torchvision's own reader takes each file in a city for a picture, and each file beside the cities for a city.
    files = []
    for file in sorted(images.glob("*/*")):
        if is_image_file(file.name) and not file.name.startswith(".") and not file.parent.name.startswith("."):
            stem = file.stem.removesuffix("_leftImg8bit")
            files.append((file, targets / file.parent.name / f"{stem}_gtFine_labelIds.png"))
    return Pictures(files, table, classes, base_size, scores_21 if classes == 21 else scores_19, _no_label_ids)


def _no_label_ids(values: set[int]) -> str:
    """What a file of these values is, if it certainly holds no ``labelIds``.

    Only a licence plate can be 255 there, and where one is, the car is that bears it, with a value above 18.
    """
    return "trainIds" if IGNORED in values and values <= {*range(19), IGNORED} else ""


def cityscapes_classes(classes: int) -> NDArray[np.uint8]:
    """For each value of a ``labelIds`` file its class; 254 for a value that no such file holds.

    >>> [int(cityscapes_classes(19)[value]) for value in (7, 8, 0, 200)]  # road, pavement, unlabelled, nothing
    [0, 1, 255, 254]
    """
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

    ``folder`` holds ``oxford-iiit-pet``, as torchvision's downloader leaves it, or is that folder.

    Raises:
        ndlib.files.DatasetError: the folder, a part of it or a trimap is not there.

    >>> pets("nowhere", "test")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ndlib.files.DatasetError: there is no nowhere/oxford-iiit-pet/images; download the set (800 MB) with: ...
    """
    inside = Path(folder, "oxford-iiit-pet")
    if not inside.is_dir() and Path(folder, "annotations").is_dir():
        inside = Path(folder)
    images, trimaps = inside / "images", inside / "annotations" / "trimaps"
    listed = inside / "annotations" / f"{split}.txt"
    for part, archive in ((images, "images"), (trimaps, "annotations"), (listed, "annotations")):
        if not part.exists() and inside.is_dir():  # torchvision's downloader would not look for a part
            raise DatasetError(
                f"there is no {part}; unpack {archive}.tar.gz of https://www.robots.ox.ac.uk/~vgg/data/pets in {inside}"
            )
        if not part.exists():
            raise DatasetError(
                f'there is no {part}; download the set (800 MB) with: python -c "import torchvision; '
                f"torchvision.datasets.OxfordIIITPet('{folder}', download=True)\""
            )
    names = [line.split()[0] for line in listed.read_text().splitlines() if line.strip()]
    files = [(images / f"{name}.jpg", trimaps / f"{name}.png") for name in names]
    table = np.full(256, UNKNOWN, np.uint8)
    table[1:4] = range(3)
    return Pictures(files, table, 3, base_size, scores_all, _no_trimap)


def _no_trimap(values: set[int]) -> str:
    """What a file of these values is, if it certainly holds no trimap, whose values are 1, 2 and 3."""
    if 0 not in values:
        return ""
    return "classes counted from 0" if values <= {0, 1, 2} else "a mask of 0 and 255" if values <= {0, 255} else ""


def crop_size(base_size: int) -> int:
    """Side of the squares that a network is trained on, in pixels.

    >>> crop_size(520)  # as published
    480
    """
    return 480 * base_size // 520


def prepare(picture: Any, labels: Any, base_size: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """PIL pictures as a network takes them, augmented as in the published code if there is a generator.

    Training: the shorter side becomes 0.5 to 2 times the base size, every other pair is flipped, and a square of
    :func:`crop_size` is cut out; what is too small is padded right and below, black and ignored. Otherwise the shorter
    side becomes the base size. Pixels are interpolated linearly, classes are taken from the nearest pixel.

    Returns:
        Float32 of shape (3, H, W) in standard deviations of ImageNet's pixels, and int64 of shape (H, W).

    >>> from PIL import Image
    >>> x, y = prepare(Image.new("RGB", (40, 20)), Image.new("L", (40, 20)), 10, None)
    >>> x.shape, y.shape
    (torch.Size([3, 10, 20]), torch.Size([10, 20]))
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


def _nothing(values: set[int]) -> str:
    return ""  # no lambda: processes that are spawned get it pickled


@dataclass(frozen=True)
class Pictures:
    """Pictures in files, each with a file that holds a value for every pixel, of which ``table`` makes classes.

    Raises:
        ndlib.files.DatasetError: there is no picture, or a label map is missing.
        ValueError: a base size that leaves nothing to crop.

    >>> Pictures([], np.arange(256, dtype=np.uint8), 2, 520, scores_all)
    Traceback (most recent call last):
        ...
    ndlib.files.DatasetError: the folders are there, but there is no picture in them; were the archives unpacked?
    """

    files: list[tuple[Path, Path]]
    table: NDArray[np.uint8]
    classes: int
    base_size: int
    scores: Scores
    mistaken: Callable[[set[int]], str] = _nothing  # what a label file is that holds these values wrongly

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
            if values.ndim == 3:
                raise DatasetError(f"{label_file} looks like colours ({label_map.mode}); a byte is due for each pixel")
            if values.ndim != 2 or values.dtype != np.uint8 or label_map.size != picture.size:
                raise DatasetError(f"{label_file} does not hold one byte for each pixel of {file}")
            if what := self.mistaken(set(np.unique(values).tolist())):
                raise DatasetError(
                    f"{label_file} looks like {what}, which are not the labels due; is it the right file?"
                )
            labels = self.table[values]
            if (labels == UNKNOWN).any():
                value = int(values[labels == UNKNOWN][0])
                raise DatasetError(f"{label_file} holds the value {value}, which means nothing; is it the right file?")
            return prepare(picture.convert("RGB"), Image.fromarray(labels), self.base_size, generator)


@dataclass(frozen=True)
class Arrays:
    """Pictures of one size in memory, float (N, C, H, W), and their classes, int64 (N, H, W); augmented by flips.

    >>> data = Arrays(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.long), classes=1)
    >>> data.item(0, torch.Generator().manual_seed(0))[0].shape
    torch.Size([3, 4, 4])
    """

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
