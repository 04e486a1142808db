"""Sums over pairs of pixels in integers, which no order of adding and no number of processes can change by a bit.

    >>> dark, bright = (np.full((20, 30, 3), value, np.uint8) for value in (10, 250))
    >>> one, other = sums_of(dark), sums_of(bright)
    >>> one.add(sums_of(bright))
    >>> other.add(sums_of(dark))
    >>> all(torch.equal(one.parts[8][name], other.parts[8][name]) for name in one.parts[8])
    True

A picture of 8 bits is summed as it is. A pixel of 16 bits is 256 times its high byte and its low byte, and is summed as
two channels of bytes. The products are those of int8 matrices with sums in int32, which recent processors have an
instruction for; elsewhere they are made in float32, of so few rows at a time that nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._core.private_torch import int8_product
from .image_statistics import LAG, SMALLEST_SIDE, Space, Statistics, all_lags, half_of_lags, in_space, sums_at_lags
from .reading import turned

__all__ = ["Sums", "sums_of"]

BLOCK = (4, 8)  # pixels whose products with all within reach are one row of the matrices; the fastest of nine shapes
PIXELS = 2**18  # of the strip that is in work: its matrices take 16 MB for three channels
EXACT_ROWS = 1024  # products of two int8 are at most 2^14, and float32 adds 2^10 of those without rounding
MIDDLE = 128  # what a byte is summed less
OWN_STEPS = 256  # products about a picture's own mean are no integers: of each picture they are rounded to 1/256

Part = dict[str, Tensor]


@dataclass
class Sums:
    """Sums over pictures, or several sets of such sums: of pictures of 8 and of 16 bits apart, in whole numbers.

    Args:
        leading: the shape of several sets; empty for one.
        parts: by bits, int64 tensors ``extent`` (..., 4), ``sums`` (..., C, 29, 29), ``products`` (..., C, C, 15, 29)
            of the lags with dy >= 0, and ``own``, the products about each picture's own mean, in steps of 1/256, in
            single sets alone. 8 bits: of R, G and B less 128. 16 bits: of the low and high bytes of R, G and B by
            turns, less 128. Under 0, sums in float64 of values in [0, 1], as files of version 0.1 hold them.

    No sum overflows before 10^14 pixels, and ``own`` not before 10^12.

    >>> sums_of(np.full((20, 30, 1), 65535, np.uint16)).statistics().mean.tolist()  # grey: R = G = B
    [1.0, 1.0, 1.0]
    """

    leading: tuple[int, ...] = ()
    parts: dict[int, Part] = field(default_factory=dict)

    def add(self, one: Sums, at: int | None = None) -> None:
        """Add ``one`` in place, set by set, or to the set ``at`` alone.

        >>> groups = Sums((2,))
        >>> groups.add(sums_of(np.zeros((20, 30, 3), np.uint8)), at=1)
        >>> groups.statistics().images.tolist()
        [0, 1]
        """
        for bits, part in one.parts.items():
            kept = {what: x for what, x in part.items() if what != "own" or not self.leading}
            if bits not in self.parts:
                several = () if at is None else self.leading
                self.parts[bits] = {what: x.new_zeros(*several, *x.shape) for what, x in kept.items()}
            here = self.parts[bits]
            for what in here.keys() & kept.keys():
                (here[what] if at is None else here[what][at]).add_(kept[what])

    def running(self) -> Sums:
        """Of several sets, the first, the sum of the first two, and so on.

        >>> groups = Sums((2,))
        >>> groups.add(sums_of(np.zeros((20, 30, 3), np.uint8)), at=0)
        >>> groups.running().statistics().images.tolist()
        [1, 1]
        """
        return Sums(self.leading, {b: {n: x.cumsum(0) for n, x in part.items()} for b, part in self.parts.items()})

    def turned(self, orientation: int) -> Sums:
        """The sums of the picture turned, see :func:`ndlib.pictures.reading.turned`.

        >>> sums_of(np.zeros((20, 30, 3), np.uint8)).turned(6).parts[8]["extent"].tolist()
        [1, 30, 20, 600]
        """
        if orientation == 1:
            return self
        parts = {bits: dict(part) for bits, part in self.parts.items()}
        for part in parts.values():
            part["sums"] = turned(part["sums"], orientation)
            for name in {"products", "own"} & part.keys():
                part[name] = half_of_lags(turned(all_lags(part[name]), orientation))
            if orientation >= 5:
                part["extent"] = part["extent"][[0, 2, 1, 3]]
        return Sums(self.leading, parts)

    def statistics(self, space: Space = "rgb") -> Statistics:
        """The statistics of values in [0, 1], float64.

        Raises:
            ValueError: there is no picture in the sums.

        >>> sums_of(np.full((20, 30, 3), 255, np.uint8)).statistics().products[0, 0, LAG, LAG].item()
        600.0
        """
        if not self.parts:
            raise ValueError("there are no pictures in these sums")
        found = (_in_values(bits, self.parts[bits]) for bits in sorted(self.parts))
        # Groups of version 0.1 have the luminance alone.
        first, *rest = (in_space(s, space) if s.channels == 3 else s for s in found)
        return sum(rest, start=first)


def _in_values(bits: int, part: Part) -> Statistics:
    """One part in float64, for values in [0, 1]."""
    own = all_lags(part["own"]) if "own" in part else None
    found = Statistics(part["extent"], part["sums"], all_lags(part["products"]), own)
    if bits == 0:
        return found
    bytes_ = found.shifted(torch.full((found.channels,), MIDDLE))  # in integers still
    sums, products = bytes_.sums.double(), bytes_.products.double()
    own = None if own is None else own.double() / OWN_STEPS
    if bits == 16:
        by_byte = sums.unflatten(-3, (3, 2))
        sums = by_byte[..., 0, :, :] + 256 * by_byte[..., 1, :, :]
        products, own = _of_two_bytes(products), None if own is None else _of_two_bytes(own)
    largest = 2**bits - 1
    own = None if own is None else own / largest**2
    return Statistics(part["extent"].double(), sums / largest, products / largest**2, own)


def _of_two_bytes(products: Tensor) -> Tensor:
    """Products of low and high bytes by turns, (..., 6, 6, 29, 29), as those of the pixels: (..., 3, 3, 29, 29)."""
    p = products.unflatten(-4, (3, 2)).unflatten(-3, (3, 2))
    mixed = p[..., 0, :, 1, :, :] + p[..., 1, :, 0, :, :]
    return p[..., 0, :, 0, :, :] + 256 * mixed + 65536 * p[..., 1, :, 1, :, :]


def sums_of(picture: NDArray[Any] | Callable[[int, int], NDArray[Any]], extent: tuple[int, ...] = ()) -> Sums:
    """The sums of one picture.

    Args:
        picture: uint8 or uint16 of shape (H, W, 1) or (H, W, 3); or, so that a large one need not be there as a whole,
            what gives its rows from ``top`` up to ``bottom``, with ``extent``, its height and width.

    Raises:
        ValueError: a side below 15 pixels.

    >>> picture = np.ones((40, 30, 3), np.uint8)
    >>> by_rows = sums_of(lambda top, bottom: picture[top:bottom], (40, 30))
    >>> torch.equal(by_rows.parts[8]["products"], sums_of(picture).parts[8]["products"])
    True
    """
    height, width = picture.shape[:2] if isinstance(picture, np.ndarray) else extent
    if isinstance(picture, np.ndarray) or height * width <= PIXELS:
        whole = picture if isinstance(picture, np.ndarray) else picture(0, height)
        picture = lambda top, bottom: whole[top:bottom]  # noqa: E731
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(f"a picture needs sides of at least {SMALLEST_SIDE} pixels, got {width} x {height}")
    products, columns = None, np.zeros((), np.int64)
    step = max(1, PIXELS // width // BLOCK[0]) * BLOCK[0]
    for top in range(0, height, step):
        rows = picture(top, min(top + step + LAG, height))
        strip = _signed(rows)
        found = _products(strip, min(step, height - top))
        products = found if products is None else products + found
        columns = columns + strip[:step].sum(0, dtype=np.int32).astype(np.int64)
    assert products is not None
    sums = sums_at_lags(columns, _signed(picture(0, LAG)), _signed(picture(height - LAG, height)))
    part = {
        "extent": torch.tensor([1, height, width, height * width]),
        "sums": torch.from_numpy(sums),
        "products": products,
        "own": torch.from_numpy(_about_own_mean(sums, products.numpy(), height, width)),
    }
    if rows.shape[2] == 1:  # grey: its one channel, or two bytes of it, stands for R, G and B
        repeats = {"extent": (1,), "sums": (3, 1, 1), "products": (3, 3, 1, 1), "own": (3, 3, 1, 1)}
        part = {name: values.repeat(repeats[name]) for name, values in part.items()}
    return Sums((), {8 * rows.dtype.itemsize: part})


def _signed(rows: NDArray[Any]) -> NDArray[np.int8]:
    """The bytes of pixels less 128; of uint16 pixels the low and the high one, as two channels."""
    stored = rows if rows.dtype == np.uint8 else np.ascontiguousarray(rows, "<u2").view(np.uint8)
    return (stored ^ np.uint8(MIDDLE)).view(np.int8)


def _products(strip: NDArray[np.int8], owned: int) -> Tensor:
    """Sums of x_a(p) x_b(p + d) with p in the first ``owned`` rows: int64 of shape (C, C, 15, 29), for dy >= 0.

    The strip is cut into blocks of 4 x 8 pixels; a row of the matrix holds a block and all that its pixels reach. The
    product with the columns of the block alone has every pair, and pairs of one lag lie on a diagonal.
    """
    width, channels = strip.shape[1:]
    tall, wide = BLOCK
    down, across = -(-owned // tall), -(-width // wide)
    padded = torch.zeros(down * tall + LAG, across * wide + 2 * LAG, channels, dtype=torch.int8)
    padded[: len(strip), LAG : LAG + width] = torch.from_numpy(strip)
    line, reach = padded.stride(0), (wide + 2 * LAG) * channels
    windows = padded.as_strided((down, across, tall + LAG, reach), (tall * line, wide * channels, line, 1)).contiguous()
    blocks = windows[:, :, :tall, LAG * channels : -LAG * channels]
    product = _product(blocks.reshape(down * across, -1), windows.view(down * across, -1))
    pairs = product.view(tall, wide, channels, tall + LAG, wide + 2 * LAG, channels)
    s = pairs.stride()
    lags = pairs.as_strided((tall, wide, channels, LAG + 1, 2 * LAG + 1, channels), (s[0] + s[3], s[1] + s[4], *s[2:]))
    return lags.sum((0, 1), dtype=torch.int64).permute(0, 3, 1, 2)


def _product(blocks: Tensor, windows: Tensor) -> Tensor:
    """``blocks' @ windows`` of int8 matrices, exactly, int32 or int64."""
    if int8_product is not None:
        return int8_product(blocks.t(), windows)
    total = torch.zeros(blocks.shape[1], windows.shape[1], dtype=torch.int64)
    for first, second in zip(blocks.split(EXACT_ROWS), windows.split(EXACT_ROWS), strict=True):
        total += (first.float().t() @ second.float()).long()
    return total


def _about_own_mean(sums: NDArray[np.int64], products: NDArray[np.int64], height: int, width: int) -> NDArray[np.int64]:
    """sum of (x_a(p) - m_a) (x_b(p + d) - m_b), rounded to steps of 1/256: of the lags with dy >= 0."""
    mean = sums[:, LAG, LAG] / (height * width)
    at_a, at_b = mean[:, None, None, None], mean[None, :, None, None]
    sums_a, sums_b = sums[:, None, LAG:], sums[None, :, LAG::-1, ::-1]
    d = np.arange(-LAG, LAG + 1)
    pairs = (height - d[LAG:, None]) * (width - abs(d))
    return np.rint((products - (at_b * sums_a + at_a * sums_b) + at_a * at_b * pairs) * OWN_STEPS).astype(np.int64)
