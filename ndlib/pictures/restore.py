"""Blur, noise and deblurring of pictures, all with periodic borders so that a blur is exactly a product of spectra.

Pictures have shape (..., H, W) and any unit; kernels have shape (h, w) with odd sides.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "add_noise",
    "convolve",
    "gaussian_kernel",
    "inverse_filter",
    "power_law_noise",
    "power_spectrum",
    "radial_average",
    "spectral_exponent",
    "taper",
    "transfer_function",
    "wiener",
    "wiener_response",
]


def gaussian_kernel(sigma: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """Samples of exp(-(x^2 + y^2) / (2 sigma^2)), scaled to sum 1: shape (2 r + 1, 2 r + 1).

    It is cut off at r = 8 sigma, where it has fallen to 1e-14, so that its spectrum is a Gaussian as well.

    Args:
        sigma: standard deviation, pixels.

    Raises:
        ValueError: sigma is not positive.

    >>> kernel = gaussian_kernel(1.0)
    >>> kernel.shape, round(kernel.sum().item(), 9)
    (torch.Size([17, 17]), 1.0)
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

    Raises:
        ValueError: a side of the kernel is even.

    >>> transfer_function(torch.tensor([[0.25, 0.5, 0.25]]), (1, 4)).real.tolist()
    [[1.0, 0.5, 0.0, 0.5]]
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
    """Periodic convolution, H x in the book: out[i, j] = sum over (a, b) of kernel[a, b] picture[i - a, j - b].

    (a, b) counts from the centre of the kernel.

    >>> point = torch.tensor([[0.0, 1, 0, 0]])
    >>> convolve(point, torch.tensor([[0.5, 0.25, 0.25]])).tolist()
    [[0.5, 0.25, 0.25, 0.0]]
    """
    return _filter(picture, transfer_function(kernel, _size(picture)))


def add_noise(picture: Tensor, sigma: float, seed: int = 0) -> Tensor:
    """Add Gaussian white noise of standard deviation ``sigma``, in the units of the picture.

    >>> f"{add_noise(torch.zeros(300, 300), sigma=0.1, seed=4).std().item():.2f}"
    '0.10'
    """
    generator = torch.Generator().manual_seed(seed)
    return picture + sigma * torch.randn(picture.shape, generator=generator, dtype=picture.dtype)


def inverse_filter(picture: Tensor, kernel: Tensor) -> Tensor:
    """Divide every frequency by the transfer function: exact without noise, and useless with it.

    Raises:
        ValueError: the transfer function vanishes, to working precision, at some frequency.

    >>> picture, blur = torch.arange(30.0, dtype=torch.float64).reshape(5, 6), gaussian_kernel(0.5)
    >>> torch.allclose(inverse_filter(convolve(picture, blur), blur), picture)
    True
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

    >>> wiener_response(torch.tensor([1.0, 0.5, 0.0]), k=0.25).tolist()
    [0.800000011920929, 1.0, 0.0]
    """
    return transfer.conj() / (transfer.abs().square() + k)


def wiener(picture: Tensor, kernel: Tensor, k: float | Tensor) -> Tensor:
    """Deblur with the Wiener filter, the linear filter of least mean squared error when K is right.

    Args:
        k: see :func:`wiener_response`.

    Source: Wiener, Extrapolation, Interpolation, and Smoothing of Stationary Time Series, 1949.

    >>> stripes, blur = (torch.arange(64) % 8 > 3).double().expand(64, 64), gaussian_kernel(0.8)
    >>> seen = add_noise(convolve(stripes, blur), 0.02)
    >>> restored = wiener(seen, blur, k=0.01)
    >>> bool((restored - stripes).square().mean() < (seen - stripes).square().mean() / 2)
    True
    """
    return _filter(picture, wiener_response(transfer_function(kernel, _size(picture)), k))


def power_spectrum(picture: Tensor) -> Tensor:
    """Power at each frequency, ``|FFT|^2 / (H W)``, of the picture less its mean. Its mean is the variance.

    >>> power_spectrum(torch.tensor([[1.0, -1, 1, -1]])).tolist()
    [[0.0, 0.0, 4.0, 0.0]]
    """
    height, width = _size(picture)
    return torch.fft.fft2(picture - picture.mean((-2, -1), keepdim=True)).abs().square() / (height * width)


def taper(picture: Tensor) -> Tensor:
    """The picture under a Hann window, for its power spectrum: the jump between opposite borders is gone.

    A spectrum belongs to the picture continued periodically, and where its right border meets its left one there is an
    edge that is not in the picture. Returns ``a w (x - m)`` with the window ``w[i, j] = sin(pi i / H)^2
    sin(pi j / W)^2``; m, the mean of x weighted with w, makes the mean of the result zero, and a, which makes the mean
    square of the window 1, keeps the power of noise as it is. Same shape and units as ``picture``.

    Source: Harris, On the Use of Windows for Harmonic Analysis with the Discrete Fourier Transform, 1978.

    >>> ramp = torch.linspace(0, 1, 64, dtype=torch.float64).expand(64, 64)
    >>> jump, without = (power_spectrum(x)[0, 8:33].sum() for x in (ramp, taper(ramp)))
    >>> bool(without < jump / 10_000)
    True
    """
    rows, columns = (torch.hann_window(side, dtype=picture.dtype, device=picture.device) for side in _size(picture))
    window = torch.outer(rows, columns)
    mean = (window * picture).sum((-2, -1), keepdim=True) / window.sum()
    return window / window.square().mean().sqrt() * (picture - mean)


def radial_average(power: Tensor, rings_per_octave: int = 4) -> tuple[Tensor, Tensor]:
    """Mean of a power spectrum over all directions: over rings of equal width in octaves, up to f = 1/2.

    Args:
        power: shape (..., H, W), in the order of ``torch.fft.fft2``, see :func:`power_spectrum`.

    Returns:
        The mean frequency of each ring, shape (rings,), cycles per pixel, and the mean power in it, shape (...,
        rings). Rings that hold no frequency are left out, and so are frequencies below 1 / min(H, W).

    >>> f, mean = radial_average(torch.ones(16, 16), rings_per_octave=1)
    >>> mean.tolist(), bool(f[0] < f[-1] < 0.5)
    ([1.0, 1.0, 1.0, 1.0], True)
    """
    height, width = _size(power)
    fy, fx = (torch.fft.fftfreq(side, dtype=power.dtype, device=power.device) for side in (height, width))
    f = torch.hypot(fy[:, None], fx[None, :]).flatten()
    hair = 1e-6  # so that rounding leaves out neither f = 1/2 nor the lowest frequency
    inside = (f > (1 - hair) / min(height, width)) & (f < 0.5 * (1 + hair))
    f, values = f[inside], power.flatten(-2)[..., inside]
    ring = (rings_per_octave * (0.5 / f).log2() + hair).long()  # the first is the one below 1/2
    ring = ring.max() - ring
    members = torch.bincount(ring)
    there = members > 0
    frequency = torch.zeros_like(members, dtype=f.dtype).index_add_(0, ring, f) / members
    mean = values.new_zeros(*values.shape[:-1], len(members)).index_add_(-1, ring, values) / members
    return frequency[there], mean[..., there]


def spectral_exponent(frequency: Tensor, power: Tensor, low: float, high: float) -> Tensor:
    """The alpha of power ~ 1 / f^alpha: minus the slope of a line fitted to log power over log frequency.

    Args:
        frequency: shape (n,), power: (..., n), see :func:`radial_average`. low, high: the range that is fitted, in
            units of ``frequency``.

    Returns:
        The exponent, shape (...), without unit. It is 2 for the 1/f amplitude spectrum of natural scenes, 0 for white
        noise.

    Raises:
        ValueError: fewer than two frequencies in the range.

    >>> f = torch.linspace(0.01, 0.5, 50, dtype=torch.float64)
    >>> round(spectral_exponent(f, 7 * f**-2.5, 0.02, 0.4).item(), 6)
    2.5
    """
    picked = (frequency >= low) & (frequency <= high)
    if picked.sum() < 2:
        raise ValueError(f"there are fewer than two frequencies between {low} and {high}")
    x = frequency[picked].log()
    x = x - x.mean()
    return -(power[..., picked].log() @ x) / (x @ x)


def power_law_noise(shape: tuple[int, int], alpha: float, seed: int = 0) -> Tensor:
    """Gaussian noise of shape (H, W), power falling as 1 / f^alpha: white noise times f^(-alpha/2) at each frequency.

    float64, mean 0, variance 1, periodic. ``alpha = 0`` is white noise; 2 has the power spectrum of natural scenes.

    >>> noise = power_law_noise((64, 64), alpha=2.0)
    >>> round(noise.var(correction=0).item(), 6), torch.equal(noise, power_law_noise((64, 64), alpha=2.0))
    (1.0, True)
    """
    white = add_noise(torch.zeros(shape, dtype=torch.float64), 1.0, seed)
    fy, fx = (torch.fft.fftfreq(side, dtype=white.dtype) for side in shape)
    f = torch.hypot(fy[:, None], fx[None, :])
    f[0, 0] = torch.inf if alpha >= 0 else 0  # no mean
    noise = _filter(white - white.mean(), f ** (-alpha / 2))
    return noise / noise.std(correction=0)


def _size(picture: Tensor) -> tuple[int, int]:
    return picture.shape[-2], picture.shape[-1]
