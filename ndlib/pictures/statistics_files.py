"""Files of image statistics: what they hold, reading and writing them, and adding up two of them.

    >>> imagenet = load_statistics("imagenet")  # the sums that the project carries
    >>> imagenet.total.images.item(), list(imagenet.rescaled)
    (1000, [224, 112, 56])

``python -m ndlib statistics FOLDER --out FILE.npz`` makes such a file of a folder of pictures.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import files
from .image_statistics import LAG, SPACES, Statistics, all_lags, autocovariance, half_of_lags

__all__ = [
    "DAMAGE",
    "Collection",
    "NamedArrays",
    "arrays_of",
    "load_statistics",
    "merge",
    "save_statistics",
    "statistics_of",
]

NamedArrays = dict[str, NDArray[np.generic]]

DAMAGE = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error)  # what reading a damaged file raises


@dataclass(frozen=True)
class Collection:
    """Statistics of the pictures of a folder, as :func:`ndlib.pictures.folders.collect` makes them.

    Args:
        total: R, G and B, all pictures as they are.
        rescaled: the same of the pictures rescaled, by their shorter side in pixels; without ``own``.
        groups: luminance of every 8th picture, from the first, the second, ... on, as a first dimension: for
            :func:`ndlib.pictures.fits.jackknife`.
        prefixes: for each random order of the pictures, the statistics of the first so many of them, as a first
            dimension of about 64 counts (see ``prefixes[0].images``): R, G and B in order 0, luminance in the others.
        provenance: where the pictures are from and how the sums were made.

    >>> imagenet = load_statistics("imagenet")
    >>> imagenet.groups.images.tolist(), imagenet.prefixes[0].images[:5].tolist()
    ([125, 125, 125, 125, 125, 125, 125, 125], [1, 2, 3, 4, 5])
    """

    total: Statistics
    rescaled: dict[int, Statistics]
    groups: Statistics
    prefixes: tuple[Statistics, ...]
    provenance: dict[str, Any]


def load_statistics(source: str | Path) -> Collection:
    """Read a file of image statistics.

    Args:
        source: a file that ``python -m ndlib statistics`` wrote, or ``"imagenet"`` for the file that the project
            carries, of 1,000 pictures of ImageNet.

    Raises:
        DatasetError: the file is damaged, or no file of image statistics.
        FileNotFoundError: there is no such file.

    >>> load_statistics("imagenet").total.products.shape
    torch.Size([3, 3, 29, 29])
    """
    file = files.path("imagenet_statistics.npz") if source == "imagenet" else Path(source)
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            provenance = json.loads(str(stored["provenance"]))
            totals = {size: statistics_of(stored, f"total/{size}") for size in [0, *provenance["sizes"]]}
            groups = statistics_of(stored, "groups")
            prefixes = tuple(_unpack(stored, f"prefix/{order}") for order in range(provenance["orders"]))
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        raise files.DatasetError(
            f"{file} is damaged or no file of image statistics ({error}): make it afresh"
        ) from error
    return Collection(totals.pop(0), totals, groups, prefixes, provenance)


def save_statistics(file: Path, collection: Collection) -> None:
    """Write a collection, whole or not at all: totals and groups exactly, prefixes rounded to ``PRECISION``.

    >>> import tempfile
    >>> imagenet = load_statistics("imagenet")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_statistics(Path(folder) / "copy.npz", imagenet)
    ...     copy = load_statistics(Path(folder) / "copy.npz")
    >>> torch.equal(copy.total.products, imagenet.total.products)
    True
    """
    arrays: NamedArrays = {"provenance": np.array(json.dumps(collection.provenance))}
    for size, statistics in {0: collection.total, **collection.rescaled}.items():
        arrays |= arrays_of(statistics, f"total/{size}")
    arrays |= arrays_of(collection.groups, "groups")
    for order, prefix in enumerate(collection.prefixes):
        arrays |= _pack(prefix, f"prefix/{order}")
    files.write_npz(file, arrays)


def arrays_of(statistics: Statistics, name: str) -> NamedArrays:
    """Statistics as arrays whose names begin with ``name``, for a NumPy archive; of symmetric parts one half.

    >>> from ndlib.pictures.image_statistics import picture_statistics
    >>> list(arrays_of(picture_statistics(torch.ones(20, 30)), "total"))
    ['total/extent', 'total/sums', 'total/products', 'total/own']
    """
    parts = {"extent": statistics.extent, "sums": statistics.sums, "products": half_of_lags(statistics.products)}
    if statistics.own is not None:
        parts["own"] = half_of_lags(statistics.own)
    return {f"{name}/{part}": values.numpy() for part, values in parts.items()}


def statistics_of(stored: Mapping[str, NDArray[Any]], name: str) -> Statistics:
    """The statistics that :func:`arrays_of` turned into arrays of this name.

    >>> from ndlib.pictures.image_statistics import picture_statistics
    >>> statistics_of(arrays_of(picture_statistics(torch.ones(20, 30)), "total"), "total").images.item()
    1
    """
    extent, sums, products = (torch.from_numpy(stored[f"{name}/{part}"]) for part in ("extent", "sums", "products"))
    own = all_lags(torch.from_numpy(stored[f"{name}/own"])) if f"{name}/own" in stored else None
    return Statistics(extent, sums, all_lags(products), own)


PRECISION = 2.0**-24  # of the variance (products) or of 1 (sums): a kernel at eps 1e-5 changes by less than 1e-3


def _pack(prefix: Statistics, name: str) -> NamedArrays:
    """Prefix statistics, one for each count, as integers: less than one byte a number.

    Sums become means over the pixels, which are rounded to multiples of ``PRECISION``. The mean of all pictures is
    subtracted first, so that nothing large cancels later, and colours are in the opponent space, where most pairs are
    small. Successive counts and neighbouring lags are nearly equal, so that their differences are small integers, whose
    high bytes deflate.
    """
    mean = prefix[-1].mean
    centred = _opponent(prefix.shifted(-mean), SPACES["opponent"])
    variance = autocovariance(centred[-1])[..., LAG, LAG].max()
    steps = PRECISION * torch.stack([torch.ones_like(variance), variance])
    arrays: NamedArrays = {
        f"{name}/extent": prefix.extent.numpy(),
        f"{name}/mean": mean.numpy(),
        f"{name}/steps": steps.numpy(),
    }
    parts = {"sums": centred.sums, "products": half_of_lags(centred.products)}
    for (part, values), step in zip(parts.items(), steps, strict=True):
        pixels = prefix.extent[:, 3].reshape(-1, *[1] * (values.dim() - 1))
        integers = (values / pixels / step).round().to(torch.int64).numpy()
        for axis in (0, -2, -1):
            integers = np.diff(integers, axis=axis, prepend=0)
        integers = (integers << 1) ^ (integers >> 63)  # 0, -1, 1, -2, ... as 0, 1, 2, 3, ...: without high bytes
        planes = np.ascontiguousarray(integers.astype("<i8").view(np.uint8).reshape(-1, 8).T)
        arrays[f"{name}/{part}"] = np.frombuffer(zlib.compress(planes.tobytes(), 9), np.uint8)
    return arrays


def _unpack(stored: Mapping[str, NDArray[Any]], name: str) -> Statistics:
    """The prefix statistics that :func:`_pack` made integers of."""
    extent, mean, steps = (torch.from_numpy(stored[f"{name}/{part}"]) for part in ("extent", "mean", "steps"))
    values = []
    for part, rows, step in (("sums", 2 * LAG + 1, steps[0]), ("products", LAG + 1, steps[1])):
        planes = np.frombuffer(zlib.decompress(stored[f"{name}/{part}"].tobytes()), np.uint8)
        integers = np.ascontiguousarray(planes.reshape(8, -1).T).view("<i8").astype(np.int64)
        integers = (integers >> 1) ^ -(integers & 1)
        channels = [len(mean)] * (1 if part == "sums" else 2)
        integers = integers.reshape(len(extent), *channels, rows, 2 * LAG + 1)
        for axis in (0, -2, -1):
            integers = integers.cumsum(axis)
        pixels = extent[:, 3].reshape(-1, *[1] * (integers.ndim - 1))
        values.append(torch.from_numpy(integers) * step * pixels)
    centred = Statistics(extent, values[0], all_lags(values[1]), None)
    return _opponent(centred, SPACES["opponent"].T).shifted(mean)


def _opponent(statistics: Statistics, matrix: Tensor) -> Statistics:
    return statistics.transformed(matrix) if statistics.channels == 3 else statistics


def merge(first: Collection, second: Collection) -> Collection:
    """The statistics of the pictures of both. Prefix sums are left out, because they belong to one order of pictures.

    Raises:
        ValueError: the two were rescaled to different sizes.

    >>> imagenet = load_statistics("imagenet")
    >>> merge(imagenet, imagenet).total.images.item()
    2000
    """
    if first.rescaled.keys() != second.rescaled.keys():
        raise ValueError(f"rescaled to different sizes: {list(first.rescaled)} and {list(second.rescaled)}")
    rescaled = {size: statistics + second.rescaled[size] for size, statistics in first.rescaled.items()}
    parts = [first.provenance, second.provenance]
    provenance = {
        "pictures": sum(part["pictures"] for part in parts),
        "skipped": [name for part in parts for name in part["skipped"]],
        "sizes": list(rescaled),
        "orders": 0,
        "command": "python -m ndlib statistics --merge A.npz B.npz --out FILE.npz",
        "merged": parts,
    }
    return Collection(first.total + second.total, rescaled, first.groups + second.groups, (), provenance)
