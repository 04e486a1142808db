"""Differences of Gaussians, and errors over samples of pictures."""

import numpy as np
import pytest
import torch
from sample_pictures import luminance_kernel

from ndlib.pictures import fits, kernels, statistics_files
from ndlib.pictures.image_statistics import Statistics, picture_statistics


@pytest.fixture(scope="module")
def imagenet():
    return statistics_files.load_statistics("imagenet")


def difference_of_gaussians(k, centre, centre_sigma, surround, surround_sigma):
    line = torch.arange(k, dtype=torch.float64) - k // 2
    r2 = line[:, None] ** 2 + line**2
    return centre * torch.exp(-r2 / (2 * centre_sigma**2)) - surround * torch.exp(-r2 / (2 * surround_sigma**2))


TRUE = (20.0, 0.7, 6.0, 1.8)


@pytest.mark.parametrize("true", [TRUE, (3.0, 1.5, 1.0, 3.5), (900.0, 0.4, 100.0, 0.9)])
def test_fit_finds_the_parameters_again(true):
    fit = fits.fit_difference_of_gaussians(difference_of_gaussians(15, *true))
    found = (fit.centre, fit.centre_sigma, fit.surround, fit.surround_sigma)
    np.testing.assert_allclose(found, true, rtol=1e-4)
    assert fit.r2 > 1 - 1e-8 and fit.at_bound == ()
    torch.testing.assert_close(fit.picture(15), difference_of_gaussians(15, *true), rtol=1e-3, atol=1e-3)


def test_fit_errors_are_the_spread_over_noise():
    generator = torch.Generator().manual_seed(0)
    clean = difference_of_gaussians(15, *TRUE)
    fitted = [
        fits.fit_difference_of_gaussians(clean + 0.2 * torch.randn(15, 15, generator=generator, dtype=torch.float64))
        for _ in range(60)
    ]
    for name, true in zip(("centre", "centre_sigma", "surround", "surround_sigma"), TRUE, strict=True):
        found = np.array([getattr(fit, name) for fit in fitted])
        stated = np.mean([fit.errors[name] for fit in fitted])
        assert found.std() == pytest.approx(stated, rel=0.35)
        assert abs(found.mean() - true) < 4 * found.std() / len(fitted) ** 0.5
    assert all(0.9 < fit.r2 < 1 for fit in fitted)


def test_fit_names_the_smallest_widths_as_at_bound():
    kernel = torch.zeros(15, 15, dtype=torch.float64)
    kernel[7, 7] = 10
    kernel[7, 6] = kernel[7, 8] = kernel[6, 7] = kernel[8, 7] = -2.4
    fit = fits.fit_difference_of_gaussians(kernel)
    assert fit.at_bound == ("centre_sigma", "surround_sigma")
    assert (fit.centre_sigma, fit.surround_sigma) == pytest.approx((0, 0.5), rel=1e-3)
    assert fit.picture(15)[7, 7] == pytest.approx(fit.centre - fit.surround)
    assert np.isnan(fit.errors["surround_sigma"]) and 0 < fit.errors["surround"] < 0.1 * fit.surround
    residual = (fit.picture(15) - kernel).square().sum() / (kernel - kernel.mean()).square().sum()
    assert fit.r2 == pytest.approx(1 - float(residual)) and 0.95 < fit.r2 < 0.999


def test_fit_refuses_kernels_without_centre_or_surround():
    delta = torch.zeros(9, 9)
    delta[4, 4] = 1
    with pytest.raises(fits.FitError, match="the kernel has no surround"):
        fits.fit_difference_of_gaussians(delta)
    with pytest.raises(ValueError, match=r"centre of the kernel must be positive, got -1\.0"):
        fits.fit_difference_of_gaussians(-delta)
    with pytest.raises(ValueError, match=r"odd, equal sides.*\(3, 9, 9\)"):
        fits.fit_difference_of_gaussians(torch.zeros(3, 9, 9))


def test_jackknife_of_a_mean_is_its_standard_error():
    pictures = [torch.full((16, 20), level, dtype=torch.float64) for level in (0.1, 0.2, 0.4, 0.9)]
    parts = [picture_statistics(picture) for picture in pictures]
    none = parts[0] - parts[0]
    stacked = [torch.stack([getattr(p, name) for p in (*parts, none)]) for name in ("extent", "sums", "products")]
    groups = Statistics(*stacked, None)
    value, error = fits.jackknife(groups, lambda statistics: statistics.mean)
    levels = torch.tensor([0.1, 0.2, 0.4, 0.9], dtype=torch.float64)
    torch.testing.assert_close(value, levels.mean(0, keepdim=True))
    torch.testing.assert_close(error, levels.std(0, keepdim=True) / 2)
    assert fits.jackknife(groups[:1], lambda statistics: statistics.mean)[1].isnan().all()


def test_jackknife_errors_cover_the_difference_of_two_halves(imagenet):
    """Two disjoint halves of the pictures differ by no more than a few of the errors that each half claims."""

    def measure(statistics):
        kernel = luminance_kernel(statistics)
        fit = fits.fit_difference_of_gaussians(kernel)
        return torch.stack([kernel[7, 7], kernels.surround_ratio(kernel), torch.tensor(fit.centre).double()])

    (a, a_error), (b, b_error) = (fits.jackknife(imagenet.groups[half::2], measure) for half in (0, 1))
    assert ((a - b).abs() < 3 * (a_error**2 + b_error**2).sqrt()).all()
    assert (a_error < 0.06 * a.abs()).all()


def test_fit_of_the_imagenet_kernel(imagenet):
    fit = fits.fit_difference_of_gaussians(luminance_kernel(imagenet.total))
    assert fit.r2 > 0.97
    assert fit.centre > 30 * fit.errors["centre"] and fit.surround > 30 * fit.errors["surround"]
    assert "R^2 0.98" in fits.describe_kernel(imagenet)


def test_fit_names_a_surround_as_wide_as_the_kernel_as_at_bound():
    line = torch.arange(9, dtype=torch.float64) - 4
    r2 = line[:, None] ** 2 + line**2
    fit = fits.fit_difference_of_gaussians(10 * torch.exp(-r2 / 2) - 1)  # a surround without end
    assert fit.at_bound == ("surround_sigma",)
    assert fit.surround_sigma == pytest.approx(9, rel=1e-3)
    assert np.isnan(fit.errors["surround_sigma"]) and fit.errors["surround"] > 0 and fit.r2 > 0.99
