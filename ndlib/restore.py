"""Blur, noise and deblurring of pictures, all with periodic borders so that a blur is exactly a product of spectra.

Pictures have shape (..., H, W) and any unit; kernels have shape (h, w) with odd sides.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gaussian_kernel(sigma: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """Samples of exp(-(x^2 + y^2) / (2 sigma^2)), scaled to sum 1: shape (2 r + 1, 2 r + 1).

    It is cut off at r = 8 sigma, where it has fallen to 1e-14, so that its spectrum is a Gaussian as well.

    Args:
        sigma: standard deviation, pixels.
    """
    if sigma <= 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    radius = math.ceil(8 * sigma)
    line = torch.exp(-(torch.arange(-radius, radius + 1, dtype=dtype) ** 2) / (2 * sigma**2))
    kernel = torch.outer(line, line)
    return kernel / kernel.sum()


def transfer_function(kernel: Tensor, shape: tuple[int, int]) -> Tensor:
    """Discrete Fourier transform of a kernel laid, centre at pixel (0, 0), into a periodic picture of this shape.

    A kernel larger than the picture wraps around, as the periodic convolution does. Returns complex (H, W): the
    factors by which the blur multiplies each frequency (the eigenvalues of the convolution as a matrix).
    """
    if any(side % 2 == 0 for side in kernel.shape):
        raise ValueError(f"kernel must have odd sides, so that it has a centre, got shape {tuple(kernel.shape)}")
    height, width = shape
    rows = (torch.arange(kernel.shape[0]) - kernel.shape[0] // 2) % height
    columns = (torch.arange(kernel.shape[1]) - kernel.shape[1] // 2) % width
    laid = kernel.new_zeros(shape).index_put((rows[:, None], columns[None, :]), kernel, accumulate=True)
    return torch.fft.fft2(laid)


def _filter(picture: Tensor, response: Tensor) -> Tensor:
    return torch.fft.ifft2(torch.fft.fft2(picture) * response).real


def convolve(picture: Tensor, kernel: Tensor) -> Tensor:
    """Periodic convolution, H x in the book: out[i, j] = sum over (a, b) of kernel[a, b] picture[i - a, j - b]."""
    return _filter(picture, transfer_function(kernel, _size(picture)))


def add_noise(picture: Tensor, sigma: float, seed: int = 0) -> Tensor:
    """Add Gaussian white noise of standard deviation ``sigma``, in the units of the picture."""
    generator = torch.Generator().manual_seed(seed)
    return picture + sigma * torch.randn(picture.shape, generator=generator, dtype=picture.dtype)


def inverse_filter(picture: Tensor, kernel: Tensor) -> Tensor:
    """Divide every frequency by the transfer function: exact without noise, and useless with it.

    Raises:
        ValueError: the transfer function vanishes, to working precision, at some frequency.
    """
    transfer = transfer_function(kernel, _size(picture))
    gain = transfer.abs()
    lost = int((gain < torch.finfo(gain.dtype).eps * gain.max()).sum())
    if lost:
        raise ValueError(
            f"the blur removes {lost} of {gain.numel()} frequencies, so that it has no inverse; use wiener instead"
        )
    return _filter(picture, 1 / transfer)


def wiener_response(transfer: Tensor, k: float | Tensor) -> Tensor:
    """The Wiener filter ``conj(H) / (|H|^2 + K)``, of the shape of ``transfer``.

    Args:
        transfer: H, complex (H, W), see :func:`transfer_function`.
        k: K, noise power over signal power, without unit: a number, or one for each frequency (H, W).
    """
    return transfer.conj() / (transfer.abs().square() + k)


def wiener(picture: Tensor, kernel: Tensor, k: float | Tensor) -> Tensor:
    """Deblur with the Wiener filter, the linear filter of least mean squared error when K is right.

    Source: Wiener, Extrapolation, Interpolation, and Smoothing of Stationary Time Series, 1949.
    """
    return _filter(picture, wiener_response(transfer_function(kernel, _size(picture)), k))


def power_spectrum(picture: Tensor) -> Tensor:
    """Power at each frequency, ``|FFT|^2 / (H W)``, of the picture less its mean. Its mean is the variance."""
    height, width = _size(picture)
    return torch.fft.fft2(picture - picture.mean((-2, -1), keepdim=True)).abs().square() / (height * width)


def _size(picture: Tensor) -> tuple[int, int]:
    return picture.shape[-2], picture.shape[-1]
