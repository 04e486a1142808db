"""Any folder of pictures as a data set, ``folder:PATH``: read by torchvision in worker processes, never held in memory.

- ``PATH/train/CLASS/...`` and ``PATH/val/CLASS/...`` (or ``test``), as ImageNet is laid out; or
- ``PATH/CLASS/...``: a fifth of the pictures, chosen by a hash of their names, is tested on.

    >>> read_folder(Path("nowhere"), 224)
    Traceback (most recent call last):
        ...
    ndlib.files.DatasetError: there is no folder nowhere
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import DatasetError

__all__ = ["Pictures", "read_folder"]

TESTED = 5  # of so many pictures one is tested on where the folder has no train and val
# Grey levels of ImageNet, as all of torchvision's recipes take them.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

Example = tuple[int, int]  # the place of a picture, and the seed of its augmentation


@dataclass(frozen=True)
class Pictures:
    """Pictures in files, in the place of a tensor of shape (N, 3, size, size): indexed like it, and read when needed.

    >>> Pictures((Path("a.jpg"), Path("b.jpg")), 64)[:1].shape
    (1, 3, 64, 64)
    """

    files: tuple[Path, ...]
    size: int
    device: str | torch.device = "cpu"

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, chosen: slice) -> Pictures:
        return replace(self, files=self.files[chosen])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """That of the tensor of all pictures."""
        return len(self.files), 3, self.size, self.size

    def to(self, device: str | torch.device) -> Pictures:
        """The same, read onto another device."""
        return replace(self, device=device)

    def float(self) -> Tensor:
        """All of them, the middle of each, grey levels in float32, (N, 3, size, size)."""
        return torch.cat(list(self.batches([(n, 0) for n in range(len(self))], 100, "none"))).float()

    def batches(self, examples: list[Example], batch_size: int, augment: str) -> Iterator[Tensor]:
        """These examples as batches of uint8 pictures on the device, in this order.

        Each is augmented as its own seed says, so that the number of worker processes changes nothing.
        """
        on_gpu = torch.device(self.device).type == "cuda"
        loader = torch.utils.data.DataLoader(
            _Reader(self.files, self.size, augment),
            batch_size=batch_size,
            sampler=examples,
            num_workers=min(16, _processors()),
            pin_memory=on_gpu,
            generator=torch.Generator(),  # or it draws from the global one
        )
        for batch in loader:
            yield batch.to(self.device, non_blocking=on_gpu)

    def checksum(self) -> bytes:
        """SHA-256 over the names, with their folders of classes, and the sizes of the files."""
        told = [f"{file.parent.name}/{file.name} {file.stat().st_size}" for file in self.files]
        return hashlib.sha256("\n".join(told).encode(errors="surrogateescape")).digest()


def _processors() -> int:
    """Those that this process may use, where the system says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Reader(torch.utils.data.Dataset[Tensor]):
    """Opens and crops one picture: what a worker process does."""

    def __init__(self, files: tuple[Path, ...], size: int, augment: str) -> None:
        from torchvision import transforms as T

        middle = [T.Resize(round(size * 256 / 224)), T.CenterCrop(size)]
        steps: dict[str, list[Any]] = {
            "none": middle,
            "crop-flip": [*middle, T.RandomCrop(size, padding=4), T.RandomHorizontalFlip()],
            "resized-crop-flip": [T.RandomResizedCrop(size), T.RandomHorizontalFlip()],
        }
        self.files = files
        self.transform = T.Compose([*steps[augment], T.PILToTensor()])

    def __getitem__(self, example: Example) -> Tensor:
        from torchvision.datasets.folder import default_loader

        place, seed = example
        try:
            picture = default_loader(str(self.files[place]))
        except Exception as error:  # a damaged file can raise anything in a decoder
            raise DatasetError(f"{self.files[place]} cannot be read ({error}): repair it or take it away") from error
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            cropped: Tensor = self.transform(picture)
        return cropped


def read_folder(root: Path, size: int) -> dict[str, Any]:
    """The fields of :class:`.datasets.Dataset` but for the name, of a folder of pictures.

    The order is that of a hash of the names, so that the first n are a random subset.

    Raises:
        ndlib.files.DatasetError: no such folder, no folders of classes in it, or classes to test on that nobody trains.

    >>> from PIL import Image
    >>> import shutil
    >>> for n in range(20):
    ...     file = Path("new", "cat" if n % 2 else "dog", f"{n}.png")
    ...     file.parent.mkdir(parents=True, exist_ok=True)
    ...     Image.new("RGB", (40, 30)).save(file)
    >>> data = read_folder(Path("new"), size=32)
    >>> data["classes"], len(data["train_images"]) + len(data["test_images"]), data["train_images"].float().shape[1:]
    (('cat', 'dog'), 20, torch.Size([3, 32, 32]))
    >>> shutil.rmtree("new")
    """
    if not root.is_dir():
        raise DatasetError(f"there is no folder {root}")
    if (root / "train").is_dir():
        tested = next((root / part for part in ("val", "test") if (root / part).is_dir()), None)
        if tested is None:
            raise DatasetError(f"{root} has a folder train, and neither val nor test")
        train, classes = _found(root / "train")
        test, others = _found(tested)
        if unknown := sorted(set(others) - set(classes)):
            raise DatasetError(f"{tested} has a class that {root / 'train'} has not: {unknown[0]}")
    else:
        found, classes = _found(root)
        train, test = ([pair for pair in found if (_hash(pair[0]) % TESTED == 0) == held] for held in (False, True))
    if not train or not test:
        raise DatasetError(f"{root} has too few pictures: {len(train)} to train on and {len(test)} to test on")
    parts: dict[str, Any] = {}
    for part, pairs in (("train", train), ("test", test)):
        files, labels = zip(*sorted(pairs, key=lambda pair: _hash(pair[0])), strict=True)
        parts[f"{part}_images"] = Pictures(files, size)
        parts[f"{part}_labels"] = torch.tensor([classes.index(label) for label in labels])
    return {**parts, "classes": classes}


def _found(root: Path) -> tuple[list[tuple[Path, str]], tuple[str, ...]]:
    """The pictures of a folder of classes, each with its class, and the classes; links are followed."""
    from torchvision.datasets import ImageFolder

    try:
        found = ImageFolder(str(root))
    except FileNotFoundError as error:
        raise DatasetError(f"{root} is no folder of classes: {str(error).splitlines()[0]}") from error
    return [(Path(file), found.classes[label]) for file, label in found.samples], tuple(found.classes)


def _hash(file: Path) -> int:
    """Of the name of the class and of the file."""
    name = f"{file.parent.name}/{file.name}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.sha256(name).digest()[:8])
