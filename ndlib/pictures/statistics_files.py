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
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import files
from .exact_sums import Part, Sums
from .image_statistics import LAG, SPACES, Statistics, all_lags, autocovariance, half_of_lags

__all__ = [
    "DAMAGE",
    "SCHEMA",
    "Collection",
    "NamedArrays",
    "arrays_of",
    "load_statistics",
    "merge",
    "save_statistics",
    "sums_in",
]

NamedArrays = dict[str, NDArray[np.generic]]

LAGS, HALF = (2 * LAG + 1, 2 * LAG + 1), (LAG + 1, 2 * LAG + 1)
GROUPS = 8  # of pictures, by turns: leaving out one at a time shows how much a result depends on the sample

DAMAGE = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error)  # what reading a damaged file raises


SCHEMA = 2  # of files: 1, which says nothing of it, has sums in floating point


@dataclass(frozen=True)
class Collection:
    """Statistics of the pictures of a folder, as :func:`ndlib.pictures.folders.collect` makes them.

    Args:
        sums: of all pictures, R, G and B: as they are under 0, rescaled under their shorter side in pixels.
        group_sums: of every 8th picture, from the first, the second, ... on, as a first dimension.
        prefixes: for each random order of the pictures, the statistics of the first so many of them, as a first
            dimension of about 64 counts (see ``prefixes[0].images``): R, G and B in order 0, luminance in the others.
        provenance: where the pictures are from and how the sums were made.

    >>> imagenet = load_statistics("imagenet")
    >>> imagenet.groups.images.tolist(), imagenet.prefixes[0].images[:5].tolist()
    ([125, 125, 125, 125, 125, 125, 125, 125], [1, 2, 3, 4, 5])
    """

    sums: dict[int, Sums]
    group_sums: Sums
    prefixes: tuple[Statistics, ...]
    provenance: dict[str, Any]

    @cached_property
    def total(self) -> Statistics:
        """R, G and B of all pictures as they are."""
        return self.sums[0].statistics()

    @cached_property
    def rescaled(self) -> dict[int, Statistics]:
        """The same of the pictures rescaled, by their shorter side in pixels."""
        return {size: sums.statistics() for size, sums in self.sums.items() if size}

    @cached_property
    def groups(self) -> Statistics:
        """Luminance of every 8th picture, as a first dimension, for :func:`ndlib.pictures.fits.jackknife`."""
        return self.group_sums.statistics("luminance")


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
            if provenance.get("schema", 1) > SCHEMA:
                raise ValueError("a later version of ndlib wrote it")
            totals = {size: sums_in(stored, f"total/{size}") for size in [0, *provenance["sizes"]]}
            if not all(sums.parts for sums in totals.values()):
                raise ValueError("sums are missing")
            groups = sums_in(stored, "groups", (GROUPS,))
            prefixes = tuple(_unpack(stored, f"prefix/{order}") for order in range(provenance["orders"]))
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        raise files.DatasetError(
            f"{file} is damaged or no file of image statistics ({error}): make it afresh"
        ) from error
    return Collection(totals, groups, prefixes, provenance)


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
    for size, sums in collection.sums.items():
        arrays |= _smaller(arrays_of(sums, f"total/{size}"))
    arrays |= _smaller(arrays_of(collection.group_sums, "groups"))
    for order, prefix in enumerate(collection.prefixes):
        arrays |= _pack(prefix, f"prefix/{order}")
    files.write_npz(file, arrays)


def arrays_of(sums: Sums, name: str) -> NamedArrays:
    """Sums as arrays whose names begin with ``name``, for a NumPy archive.

    >>> from ndlib.pictures.exact_sums import sums_of
    >>> list(arrays_of(sums_of(np.zeros((20, 30, 3), np.uint8)), "total"))
    ['total/8/extent', 'total/8/sums', 'total/8/products', 'total/8/own']
    """
    parts = sums.parts.items()
    return {f"{name}/{bits}/{what}": values.numpy() for bits, part in parts for what, values in part.items()}


def sums_in(stored: Mapping[str, NDArray[Any]], name: str, leading: tuple[int, ...] = ()) -> Sums:
    """The sums that :func:`arrays_of` turned into arrays of this name; also those in files of version 0.1.

    Raises:
        ValueError: they have other shapes.

    >>> from ndlib.pictures.exact_sums import sums_of
    >>> arrays = arrays_of(sums_of(np.zeros((20, 30, 3), np.uint8)), "total")
    >>> sums_in(arrays, "total").statistics().images.item()
    1
    """
    parts: dict[int, Part] = {}
    for bits, before in ((0, name), (0, f"{name}/0"), (8, f"{name}/8"), (16, f"{name}/16")):
        if f"{before}/extent" not in stored:
            continue
        channels = {0: 3, 8: 3, 16: 6}[bits]
        if bits == 0:
            channels = stored[f"{before}/sums"].shape[-3]  # 1 of groups
        shapes = {"extent": (4,), "sums": (channels, *LAGS), "products": (channels, channels, *HALF)}
        shapes["own"] = shapes["products"]
        parts[bits] = {}
        for what, shape in shapes.items():
            if f"{before}/{what}" in stored:
                values = stored[f"{before}/{what}"]
                values = _inflated(values, (*leading, *shape), (-2, -1)) if values.dtype == np.uint8 else values
                if values.dtype != (np.float64 if bits == 0 else np.int64) or values.shape != (*leading, *shape):
                    raise ValueError(f"the sums {name} have another shape or type")
                parts[bits][what] = torch.from_numpy(values)
    return Sums(leading, parts)


def _deflated(integers: NDArray[np.int64], axes: tuple[int, ...]) -> NDArray[np.uint8]:
    """Integers that change little along some axes: their differences, whose high bytes are zero, compressed."""
    for axis in axes:
        integers = np.diff(integers, axis=axis, prepend=0)
    integers = (integers << 1) ^ (integers >> 63)  # 0, -1, 1, -2, ... as 0, 1, 2, 3, ...: without high bytes
    planes = np.ascontiguousarray(integers.astype("<i8").view(np.uint8).reshape(-1, 8).T)
    return np.frombuffer(zlib.compress(planes.tobytes(), 9), np.uint8)


def _inflated(stored: NDArray[np.uint8], shape: tuple[int, ...], axes: tuple[int, ...]) -> NDArray[np.int64]:
    """The integers that :func:`_deflated` compressed."""
    planes = np.frombuffer(zlib.decompress(stored.tobytes()), np.uint8)
    integers = np.ascontiguousarray(planes.reshape(8, -1).T).view("<i8").astype(np.int64)
    integers = ((integers >> 1) ^ -(integers & 1)).reshape(shape)
    for axis in axes:
        integers = integers.cumsum(axis)
    return integers


def _smaller(arrays: NamedArrays) -> NamedArrays:
    """Sums in whole numbers compressed; those in floating point as they are."""
    return {
        name: _deflated(values.astype(np.int64), (-2, -1)) if values.dtype == np.int64 and values.ndim > 2 else values
        for name, values in arrays.items()
    }


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
        arrays[f"{name}/{part}"] = _deflated(integers, (0, -2, -1))
    return arrays


def _unpack(stored: Mapping[str, NDArray[Any]], name: str) -> Statistics:
    """The prefix statistics that :func:`_pack` made integers of."""
    extent, mean, steps = (torch.from_numpy(stored[f"{name}/{part}"]) for part in ("extent", "mean", "steps"))
    values = []
    for part, rows, step in (("sums", 2 * LAG + 1, steps[0]), ("products", LAG + 1, steps[1])):
        channels = [len(mean)] * (1 if part == "sums" else 2)
        shape = (len(extent), *channels, rows, 2 * LAG + 1)
        integers = _inflated(stored[f"{name}/{part}"], shape, (0, -2, -1))
        pixels = extent[:, 3].reshape(-1, *[1] * (integers.ndim - 1))
        values.append(torch.from_numpy(integers) * step * pixels)
    centred = Statistics(extent, values[0], all_lags(values[1]), None)
    return _opponent(centred, SPACES["opponent"].T).shifted(mean)


def _opponent(statistics: Statistics, matrix: Tensor) -> Statistics:
    return statistics.transformed(matrix) if statistics.channels == 3 else statistics


def merge(first: Collection, second: Collection) -> Collection:
    """The statistics of the pictures of both. Prefix sums are left out, because they belong to one order of pictures.

    Sums of version 0.1, in floating point, stay apart from those in whole numbers: these stay exact.

    Raises:
        ValueError: the two were rescaled to different sizes.

    >>> imagenet = load_statistics("imagenet")
    >>> merge(imagenet, imagenet).total.images.item()
    2000
    """
    if first.sums.keys() != second.sums.keys():
        raise ValueError(f"rescaled to different sizes: {list(first.sums)[1:]} and {list(second.sums)[1:]}")
    sums = {size: Sums() for size in first.sums}
    groups = Sums(first.group_sums.leading)
    for collection in (first, second):
        groups.add(collection.group_sums)
        for size, more in collection.sums.items():
            sums[size].add(more)
    parts = [first.provenance, second.provenance]
    notes = sum((Counter(part.get("notes", {})) for part in parts), Counter())
    provenance = {
        "schema": SCHEMA,
        "pictures": sum(part["pictures"] for part in parts),
        "skipped": [name for part in parts for name in part["skipped"]],
        "left_out": [name for part in parts for name in part.get("left_out", [])],
        "notes": dict(notes),
        "sizes": list(sums)[1:],
        "orders": 0,
        "command": "python -m ndlib statistics --merge A.npz B.npz --out FILE.npz",
        "merged": parts,
    }
    return Collection(sums, groups, (), provenance)
