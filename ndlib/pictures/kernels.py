"""Deconvolution kernels of pictures: from image statistics to kernels, and measures of what they look like::

    cov = patch_covariance(image_statistics.load("imagenet").total, 15)
    spectrum = decompose(cov)                               one eigendecomposition; eps and steps are then instant
    kernel = deconvolution_kernel(spectrum)                 a row of D = (Cov + eps I)^(-1/2), as (C, k, k)

A kernel is what the deconvolution of Ye et al. 2020 (arXiv 1905.11926) multiplies a patch with to give one pixel and
colour of the deconvolved picture. It also holds the measures of sparsity, of any tensor.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..functional import newton_schulz_response
from .image_statistics import (
    LAG,
    Collection,
    Counts,
    Mean,
    Space,
    Statistics,
    autocovariance,
    checked_picture,
    in_space,
    picture_statistics,
)

Array = NDArray[np.float64]

# Covariances of patches. -----------------------------------------------------------------------------------


def block_toeplitz(autocovariances: Tensor, k: int) -> Tensor:
    """Covariance of k x k patches of a stationary picture: Cov[(a, p), (b, q)] = C_ab(q - p).

    Args:
        autocovariances: shape (..., C, C, 29, 29), from :func:`.autocovariance`.
        k: patch side, pixels, odd and at most 15.

    Returns:
        Shape (..., C k k, C k k), in the order of :func:`ndlib.functional.patch_matrix`: channel, row, column.
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
    """
    _check_side(k)
    x = checked_picture(picture, k).numpy()
    x = x - x.mean((1, 2), keepdims=True)  # the covariance is the same, without a small difference of large sums
    channels, height, width = x.shape
    rows, columns = height - k + 1, width - k + 1

    def window_means(values: Array) -> Array:
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


def _sliding_sums(values: Array, window: int, axis: int) -> Array:
    """Sums over every full window of this many entries along an axis: the first, then what enters less what leaves."""
    values = np.moveaxis(values, axis, 0)
    first = values[:window].sum(0, keepdims=True)
    sums = np.concatenate([first, values[window:] - values[: len(values) - window]]).cumsum(0)
    return np.moveaxis(sums, 0, axis)


class EstimatorDifference(NamedTuple):
    """covariance: ||stationary - exact||_F / ||exact||_F; kernel: the largest difference, relative to the centre of
    the exact kernel; clipped: see :class:`Spectrum`, of the stationary estimate."""

    covariance: float
    kernel: float
    clipped: float


def estimator_difference(picture: Tensor, k: int = 15, *, eps: float = 1e-5) -> EstimatorDifference:
    """How far the stationary covariance of one picture is from the exact one, and the kernel of its first channel.

    They differ in the borders alone: the exact one averages each pair of taps over the positions of full windows,
    the stationary one over all pairs of pixels at that distance.
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
    """

    eigenvalues: Tensor
    eigenvectors: Tensor
    clipped: float
    channels: int
    k: int

    def gains(self, eps: float, n_iter: int | None) -> Tensor:
        """What D does to each eigenvector: (l + eps)^(-1/2), or that of ``n_iter`` Newton-Schulz steps."""
        shifted = self.eigenvalues + eps
        if float(shifted[0]) <= 0:
            raise ValueError("the covariance is singular and eps is 0: there is no inverse root; use eps > 0")
        return shifted.rsqrt() if n_iter is None else newton_schulz_response(shifted, n_iter)


def decompose(cov: Tensor, channels: int = 1) -> Spectrum:
    """Eigendecomposition of a covariance of patches, of shape (C k k, C k k).

    Raises:
        ValueError: the size is not that of square patches with an odd side.
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
    """Minimum over centre of kernels of shape (..., k, k): negative where a positive centre has a negative ring."""
    k = kernel.shape[-1]
    return kernel.amin((-2, -1)) / kernel[..., k // 2, k // 2]


def surround_mass(kernel: Tensor) -> Tensor:
    """Share of the negative weights in the sum of magnitudes: 0 for a delta, 1/2 if all cancel; of (..., k, k)."""
    return kernel.clamp(max=0).abs().sum((-2, -1)) / kernel.abs().sum((-2, -1))


def opponency(kernel: Tensor, channel: int = 0) -> Tensor:
    """Centre weights of all channels, relative to that of ``channel``, of a kernel (C, k, k): shape (C,).

    Negative for another colour: it is subtracted, as in colour-opponent cells.
    """
    centre = kernel[:, kernel.shape[-2] // 2, kernel.shape[-1] // 2]
    return centre / centre[channel]


# Least widths of a fit, pixels. A centre below 0.3 is one pixel (its neighbours have 0.4 % of it). Of a surround below
# 0.5 the four nearest pixels are left (0.135 of it, diagonals 0.018): less would only change its amplitude.
SMALLEST_CENTRE, SMALLEST_SURROUND = 0.3, 0.5


class FitError(RuntimeError):
    """The difference of Gaussians did not converge."""


@dataclass(frozen=True)
class DifferenceOfGaussians:
    """centre exp(-r^2 / (2 centre_sigma^2)) - surround exp(-r^2 / (2 surround_sigma^2)), r in pixels from the centre.

    Args:
        errors: standard error of each parameter by its name, NaN for those of ``at_bound``. They come from the
            residuals of the fit; that other pictures have other kernels is not in them.
        r2: coefficient of determination, 1 - sum of squared residuals / sum of squared deviations from the mean.
        at_bound: the widths that are not determined: a centre of one pixel (centre_sigma is then 0), a surround of
            hardly more than the four nearest pixels (0.5), or one as wide as the kernel.
    """

    centre: float
    centre_sigma: float
    surround: float
    surround_sigma: float
    errors: dict[str, float]
    r2: float
    at_bound: tuple[str, ...]

    def picture(self, k: int) -> Tensor:
        """The fitted function on k x k pixels."""
        values = _difference_of_gaussians(_radii_squared(k), *(getattr(self, name) for name in _PARAMETERS))
        return torch.from_numpy(values).reshape(k, k)


_PARAMETERS = ("centre", "centre_sigma", "surround", "surround_sigma")


def fit_difference_of_gaussians(kernel: Tensor) -> DifferenceOfGaussians:
    """Least-squares fit of a difference of two round Gaussians about the centre of a kernel, all pixels alike.

    The Gaussians are sampled at the pixels, as the weights of a kernel are. A centre narrower than 0.3 pixels is
    fitted as one pixel, and a surround is at least 0.5 pixels wide: exact deconvolution kernels end at both bounds
    (see ``at_bound``), and the amplitudes with their errors belong to these widths. Without the bounds the
    amplitudes would grow without end while their difference stays.

    Args:
        kernel: shape (k, k), k odd, its centre positive.

    Raises:
        ValueError: another shape, or a centre that is not positive.
        FitError: no convergence, or parameters that the kernel does not determine: it has no surround.
    """
    k = kernel.shape[-1]
    if kernel.shape != (k, k) or k % 2 == 0:
        raise ValueError(f"a kernel of odd, equal sides is needed, got shape {tuple(kernel.shape)}")
    peak = float(kernel[k // 2, k // 2])
    if not peak > 0:
        raise ValueError(f"the centre of the kernel must be positive, got {peak}")
    values = kernel.to(torch.float64).numpy().ravel() / peak
    starts = ([1.2, 0.5, 0.2, 1.2], [1.2, 1.0, 0.2, 3.0])  # a narrow and a wide one
    free = np.ones(4, bool)
    found, errors, residual = min((_least_squares(values, np.array(s), free) for s in starts), key=lambda fit: fit[2])
    if np.isclose(found[1], SMALLEST_CENTRE, rtol=1e-3):
        free[1], found[1] = False, 0
        found, errors, residual = _least_squares(values, found, free)
    if np.isclose(found[3], [SMALLEST_SURROUND, k], rtol=1e-3).any():
        free[3] = False
        found, errors, residual = _least_squares(values, found, free)
    if found[2] < 1e-3:  # of the centre
        raise FitError("the kernel has no surround, so that its width is not determined")
    scale = np.array([peak, 1, peak, 1])
    centre, centre_sigma, surround, surround_sigma = (found * scale).tolist()
    return DifferenceOfGaussians(
        centre,
        centre_sigma,
        surround,
        surround_sigma,
        errors=dict(zip(_PARAMETERS, (errors * scale).tolist(), strict=True)),
        r2=1 - residual / float(np.square(values - values.mean()).sum()),
        at_bound=tuple(name for name, inside in zip(_PARAMETERS, free, strict=True) if not inside),
    )


def _least_squares(values: Array, start: Array, free: NDArray[np.bool_]) -> tuple[Array, Array, float]:
    """Parameters, their standard errors (NaN where they are not free) and the sum of squared residuals."""
    from scipy.optimize import OptimizeWarning, curve_fit

    k = math.isqrt(len(values))
    lower = np.array([0, SMALLEST_CENTRE, 0, SMALLEST_SURROUND])
    upper = np.array([np.inf, k, np.inf, k])
    found, errors = start.copy(), np.full(4, np.nan)

    def model(radii: Array, *parameters: float) -> Array:
        found[free] = parameters
        return _difference_of_gaussians(radii, *found)

    radii = _radii_squared(k)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", OptimizeWarning)
            best, covariance = curve_fit(model, radii, values, p0=start[free], bounds=(lower[free], upper[free]))
    except (RuntimeError, OptimizeWarning) as error:
        raise FitError(
            f"the kernel does not determine a difference of Gaussians ({error}): has it a surround?"
        ) from error
    errors[free] = np.sqrt(np.diag(covariance))
    return found, errors, float(np.square(values - model(radii, *best)).sum())


def _radii_squared(k: int) -> Array:
    line = np.arange(k, dtype=np.float64) - k // 2
    return np.add.outer(line**2, line**2).ravel()


def _difference_of_gaussians(
    radii_squared: Array, centre: float, centre_sigma: float, surround: float, surround_sigma: float
) -> Array:
    first = np.exp(-radii_squared / (2 * centre_sigma**2)) if centre_sigma else radii_squared == 0
    second = np.exp(-radii_squared / (2 * surround_sigma**2))
    return centre * first - surround * second


def jackknife(groups: Statistics, measure: Callable[[Statistics], Tensor]) -> tuple[Tensor, Tensor]:
    """A measure of pictures and its standard error over samples of pictures, from leaving out one group at a time.

    With m_i the measure without group i of G, the error is sqrt((G - 1) / G * sum over i of (m_i - mean of m)^2).
    What another sample *of the same kind of pictures* would give lies within it; another kind is another question.

    Args:
        groups: statistics of disjoint groups of pictures, as a first dimension; empty ones do not count.
        measure: from the statistics of some pictures to a tensor.

    Returns:
        The measure of all pictures and its error, of the same shape; NaN for the error if there is one group alone.

    Source: Efron and Stein, The Jackknife Estimate of Variance, Annals of Statistics 9, 1981.
    """
    groups = groups[groups.images > 0]
    total = Statistics(groups.extent.sum(0), groups.sums.sum(0), groups.products.sum(0), None)
    value, n = measure(total), len(groups.images)
    if n < 2:
        return value, torch.full_like(value, math.nan)
    without = torch.stack([measure(total - groups[i]) for i in range(n)])
    return value, (without.var(0) * (n - 1) ** 2 / n).sqrt()


def summary(collection: Collection) -> str:
    """The luminance kernel of 15 x 15 patches (exact, eps 1e-5) in numbers, as text, with errors by jackknife."""

    def kernel_of(statistics: Statistics) -> Tensor:
        return deconvolution_kernel(decompose(patch_covariance(statistics)))[0]

    def shape(statistics: Statistics) -> Tensor:
        kernel = kernel_of(statistics)
        return torch.stack([kernel[LAG // 2, LAG // 2], surround_ratio(kernel), 100 * surround_mass(kernel)])

    def parameters(statistics: Statistics) -> Tensor:
        fit = fit_difference_of_gaussians(kernel_of(statistics))
        return torch.tensor([getattr(fit, name) for name in _PARAMETERS], dtype=torch.float64)

    (centre, ring, negative), (centre_error, ring_error, negative_error) = jackknife(collection.groups, shape)
    lines = [
        "luminance kernel, 15x15 patches, eps 1e-5, exact root, values in [0, 1]; errors over samples of pictures:",
        f"  centre {centre:.2f} +- {centre_error:.2f}, ring: minimum {ring:+.3f} +- {ring_error:.3f} of the centre, "
        f"{negative:.1f} +- {negative_error:.1f} % of the weight is negative",
    ]
    try:
        values, errors = jackknife(collection.groups, parameters)
        fit = fit_difference_of_gaussians(kernel_of(collection.total))
    except FitError as error:
        return "\n".join([*lines, f"  {error}"])
    found = {name: f"{v:.3f} +- {e:.3f}" for name, v, e in zip(_PARAMETERS, values, errors, strict=True)}
    found |= {name: f"at the smallest that pixels show, {getattr(fit, name):g}" for name in fit.at_bound}
    lines += [
        f"  difference of Gaussians: {name} {found[name]}, sigma {found[f'{name}_sigma']} pixels"
        for name in ("centre", "surround")
    ]
    return "\n".join([*lines, f"  R^2 {fit.r2:.4f}"])


# Sparsity. -------------------------------------------------------------------------------------------------


def l1_l2(x: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """||x||_1 / (sqrt(n) ||x||_2) over n elements: 1 if all magnitudes are equal, 1/sqrt(n) if one is left.

    Args:
        x: any real tensor, any unit.
        dim: dimensions to measure over; None takes all elements.

    Returns:
        Without unit, of the shape of ``x`` less ``dim``; NaN where every element is 0.
    """
    dims = _dims(x, dim)
    n = _count(x, dims)
    return torch.linalg.vector_norm(x, 1, dims) / (math.sqrt(n) * torch.linalg.vector_norm(x, 2, dims))


def hoyer(x: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """Hoyer's sparseness (sqrt(n) - ||x||_1 / ||x||_2) / (sqrt(n) - 1), from 0 (all magnitudes equal) to 1 (one left).

    Arguments and result as in :func:`l1_l2`; it needs at least two elements. Gaussian noise has about 0.2.

    Source: Hoyer, Non-negative Matrix Factorization with Sparseness Constraints, JMLR 5, 2004.

    Raises:
        ValueError: fewer than two elements.
    """
    dims = _dims(x, dim)
    n = _count(x, dims)
    if n < 2:
        raise ValueError(
            f"sparseness needs at least 2 elements, got {n} over the dimensions {dims} of {tuple(x.shape)}"
        )
    root = math.sqrt(n)
    return root * (1 - l1_l2(x, dims)) / (root - 1)


def kurtosis(x: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """Excess kurtosis E[(x - mu)^4] / (E[(x - mu)^2])^2 - 3 (moments over n): 0 for a Gaussian, above for heavy tails.

    Arguments and result as in :func:`l1_l2`; NaN where all elements are equal.
    """
    dims = _dims(x, dim)
    square = (x - x.mean(dims, keepdim=True)).square()
    return square.square().mean(dims) / square.mean(dims).square() - 3


def _dims(x: Tensor, dim: int | tuple[int, ...] | None) -> tuple[int, ...]:
    return tuple(range(x.dim())) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)


def _count(x: Tensor, dims: tuple[int, ...]) -> int:
    return math.prod(x.shape[d] for d in dims)
