"""The widget of the kernels: deconvolution kernels of one photograph or a thousand."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ...pictures import photographs
from ...pictures.folders import measured, prefix_counts
from ...pictures.image_statistics import LAG, Statistics, autocovariance, in_space, picture_statistics
from ...pictures.kernels import block_toeplitz, decompose, deconvolution_kernel, surround_ratio
from ...pictures.reading import pictures_in, printable
from ...pictures.statistics_files import load_statistics
from .. import plotting
from . import bundle
from .base import Array, BookWidget

__all__ = ["KernelExplorer"]

CHANNELS = ["luminance", "red", "green", "blue"]
PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))  # of colours; the other pairs have these tables, turned around
COLOUR_LAG = 8  # largest lag of the autocovariances between colours: enough for kernels up to 9 x 9
STOPS = 12  # how many counts of images the reader can choose from, equally spaced on a logarithmic scale


class KernelExplorer(BookWidget):
    """The kernel that makes the pixels of photographs uncorrelated, the photograph filtered with it, and why.

    When the reader drops a photograph on the widget, ``source`` becomes ``"photograph"``. Python then gets the
    autocovariance of the photograph, on which alone the kernel depends, and never its pixels.

    Args:
        images: a folder with pictures or a file of statistics, as ``ndlib statistics`` takes and makes them; a tensor
            of shape (N, C, H, W) with values in [0, 1]; or None for the ImageNet statistics of the project, 1 to 1,000
            pictures.
        count: how many of the images, one of ``counts``.
        patch_size: odd, 3 to 15 pixels; at most 9 for a colour channel.
        eps: added to the diagonal of the covariance, squared pixel values.
        steps: of the Newton-Schulz iteration, 1 to 20; None for the exact root.
        channel: of the output, ``"luminance"``, ``"red"``, ``"green"`` or ``"blue"``.

    ``kernel`` is the kernel as drawn: shape (k, k) for luminance, (3, k, k) for a colour channel.

    >>> w = KernelExplorer()
    >>> w.count, w.kernel.shape
    (1000, (15, 15))
    >>> w.count, w.steps = w.counts[0], 5                    # Python can set whatever the reader can
    >>> w.channel = "green"
    >>> w.kernel.shape
    (3, 9, 9)
    >>> KernelExplorer(images=torch.rand(2, 1, 20, 20)).counts    # pictures of your own
    [1, 2]
    """

    _name = "kernel-explorer"
    _esm = bundle.module(_name)
    _css = bundle.style(_name)

    title = traitlets.Unicode("ImageNet").tag(sync=True)
    counts = traitlets.List(traitlets.Int()).tag(sync=True)
    luminance = Array(np.float32)  # autocovariances of each count, halves of tables that are symmetric
    colours = Array(np.float32)
    own_luminance = Array(np.float64)  # of the reader's photograph
    own_colours = Array(np.float64)
    photo = traitlets.Bytes().tag(sync=True)

    source = traitlets.Enum(["images", "photograph"], "images").tag(sync=True)
    count = traitlets.Int().tag(sync=True)
    patch_size = traitlets.Int(15).tag(sync=True)
    eps = traitlets.Float(1e-5, min=1e-8, max=0.1).tag(sync=True)
    steps = traitlets.Int(None, min=1, max=20, allow_none=True).tag(sync=True)
    channel = traitlets.Enum(CHANNELS, "luminance").tag(sync=True)

    def __init__(self, images: str | Path | Tensor | None = None, **traits: Any) -> None:
        statistics = _imagenet() if images is None else _prefixes(images)
        counts = statistics.images.tolist()
        super().__init__(
            title="ImageNet" if images is None else "your images",
            counts=counts,
            luminance=_packed_luminance(statistics),
            colours=_packed_colours(statistics),
            photo=_photo(),
            **{"count": counts[-1], **traits},
        )

    @traitlets.validate("count")
    def _one_of_counts(self, proposal: Any) -> int:
        if proposal["value"] not in self.counts:
            raise traitlets.TraitError(f"count must be one of {self.counts}, got {proposal['value']}")
        return proposal["value"]

    @traitlets.validate("patch_size")
    def _odd(self, proposal: Any) -> int:
        if proposal["value"] not in range(3, LAG + 2, 2):
            raise traitlets.TraitError(f"patch_size must be odd and from 3 to {LAG + 1}, got {proposal['value']}")
        return proposal["value"]

    @traitlets.validate("channel")
    def _has_colour(self, proposal: Any) -> str:
        if proposal["value"] != "luminance" and not self.colours.size:
            raise traitlets.TraitError("these images are grey: the only channel is luminance")
        return proposal["value"]

    @traitlets.observe("patch_size", "channel")
    def _within_reach(self, change: Any) -> None:
        if self.channel != "luminance":
            self.patch_size = min(self.patch_size, COLOUR_LAG + 1)

    @property
    def kernel(self) -> NDArray[np.float64]:
        """Weights as drawn: (k, k), or (3, k, k) from red, green and blue; in units of 1 / pixel value."""
        grey = self.channel == "luminance"
        tables = _unpacked(self._autocovariances(), 1 if grey else 3)
        spectrum = decompose(block_toeplitz(tables, self.patch_size), 1 if grey else 3)
        channel = 0 if grey else CHANNELS.index(self.channel) - 1
        kernel = deconvolution_kernel(spectrum, eps=self.eps, n_iter=self.steps, channel=channel).numpy()
        return kernel[0] if grey else kernel

    def _autocovariances(self) -> NDArray[np.floating[Any]]:
        grey = self.channel == "luminance"
        if self.source == "photograph":
            return self.own_luminance if grey else self.own_colours
        values = self.luminance if grey else self.colours
        return values.reshape(len(self.counts), -1)[self.counts.index(self.count)]

    def describe(self) -> str:
        own = torch.from_numpy(self._own_kernel())
        k = self.patch_size
        return (
            f"Deconvolution kernel of {self.count:,} photographs, {k} by {k} pixels, and the weights along its middle "
            f"row: a centre of weight {float(own.max()):.3g}, and around it weights that go down to "
            f"{float(surround_ratio(own)):.2f} of that."
        )

    def _own_kernel(self) -> NDArray[np.float64]:
        return self.kernel if self.channel == "luminance" else self.kernel[CHANNELS.index(self.channel) - 1]

    def still(self) -> Figure:
        kernel = torch.from_numpy(self._own_kernel())
        half = self.patch_size // 2
        fig, (left, right) = plt.subplots(1, 2, figsize=(plotting.WIDTH, 3), width_ratios=(2, 3))
        shown = plotting.show_signed(left, kernel, limit=float(kernel[half, half]) / 3)
        fig.colorbar(shown, ax=left, orientation="horizontal", extend="both", label="weight per unit of pixel value")
        right.axhline(0, color=plotting.COLORS["none"], linewidth=1)
        right.plot(range(-half, half + 1), kernel[half], "o-", color=plotting.COLORS["nd"])
        right.set(xlabel="pixels from the centre", ylabel="weight along the middle row", xticks=range(-half, half + 1))
        plt.close(fig)
        return fig


@cache
def _imagenet() -> Statistics:
    prefix = load_statistics("imagenet").prefixes[0]
    counts = prefix.images
    wanted = np.geomspace(1, int(counts[-1]), STOPS)
    return prefix[sorted({int((counts.double().log() - np.log(c)).abs().argmin()) for c in wanted})]


def _prefixes(images: str | Path | Tensor) -> Statistics:
    """Statistics of the first n images for several n, stacked along a first dimension."""
    one_by_one: Iterator[Statistics]
    if isinstance(images, Tensor):
        if images.dim() != 4 or images.shape[1] not in (1, 3) or not len(images):
            raise ValueError(f"images must have shape (N, C, H, W) with 1 or 3 channels, got {tuple(images.shape)}")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        one_by_one = map(picture_statistics, images.detach().to(device))
        number = len(images)
    else:
        path = Path(images).expanduser()
        if path.is_file():
            collection = load_statistics(path)
            return collection.prefixes[0] if collection.prefixes else _stacked([collection.total])
        names = pictures_in(path)
        one_by_one, number = _of_files(path, names), len(names)
    counts = prefix_counts(max(1, number), min(max(1, number), STOPS))
    total, kept = None, []
    for n, statistics in enumerate(one_by_one, 1):
        total = statistics if total is None else total + statistics
        if n in counts:
            kept.append(total)
    if total is None:
        raise ValueError(f"there are no pictures below {images} that can be read")
    return _stacked(kept if kept[-1] is total else [*kept, total])  # fewer than expected where some were skipped


def _stacked(several: list[Statistics]) -> Statistics:
    return Statistics(
        torch.stack([s.extent for s in several]),
        torch.stack([s.sums for s in several]),
        torch.stack([s.products for s in several]),
        None,
    )


def _of_files(folder: Path, names: list[str]) -> Iterator[Statistics]:
    """The statistics of each picture, as ``ndlib statistics`` takes them; those that cannot be read are warned of."""
    for name in names:
        try:
            sums, _, _ = measured(folder / name)
        except Exception as error:  # whatever a decoder raises on a damaged file
            warnings.warn(f"skipped {printable(name)}: {error}", stacklevel=2)
            continue
        yield sums[0].statistics()


def _packed_luminance(statistics: Statistics) -> NDArray[np.float32]:
    tables = autocovariance(in_space(statistics, "luminance")).flatten(1)
    return tables[:, tables.shape[1] // 2 :].flatten().numpy().astype(np.float32)


def _packed_colours(statistics: Statistics) -> NDArray[np.float32]:
    if statistics.channels == 1:
        return np.zeros(0, np.float32)
    near = slice(LAG - COLOUR_LAG, LAG + COLOUR_LAG + 1)
    tables = autocovariance(statistics)[..., near, near].flatten(-2)
    middle = tables.shape[-1] // 2
    parts = [tables[:, a, b, middle if a == b else 0 :] for a, b in PAIRS]
    return torch.cat(parts, 1).flatten().numpy().astype(np.float32)


def _unpacked(values: NDArray[np.floating[Any]], channels: int) -> Tensor:
    """Autocovariances of shape (C, C, 29, 29) from the packed numbers of one count; zero at lags that are not kept."""
    lag = LAG if channels == 1 else COLOUR_LAG
    side = 2 * lag + 1
    near = slice(LAG - lag, LAG + lag + 1)
    tables = torch.zeros(channels, channels, 2 * LAG + 1, 2 * LAG + 1, dtype=torch.float64)
    rest = torch.tensor(values, dtype=torch.float64)
    for a, b in PAIRS if channels == 3 else PAIRS[:1]:
        size = side**2 // 2 + 1 if a == b else side**2
        part, rest = rest[:size], rest[size:]
        whole = torch.cat([part[1:].flip(0), part]) if a == b else part
        tables[a, b, near, near] = whole.view(side, side)
        tables[b, a, near, near] = whole.flip(0).view(side, side)
    return tables


@cache
def _photo() -> bytes:
    """A part of a photograph by Daniel Büchele (CC BY 2.0), which scikit-learn ships, as a small JPEG."""
    pixels = (photographs.photograph("china")[:, 20:404, 60:] * 255).byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :576]).resize((288, 192), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
