"""Blur and deblur against scipy, scikit-image and closed forms."""

import numpy as np
import pytest
import scipy.ndimage
import skimage.restoration
import torch

from ndlib import restore

PICTURE = torch.rand(40, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("sigma", [0.6, 1.0, 2.5])
def test_gaussian_blur_is_that_of_scipy(sigma):
    blurred = restore.convolve(PICTURE, restore.gaussian_kernel(sigma))
    wanted = scipy.ndimage.gaussian_filter(PICTURE.numpy(), sigma, mode="wrap", truncate=8)
    np.testing.assert_allclose(blurred.numpy(), wanted, atol=1e-12)


def test_convolution_is_not_a_correlation():
    kernel = torch.rand(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = scipy.ndimage.convolve(PICTURE.numpy(), kernel.numpy(), mode="wrap")
    np.testing.assert_allclose(restore.convolve(PICTURE, kernel).numpy(), wanted, atol=1e-12)


def test_transfer_function_of_a_gaussian_is_a_gaussian():
    transfer = restore.transfer_function(restore.gaussian_kernel(1.5), (32, 32))
    f = torch.fft.fftfreq(32, dtype=torch.float64)
    wanted = torch.exp(-2 * torch.pi**2 * 1.5**2 * (f[:, None] ** 2 + f[None] ** 2))
    torch.testing.assert_close(transfer.real, wanted, atol=2e-5, rtol=0)  # sampling folds the tail back
    assert transfer.imag.abs().max() < 1e-12


def test_the_inverse_inverts():
    kernel = restore.gaussian_kernel(0.8)
    torch.testing.assert_close(restore.inverse_filter(restore.convolve(PICTURE, kernel), kernel), PICTURE)


def test_what_is_lost_cannot_be_inverted():
    with pytest.raises(ValueError, match=r"removes 160 of 1200 frequencies.*wiener"):
        restore.inverse_filter(PICTURE, torch.full((1, 5), 0.2, dtype=torch.float64))


def test_wiener_filter_is_that_of_scikit_image():
    """With a delta as its regularisation operator (spectrum 1) theirs is conj(H) / (|H|^2 + K) as well."""
    kernel = torch.rand(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)  # not symmetric
    delta = np.ones(PICTURE.shape, dtype=complex)
    wanted = skimage.restoration.wiener(PICTURE.numpy(), kernel.numpy(), 0.01, reg=delta, is_real=False, clip=False)
    np.testing.assert_allclose(restore.wiener(PICTURE, kernel, 0.01).numpy(), wanted.real, atol=1e-12)


def test_the_wiener_filter_of_the_true_spectra_is_the_best():
    kernel, noise = restore.gaussian_kernel(1.0), 0.05
    seen = restore.add_noise(restore.convolve(PICTURE - 0.5, kernel), noise, seed=3)
    k = noise**2 / restore.power_spectrum(PICTURE).clamp_min(1e-9)

    def error(k):
        return (restore.wiener(seen, kernel, k) - (PICTURE - 0.5)).square().mean()

    best = error(k)
    assert all(best < error(k * factor) for factor in (0.1, 10))
    assert all(best < error(constant) for constant in (1e-4, 1e-3, 1e-2, 1e-1))


def test_noise_has_the_size_asked_for_and_is_repeatable():
    noise = restore.add_noise(torch.zeros(300, 300), 0.1, seed=4)
    assert abs(noise.std() - 0.1) < 1e-3
    assert torch.equal(noise, restore.add_noise(torch.zeros(300, 300), 0.1, seed=4))
    assert not torch.equal(noise, restore.add_noise(torch.zeros(300, 300), 0.1, seed=5))


def test_power_adds_up_to_the_variance():
    torch.testing.assert_close(restore.power_spectrum(PICTURE).mean(), PICTURE.var(correction=0))


def test_bad_arguments():
    with pytest.raises(ValueError, match="sigma must be positive, got 0"):
        restore.gaussian_kernel(0)
    with pytest.raises(ValueError, match=r"odd sides.*\(2, 3\)"):
        restore.convolve(PICTURE, torch.ones(2, 3))
