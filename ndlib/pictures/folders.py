"""Statistics of all pictures below a folder, in constant memory; an interrupted run goes on where it stopped.

collect(folder, file, sizes=(224,), orders=4)
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch
from torch import Tensor

from .. import files
from .image_statistics import LAG, SMALLEST_SIDE, Statistics, in_space, picture_statistics
from .statistics_files import DAMAGE, Collection, NamedArrays, arrays_of, save_statistics, statistics_of

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["collect", "pictures_in", "prefix_counts", "read_picture"]

GROUPS = 8  # of pictures, by turns: leaving out one at a time shows how much a result depends on the sample
SAVE_EVERY = 10.0  # seconds of work that an interruption costs at the most


def read_picture(file: Path | BinaryIO, size: int | None = None) -> Tensor:
    """A picture file as float64 of shape (3, H, W) in [0, 1].

    Grey counts as R = G = B; palettes and CMYK become RGB; transparency is dropped; 16-bit grey keeps its 16 bits.

    Args:
        size: rescale the shorter side to so many pixels, antialiased, with the bilinear filter that torchvision's
            ``Resize`` takes too; a smaller picture keeps its size, since enlarging adds no detail.

    Raises:
        ValueError: floating-point pixels or integers of more than 16 bits, whose scale is not known. A damaged file
            raises whatever Pillow raises.

    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (60, 40), (255, 0, 0)).save(file, "PNG")
    >>> picture = read_picture(file, size=20)
    >>> picture.shape, picture[:, 0, 0].tolist()
    (torch.Size([3, 20, 30]), [1.0, 0.0, 0.0])
    """
    from PIL import Image

    with Image.open(file) as picture:
        if picture.mode == "F":
            raise ValueError("floating-point pixels, whose scale is not known")
        if picture.mode.startswith("I"):
            values = np.asarray(picture)
            if values.max() > 65535:
                raise ValueError("integer pixels of more than 16 bits, whose scale is not known")
            grey = Image.fromarray(values.astype(np.float32))
            return torch.from_numpy(np.asarray(_rescaled(grey, size), np.float64) / 65535).expand(3, -1, -1)
        # Pillow warns of a palette with transparency that is not first made RGBA.
        colour = picture.convert("RGBA").convert("RGB") if "transparency" in picture.info else picture.convert("RGB")
        return torch.from_numpy(np.asarray(_rescaled(colour, size), np.float64) / 255).permute(2, 0, 1)


def _rescaled(picture: Image, size: int | None) -> Image:
    from PIL.Image import Resampling

    shorter = min(picture.size)
    if size is None or shorter <= size:
        return picture
    width, height = (round(side * size / shorter) for side in picture.size)
    return picture.resize((width, height), Resampling.BILINEAR)


def pictures_in(folder: Path) -> list[str]:
    """Names of all files below a folder that Pillow knows by their ending, relative to the folder, sorted.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.JPG", "a.png", "notes.txt"):
    ...         (Path(folder) / name).touch()
    ...     pictures_in(Path(folder))
    ['a.png', 'b.JPG']
    """
    from PIL import Image

    endings = Image.registered_extensions()
    files = (file for file in folder.rglob("*") if file.suffix.lower() in endings and file.is_file())
    return sorted(file.relative_to(folder).as_posix() for file in files)


def prefix_counts(n: int, wanted: int = 64) -> list[int]:
    """About so many counts from 1 to n, equally spaced on a logarithmic scale, and n // 2 among them.

    >>> prefix_counts(100, 8)
    [1, 2, 4, 7, 14, 27, 50, 52, 100]
    """
    for points in range(wanted, 4 * wanted):  # small counts coincide once they are rounded: ask for more
        counts = {round(c) for c in np.geomspace(1, n, points)} | {max(1, n // 2)}
        if len(counts) >= wanted:
            break
    return sorted(counts)


def collect(folder: Path, file: Path, *, sizes: Sequence[int] = (), orders: int = 0) -> Collection:
    """Statistics of all pictures below a folder, into a file; memory does not grow with their number.

    A picture that cannot be read, or has a side below 15 pixels, is skipped and named in the provenance. Every ten
    seconds the sums so far are written beside ``file``; after an interruption the same call goes on from there and
    ends with the same bits.

    Args:
        sizes: also keep the sums of the pictures rescaled to these shorter sides, see :func:`read_picture`.
        orders: number of random orders of the pictures of which to keep prefix sums, at :func:`prefix_counts`;
            order o is ``numpy.random.default_rng(o).permutation(n)`` of the sorted names.

    Raises:
        ValueError: no picture that can be read, or a size below 15.
        DatasetError: the file of an interrupted run is damaged, or of other pictures or options.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("a.png", "b.png"):
    ...         Image.new("RGB", (40, 30), "gray").save(Path(folder) / name)
    ...     collection = collect(Path(folder), Path(folder) / "statistics.npz")
    >>> collection.total.images.item(), collection.provenance["skipped"]
    (2, [])
    """
    from tqdm.auto import tqdm

    if any(size < SMALLEST_SIDE for size in sizes):
        raise ValueError(f"a size must be at least {SMALLEST_SIDE} pixels, got {min(sizes)}")
    names = pictures_in(folder)
    if not names:
        raise ValueError(f"there are no pictures below {folder}")
    state = _State(names, sizes, orders)
    partial = file.with_name(f".{file.name}.partial")
    if partial.exists():
        state.restore(partial)
    saved = time.monotonic()
    with tqdm(total=len(names), initial=state.done, unit="picture") as bar:
        for name in names[state.done :]:
            state.add(folder, name)
            bar.update()
            if time.monotonic() - saved > SAVE_EVERY:
                state.write(partial)
                saved = time.monotonic()
    collection = state.finish()
    save_statistics(file, collection)
    partial.unlink(missing_ok=True)
    return collection


class _State:
    """The sums of the first so many pictures, and all that is needed to go on with the next."""

    def __init__(self, names: list[str], sizes: Sequence[int], orders: int) -> None:
        self.done = 0
        self.skipped: list[str] = []
        self.digest = b""
        self.job = hashlib.sha256(json.dumps([names, list(sizes), orders]).encode()).hexdigest()
        self.totals = {size: _zeros(3) for size in (0, *sizes)}
        self.groups = _zeros(1, GROUPS)
        counts = prefix_counts(len(names))
        ranks = (np.random.default_rng(order).permutation(len(names)).argsort() for order in range(orders))
        self.bins = [np.searchsorted(counts, rank + 1) for rank in ranks]  # the first count that has the picture
        self.steps = [_zeros(3 if order == 0 else 1, len(counts)) for order in range(orders)]

    def add(self, folder: Path, name: str) -> None:
        """Add the next picture, or note why it cannot be read."""
        place, self.done = self.done, self.done + 1
        try:
            content = (folder / name).read_bytes()
            found = {size: picture_statistics(read_picture(io.BytesIO(content), size or None)) for size in self.totals}
        except Exception as error:  # a damaged file can raise anything in a decoder; one picture is not worth the run
            # Pillow's own message on what is no picture ends with an address in memory.
            self.skipped.append(f"{name}: {str(error).partition(' <')[0]}")
            return
        self.digest = hashlib.sha256(self.digest + name.encode() + hashlib.sha256(content).digest()).digest()
        for size, statistics in found.items():
            self.totals[size] += statistics
        grey = in_space(found[0], "luminance")
        _add_at(self.groups, place % GROUPS, grey)
        for order, (bins, steps) in enumerate(zip(self.bins, self.steps, strict=True)):
            _add_at(steps, bins[place], found[0] if order == 0 else grey)

    def write(self, partial: Path) -> None:
        """Write the sums so far, for :meth:`restore`."""
        state = {"job": self.job, "done": self.done, "skipped": self.skipped, "digest": self.digest.hex()}
        arrays: NamedArrays = {"state": np.array(json.dumps(state))}
        for size, statistics in self.totals.items():
            arrays |= arrays_of(statistics, f"total/{size}")
        arrays |= arrays_of(self.groups, "groups")
        for order, statistics in enumerate(self.steps):
            arrays |= arrays_of(statistics, f"steps/{order}")
        files.write_npz(partial, arrays)

    def restore(self, partial: Path) -> None:
        """Take up the sums of a file that :meth:`write` wrote with the same pictures and options."""
        try:
            with partial.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                state = json.loads(str(stored["state"]))
                if state["job"] != self.job:
                    raise ValueError("it is of other pictures or options")
                self.done, self.skipped, self.digest = state["done"], state["skipped"], bytes.fromhex(state["digest"])
                self.totals = {size: statistics_of(stored, f"total/{size}") for size in self.totals}
                self.groups = statistics_of(stored, "groups")
                self.steps = [statistics_of(stored, f"steps/{order}") for order in range(len(self.steps))]
        except DAMAGE as error:
            raise files.DatasetError(f"cannot go on from {partial} ({error}): delete it to begin afresh") from error

    def finish(self) -> Collection:
        """The statistics of all pictures that were added."""
        from .. import __version__

        if self.done == len(self.skipped):
            raise ValueError(f"none of the {self.done} pictures could be read; the first: {self.skipped[0]}")
        total = self.totals.pop(0)
        options = [f"--sizes {' '.join(map(str, self.totals))}"] if self.totals else []
        options += [f"--orders {len(self.steps)}"] if self.steps else []
        provenance = {
            "pictures": int(total.images),
            "skipped": self.skipped,
            "sha256": self.digest.hex(),
            "sha256_of": "for each picture in turn: sha256(previous digest + name + sha256(content))",
            "estimator": "sums over all pairs of pixels at each lag, zero-padded FFT, float64; values in [0, 1]",
            "resolution": "as the files are",
            "sizes": list(self.totals),
            "orders": len(self.steps),
            "command": " ".join(["python -m ndlib statistics FOLDER --out FILE.npz", *options]),
            "ndlib": __version__,
            "date": date.today().isoformat(),
        }
        prefixes = tuple(
            Statistics(steps.extent.cumsum(0), steps.sums.cumsum(0), steps.products.cumsum(0), None)
            for steps in self.steps
        )
        rescaled = {size: replace(statistics, own=None) for size, statistics in self.totals.items()}
        return Collection(total, rescaled, self.groups, prefixes, provenance)


def _add_at(several: Statistics, index: int, one: Statistics) -> None:
    several.extent[index] += one.extent
    several.sums[index] += one.sums
    several.products[index] += one.products


def _zeros(channels: int, *leading: int) -> Statistics:
    def zeros(*shape: int) -> Tensor:
        return torch.zeros(*leading, *shape, dtype=torch.float64)

    lags = (2 * LAG + 1, 2 * LAG + 1)
    own = None if leading else zeros(channels, channels, *lags)
    return Statistics(zeros(4), zeros(channels, *lags), zeros(channels, channels, *lags), own)
