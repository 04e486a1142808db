"""Data sets as uint8 tensors.

Benchmark sets are read from ``$NDLIB_DATA`` (default ``~/.cache/ndlib``), one ``<name>.npz`` each, and
downloaded once with torchvision where that file is missing; an archive of theirs that lies there is used instead, if
its checksum is right. ``photo-patches`` needs no download at all.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..files import DatasetError, cache_folder, write_npz
from ..pictures.photographs import PHOTOGRAPHS, pixels
from .picture_folders import Pictures, read_folder
from .settings import PREFIX, SIZE, folder_name

__all__ = ["Dataset", "load", "photo_patches", "read_npz"]

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels", "classes")


@dataclass(frozen=True)
class Dataset:
    """A classification data set.

    ``images`` are uint8 of shape (N, channels, height, width), or :class:`.picture_folders.Pictures` of that shape;
    ``labels`` are int64 of shape (N,) and index ``classes``. The order is canonical, by the SHA-256 of each image's
    pixels: however the set arrived, the first n images are the same ones, and they are a random subset.

    >>> images, labels = torch.zeros(6, 1, 2, 2, dtype=torch.uint8), torch.arange(6) % 2
    >>> data = Dataset("made", images, labels, images, labels, ("a", "b"))
    >>> data.train_images.shape
    torch.Size([6, 1, 2, 2])
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]

    def subset(self, train_images: int | None = None, test_images: int | None = None) -> Dataset:
        """The first ``train_images`` training images and ``test_images`` test images; None keeps all.

        >>> images, labels = torch.zeros(6, 1, 2, 2, dtype=torch.uint8), torch.arange(6) % 2
        >>> data = Dataset("made", images, labels, images, labels, ("a", "b"))
        >>> data.subset(4, 2).train_labels.tolist()
        [0, 1, 0, 1]
        """
        for what, wanted, have in (
            ("train_images", train_images, len(self.train_images)),
            ("test_images", test_images, len(self.test_images)),
        ):
            if wanted is not None and not 1 <= wanted <= have:
                raise ValueError(f"{what} must lie between 1 and {have} for {self.name}, got {wanted}")
        return replace(
            self,
            train_images=self.train_images[:train_images],
            train_labels=self.train_labels[:train_images],
            test_images=self.test_images[:test_images],
            test_labels=self.test_labels[:test_images],
        )

    def hold_out(self, train_images: int | None, held_out: int) -> Dataset:
        """Training images in the place of the test images, for choices that must not be made on those.

        The first ``train_images`` (None: as many as are left) to train on, the ``held_out`` that follow to test on.

        >>> images, labels = torch.zeros(6, 1, 2, 2, dtype=torch.uint8), torch.arange(6) % 2
        >>> data = Dataset("made", images, labels, images, labels, ("a", "b"))
        >>> len(data.hold_out(None, 2).train_images)
        4
        """
        have = len(self.train_images)
        trained = have - held_out if train_images is None else train_images
        if not (held_out >= 1 and 1 <= trained <= have - held_out):
            raise ValueError(
                f"{trained} training images and {held_out} held out are not among the {have} of {self.name}"
            )
        held = slice(trained, trained + held_out)
        return replace(self.subset(trained), test_images=self.train_images[held], test_labels=self.train_labels[held])

    def sha256(self) -> str:
        """Checksum over training images, training labels, test images and test labels, in this order; of pictures in
        files over their names and sizes.

        >>> images, labels = torch.zeros(6, 1, 2, 2, dtype=torch.uint8), torch.arange(6) % 2
        >>> data = Dataset("made", images, labels, images, labels, ("a", "b"))
        >>> data.sha256()[:8]
        '90861524'
        """
        digest = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            if isinstance(array, Pictures):
                digest.update(array.checksum())
            else:
                digest.update(np.ascontiguousarray(array.numpy()).data)
        return digest.hexdigest()


def load(name: str, size: int = 0) -> Dataset:
    """A data set by name: ``folder:PATH`` (see :mod:`.picture_folders`), ``photo-patches``, or one of ``cifar10``,
    ``cifar100``, ``mnist``, ``fashion-mnist``, ``imagenette96`` (ten classes of ImageNet: the middle square of each
    picture, 96x96) and ``imagenette48`` (the same pictures, each pixel the mean of 2x2).

    ``photo-patches`` is made on the spot from photographs that scikit-image and scikit-learn ship, see
    :func:`photo_patches`. The others come from ``<cache_folder>/<name>.npz``, with the arrays
    ``train_images`` (uint8, N x H x W or N x H x W x 3), ``train_labels`` (int64), ``test_images``,
    ``test_labels`` and ``classes`` (strings); a set that is not there is downloaded, verified and kept. An archive
    that lies in the same folder (``cifar-10-binary.tar.gz``, ``cifar-100-binary.tar.gz``, ``imagenette2-160.tgz``)
    is taken instead of a download if its MD5 is right.

    Args:
        size: side of the pictures of a folder in pixels; 0 for 224. Other sets have theirs.

    Raises:
        ValueError: unknown name, or a size for a set that has one.
        ndlib.files.DatasetError: the set is not there and cannot be downloaded, or its file is corrupt.

    >>> load("cifar")
    Traceback (most recent call last):
        ...
    ValueError: unknown data set 'cifar'; there are photo-patches, cifar10, cifar100, ...
    """
    if name.startswith(PREFIX):
        root = Path(name.removeprefix(PREFIX)).expanduser()
        return Dataset(folder_name(name), **read_folder(root, size or SIZE))
    if size:
        raise ValueError(f"the size of pictures can be chosen for {PREFIX}PATH only, not for {name}")
    if name == "photo-patches":
        return photo_patches()
    stored = _HALVED.get(name, name)
    if stored not in _DOWNLOADS:
        known = ["photo-patches", *_DOWNLOADS, *_HALVED, f"{PREFIX}PATH"]
        raise ValueError(f"unknown data set {name!r}; there are {', '.join(known)}")
    file = cache_folder() / f"{stored}.npz"
    if not file.exists():
        _download(stored, file)
    arrays = read_npz(file)
    if name != stored:
        arrays |= {key: _halved(arrays[key]) for key in ("train_images", "test_images")}
    return _canonical(name, arrays)


def _halved(images: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Half as high and half as wide: each pixel the mean of 2x2, a half rounded up. ``images``: (N, H, W, C)."""
    n, height, width, channels = images.shape
    fours = images.reshape(n, height // 2, 2, width // 2, 2, channels)
    return ((fours.sum((2, 4), dtype=np.uint16) + 2) // 4).astype(np.uint8)


def read_npz(file: Path) -> dict[str, NDArray[np.generic]]:
    """The five arrays of a data set file, checked. Nothing in the file is executed.

    Raises:
        ndlib.files.DatasetError: the file is damaged or is not in the format that :func:`load` describes.

    >>> from ndlib.files import path
    >>> read_npz(path("README.md"))
    Traceback (most recent call last):
        ...
    ndlib.files.DatasetError: ...README.md is damaged or no data set file (...); delete it, and the set is ...
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in ARRAYS}
        for split in ("train", "test"):
            images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
            if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 3)):
                raise ValueError(f"{split}_images is {images.dtype} of shape {images.shape}, not uint8 (N, H, W[, 3])")
            if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
                raise ValueError(f"{split}_labels is {labels.dtype} of shape {labels.shape}, not int64 (N,)")
            if len(labels) == 0 or labels.min() < 0 or labels.max() >= len(arrays["classes"]):
                raise ValueError(f"{split}_labels is empty or does not index the {len(arrays['classes'])} classes")
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DatasetError(
            f"{file} is damaged or no data set file ({error}); delete it, and the set is downloaded afresh"
        ) from error
    return arrays


def _canonical(name: str, arrays: dict[str, NDArray[np.generic]]) -> Dataset:
    tensors: list[Tensor] = []
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        keys = [(hashlib.sha256(image.tobytes()).digest(), label) for image, label in zip(images, labels, strict=True)]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        pixels = torch.from_numpy(images[order])
        pixels = pixels.unsqueeze(1) if pixels.dim() == 3 else pixels.permute(0, 3, 1, 2).contiguous()
        tensors += [pixels, torch.from_numpy(labels[order])]
    return Dataset(name, *tensors, classes=tuple(str(c) for c in arrays["classes"]))  # type: ignore[misc, arg-type]


# Downloads. ------------------------------------------------------------------------------------------------


def _download(name: str, file: Path) -> None:
    archive = file.parent / _ARCHIVES.get(name, "")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # The archives live and die in this folder: what is left of an interrupted download is never looked at.
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{name}.") as folder:
            if archive.is_file():
                shutil.copy(archive, folder)  # torchvision uses what it finds there, if the checksum is right
            write_npz(file, _DOWNLOADS[name](folder))
    except (ImportError, OSError, RuntimeError, tarfile.TarError, KeyError) as error:
        wrong = f" {archive} did not serve: is it whole, and the one of its home page?" if archive.is_file() else ""
        wanted = " or ".join([file.name, *([_ARCHIVES[name]] if name in _ARCHIVES else [])])
        raise DatasetError(
            f"{name} is not in {file.parent} and could not be downloaded there ({error}).{wrong} Connect to the "
            f"network, or put {wanted} there (formats: help(ndlib.experiments.datasets.load)), or set NDLIB_DATA to "
            "the folder that has it; load('photo-patches') needs no download"
        ) from error


def _download_cifar(
    folder: str, archive: str, md5: str, inside: str, train: list[str], test: list[str], label_bytes: int, names: str
) -> dict[str, NDArray[np.generic]]:
    # The binary archives: records of one or two label bytes (coarse, fine) and 3072 pixels, channel by channel.
    # torchvision's own reader takes the Python archives, which are pickles.
    from torchvision.datasets.utils import download_url

    download_url(f"https://www.cs.toronto.edu/~kriz/{archive}", folder, md5=md5)
    with tarfile.open(Path(folder) / archive) as tar:

        def read(member: str) -> bytes:
            stream = tar.extractfile(f"{inside}/{member}")
            if stream is None:
                raise KeyError(f"{archive} has no file {inside}/{member}")
            return stream.read()

        arrays: dict[str, NDArray[np.generic]] = {
            "classes": np.array(read(names).decode().split()),
        }
        for split, members in (("train", train), ("test", test)):
            records = np.frombuffer(b"".join(map(read, members)), np.uint8).reshape(-1, label_bytes + 3072)
            arrays[f"{split}_labels"] = records[:, label_bytes - 1].astype(np.int64)
            arrays[f"{split}_images"] = records[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return arrays


def _download_mnist(folder: str, fashion: bool) -> dict[str, NDArray[np.generic]]:
    from torchvision import datasets

    reader = datasets.FashionMNIST if fashion else datasets.MNIST
    arrays: dict[str, NDArray[np.generic]] = {"classes": np.array(reader.classes)}
    for split in ("train", "test"):
        part = reader(folder, train=split == "train", download=True)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = part.data.numpy(), part.targets.numpy()
    return arrays


def _download_imagenette(folder: str) -> dict[str, NDArray[np.generic]]:
    from PIL import Image, ImageOps
    from torchvision.datasets import Imagenette

    arrays: dict[str, NDArray[np.generic]] = {}
    for split, part in (("train", "train"), ("test", "val")):
        pictures = Imagenette(folder, split=part, size="160px", download=split == "train")
        pairs = [(np.asarray(ImageOps.fit(p, (96, 96), Image.Resampling.BICUBIC)), label) for p, label in pictures]
        arrays[f"{split}_images"] = np.stack([square for square, _ in pairs])
        arrays[f"{split}_labels"] = np.array([label for _, label in pairs], np.int64)
        arrays["classes"] = np.array([names[0] for names in pictures.classes])
    return arrays


_ARCHIVES = {
    "cifar10": "cifar-10-binary.tar.gz",
    "cifar100": "cifar-100-binary.tar.gz",
    "imagenette96": "imagenette2-160.tgz",
}
_HALVED = {"imagenette48": "imagenette96"}  # made of another set, half as high and half as wide
_DOWNLOADS: dict[str, Callable[[str], dict[str, NDArray[np.generic]]]] = {
    "cifar10": lambda folder: _download_cifar(
        folder,
        _ARCHIVES["cifar10"],
        "c32a1d4ab5d03f1284b67883e8d87530",
        "cifar-10-batches-bin",
        [f"data_batch_{i}.bin" for i in range(1, 6)],
        ["test_batch.bin"],
        1,
        "batches.meta.txt",
    ),
    "cifar100": lambda folder: _download_cifar(
        folder,
        _ARCHIVES["cifar100"],
        "03b5dce01913d631647c71ecec9e9cb8",
        "cifar-100-binary",
        ["train.bin"],
        ["test.bin"],
        2,
        "fine_label_names.txt",
    ),
    "mnist": lambda folder: _download_mnist(folder, fashion=False),
    "fashion-mnist": lambda folder: _download_mnist(folder, fashion=True),
    "imagenette96": _download_imagenette,
}


PATCH = 32
CELL = 64  # patches are cut inside cells of this size, so that no training patch overlaps a test patch
FLATTEST = 6.0  # grey levels; a patch with a smaller standard deviation shows nothing


@cache
def photo_patches(train_per_class: int = 500, test_per_class: int = 100) -> Dataset:
    """A small classification task that is always there: from which of ten photographs was a 32x32 patch cut?

    Each photograph (shrunk by a whole factor to about 400 pixels) is divided into cells of 64x64 pixels;
    every fourth cell gives test patches, the others training patches, so that the two never overlap. Patches
    that are nearly constant are left out. Deterministic: the same images on every machine.

    >>> photo_patches(train_per_class=2, test_per_class=1).train_images.shape
    torch.Size([20, 3, 32, 32])
    """
    rng = np.random.default_rng(0)
    arrays: dict[str, NDArray[np.generic]] = {"classes": np.array(PHOTOGRAPHS)}
    for split in ("train", "test"):
        images, labels = [], []
        for label, name in enumerate(PHOTOGRAPHS):
            picture = pixels(name)
            factor = max(1, round(min(picture.shape[:2]) / 400))
            height, width = (side // factor for side in picture.shape[:2])
            picture = picture[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
            picture = (picture.sum((1, 3), dtype=np.int64) // factor**2).astype(np.uint8)
            corners = [(i, j) for i in range(0, height - CELL + 1, CELL) for j in range(0, width - CELL + 1, CELL)]
            cells = [c for n, c in enumerate(corners) if (n % 4 == 2) == (split == "test")]
            wanted, found = (train_per_class if split == "train" else test_per_class), 0
            while found < wanted:
                top, left = cells[rng.integers(len(cells))] + rng.integers(CELL - PATCH + 1, size=2)
                patch = picture[top : top + PATCH, left : left + PATCH]
                if patch.std() >= FLATTEST:
                    images.append(patch)
                    found += 1
            labels += [label] * wanted
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = np.stack(images), np.array(labels, np.int64)
    return _canonical("photo-patches", arrays)
