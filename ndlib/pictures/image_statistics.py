"""Second-order statistics of pictures: sums from which the covariance of patches up to 15x15 follows.

    >>> from ndlib.pictures.photographs import photograph
    >>> cat, coffee = (photograph(name)[:, :150, :200] for name in ("cat", "coffee"))
    >>> statistics = picture_statistics(cat) + picture_statistics(coffee)
    >>> autocovariance(statistics).shape  # of each pair of channels, at lags up to 14 pixels
    torch.Size([3, 3, 29, 29])

Sums add up: those of a folder of pictures are in :mod:`ndlib.pictures.folders`. Pictures have shape (C, H, W) or (H, W)
and values in [0, 1]. Everything is computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import photographs

__all__ = [
    "LAG",
    "SMALLEST_SIDE",
    "SPACES",
    "Counts",
    "Mean",
    "Space",
    "Statistics",
    "all_lags",
    "autocovariance",
    "checked_picture",
    "half_of_lags",
    "in_space",
    "picture_statistics",
    "sums_at_lags",
]

PIXELS = 2**18  # of the strip of a picture that is in work
LAG = 14  # pixels, the largest distance along either axis between two pixels of a 15x15 patch
SMALLEST_SIDE = LAG + 1  # pixels, of the smallest picture in which every lag occurs

Mean = Literal["grand", "image"]
Counts = Literal["unbiased", "biased"]
Space = Literal["luminance", "rgb", "opponent"]


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

    >>> s = picture_statistics(torch.ones(20, 30))
    >>> s.products.shape, s.products[0, 0, LAG + 1, LAG + 2].item()  # of (20 - 1) (30 - 2) pairs
    (torch.Size([1, 1, 29, 29]), 532.0)
    """
    x = _of_three_dimensions(picture, SMALLEST_SIDE)
    channels, height, width = x.shape
    step = max(LAG, PIXELS // width)  # rows in work at a time: a large picture never stands there in float64 as a whole
    mean = sum(strip.to(torch.float64).sum((1, 2)) for strip in x.split(step, 1)) / (height * width)
    if not mean.isfinite().all():
        raise ValueError("the picture has values that are NaN or infinite")

    def rows(top: int, bottom: int) -> Tensor:
        # The transform rounds in proportion to what it transforms: the mean is put back afterwards.
        return x[:, top:bottom].to(torch.float64) - mean[:, None, None]

    own = torch.zeros(channels, channels, SMALLEST_SIDE, 2 * LAG + 1, dtype=torch.float64)
    columns = x.new_zeros(width, channels, dtype=torch.float64)
    for top in range(0, height, step):
        strip = rows(top, min(top + step + LAG, height))
        own += _correlations(strip[:, :step], strip)
        columns += strip[:, :step].sum(1).T
    edges = (rows(*at).permute(1, 2, 0).cpu().numpy() for at in ((0, LAG), (height - LAG, height)))
    sums = torch.from_numpy(sums_at_lags(columns.cpu().numpy(), *edges))
    extent = torch.tensor([1, height, width, height * width], dtype=torch.float64)
    centred = Statistics(extent, sums, all_lags(own), all_lags(own))
    return centred.shifted(mean.cpu())


def _correlations(first: Tensor, second: Tensor) -> Tensor:
    """sum of x_a(p) y_b(p + d) for dy >= 0, (C, C, 15, 29), by FFT; ``second`` may have more rows than ``first``."""
    from scipy.fft import next_fast_len

    shape = [next_fast_len(side + LAG, real=True) for side in second.shape[1:]]

    def spectra(x: Tensor) -> Tensor:
        return torch.fft.fft(torch.fft.rfft(x, shape[1], dim=2), shape[0], dim=1)

    seconds = spectra(second)
    firsts = seconds if first.shape == second.shape else spectra(first)
    lags = torch.arange(-LAG, LAG + 1, device=second.device)

    def correlation(a: Tensor, b: Tensor) -> Tensor:
        # Back along one axis, on along the other with the rows of lags that are wanted.
        rows = torch.fft.ifft(a.conj() * b, dim=0)[:SMALLEST_SIDE]
        return torch.fft.irfft(rows, shape[1], dim=1)[:, lags]

    return torch.stack([torch.stack([correlation(a, b) for b in seconds]) for a in firsts]).cpu()


def sums_at_lags(columns: NDArray[Any], top: NDArray[Any], bottom: NDArray[Any]) -> NDArray[Any]:
    """For each lag d, the sum of the pixels p with p + d inside the picture: (C, 29, 29).

    Args:
        columns: sums of all columns, (W, C).
        top, bottom: the first and the last 14 rows, (14, W, C).

    >>> picture = np.ones((20, 30, 1))
    >>> sums_at_lags(picture.sum(0), picture[:14], picture[-14:])[0, LAG + 1, LAG + 2].item()  # (20 - 1) (30 - 2)
    532.0
    """
    rows = np.concatenate([columns[None], top[::-1], bottom[::-1]], dtype=columns.dtype)
    left, right = rows[:, :LAG].cumsum(1)[:, ::-1], rows[:, : -LAG - 1 : -1].cumsum(1)
    whole = np.einsum("rwc->rc", rows)[:, None]  # five times as fast as rows.sum(1)
    of_rows = np.concatenate([whole - left, whole, whole - right], 1)  # for each dx, of the pixels x with x + dx inside
    every, above, below = of_rows[:1], of_rows[1 : LAG + 1], of_rows[LAG + 1 :]
    lost_above, lost_below = above[::-1].cumsum(0)[::-1], below.cumsum(0)
    return np.concatenate([every - lost_above, every, every - lost_below]).transpose(2, 0, 1)


def _of_three_dimensions(picture: Tensor, smallest: int) -> Tensor:
    x = picture.unsqueeze(0) if picture.dim() == 2 else picture
    if x.dim() != 3 or min(x.shape[1:]) < smallest:
        raise ValueError(
            f"a picture needs shape (channels, height, width) or (height, width) and sides of at least {smallest} "
            f"pixels, got shape {tuple(picture.shape)}"
        )
    return x


def checked_picture(picture: Tensor, smallest: int) -> Tensor:
    """A picture as float64 of shape (C, H, W).

    Args:
        picture: shape (C, H, W) or (H, W).
        smallest: pixels that each side must have at least.

    Raises:
        ValueError: another shape, or a smaller side.

    >>> checked_picture(torch.ones(20, 30), 15).shape
    torch.Size([1, 20, 30])
    """
    return _of_three_dimensions(picture, smallest).to(torch.float64)


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

    >>> stripes = torch.tensor([0.0, 1.0]).repeat(20, 10)  # columns of 0 and 1 by turns: variance 1/4
    >>> c = autocovariance(picture_statistics(stripes))[0, 0]
    >>> [round(c[LAG, LAG + dx].item(), 6) for dx in (0, 1, 2)]
    [0.25, -0.25, 0.25]
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

    ``"luminance"`` has one channel (see :func:`ndlib.pictures.photographs.luminance`), ``"opponent"`` three:
    (R + G + B) / sqrt(3), (R - G) / sqrt(2), (2 B - R - G) / sqrt(6), an orthonormal change of axes.

    Raises:
        ValueError: unknown space, or colour asked of the statistics of one channel.

    >>> grey = picture_statistics(torch.full((3, 20, 20), 0.5))
    >>> [round(value, 6) + 0 for value in in_space(grey, "opponent").mean.tolist()]  # 3 * 0.5 / sqrt(3); no colour
    [0.866025, 0.0, 0.0]
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

    >>> first, second = picture_statistics(torch.zeros(15, 20)), picture_statistics(torch.ones(15, 20))
    >>> both = first + second
    >>> both.images.item(), both.mean.item(), torch.equal((both - first).products, second.products)
    (2, 0.5, True)
    """

    extent: Tensor
    sums: Tensor
    products: Tensor
    own: Tensor | None

    def __add__(self, other: Statistics) -> Statistics:
        """The statistics of the pictures of both."""
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
        """Number of channels, C."""
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
        d = torch.arange(-LAG, LAG + 1, dtype=self.extent.dtype).abs()
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


def half_of_lags(products: Tensor) -> Tensor:
    """The lags with dy >= 0, shape (..., C, C, 15, 29): the others follow from C_ab(-d) = C_ba(d).

    >>> half_of_lags(torch.zeros(3, 3, 29, 29)).shape
    torch.Size([3, 3, 15, 29])
    """
    return products[..., LAG:, :]


def all_lags(half: Tensor) -> Tensor:
    """All lags, shape (..., C, C, 29, 29), from those with dy >= 0: undoes :func:`half_of_lags`.

    >>> products = picture_statistics(torch.arange(600.0).reshape(20, 30)).products
    >>> torch.allclose(all_lags(half_of_lags(products)), products)
    True
    """
    return torch.cat([half[..., 1:, :].flip(-2, -1).transpose(-4, -3), half], -2)
