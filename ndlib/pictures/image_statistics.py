"""Second-order statistics of pictures, streamed: what every covariance of patches up to 15x15 follows from::

    s = picture_statistics(photograph) + picture_statistics(another)     sums, so that they add up
    autocovariance(s)                                                    of each channel pair, lags up to 14 pixels
    collect(folder, file, sizes=(224,), orders=4)                        a folder of pictures, resumable
    load("imagenet").total                                               the sums that the project carries

Pictures have shape (C, H, W) or (H, W), values in [0, 1]. Everything is computed in float64.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import files
from . import photographs

if TYPE_CHECKING:
    from PIL.Image import Image

LAG = 14  # pixels, the largest distance along either axis between two pixels of a 15x15 patch
SIDE = LAG + 1  # pixels, the smallest picture in which every lag occurs
GROUPS = 8  # of pictures, by turns: leaving out one at a time shows how much a result depends on the sample
SAVE_EVERY = 10.0  # seconds of work that an interruption costs at the most

Mean = Literal["grand", "image"]
Counts = Literal["unbiased", "biased"]
Space = Literal["luminance", "rgb", "opponent"]
Arrays = dict[str, NDArray[np.generic]]


def picture_statistics(picture: Tensor) -> Statistics:
    """Sums over all pairs of pixels of one picture, for every lag up to 14 pixels, by FFT.

    For channels a, b and the lag d = (dy, dx): products[a, b](d) = sum over p of x_a(p) x_b(p + d), sums[a](d) =
    sum over the same p of x_a(p), both only where p and p + d lie inside (padded with zeros to be so: nothing
    wraps around).

    Args:
        picture: shape (C, H, W) or (H, W), any floating or integer type; sides of 15 pixels or more. The sums are taken
            on its device and returned on the CPU.

    Raises:
        ValueError: another shape, a side below 15 pixels, or values that are not finite.
    """
    from scipy.fft import next_fast_len

    x = checked_picture(picture, SIDE)
    height, width = x.shape[1:]
    mean = x.mean((1, 2), keepdim=True)
    if not mean.isfinite().all():
        raise ValueError("the picture has values that are NaN or infinite")
    x = x - mean  # the transform rounds in proportion to what it transforms: the mean is put back afterwards
    shape = [next_fast_len(side + LAG, real=True) for side in (height, width)]
    spectra = torch.fft.fft(torch.fft.rfft(x, shape[1], dim=2), shape[0], dim=1)
    lags = torch.arange(-LAG, LAG + 1, device=x.device)

    def correlation(first: Tensor, second: Tensor) -> Tensor:
        # Back along one axis, on along the other with the rows of lags that are wanted.
        rows = torch.fft.ifft(first.conj() * second, dim=0)[:SIDE]
        return torch.fft.irfft(rows, shape[1], dim=1)[:, lags]

    own = _whole(torch.stack([torch.stack([correlation(a, b) for b in spectra]) for a in spectra]).cpu())
    integral = x.new_zeros(len(x), height + 1, width + 1)
    integral[:, 1:, 1:] = x.cumsum(1).cumsum(2)
    (top, bottom), (left, right) = (((-lags).clamp(min=0), side - lags.clamp(min=0)) for side in (height, width))
    sums = (
        integral[:, bottom[:, None], right]
        - integral[:, top[:, None], right]
        - integral[:, bottom[:, None], left]
        + integral[:, top[:, None], left]
    ).cpu()
    extent = torch.tensor([1, height, width, height * width], dtype=torch.float64)
    centred = Statistics(extent, sums, own, own)
    return centred.shifted(mean[:, 0, 0].cpu())


def checked_picture(picture: Tensor, smallest: int) -> Tensor:
    """A picture as float64 of shape (C, H, W), or a ValueError if it has another shape or a side below ``smallest``."""
    x = picture.to(torch.float64)
    x = x.unsqueeze(0) if x.dim() == 2 else x
    if x.dim() != 3 or min(x.shape[1:]) < smallest:
        raise ValueError(
            f"a picture needs shape (channels, height, width) or (height, width) and sides of at least {smallest} "
            f"pixels, got shape {tuple(picture.shape)}"
        )
    return x


def autocovariance(statistics: Statistics, *, mean: Mean = "grand", counts: Counts = "unbiased") -> Tensor:
    """C_ab(d) = (1/N) sum over p of (x_a(p) - mu_a) (x_b(p + d) - mu_b), the stationary estimate.

    Args:
        mean: ``"grand"``: one mean over all pictures, as a layer subtracts it; ``"image"``: each picture's own.
        counts: ``"unbiased"`` divides by the number of pairs N(d) at this lag, ``"biased"`` by the number of
            pixels N(0), which makes distant lags smaller and every covariance positive semi-definite.

    Returns:
        Shape (..., C, C, 29, 29), lag (0, 0) at index (14, 14), in squared units of the pictures.

    Raises:
        ValueError: unknown option, or ``mean="image"`` of prefix sums, which do not hold it.
    """
    if mean not in get_args(Mean) or counts not in get_args(Counts):
        raise ValueError(
            f"mean must be one of {get_args(Mean)} and counts one of {get_args(Counts)}, got {mean!r} and {counts!r}"
        )
    if mean == "image":
        if statistics.own is None:
            raise ValueError("prefix sums hold no products about each picture's own mean; use mean='grand'")
        products = statistics.own
    else:
        products = statistics.shifted(-statistics.mean).products
    n = statistics.counts if counts == "unbiased" else statistics.extent[..., 3, None, None]
    return products / n[..., None, None, :, :]


# Rows of each space in terms of R, G, B. "opponent" is orthonormal, so that eps I stays eps I and a deconvolution
# matrix turns into that of the other space: intensity, red against green, blue against yellow.
SPACES: dict[Space, Tensor] = {
    "luminance": photographs.luminance(torch.eye(3, dtype=torch.float64)[:, :, None, None]).reshape(1, 3),
    "rgb": torch.eye(3, dtype=torch.float64),
    "opponent": torch.nn.functional.normalize(
        torch.tensor([[1, 1, 1], [1, -1, 0], [-1, -1, 2]], dtype=torch.float64), dim=1
    ),
}


def in_space(statistics: Statistics, space: Space) -> Statistics:
    """The statistics that the pictures have in another colour space, by linearity: no picture is needed.

    ``"luminance"`` has one channel (Rec. 709, see :func:`.luminance`), ``"opponent"`` three: (R + G + B) / sqrt(3),
    (R - G) / sqrt(2), (2 B - R - G) / sqrt(6), an orthonormal change of axes.

    Raises:
        ValueError: unknown space, or colour asked of the statistics of one channel.
    """
    if space not in SPACES:
        raise ValueError(f"space must be one of {tuple(SPACES)}, got {space!r}")
    if statistics.channels == 1 and space == "luminance":
        return statistics
    if statistics.channels != 3:
        raise ValueError(f"{space} needs the statistics of R, G and B, got {statistics.channels} channel(s)")
    return statistics.transformed(SPACES[space])


@dataclass(frozen=True)
class Statistics:
    """Sums over pictures, of C channels, at 29 x 29 lags; leading dimensions (...) hold several such sets.

    Args:
        extent: (..., 4), the number of pictures and the sums of their heights, widths and pixels.
        sums: (..., C, 29, 29), products: (..., C, C, 29, 29), see :func:`picture_statistics`.
        own: like ``products``, of the pictures less each one's own mean; None where it was not kept.
    """

    extent: Tensor
    sums: Tensor
    products: Tensor
    own: Tensor | None

    def __add__(self, other: Statistics) -> Statistics:
        return self._combined(other, torch.add)

    def __sub__(self, other: Statistics) -> Statistics:
        """The statistics of the pictures of this one that are not among the other's."""
        return self._combined(other, torch.sub)

    def _combined(self, other: Statistics, operation: Callable[[Tensor, Tensor], Tensor]) -> Statistics:
        own = None if self.own is None or other.own is None else operation(self.own, other.own)
        return Statistics(
            operation(self.extent, other.extent),
            operation(self.sums, other.sums),
            operation(self.products, other.products),
            own,
        )

    def __getitem__(self, index: Any) -> Statistics:
        own = None if self.own is None else self.own[index]
        return Statistics(self.extent[index], self.sums[index], self.products[index], own)

    @property
    def channels(self) -> int:
        return self.sums.shape[-3]

    @property
    def images(self) -> Tensor:
        """Number of pictures, int64 of shape (...)."""
        return self.extent[..., 0].long()

    @property
    def mean(self) -> Tensor:
        """Mean over all pixels of all pictures, shape (..., C)."""
        return self.sums[..., LAG, LAG] / self.extent[..., 3, None]

    @property
    def counts(self) -> Tensor:
        """Number of pairs at each lag, the sum over pictures of ``(H - |dy|) (W - |dx|)``: shape (..., 29, 29)."""
        d = torch.arange(-LAG, LAG + 1, dtype=torch.float64).abs()
        images, heights, widths, pixels = self.extent[..., None, None].unbind(-3)
        return pixels - d[:, None] * widths - d * heights + d[:, None] * d * images

    def shifted(self, offset: Tensor) -> Statistics:
        """The statistics of the pictures plus a constant in each channel, ``offset`` of shape (..., C)."""
        n = self.counts.unsqueeze(-3)
        by = offset[..., None, None]
        by_a, by_b = by.unsqueeze(-3), by.unsqueeze(-4)
        sums_a, sums_b = self.sums.unsqueeze(-3), self.sums.flip(-2, -1).unsqueeze(-4)  # sum of x_b(p + d): F_b(-d)
        products = self.products + by_b * sums_a + by_a * sums_b + by_a * by_b * n.unsqueeze(-3)
        return Statistics(self.extent, self.sums + by * n, products, self.own)

    def transformed(self, matrix: Tensor) -> Statistics:
        """The statistics of the pictures with their channels mixed by ``matrix`` of shape (new, C)."""

        def both(products: Tensor) -> Tensor:
            return torch.einsum("ia,jb,...abyx->...ijyx", matrix, matrix, products)

        sums = torch.einsum("ia,...ayx->...iyx", matrix, self.sums)
        return Statistics(self.extent, sums, both(self.products), None if self.own is None else both(self.own))


# Files. ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Collection:
    """What :func:`collect` makes of a folder and :func:`load` reads.

    Args:
        total: R, G and B, all pictures as they are.
        rescaled: the same of the pictures rescaled, by their shorter side in pixels; without ``own``.
        groups: luminance of every 8th picture, from the first, the second, ... on, as a first dimension: for
            :func:`ndlib.pictures.kernels.jackknife`.
        prefixes: for each random order of the pictures, the statistics of the first so many of them, as a first
            dimension of about 64 counts (see ``prefixes[0].images``): R, G and B in order 0, luminance in the others.
        provenance: where it is from, as written by :func:`collect`.
    """

    total: Statistics
    rescaled: dict[int, Statistics]
    groups: Statistics
    prefixes: tuple[Statistics, ...]
    provenance: dict[str, Any]


_DAMAGE = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error)


def load(source: str | Path) -> Collection:
    """Statistics from a file of ``python -m ndlib statistics``; ``load("imagenet")`` reads the one of the project.

    Raises:
        DatasetError: the file is damaged or is none of these.
        FileNotFoundError: there is no such file.
    """
    file = files.path("imagenet_statistics.npz") if source == "imagenet" else Path(source)
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            provenance = json.loads(str(stored["provenance"]))
            totals = {size: _read(stored, f"total/{size}") for size in [0, *provenance["sizes"]]}
            groups = _read(stored, "groups")
            prefixes = tuple(_unpack(stored, f"prefix/{order}") for order in range(provenance["orders"]))
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        raise files.DatasetError(
            f"{file} is damaged or no file of image statistics ({error}): make it afresh"
        ) from error
    return Collection(totals.pop(0), totals, groups, prefixes, provenance)


def save(file: Path, collection: Collection) -> None:
    """Write a collection, whole or not at all. Totals are kept exactly; how prefixes are packed: see ``_pack``."""
    arrays: Arrays = {"provenance": np.array(json.dumps(collection.provenance))}
    for size, statistics in {0: collection.total, **collection.rescaled}.items():
        arrays |= _arrays(statistics, f"total/{size}")
    arrays |= _arrays(collection.groups, "groups")
    for order, prefix in enumerate(collection.prefixes):
        arrays |= _pack(prefix, f"prefix/{order}")
    files.write_npz(file, arrays)


def _half(products: Tensor) -> Tensor:
    return products[..., LAG:, :]  # the rest is C_ab(-d) = C_ba(d)


def _whole(half: Tensor) -> Tensor:
    return torch.cat([half[..., 1:, :].flip(-2, -1).transpose(-4, -3), half], -2)


def _arrays(statistics: Statistics, name: str) -> Arrays:
    parts = {"extent": statistics.extent, "sums": statistics.sums, "products": _half(statistics.products)}
    if statistics.own is not None:
        parts["own"] = _half(statistics.own)
    return {f"{name}/{part}": values.numpy() for part, values in parts.items()}


def _read(stored: Mapping[str, NDArray[Any]], name: str) -> Statistics:
    extent, sums, products = (torch.from_numpy(stored[f"{name}/{part}"]) for part in ("extent", "sums", "products"))
    own = _whole(torch.from_numpy(stored[f"{name}/own"])) if f"{name}/own" in stored else None
    return Statistics(extent, sums, _whole(products), own)


PRECISION = 2.0**-24  # of the variance (products) or of 1 (sums): a kernel at eps 1e-5 changes by less than 1e-3


def _pack(prefix: Statistics, name: str) -> Arrays:
    """Prefix statistics, one for each count, as integers: less than one byte a number.

    Means over the pixels, of the pictures less the mean of all (so that nothing large cancels later) and in the
    opponent space (where most pairs are small), are rounded to multiples of ``PRECISION``. Successive counts and
    neighbouring lags are nearly equal, so that their differences are small integers, whose high bytes deflate.
    """
    mean = prefix[-1].mean
    centred = _opponent(prefix.shifted(-mean), SPACES["opponent"])
    variance = autocovariance(centred[-1])[..., LAG, LAG].max()
    steps = PRECISION * torch.stack([torch.ones_like(variance), variance])
    arrays: Arrays = {
        f"{name}/extent": prefix.extent.numpy(),
        f"{name}/mean": mean.numpy(),
        f"{name}/steps": steps.numpy(),
    }
    for part, values, step in zip(("sums", "products"), (centred.sums, _half(centred.products)), steps, strict=True):
        pixels = prefix.extent[:, 3].reshape(-1, *[1] * (values.dim() - 1))
        integers = (values / pixels / step).round().to(torch.int64).numpy()
        for axis in (0, -2, -1):
            integers = np.diff(integers, axis=axis, prepend=0)
        integers = (integers << 1) ^ (integers >> 63)  # 0, -1, 1, -2, ... as 0, 1, 2, 3, ...: without high bytes
        planes = np.ascontiguousarray(integers.astype("<i8").view(np.uint8).reshape(-1, 8).T)
        arrays[f"{name}/{part}"] = np.frombuffer(zlib.compress(planes.tobytes(), 9), np.uint8)
    return arrays


def _unpack(stored: Mapping[str, NDArray[Any]], name: str) -> Statistics:
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
    centred = Statistics(extent, values[0], _whole(values[1]), None)
    return _opponent(centred, SPACES["opponent"].T).shifted(mean)


def _opponent(statistics: Statistics, matrix: Tensor) -> Statistics:
    return statistics.transformed(matrix) if statistics.channels == 3 else statistics


# Folders of pictures. --------------------------------------------------------------------------------------


def read_picture(file: Path | BinaryIO, size: int | None = None) -> Tensor:
    """A picture file as float64 of shape (3, H, W) in [0, 1].

    Grey counts as R = G = B; palettes and CMYK become RGB; transparency is dropped; 16-bit grey keeps its 16 bits.

    Args:
        size: rescale the shorter side to so many pixels, antialiased, with the bilinear filter that torchvision's
            ``Resize`` takes too; a smaller picture keeps its size, since enlarging adds no detail.

    Raises:
        ValueError: floating-point pixels or integers of more than 16 bits, whose scale is not known. A damaged file
            raises whatever Pillow raises.
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
    """Names of all files below a folder that Pillow knows by their ending, relative to the folder, sorted."""
    from PIL import Image

    endings = Image.registered_extensions()
    files = (file for file in folder.rglob("*") if file.suffix.lower() in endings and file.is_file())
    return sorted(file.relative_to(folder).as_posix() for file in files)


def prefix_counts(n: int, wanted: int = 64) -> list[int]:
    """About so many counts from 1 to n, equally spaced on a logarithmic scale, and n // 2 among them."""
    for points in range(wanted, 4 * wanted):  # small counts coincide once they are rounded: ask for more
        counts = {round(c) for c in np.geomspace(1, n, points)} | {max(1, n // 2)}
        if len(counts) >= wanted:
            break
    return sorted(counts)


def collect(folder: Path, file: Path, *, sizes: Sequence[int] = (), orders: int = 0) -> Collection:
    """Statistics of all pictures below a folder, into a file; memory does not grow with their number.

    A picture that cannot be read, or is smaller than 15 pixels, is skipped and named in the provenance. Every ten
    seconds the sums so far are written beside ``file``; after an interruption the same call goes on from there
    and ends with the same bits.

    Args:
        sizes: also keep the sums of the pictures rescaled to these shorter sides, see :func:`read_picture`.
        orders: number of random orders of the pictures of which to keep prefix sums, at :func:`prefix_counts`;
            order o is ``numpy.random.default_rng(o).permutation(n)`` of the sorted names.

    Raises:
        ValueError: no picture that can be read, or a size below 15.
        DatasetError: the file of an interrupted run is damaged, or of other pictures or options.
    """
    from tqdm.auto import tqdm

    if any(size < SIDE for size in sizes):
        raise ValueError(f"a size must be at least {SIDE} pixels, got {min(sizes)}")
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
    save(file, collection)
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
        state = {"job": self.job, "done": self.done, "skipped": self.skipped, "digest": self.digest.hex()}
        arrays: Arrays = {"state": np.array(json.dumps(state))}
        for size, statistics in self.totals.items():
            arrays |= _arrays(statistics, f"total/{size}")
        arrays |= _arrays(self.groups, "groups")
        for order, statistics in enumerate(self.steps):
            arrays |= _arrays(statistics, f"steps/{order}")
        files.write_npz(partial, arrays)

    def restore(self, partial: Path) -> None:
        try:
            with partial.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                state = json.loads(str(stored["state"]))
                if state["job"] != self.job:
                    raise ValueError("it is of other pictures or options")
                self.done, self.skipped, self.digest = state["done"], state["skipped"], bytes.fromhex(state["digest"])
                self.totals = {size: _read(stored, f"total/{size}") for size in self.totals}
                self.groups = _read(stored, "groups")
                self.steps = [_read(stored, f"steps/{order}") for order in range(len(self.steps))]
        except _DAMAGE as error:
            raise files.DatasetError(f"cannot go on from {partial} ({error}): delete it to begin afresh") from error

    def finish(self) -> Collection:
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


def merge(first: Collection, second: Collection) -> Collection:
    """The statistics of the pictures of both; prefix sums, which belong to one order, are left out.

    Raises:
        ValueError: they were rescaled to different sizes.
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
