"""Blur and deblur against scipy, scikit-image and closed forms."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import skimage.restoration
import torch

from ndlib.pictures import restore

PICTURE = torch.rand(40, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("sigma", [0.6, 1.0, 2.5])
def test_gaussian_kernel_blurs_as_scipy(sigma):
    blurred = restore.convolve(PICTURE, restore.gaussian_kernel(sigma))
    wanted = scipy.ndimage.gaussian_filter(PICTURE.numpy(), sigma, mode="wrap", truncate=8)
    np.testing.assert_allclose(blurred.numpy(), wanted, atol=1e-12)


def test_convolve_is_not_a_correlation():
    kernel = torch.rand(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = scipy.ndimage.convolve(PICTURE.numpy(), kernel.numpy(), mode="wrap")
    np.testing.assert_allclose(restore.convolve(PICTURE, kernel).numpy(), wanted, atol=1e-12)


def test_transfer_function_of_a_gaussian_is_a_gaussian():
    transfer = restore.transfer_function(restore.gaussian_kernel(1.5), (32, 32))
    f = torch.fft.fftfreq(32, dtype=torch.float64)
    wanted = torch.exp(-2 * torch.pi**2 * 1.5**2 * (f[:, None] ** 2 + f[None] ** 2))
    torch.testing.assert_close(transfer.real, wanted, atol=2e-5, rtol=0)  # sampling folds the tail back
    assert transfer.imag.abs().max() < 1e-12


def test_inverse_filter_undoes_convolve():
    kernel = restore.gaussian_kernel(0.8)
    torch.testing.assert_close(restore.inverse_filter(restore.convolve(PICTURE, kernel), kernel), PICTURE)


def test_inverse_filter_refuses_lost_frequencies():
    with pytest.raises(ValueError, match=r"removes 160 of 1200 frequencies.*wiener"):
        restore.inverse_filter(PICTURE, torch.full((1, 5), 0.2, dtype=torch.float64))


def test_wiener_equals_scikit_image():
    """With a delta as its regularisation operator (spectrum 1) theirs is conj(H) / (|H|^2 + K) as well."""
    kernel = torch.rand(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)  # not symmetric
    delta = np.ones(PICTURE.shape, dtype=complex)
    wanted = skimage.restoration.wiener(PICTURE.numpy(), kernel.numpy(), 0.01, reg=delta, is_real=False, clip=False)
    np.testing.assert_allclose(restore.wiener(PICTURE, kernel, 0.01).numpy(), wanted.real, atol=1e-12)


def test_wiener_of_the_true_spectra_is_best():
    kernel, noise = restore.gaussian_kernel(1.0), 0.05
    seen = restore.add_noise(restore.convolve(PICTURE - 0.5, kernel), noise, seed=3)
    k = noise**2 / restore.power_spectrum(PICTURE).clamp_min(1e-9)

    def error(k):
        return (restore.wiener(seen, kernel, k) - (PICTURE - 0.5)).square().mean()

    best = error(k)
    assert all(best < error(k * factor) for factor in (0.1, 10))
    assert all(best < error(constant) for constant in (1e-4, 1e-3, 1e-2, 1e-1))


def test_add_noise_has_its_sigma_and_is_repeatable():
    noise = restore.add_noise(torch.zeros(300, 300), 0.1, seed=4)
    assert abs(noise.std() - 0.1) < 1e-3
    assert torch.equal(noise, restore.add_noise(torch.zeros(300, 300), 0.1, seed=4))
    assert not torch.equal(noise, restore.add_noise(torch.zeros(300, 300), 0.1, seed=5))


def test_power_spectrum_adds_up_to_the_variance():
    torch.testing.assert_close(restore.power_spectrum(PICTURE).mean(), PICTURE.var(correction=0))


def test_taper_is_a_hann_window_that_keeps_the_power_of_noise():
    window = np.outer(scipy.signal.windows.hann(40, sym=False), scipy.signal.windows.hann(30, sym=False))
    picture = PICTURE.numpy()
    wanted = window * (picture - np.average(picture, weights=window)) / np.sqrt((window**2).mean())
    np.testing.assert_allclose(restore.taper(PICTURE).numpy(), wanted, atol=1e-12)
    assert abs(restore.taper(PICTURE).mean()) < 1e-12
    noise = torch.randn(200, 64, 48, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    power = restore.power_spectrum(restore.taper(noise)).mean((1, 2))
    assert abs(power.mean() - 1) < 0.01


def test_taper_removes_the_jump_at_the_borders():
    ramp = torch.linspace(0, 1, 64, dtype=torch.float64).expand(64, 64)  # smooth, but for the jump at the border
    before, after = (restore.power_spectrum(x)[0, 8:33].sum() for x in (ramp, restore.taper(ramp)))
    assert after < 1e-4 * before


@pytest.mark.parametrize(("height", "width"), [(24, 18), (40, 18), (16, 16), (17, 30)])
def test_radial_average_ring_by_ring(height, width):
    power = torch.rand(3, height, width, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    f, mean = restore.radial_average(power, rings_per_octave=2)
    rings = {}
    for i in range(height):
        for j in range(width):
            radius = np.hypot(min(i, height - i) / height, min(j, width - j) / width)
            if 1 / min(height, width) <= radius <= 0.5:
                ring = int(2 * np.log2(0.5 / radius) + 1e-9)
                rings.setdefault(ring, []).append((radius, power[:, i, j].numpy()))
    wanted = [rings[ring] for ring in sorted(rings, reverse=True)]
    np.testing.assert_allclose(f.numpy(), [np.mean([r for r, _ in ring]) for ring in wanted], atol=1e-12)
    np.testing.assert_allclose(mean.numpy().T, [np.mean([p for _, p in ring], 0) for ring in wanted], atol=1e-12)


def test_radial_average_has_the_lowest_frequency_and_the_highest():
    for side in (16, 48, 60, 100):  # 3/10 and 4/10 make 1/2, and 1/side is rounded
        f, power = restore.radial_average(torch.ones(side, side))
        assert f[0] < 1.1 / side
        assert f[-1] < 0.5
        assert torch.equal(power, torch.ones_like(power))


@pytest.mark.parametrize("shape", [(128, 128), (200, 96)])
@pytest.mark.parametrize("alpha", [-1.0, 0.0, 1.0, 2.0, 3.0])
def test_power_law_noise_has_its_exponent(shape, alpha):
    noise = torch.stack([restore.power_law_noise(shape, alpha, seed) for seed in range(8)])
    torch.testing.assert_close(noise.mean((1, 2)), torch.zeros(8, dtype=torch.float64), atol=1e-10, rtol=0)
    torch.testing.assert_close(noise.var((1, 2), correction=0), torch.ones(8, dtype=torch.float64))
    f, power = restore.radial_average(restore.power_spectrum(noise))
    found = restore.spectral_exponent(f, power, 0.02, 0.5)
    assert found.shape == (8,)
    assert abs(found.mean() - alpha) < 0.03
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(noise[0], restore.power_law_noise(shape, alpha))


def test_spectral_exponent_of_a_range_alone():
    f = torch.linspace(0.01, 0.5, 50, dtype=torch.float64)
    power = torch.stack([7 * f**-2.5, torch.where(f < 0.1, 1.0, 3 * f**-1.5)])
    wanted = torch.tensor([2.5, 1.5], dtype=torch.float64)
    torch.testing.assert_close(restore.spectral_exponent(f, power, 0.11, 0.5), wanted)
    with pytest.raises(ValueError, match=r"fewer than two frequencies between 0\.6 and 0\.9"):
        restore.spectral_exponent(f, power, 0.6, 0.9)


def test_spectral_exponent_needs_two_frequencies_and_takes_the_ends():
    f = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    with pytest.raises(ValueError, match="fewer than two frequencies"):
        restore.spectral_exponent(f, f, 0.15, 0.25)
    torch.testing.assert_close(restore.spectral_exponent(f, f, 0.1, 0.2), torch.tensor(-1.0, dtype=torch.float64))


def test_gaussian_kernel_and_convolve_refuse_bad_arguments():
    with pytest.raises(ValueError, match="sigma must be positive, got 0"):
        restore.gaussian_kernel(0)
    with pytest.raises(ValueError, match=r"odd sides.*\(2, 3\)"):
        restore.convolve(PICTURE, torch.ones(2, 3))
