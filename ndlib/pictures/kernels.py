"""Deconvolution kernels of pictures: from image statistics to kernels, and what a kernel looks like.

    >>> from ndlib.pictures.statistics_files import load_statistics
    >>> cov = patch_covariance(load_statistics("imagenet").total, 15)
    >>> spectrum = decompose(cov)  # once: with it every eps and number of steps is instant
    >>> kernel = deconvolution_kernel(spectrum)  # a row of D = (Cov + eps I)^(-1/2)
    >>> kernel.shape, bool(surround_ratio(kernel[0]) < -0.2)
    (torch.Size([1, 15, 15]), True)

A kernel is what the deconvolution of Ye et al. 2020 (arXiv 1905.11926) multiplies a patch with to give one pixel and
colour of the deconvolved picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..functional import newton_schulz_response
from .image_statistics import (
    LAG,
    Counts,
    Mean,
    Space,
    Statistics,
    autocovariance,
    checked_picture,
    in_space,
    picture_statistics,
)

__all__ = [
    "EstimatorDifference",
    "Spectrum",
    "block_toeplitz",
    "decompose",
    "deconvolution_kernel",
    "deconvolution_matrix",
    "estimator_difference",
    "exact_patch_covariance",
    "opponency",
    "patch_covariance",
    "surround_mass",
    "surround_ratio",
]

FloatArray = NDArray[np.float64]

# Covariances of patches. -----------------------------------------------------------------------------------


def block_toeplitz(autocovariances: Tensor, k: int) -> Tensor:
    """Covariance of k x k patches of a stationary picture: Cov[(a, p), (b, q)] = C_ab(q - p).

    Args:
        autocovariances: shape (..., C, C, 29, 29), from :func:`.autocovariance`.
        k: patch side, pixels, odd and at most 15.

    Returns:
        Shape (..., C k k, C k k), in the order of :func:`ndlib.functional.patch_matrix`: channel, row, column.

    Raises:
        ValueError: k is even or too large.

    >>> c = torch.arange(29.0 * 29).reshape(1, 1, 29, 29)
    >>> cov = block_toeplitz(c, 3)
    >>> cov.shape, bool(cov[0, 5] == c[0, 0, LAG + 1, LAG + 2])  # from tap (0, 0) to tap (1, 2)
    (torch.Size([9, 9]), True)
    """
    _check_side(k)
    line = torch.arange(k)
    lag = line[None, :] - line[:, None] + LAG  # at (p, q): q - p
    blocks = autocovariances[..., lag[:, None, :, None], lag[None, :, None, :]]  # (..., a, b, p_y, p_x, q_y, q_x)
    n = autocovariances.shape[-3] * k * k
    return blocks.movedim(-5, -3).reshape(*autocovariances.shape[:-4], n, n)


def _check_side(k: int) -> None:
    if not (1 <= k <= LAG + 1 and k % 2):
        raise ValueError(f"patch side k must be odd, so that a patch has a centre, and at most {LAG + 1}, got {k}")


def patch_covariance(
    statistics: Statistics,
    k: int = 15,
    *,
    space: Space = "luminance",
    mean: Mean = "grand",
    counts: Counts = "unbiased",
) -> Tensor:
    """Covariance of k x k patches from streamed statistics: shape (..., C k k, C k k), see :func:`block_toeplitz`.

    Args:
        k: patch side, pixels, odd and at most 15.
        space: ``"luminance"``, ``"rgb"`` or ``"opponent"``, see :func:`ndlib.pictures.image_statistics.in_space`.
        mean, counts: see :func:`ndlib.pictures.image_statistics.autocovariance`.

    >>> from ndlib.pictures.photographs import photograph
    >>> patch_covariance(picture_statistics(photograph("cat")), 5, space="rgb").shape
    torch.Size([75, 75])
    """
    return block_toeplitz(autocovariance(in_space(statistics, space), mean=mean, counts=counts), k)


def exact_patch_covariance(picture: Tensor, k: int = 15) -> Tensor:
    """Covariance of all full k x k windows of one picture, equal to that of its patch matrix, which is never built.

    The entry for taps p and q is the mean of x_a(p + o) x_b(q + o) over all window corners o: for each lag q - p
    the products of the picture with itself are formed once, and summed by windows that slide over them.

    Args:
        picture: shape (C, H, W) or (H, W), any size from k x k.

    Returns:
        Shape (C k k, C k k), float64, divided by the number of windows (H - k + 1) (W - k + 1).

    >>> picture = torch.arange(30.0).reshape(5, 6) ** 2
    >>> windows = picture.unfold(0, 3, 1).unfold(1, 3, 1).reshape(-1, 9).double()
    >>> torch.allclose(exact_patch_covariance(picture, 3), windows.T.cov(correction=0))
    True
    """
    _check_side(k)
    x = checked_picture(picture, k).numpy()
    x = x - x.mean((1, 2), keepdims=True)  # the covariance is the same, without a small difference of large sums
    channels, height, width = x.shape
    rows, columns = height - k + 1, width - k + 1

    def window_means(values: FloatArray) -> FloatArray:
        return _sliding_sums(_sliding_sums(values, rows, -2), columns, -1) / (rows * columns)

    cov = np.zeros((k, k, k, k, channels, channels))  # (p_y, p_x, q_y, q_x, a, b)
    for dy in range(k):
        for dx in range(-k + 1 if dy else 0, k):
            left, right = max(0, -dx), max(0, dx)
            first = x[:, : height - dy, left : width - right]
            second = x[:, dy:, right : width - left]
            products = np.moveaxis(window_means(first[:, None] * second[None]), (0, 1), (-2, -1))
            i, j = np.arange(k - dy)[:, None], np.arange(left, k - right)
            cov[i, j, i + dy, j + dx] = products
            cov[i + dy, j + dx, i, j] = products.swapaxes(-2, -1)
    n = channels * k * k
    mean = window_means(x).ravel()
    return torch.from_numpy(cov.transpose(4, 0, 1, 5, 2, 3).reshape(n, n) - np.outer(mean, mean))


def _sliding_sums(values: FloatArray, window: int, axis: int) -> FloatArray:
    """Sums over every full window of this many entries along an axis: the first, then what enters less what leaves."""
    values = np.moveaxis(values, axis, 0)
    first = values[:window].sum(0, keepdims=True)
    sums = np.concatenate([first, values[window:] - values[: len(values) - window]]).cumsum(0)
    return np.moveaxis(sums, 0, axis)


class EstimatorDifference(NamedTuple):
    """How far the stationary estimate of a picture is from the exact one, see :func:`estimator_difference`.

    Args:
        covariance: ||stationary - exact||_F / ||exact||_F.
        kernel: the largest difference of the two kernels, relative to the centre of the exact one.
        clipped: see :class:`Spectrum`, of the stationary estimate.

    >>> EstimatorDifference(covariance=0.01, kernel=0.02, clipped=0.0).kernel
    0.02
    """

    covariance: float
    kernel: float
    clipped: float


def estimator_difference(picture: Tensor, k: int = 15, *, eps: float = 1e-5) -> EstimatorDifference:
    """How far the stationary covariance of one picture is from the exact one, and the kernel of its first channel.

    They differ in the borders alone: the exact one averages each pair of taps over the positions of full windows,
    the stationary one over all pairs of pixels at that distance.

    Args:
        picture: shape (C, H, W) or (H, W).
        k: patch side, pixels.
        eps: of the two kernels, see :func:`deconvolution_matrix`.

    >>> from ndlib.pictures.photographs import photograph
    >>> 0 < estimator_difference(photograph("cat")[:, :100, :100], 3).covariance < 0.1
    True
    """
    x = checked_picture(picture, k)
    exact = exact_patch_covariance(x, k)
    stationary = block_toeplitz(autocovariance(picture_statistics(x)), k)
    spectra = decompose(stationary, len(x)), decompose(exact, len(x))
    ours, wanted = (deconvolution_kernel(spectrum, eps=eps) for spectrum in spectra)
    return EstimatorDifference(
        float(torch.linalg.matrix_norm(stationary - exact) / torch.linalg.matrix_norm(exact)),
        float((ours - wanted).abs().max() / wanted.abs().max()),
        spectra[0].clipped,
    )


# Kernels. --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spectrum:
    """Cov = V diag(l) V' of patches of ``channels`` channels and side ``k``, with l clipped at 0.

    Args:
        eigenvalues: shape (C k k,), ascending.
        eigenvectors: shape (C k k, C k k), in columns.
        clipped: the sum of ``|l|`` over the eigenvalues that were negative, divided by that over all. The unbiased
            estimate of a single picture need not be positive semi-definite.

    >>> spectrum = decompose(torch.diag(torch.arange(1.0, 10)))
    >>> spectrum.k, spectrum.channels, spectrum.eigenvalues[0].item()
    (3, 1, 1.0)
    """

    eigenvalues: Tensor
    eigenvectors: Tensor
    clipped: float
    channels: int
    k: int

    def gains(self, eps: float, n_iter: int | None) -> Tensor:
        """The factors by which D multiplies each eigenvector: (l + eps)^(-1/2), or those of ``n_iter`` steps."""
        shifted = self.eigenvalues + eps
        if float(shifted[0]) <= 0:
            raise ValueError("the covariance is singular and eps is 0: there is no inverse root; use eps > 0")
        return shifted.rsqrt() if n_iter is None else newton_schulz_response(shifted, n_iter)


def decompose(cov: Tensor, channels: int = 1) -> Spectrum:
    """Eigendecomposition of a covariance of patches, of shape (C k k, C k k).

    Raises:
        ValueError: the size is not that of square patches with an odd side.

    >>> decompose(torch.eye(27), channels=3).k
    3
    """
    n = cov.shape[-1]
    k = math.isqrt(n // channels)
    if cov.shape != (channels * k * k,) * 2 or k % 2 == 0:
        raise ValueError(
            f"a covariance of odd, square patches of {channels} channel(s) is needed, got shape {tuple(cov.shape)}"
        )
    values, vectors = torch.linalg.eigh(cov)
    clipped = float(values.clamp(max=0).abs().sum() / values.abs().sum())
    return Spectrum(values.clamp(min=0), vectors, clipped, channels, k)


def deconvolution_matrix(spectrum: Spectrum, *, eps: float = 1e-5, n_iter: int | None = None) -> Tensor:
    """D = (Cov + eps I)^(-1/2), shape (C k k, C k k), in 1 / units of the pictures.

    Args:
        eps: in squared units of the pictures.
        n_iter: None for the exact root, else what so many Newton-Schulz steps give,
            see :func:`ndlib.functional.newton_schulz_response`.

    Raises:
        ValueError: the covariance is singular and eps is 0.

    Source: Ye et al., Network Deconvolution, ICLR 2020, arXiv 1905.11926.

    >>> deconvolution_matrix(decompose(torch.diag(torch.full((9,), 4.0))), eps=0)[0, 0].item()
    0.5
    """
    return (spectrum.eigenvectors * spectrum.gains(eps, n_iter)) @ spectrum.eigenvectors.T


def deconvolution_kernel(
    spectrum: Spectrum,
    *,
    eps: float = 1e-5,
    n_iter: int | None = None,
    channel: int = 0,
    pixel: tuple[int, int] | None = None,
) -> Tensor:
    """The row of D that gives one pixel and colour of the output, as a picture of shape (C, k, k).

    Args:
        eps, n_iter: see :func:`deconvolution_matrix`.
        channel: of the output; its own weights are ``kernel[channel]``.
        pixel: row and column in the patch; None for the centre.

    Raises:
        ValueError: no such channel or pixel.

    >>> from ndlib.pictures.photographs import photograph
    >>> kernel = deconvolution_kernel(decompose(patch_covariance(picture_statistics(photograph("cat")), 5)))[0]
    >>> kernel.argmax().item(), bool(kernel[2, 1] < 0 < kernel[2, 2])  # a positive centre, its neighbours negative
    (12, True)
    """
    k = spectrum.k
    i, j = (k // 2, k // 2) if pixel is None else pixel
    if not (0 <= channel < spectrum.channels and 0 <= i < k and 0 <= j < k):
        raise ValueError(f"no channel {channel}, pixel {(i, j)} in patches of {spectrum.channels} x {k} x {k}")
    vectors = spectrum.eigenvectors
    row = vectors @ (vectors[(channel * k + i) * k + j] * spectrum.gains(eps, n_iter))
    return row.reshape(spectrum.channels, k, k)


# What a kernel looks like. ---------------------------------------------------------------------------------


def surround_ratio(kernel: Tensor) -> Tensor:
    """Minimum over centre of kernels of shape (..., k, k): negative where a positive centre has a negative ring.

    >>> surround_ratio(torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]])).item()
    -0.25
    """
    k = kernel.shape[-1]
    return kernel.amin((-2, -1)) / kernel[..., k // 2, k // 2]


def surround_mass(kernel: Tensor) -> Tensor:
    """Share of the negative weights in the sum of magnitudes of kernels of shape (..., k, k).

    It is 0 for a delta and 1/2 if the weights sum to zero.

    >>> surround_mass(torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]])).item()
    0.5
    """
    return kernel.clamp(max=0).abs().sum((-2, -1)) / kernel.abs().sum((-2, -1))


def opponency(kernel: Tensor, channel: int = 0) -> Tensor:
    """Centre weights of all channels, relative to that of ``channel``, of a kernel (C, k, k): shape (C,).

    Another colour has a negative value if it is subtracted, as in colour-opponent cells.

    >>> opponency(torch.tensor([2.0, -1.0, -0.5]).reshape(3, 1, 1)).tolist()
    [1.0, -0.5, -0.25]
    """
    centre = kernel[:, kernel.shape[-2] // 2, kernel.shape[-1] // 2]
    return centre / centre[channel]
