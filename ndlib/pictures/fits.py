"""What a deconvolution kernel looks like in numbers: a difference of Gaussians, and errors over samples of pictures."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .image_statistics import LAG, Statistics
from .kernels import FloatArray, decompose, deconvolution_kernel, patch_covariance, surround_mass, surround_ratio
from .statistics_files import Collection

__all__ = [
    "SMALLEST_CENTRE",
    "SMALLEST_SURROUND",
    "DifferenceOfGaussians",
    "FitError",
    "describe_kernel",
    "fit_difference_of_gaussians",
    "jackknife",
]

# Least widths of a fit, pixels. A centre below 0.3 is one pixel (its neighbours have 0.4 % of it). Of a surround below
# 0.5 the four nearest pixels are left (0.135 of it, diagonals 0.018): less would only change its amplitude.
SMALLEST_CENTRE, SMALLEST_SURROUND = 0.3, 0.5


class FitError(RuntimeError):
    """A kernel does not determine the difference of Gaussians that was fitted to it.

    >>> try:
    ...     fit_difference_of_gaussians(torch.eye(9)[4][:, None] * torch.eye(9)[4])  # a delta
    ... except FitError as error:
    ...     print(error)
    the kernel has no surround, so that its width is not determined
    """


@dataclass(frozen=True)
class DifferenceOfGaussians:
    """centre exp(-r^2 / (2 centre_sigma^2)) - surround exp(-r^2 / (2 surround_sigma^2)), r in pixels from the centre.

    Args:
        errors: standard error of each parameter by its name, NaN for those of ``at_bound``. They come from the
            residuals of the fit; that other pictures have other kernels is not in them.
        r2: coefficient of determination, 1 - sum of squared residuals / sum of squared deviations from the mean.
        at_bound: the widths that are not determined: a centre of one pixel (centre_sigma is then 0), a surround of
            hardly more than the four nearest pixels (0.5), or one as wide as the kernel.

    >>> fit = DifferenceOfGaussians(4.0, 1.0, 1.0, 2.0, errors={}, r2=1.0, at_bound=())
    >>> fit.picture(9)[4, 4].item()
    3.0
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

    >>> kernel = DifferenceOfGaussians(20.0, 0.7, 6.0, 1.8, errors={}, r2=1.0, at_bound=()).picture(15)
    >>> fit = fit_difference_of_gaussians(kernel)
    >>> round(fit.centre, 3), round(fit.surround_sigma, 3), round(fit.r2, 6)
    (20.0, 1.8, 1.0)
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


def _least_squares(
    values: FloatArray, start: FloatArray, free: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray, float]:
    """Parameters, their standard errors (NaN where they are not free) and the sum of squared residuals."""
    from scipy.optimize import OptimizeWarning, curve_fit

    k = math.isqrt(len(values))
    lower = np.array([0, SMALLEST_CENTRE, 0, SMALLEST_SURROUND])
    upper = np.array([np.inf, k, np.inf, k])
    found, errors = start.copy(), np.full(4, np.nan)

    def model(radii: FloatArray, *parameters: float) -> FloatArray:
        found[free] = parameters
        return _difference_of_gaussians(radii, *found)

    radii = _radii_squared(k)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", OptimizeWarning)
            best, covariance = curve_fit(model, radii, values, p0=start[free], bounds=(lower[free], upper[free]))
    except (RuntimeError, OptimizeWarning) as error:
        raise FitError(
            f"the kernel does not determine a difference of Gaussians ({error}); does it have a surround?"
        ) from error
    errors[free] = np.sqrt(np.diag(covariance))
    return found, errors, float(np.square(values - model(radii, *best)).sum())


def _radii_squared(k: int) -> FloatArray:
    line = np.arange(k, dtype=np.float64) - k // 2
    return np.add.outer(line**2, line**2).ravel()


def _difference_of_gaussians(
    radii_squared: FloatArray, centre: float, centre_sigma: float, surround: float, surround_sigma: float
) -> FloatArray:
    first = np.exp(-radii_squared / (2 * centre_sigma**2)) if centre_sigma else radii_squared == 0
    second = np.exp(-radii_squared / (2 * surround_sigma**2))
    return centre * first - surround * second


def jackknife(groups: Statistics, measure: Callable[[Statistics], Tensor]) -> tuple[Tensor, Tensor]:
    """A measure of pictures and its standard error over samples of pictures, from leaving out one group at a time.

    With m_i the measure without group i of G, the error is sqrt((G - 1) / G * sum over i of (m_i - mean of m)^2). It
    says how much another sample *of the same kind of pictures* would differ, and nothing about other kinds.

    Args:
        groups: statistics of disjoint groups of pictures, as a first dimension; empty groups are left out.
        measure: from the statistics of some pictures to a tensor.

    Returns:
        The measure of all pictures and its error, of the same shape; NaN for the error if there is one group alone.

    Source: Efron and Stein, The Jackknife Estimate of Variance, Annals of Statistics 9, 1981.

    >>> from ndlib.pictures.statistics_files import load_statistics
    >>> mean, error = jackknife(load_statistics("imagenet").groups, lambda statistics: statistics.mean)
    >>> f"{mean.item():.2f} +- {error.item():.2f}"
    '0.46 +- 0.01'
    """
    groups = groups[groups.images > 0]
    total = Statistics(groups.extent.sum(0), groups.sums.sum(0), groups.products.sum(0), None)
    value, n = measure(total), len(groups.images)
    if n < 2:
        return value, torch.full_like(value, math.nan)
    without = torch.stack([measure(total - groups[i]) for i in range(n)])
    return value, (without.var(0) * (n - 1) ** 2 / n).sqrt()


def describe_kernel(collection: Collection) -> str:
    """The luminance kernel of 15 x 15 patches (exact root, eps 1e-5) in numbers, as text, with errors by jackknife.

    >>> from ndlib.pictures.statistics_files import load_statistics
    >>> print(describe_kernel(load_statistics("imagenet")).splitlines()[1].split(",")[0])
      centre 17.68 +- 0.29
    """

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
