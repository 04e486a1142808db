"""Image statistics and deconvolution kernels against explicit sums, patch matrices, closed forms, other libraries."""

import os
import shutil
import statistics as medians
import time
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ndlib import files, functional
from ndlib.experiments import datasets
from ndlib.pictures import image_statistics, kernels, photographs
from ndlib.pictures.image_statistics import LAG, SPACES, Statistics, autocovariance, in_space, picture_statistics

FEW = settings(max_examples=8, deadline=None)
LAGS = range(-LAG, LAG + 1)


def picture(*shape, seed=0):
    """Smooth, tilted noise: no symmetry that could hide a transposed or mirrored result."""
    noise = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (noise + noise.roll((1, 2), (-2, -1)) + torch.linspace(0, 1, shape[-1], dtype=torch.float64)) / 3


def pairs(x, dy, dx):
    """All pairs of pixels (p, p + d) of a picture (C, H, W), as two tensors (C, number of pairs)."""
    height, width = x.shape[1:]
    first = x[:, max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)]
    second = x[:, max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)]
    return first.flatten(1), second.flatten(1)


# Streamed statistics. --------------------------------------------------------------------------------------


@FEW
@given(st.integers(1, 3), st.integers(15, 40), st.integers(15, 40), st.integers(0, 99))
def test_sums_by_fft_are_those_of_a_loop_over_pairs(channels, height, width, seed):
    x = picture(channels, height, width, seed=seed)
    ours = picture_statistics(x)
    assert ours.extent.tolist() == [1, height, width, height * width]
    centred = x - x.mean((1, 2), keepdim=True)
    for dy, dx in product(LAGS, LAGS):
        at = (..., dy + LAG, dx + LAG)
        first, second = (taps.numpy() for taps in pairs(x, dy, dx))
        assert ours.counts[at] == first.shape[1]
        np.testing.assert_allclose(ours.sums[at], first.sum(1), atol=1e-10, rtol=0)
        np.testing.assert_allclose(ours.products[at], first @ second.T, atol=1e-10, rtol=0)
        first, second = (taps.numpy() for taps in pairs(centred, dy, dx))
        np.testing.assert_allclose(ours.own[at], first @ second.T, atol=1e-10, rtol=0)


@pytest.fixture(scope="module")
def several():
    return [picture(3, *size, seed=seed) for seed, size in enumerate([(20, 33), (41, 17), (15, 15)])]


@pytest.fixture(scope="module")
def summed(several):
    first, second, third = map(picture_statistics, several)
    return first + second + third


def means(several, which):
    grand = torch.cat([x.flatten(1) for x in several], 1).mean(1)
    return [x.mean((1, 2)) if which == "image" else grand for x in several]


@pytest.mark.parametrize("mean", ["grand", "image"])
@pytest.mark.parametrize("counts", ["unbiased", "biased"])
def test_autocovariance_of_several_pictures_is_that_of_all_pairs(several, summed, mean, counts):
    ours = autocovariance(summed, mean=mean, counts=counts)
    centred = [x - mu[:, None, None] for x, mu in zip(several, means(several, mean), strict=True)]
    for dy, dx in product([-14, -3, 0, 1, 8], [-11, -1, 0, 2, 14]):
        first, second = (torch.cat(taps, 1) for taps in zip(*(pairs(x, dy, dx) for x in centred), strict=True))
        n = first.shape[1] if counts == "unbiased" else sum(x[0].numel() for x in several)
        torch.testing.assert_close(ours[..., dy + LAG, dx + LAG], first @ second.T / n, atol=1e-13, rtol=0)


def test_biased_covariances_have_no_negative_eigenvalues_and_unbiased_ones_may():
    x = picture(1, 17, 19)
    smallest = {}
    for counts in ("biased", "unbiased"):
        cov = kernels.patch_covariance(picture_statistics(x), 15, counts=counts)
        smallest[counts] = float(torch.linalg.eigvalsh(cov)[0])
    assert smallest["biased"] > -1e-12
    assert smallest["unbiased"] < -1e-3


def test_differences_undo_sums(several, summed):
    rest = summed - picture_statistics(several[0])
    wanted = picture_statistics(several[1]) + picture_statistics(several[2])
    for part in ("extent", "sums", "products", "own"):
        torch.testing.assert_close(getattr(rest, part), getattr(wanted, part), atol=1e-11, rtol=0)


@pytest.mark.parametrize("space", ["luminance", "rgb", "opponent"])
def test_statistics_in_another_space_are_those_of_converted_pictures(several, space):
    x = several[0]
    direct = picture_statistics(torch.einsum("ic,chw->ihw", SPACES[space], x))
    ours = in_space(picture_statistics(x), space)
    for part in ("sums", "products", "own"):
        torch.testing.assert_close(getattr(ours, part), getattr(direct, part), atol=1e-10, rtol=0)


def test_spaces_are_what_they_are_said_to_be(several):
    torch.testing.assert_close(
        in_space(picture_statistics(several[0]), "luminance").products,
        picture_statistics(photographs.luminance(several[0])).products,
    )
    opponent = SPACES["opponent"]
    torch.testing.assert_close(opponent @ opponent.T, torch.eye(3, dtype=torch.float64))
    grey, red, blue = (opponent @ torch.tensor(c, dtype=torch.float64) for c in ([1, 1, 1], [1, 0, 0], [0, 0, 1]))
    assert grey[1:].abs().max() < 1e-15
    assert red[1] > 0 and blue[2] > 0 and abs(blue[1]) < 1e-15


def test_mistakes_are_named(several, summed):
    with pytest.raises(ValueError, match=r"at least 15 pixels, got shape \(3, 14, 40\)"):
        picture_statistics(torch.rand(3, 14, 40))
    with pytest.raises(ValueError, match=r"got shape \(2, 3, 20, 20\)"):
        picture_statistics(torch.rand(2, 3, 20, 20))
    with pytest.raises(ValueError, match="NaN or infinite"):
        picture_statistics(torch.full((20, 20), torch.inf))
    with pytest.raises(ValueError, match=r"mean must be one of \('grand', 'image'\).*got 'all'"):
        autocovariance(summed, mean="all")
    with pytest.raises(ValueError, match="space must be one of"):
        in_space(summed, "hsv")
    with pytest.raises(ValueError, match=r"rgb needs the statistics of R, G and B, got 1 channel"):
        in_space(picture_statistics(several[0][0]), "rgb")
    with pytest.raises(ValueError, match="prefix sums hold no products about"):
        autocovariance(Statistics(summed.extent, summed.sums, summed.products, None), mean="image")


# Covariances of patches. -----------------------------------------------------------------------------------


@FEW
@given(st.integers(1, 3), st.sampled_from([1, 3, 5, 7]), st.integers(0, 12), st.integers(0, 12), st.integers(0, 99))
def test_exact_covariance_is_that_of_the_patch_matrix(channels, k, more_rows, more_columns, seed):
    x = picture(channels, k + 1 + more_rows, k + more_columns, seed=seed)
    _, wanted = functional.patch_moments(x[None], k)
    torch.testing.assert_close(kernels.exact_patch_covariance(x, k), wanted, atol=1e-13, rtol=1e-12)


def test_exact_covariance_of_patches_of_the_largest_side():
    x = picture(3, 40, 52)
    _, wanted = functional.patch_moments(x[None], 15)
    torch.testing.assert_close(kernels.exact_patch_covariance(x, 15), wanted, atol=1e-12, rtol=1e-10)


def test_a_large_mean_does_not_swamp_the_covariance():
    x = picture(1, 30, 30)
    shifted = kernels.exact_patch_covariance(x + 1e6, 5)
    torch.testing.assert_close(shifted, kernels.exact_patch_covariance(x, 5), atol=1e-9, rtol=0)
    ours, wanted = (autocovariance(picture_statistics(y), mean="image") for y in (x + 1e6, x))
    torch.testing.assert_close(ours, wanted, atol=1e-9, rtol=0)


def block(x, k):
    return kernels.block_toeplitz(autocovariance(picture_statistics(x)), k)


def test_block_toeplitz_is_that_of_a_loop_over_taps(summed):
    k, c = 3, autocovariance(summed)
    ours = kernels.block_toeplitz(c, k)
    taps = list(product(range(3), range(k), range(k)))
    for (row, (a, py, px)), (column, (b, qy, qx)) in product(enumerate(taps), enumerate(taps)):
        assert ours[row, column] == c[a, b, LAG + qy - py, LAG + qx - px]
    torch.testing.assert_close(ours, ours.T)


def test_covariances_of_several_counts_at_once(summed, several):
    both = Statistics(*(torch.stack([getattr(summed, p)] * 2) for p in ("extent", "sums", "products", "own")))
    torch.testing.assert_close(kernels.patch_covariance(both, 5, space="rgb")[1], block_of(summed))
    torch.testing.assert_close(kernels.patch_covariance(both[1], 5, space="rgb"), block_of(summed))


def block_of(statistics):
    return kernels.patch_covariance(statistics, 5, space="rgb")


def test_the_two_estimators_differ_in_the_borders_alone():
    x = photographs.photograph("coffee")[:, 100:220, 100:260]
    assert kernels.estimator_difference(x, 1).covariance < 1e-12  # one tap: all pixels are windows
    found = kernels.estimator_difference(x[0], 5)
    _, exact = functional.patch_moments(x[None, :1].double(), 5)
    wanted = torch.linalg.norm(block(x[:1], 5) - exact) / torch.linalg.norm(exact)
    assert found.covariance == pytest.approx(float(wanted), rel=1e-9)
    assert 1e-4 < found.covariance < 0.1
    rows = [functional.inverse_sqrt(cov, solver="eigh")[12] for cov in (block(x[:1], 5), exact)]
    assert found.kernel == pytest.approx(float((rows[0] - rows[1]).abs().max() / rows[1].max()), rel=1e-6)


@pytest.mark.parametrize("k", [2, 17])
def test_patch_sides_that_have_no_centre_or_no_lags(summed, k):
    for function in (kernels.patch_covariance, lambda s, k: kernels.exact_patch_covariance(picture(20, 20), k)):
        with pytest.raises(ValueError, match=f"odd, so that a patch has a centre, and at most 15, got {k}"):
            function(summed, k)


# Kernels. --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def colour():
    return kernels.decompose(
        kernels.patch_covariance(picture_statistics(photographs.photograph("china")), 5, space="rgb"), 3
    )


def covariance(spectrum):
    return spectrum.eigenvectors @ torch.diag(spectrum.eigenvalues) @ spectrum.eigenvectors.T


@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_deconvolution_matrices_are_those_of_the_layer(colour, eps):
    exact = functional.inverse_sqrt(covariance(colour), solver="eigh", eps=eps)
    torch.testing.assert_close(kernels.deconvolution_matrix(colour, eps=eps), exact, rtol=1e-8, atol=1e-8)
    for steps in (5, 15):
        wanted = functional.inverse_sqrt(covariance(colour), n_iter=steps, eps=eps)
        ours = kernels.deconvolution_matrix(colour, eps=eps, n_iter=steps)
        torch.testing.assert_close(ours, wanted, rtol=1e-8, atol=1e-8)


def test_a_kernel_is_a_row_of_the_matrix(colour):
    rows = kernels.deconvolution_matrix(colour).reshape(3, 5, 5, 3, 5, 5)
    torch.testing.assert_close(kernels.deconvolution_kernel(colour), rows[0, 2, 2])
    torch.testing.assert_close(kernels.deconvolution_kernel(colour, channel=2, pixel=(1, 4)), rows[2, 1, 4])
    with pytest.raises(ValueError, match=r"no channel 3, pixel \(2, 2\) in patches of 3 x 5 x 5"):
        kernels.deconvolution_kernel(colour, channel=3)
    with pytest.raises(ValueError, match=r"no channel 0, pixel \(-1, 0\)"):
        kernels.deconvolution_kernel(colour, pixel=(-1, 0))


def test_negative_eigenvalues_are_clipped_and_counted():
    vectors, _ = torch.linalg.qr(picture(9, 9))
    values = torch.tensor([-0.5, -0.25, 0.25, 1, 1, 1, 2, 2, 2], dtype=torch.float64)
    spectrum = kernels.decompose(vectors @ torch.diag(values) @ vectors.T)
    assert spectrum.clipped == pytest.approx(0.075)
    torch.testing.assert_close(spectrum.eigenvalues, values.clamp(min=0))
    for n_iter in (None, 15):
        d = kernels.deconvolution_matrix(spectrum, eps=0.01, n_iter=n_iter)
        torch.testing.assert_close(torch.linalg.eigvalsh(d)[-1], torch.tensor(10.0, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"singular and eps is 0.*use eps > 0"):
        kernels.deconvolution_matrix(spectrum, eps=0)
    with pytest.raises(ValueError, match=r"odd, square patches of 2 channel"):
        kernels.decompose(torch.eye(9), 2)


def test_white_noise_has_a_delta_for_a_kernel():
    noise = torch.randn(1, 400, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 5
    kernel = kernels.deconvolution_kernel(kernels.decompose(kernels.patch_covariance(picture_statistics(noise), 7)))[0]
    assert kernel[3, 3] == pytest.approx(5, rel=0.02)
    kernel[3, 3] = 0
    assert kernel.abs().max() < 5 * 0.02


RHO = 0.6


def test_exponentially_correlated_noise_has_the_kernel_of_its_autoregression():
    """Separable noise of correlation rho^|d|: the power (1 - rho^2) / (1 + rho^2 - 2 rho cos w) in each direction."""
    generator = torch.Generator().manual_seed(0)
    total = None
    for _ in range(12):
        noise = torch.randn(300, 300, generator=generator, dtype=torch.float64).numpy()
        for axis in (0, 1):
            noise = scipy.signal.lfilter([(1 - RHO**2) ** 0.5], [1, -RHO], noise, axis=axis)
        found = picture_statistics(torch.from_numpy(noise[20:, 20:]))
        total = found if total is None else total + found
    spectrum = kernels.decompose(kernels.patch_covariance(total, 15))
    kernel = kernels.deconvolution_kernel(spectrum, eps=0)[0]
    w = 2 * np.pi * np.arange(512) / 512
    line = np.fft.ifft(np.sqrt((1 + RHO**2 - 2 * RHO * np.cos(w)) / (1 - RHO**2))).real
    wanted = torch.from_numpy(np.outer(line[np.arange(-7, 8)], line[np.arange(-7, 8)]))
    assert kernels.surround_ratio(wanted) == pytest.approx(-0.262, abs=0.001)
    torch.testing.assert_close(kernel, wanted, atol=0.02 * float(wanted.max()), rtol=0)


def test_kernels_of_a_known_covariance_are_exact():
    """The same without noise, for finite patches: a Kronecker product of two Toeplitz matrices."""
    d = torch.arange(-LAG, LAG + 1, dtype=torch.float64).abs()
    spectrum = kernels.decompose(kernels.block_toeplitz((RHO ** d[:, None] * 0.8**d)[None, None], 7))
    roots = [np.linalg.inv(scipy.linalg.sqrtm(scipy.linalg.toeplitz(r ** np.arange(7)))) for r in (RHO, 0.8)]
    ours = kernels.deconvolution_matrix(spectrum, eps=0)
    torch.testing.assert_close(ours, torch.from_numpy(np.kron(*roots)), atol=1e-10, rtol=0)
    torch.testing.assert_close(
        kernels.deconvolution_kernel(spectrum, eps=0, pixel=(1, 5))[0],
        torch.from_numpy(np.outer(roots[0][1], roots[1][5])),
    )


def test_opponency_of_colours_with_a_known_covariance():
    colours = torch.tensor([[1.0, 0.8, 0.5], [0.8, 1.2, 0.6], [0.5, 0.6, 0.9]], dtype=torch.float64)
    flat = torch.zeros(3, 3, 29, 29, dtype=torch.float64)
    flat[..., LAG, LAG] = colours
    spectrum = kernels.decompose(kernels.block_toeplitz(flat, 3), 3)
    root = torch.from_numpy(np.linalg.inv(scipy.linalg.sqrtm(colours.numpy())))
    for channel in range(3):
        found = kernels.opponency(kernels.deconvolution_kernel(spectrum, eps=0, channel=channel), channel)
        torch.testing.assert_close(found, root[channel] / root[channel, channel])
        assert (found < 0).sum() == 2


def test_an_orthonormal_change_of_colours_turns_the_matrix():
    statistics = picture_statistics(photographs.photograph("coffee"))
    rgb, opponent = (
        kernels.deconvolution_matrix(kernels.decompose(kernels.patch_covariance(statistics, 3, space=space), 3))
        for space in ("rgb", "opponent")
    )
    turn = torch.kron(SPACES["opponent"], torch.eye(9, dtype=torch.float64))
    torch.testing.assert_close(turn @ rgb @ turn.T, opponent, atol=1e-8, rtol=1e-8)


# Measures. -------------------------------------------------------------------------------------------------


def difference_of_gaussians(k, centre, centre_sigma, surround, surround_sigma):
    line = torch.arange(k, dtype=torch.float64) - k // 2
    r2 = line[:, None] ** 2 + line**2
    return centre * torch.exp(-r2 / (2 * centre_sigma**2)) - surround * torch.exp(-r2 / (2 * surround_sigma**2))


TRUE = (20.0, 0.7, 6.0, 1.8)


@pytest.mark.parametrize("true", [TRUE, (3.0, 1.5, 1.0, 3.5), (900.0, 0.4, 100.0, 0.9)])
def test_a_fit_finds_the_parameters_again(true):
    fit = kernels.fit_difference_of_gaussians(difference_of_gaussians(15, *true))
    found = (fit.centre, fit.centre_sigma, fit.surround, fit.surround_sigma)
    np.testing.assert_allclose(found, true, rtol=1e-4)
    assert fit.r2 > 1 - 1e-8 and fit.at_bound == ()
    torch.testing.assert_close(fit.picture(15), difference_of_gaussians(15, *true), rtol=1e-3, atol=1e-3)


def test_standard_errors_are_the_spread_over_noise():
    generator = torch.Generator().manual_seed(0)
    clean = difference_of_gaussians(15, *TRUE)
    fits = [
        kernels.fit_difference_of_gaussians(clean + 0.2 * torch.randn(15, 15, generator=generator, dtype=torch.float64))
        for _ in range(60)
    ]
    for name, true in zip(("centre", "centre_sigma", "surround", "surround_sigma"), TRUE, strict=True):
        found = np.array([getattr(fit, name) for fit in fits])
        stated = np.mean([fit.errors[name] for fit in fits])
        assert found.std() == pytest.approx(stated, rel=0.35)
        assert abs(found.mean() - true) < 4 * found.std() / len(fits) ** 0.5
    assert all(0.9 < fit.r2 < 1 for fit in fits)


def test_widths_below_what_pixels_show_are_said_to_be_at_their_bound():
    kernel = torch.zeros(15, 15, dtype=torch.float64)
    kernel[7, 7] = 10
    kernel[7, 6] = kernel[7, 8] = kernel[6, 7] = kernel[8, 7] = -2.4
    fit = kernels.fit_difference_of_gaussians(kernel)
    assert fit.at_bound == ("centre_sigma", "surround_sigma")
    assert (fit.centre_sigma, fit.surround_sigma) == pytest.approx((0, 0.5), rel=1e-3)
    assert fit.picture(15)[7, 7] == pytest.approx(fit.centre - fit.surround)
    assert np.isnan(fit.errors["surround_sigma"]) and 0 < fit.errors["surround"] < 0.1 * fit.surround
    residual = (fit.picture(15) - kernel).square().sum() / (kernel - kernel.mean()).square().sum()
    assert fit.r2 == pytest.approx(1 - float(residual)) and 0.95 < fit.r2 < 0.999


def test_kernels_without_a_centre_or_a_surround_are_refused():
    delta = torch.zeros(9, 9)
    delta[4, 4] = 1
    with pytest.raises(kernels.FitError, match="the kernel has no surround"):
        kernels.fit_difference_of_gaussians(delta)
    with pytest.raises(ValueError, match=r"centre of the kernel must be positive, got -1\.0"):
        kernels.fit_difference_of_gaussians(-delta)
    with pytest.raises(ValueError, match=r"odd, equal sides.*\(3, 9, 9\)"):
        kernels.fit_difference_of_gaussians(torch.zeros(3, 9, 9))


def test_surround_of_a_known_kernel():
    kernel = torch.tensor([[0.0, -1, 0], [-0.5, 4, -0.5], [0, -1, 1]])
    assert kernels.surround_ratio(kernel) == -0.25
    assert kernels.surround_mass(kernel) == 0.375
    torch.testing.assert_close(kernels.surround_ratio(torch.stack([kernel, -kernel])), torch.tensor([-0.25, 1.0]))


def test_the_jackknife_of_a_mean_is_its_standard_error():
    pictures = [torch.full((16, 20), level, dtype=torch.float64) for level in (0.1, 0.2, 0.4, 0.9)]
    parts = [picture_statistics(picture) for picture in pictures]
    none = parts[0] - parts[0]
    stacked = [torch.stack([getattr(p, name) for p in (*parts, none)]) for name in ("extent", "sums", "products")]
    groups = Statistics(*stacked, None)
    value, error = kernels.jackknife(groups, lambda statistics: statistics.mean)
    levels = torch.tensor([0.1, 0.2, 0.4, 0.9], dtype=torch.float64)
    torch.testing.assert_close(value, levels.mean(0, keepdim=True))
    torch.testing.assert_close(error, levels.std(0, keepdim=True) / 2)
    assert kernels.jackknife(groups[:1], lambda statistics: statistics.mean)[1].isnan().all()


def test_errors_over_pictures_cover_the_two_halves(imagenet):
    """Two disjoint halves of the pictures differ by no more than a few of the errors that each half claims."""

    def measure(statistics):
        kernel = luminance_kernel(statistics)
        fit = kernels.fit_difference_of_gaussians(kernel)
        return torch.stack([kernel[7, 7], kernels.surround_ratio(kernel), torch.tensor(fit.centre).double()])

    (a, a_error), (b, b_error) = (kernels.jackknife(imagenet.groups[half::2], measure) for half in (0, 1))
    assert ((a - b).abs() < 3 * (a_error**2 + b_error**2).sqrt()).all()
    assert (a_error < 0.06 * a.abs()).all()


def test_sparsity_of_known_vectors():
    one, equal = torch.tensor([0.0, 0, -3, 0]), torch.tensor([2.0, -2, 2, -2])
    assert (kernels.hoyer(one), kernels.hoyer(equal)) == (1, 0)
    assert (kernels.l1_l2(one), kernels.l1_l2(equal)) == (0.5, 1)
    x = torch.tensor([3.0, 4.0])
    assert kernels.l1_l2(x) == pytest.approx(7 / 5 / 2**0.5)
    assert kernels.hoyer(x) == pytest.approx((2**0.5 - 7 / 5) / (2**0.5 - 1), rel=1e-5)
    assert kernels.kurtosis(torch.tensor([1.0, -1.0])) == -2
    assert torch.isnan(kernels.hoyer(torch.zeros(3)))
    with pytest.raises(ValueError, match="at least 2 elements"):
        kernels.hoyer(torch.ones(3, 1), dim=1)


def test_sparsity_along_dimensions():
    x = torch.from_numpy(scipy.stats.laplace.rvs(size=(3, 200, 50), random_state=0)) + 1
    for dim, axis in ((None, None), (1, 1), (-1, -1), ((1, 2), (1, 2))):
        wanted = scipy.stats.kurtosis(x.numpy(), axis=axis)
        np.testing.assert_allclose(kernels.kurtosis(x, dim).numpy(), wanted, rtol=1e-10)
    torch.testing.assert_close(kernels.hoyer(x, (1, 2)), torch.stack([kernels.hoyer(part) for part in x]))
    torch.testing.assert_close(kernels.l1_l2(x, 0), x.abs().sum(0) / (3**0.5 * x.square().sum(0).sqrt()))


# Pictures and folders. -------------------------------------------------------------------------------------


def pixels(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def colour_picture(mode):
    colour = Image.fromarray(pixels(20, 24, 3))
    return colour.quantize(64) if mode == "P" else colour.convert(mode)


@pytest.mark.parametrize(
    ("mode", "file"), [("RGB", "a.png"), ("RGBA", "a.png"), ("P", "a.gif"), ("P", "a.png"), ("CMYK", "a.tif")]
)
def test_colours_of_every_kind_are_read_as_rgb(tmp_path, mode, file):
    stored = colour_picture(mode)
    stored.save(tmp_path / file)
    found = image_statistics.read_picture(tmp_path / file)
    assert found.dtype == torch.float64 and found.shape == (3, 20, 24)
    wanted = np.asarray(stored.convert("RGB")).transpose(2, 0, 1) / 255
    np.testing.assert_array_equal(found.numpy(), wanted)


def test_transparency_is_dropped(tmp_path):
    colours, alpha = pixels(20, 24, 3), pixels(20, 24, 1, seed=1)
    Image.fromarray(np.concatenate([colours, alpha], 2)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(
        image_statistics.read_picture(tmp_path / "a.png").numpy(), colours.transpose(2, 0, 1) / 255
    )
    palette = Image.fromarray(colours).quantize(16)
    palette.save(tmp_path / "p.png", transparency=bytes([0, 100, 200]))
    np.testing.assert_array_equal(
        image_statistics.read_picture(tmp_path / "p.png").numpy(),
        np.asarray(palette.convert("RGB")).transpose(2, 0, 1) / 255,
    )


@pytest.mark.parametrize(("dtype", "file"), [(np.uint8, "a.png"), (np.uint16, "a.png"), (np.uint16, "a.tif")])
def test_grey_counts_as_three_equal_colours(tmp_path, dtype, file):
    grey = pixels(20, 24, dtype=dtype)
    Image.fromarray(grey).save(tmp_path / file)
    found = image_statistics.read_picture(tmp_path / file)
    assert found.shape == (3, 20, 24)
    np.testing.assert_array_equal(found.numpy(), np.stack([grey / np.iinfo(dtype).max] * 3))


def test_pictures_of_unknown_scale_are_refused(tmp_path):
    Image.fromarray(pixels(20, 20).astype(np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="floating-point pixels"):
        image_statistics.read_picture(tmp_path / "a.tif")
    Image.fromarray(np.full((20, 20), 70000, np.int32)).save(tmp_path / "b.tif")
    with pytest.raises(ValueError, match="more than 16 bits"):
        image_statistics.read_picture(tmp_path / "b.tif")


def test_rescaling_is_that_of_torchvision_and_never_enlarges(tmp_path):
    from torchvision.transforms.functional import resize

    stored = Image.fromarray(pixels(60, 90, 3))
    stored.save(tmp_path / "a.png")
    found = image_statistics.read_picture(tmp_path / "a.png", 20)
    np.testing.assert_array_equal(found.numpy(), np.asarray(resize(stored, 20)).transpose(2, 0, 1) / 255)
    assert found.shape == (3, 20, 30)
    assert image_statistics.read_picture(tmp_path / "a.png", 61).shape == (3, 60, 90)
    Image.fromarray(pixels(60, 90, dtype=np.uint16)).save(tmp_path / "b.png")
    assert image_statistics.read_picture(tmp_path / "b.png", 20).shape == (3, 20, 30)


@pytest.fixture
def folder(tmp_path):
    """Nine pictures, of which one is damaged and one too small, in two folders, and a file that is no picture."""
    root = tmp_path / "pictures"
    (root / "b").mkdir(parents=True)
    for n in range(7):
        name = f"{'b/' if n % 2 else ''}{n}.png"
        Image.fromarray(pixels(20 + n, 31 - n, 3, seed=n)).save(root / name)
    (root / "b" / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    Image.fromarray(pixels(14, 40, 3)).save(root / "small.png")
    (root / "notes.txt").write_text("not a picture")
    return root


NAMES = ["0.png", "2.png", "4.png", "6.png", "b/1.png", "b/3.png", "b/5.png", "b/broken.jpg", "small.png"]


def assert_equal(ours, wanted, atol=0.0):
    for part in ("extent", "sums", "products"):
        torch.testing.assert_close(getattr(ours, part), getattr(wanted, part), atol=atol, rtol=0)


def sum_of(folder, names, size=None):
    first, *rest = (picture_statistics(image_statistics.read_picture(folder / name, size)) for name in names)
    return sum(rest, start=first)


def test_a_folder_is_the_sum_of_its_pictures(folder, tmp_path):
    found = image_statistics.collect(folder, tmp_path / "out.npz", sizes=[16])
    assert image_statistics.pictures_in(folder) == NAMES
    assert_equal(found.total, sum_of(folder, NAMES[:7]))
    assert_equal(found.rescaled[16], sum_of(folder, NAMES[:7], 16))
    assert found.groups.images.tolist() == [1, 1, 1, 1, 1, 1, 1, 0]  # by turns: the eighth file is the broken one
    assert_equal(found.groups[5], in_space(sum_of(folder, [NAMES[5]]), "luminance"))
    torch.testing.assert_close(found.total.own, sum_of(folder, NAMES[:7]).own, atol=0, rtol=0)
    assert found.provenance["pictures"] == 7
    broken, small = found.provenance["skipped"]
    assert broken.startswith("b/broken.jpg: cannot identify image")
    assert "small.png: " in small and "at least 15 pixels" in small
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.npz", "pictures"]  # nothing is left over


def test_a_picture_is_a_file_whose_name_ends_so_in_small_or_capital_letters(tmp_path):
    (tmp_path / "A.PNG").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert image_statistics.pictures_in(tmp_path) == ["A.PNG"]


def test_prefixes_are_the_sums_of_the_first_pictures(folder, tmp_path):
    image_statistics.collect(folder, tmp_path / "out.npz", orders=2)
    found = image_statistics.load(tmp_path / "out.npz")
    assert [p.channels for p in found.prefixes] == [3, 1]
    for order, prefix in enumerate(found.prefixes):
        names = [NAMES[i] for i in np.random.default_rng(order).permutation(9)]
        for n, count in enumerate(image_statistics.prefix_counts(9)):
            first = [name for name in names[:count] if name in NAMES[:7]]
            assert int(prefix.images[n]) == len(first)
            if first:
                wanted = in_space(sum_of(folder, first), "luminance")
                per_pixel = float(wanted.extent[3])
                assert_equal(in_space(prefix[n], "luminance"), wanted, atol=2**-23 * per_pixel)
        assert int(prefix.images[-1]) == 7


def test_counts_of_prefixes():
    assert image_statistics.prefix_counts(1) == [1]
    assert image_statistics.prefix_counts(9) == list(range(1, 10))
    counts = image_statistics.prefix_counts(1000)
    assert len(counts) == 64 and counts[:10] == list(range(1, 11)) and counts[-1] == 1000 and 500 in counts
    assert max(b / a for a, b in pairwise(counts[9:])) < 1.15


def stored_arrays(file):
    with np.load(file, allow_pickle=False) as stored:
        return {key: stored[key] for key in stored}


class Interruption(BaseException):
    pass


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bits(folder, tmp_path, monkeypatch):
    options = {"sizes": [16], "orders": 2}
    image_statistics.collect(folder, tmp_path / "whole.npz", **options)
    measured = []

    def interrupted(x):
        measured.append(x)
        if len(measured) in (2, 8, 13):  # two sizes a picture: within the first, fourth and sixth attempt
            raise Interruption
        return picture_statistics(x)

    monkeypatch.setattr(image_statistics, "picture_statistics", interrupted)
    monkeypatch.setattr(image_statistics, "SAVE_EVERY", -1.0)
    for _ in range(3):
        with pytest.raises(Interruption):
            image_statistics.collect(folder, tmp_path / "out.npz", **options)
        assert not (tmp_path / "out.npz").exists()
    image_statistics.collect(folder, tmp_path / "out.npz", **options)
    assert len(measured) < 2 * 14  # 2 x 7 once and the three interrupted pictures again
    ours, wanted = stored_arrays(tmp_path / "out.npz"), stored_arrays(tmp_path / "whole.npz")
    assert ours.keys() == wanted.keys()
    for key in wanted:
        np.testing.assert_array_equal(ours[key], wanted[key], err_msg=key)


def test_a_run_that_ends_removes_its_partial_file(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(image_statistics, "SAVE_EVERY", -1.0)
    image_statistics.collect(folder, tmp_path / "out.npz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.npz", "pictures"]


def test_a_partial_file_remembers_which_pictures_were_skipped(tmp_path):
    before, after = (image_statistics._State(["x.png", "y.png"], [], 0) for _ in range(2))
    before.add(tmp_path, "x.png")  # there is no such file
    before.write(tmp_path / "partial")
    after.restore(tmp_path / "partial")
    assert after.skipped == before.skipped != []


def test_a_partial_file_of_another_run_is_not_taken(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(image_statistics, "SAVE_EVERY", -1.0)
    state = image_statistics._State(NAMES, [], 0)
    state.write(tmp_path / ".out.npz.partial")
    with pytest.raises(datasets.DatasetError, match=r"partial \(it is of other pictures or options\): delete it"):
        image_statistics.collect(folder, tmp_path / "out.npz", orders=1)
    (tmp_path / ".out.npz.partial").write_bytes(b"PK half a file")
    with pytest.raises(datasets.DatasetError, match="delete it to begin afresh"):
        image_statistics.collect(folder, tmp_path / "out.npz")


def test_folders_without_pictures(tmp_path, folder):
    with pytest.raises(ValueError, match="there are no pictures below"):
        image_statistics.collect(tmp_path / "nowhere", tmp_path / "out.npz")
    shutil.rmtree(folder / "b")
    for n in (0, 2, 4, 6):
        (folder / f"{n}.png").unlink()
    with pytest.raises(ValueError, match=r"none of the 1 pictures could be read; the first: small\.png"):
        image_statistics.collect(folder, tmp_path / "out.npz")
    with pytest.raises(ValueError, match="a size must be at least 15 pixels, got 8"):
        image_statistics.collect(folder, tmp_path / "out.npz", sizes=[8])


def test_halves_merge_into_the_whole(folder, tmp_path):
    whole = image_statistics.collect(folder, tmp_path / "whole.npz", sizes=[16])
    shutil.move(folder / "b", tmp_path / "other")
    halves = [
        image_statistics.collect(place, tmp_path / f"{n}.npz", sizes=[16])
        for n, place in enumerate([folder, tmp_path / "other"])
    ]
    merged = image_statistics.merge(*halves)
    image_statistics.save(tmp_path / "merged.npz", merged)
    found = image_statistics.load(tmp_path / "merged.npz")
    assert_equal(found.total, whole.total, atol=1e-9)
    assert_equal(found.rescaled[16], whole.rescaled[16], atol=1e-9)
    assert int(found.groups.images.sum()) == 7
    assert int(found.total.images) == 7 and len(found.provenance["skipped"]) == 2
    with pytest.raises(ValueError, match=r"different sizes: \[16\] and \[\]"):
        image_statistics.merge(whole, image_statistics.collect(folder, tmp_path / "plain.npz"))


def test_the_checksum_covers_names_and_contents(folder, tmp_path):
    def digest():
        return image_statistics.collect(folder, tmp_path / "out.npz").provenance["sha256"]

    first = digest()
    assert first == digest()
    (folder / "0.png").rename(folder / "00.png")
    renamed = digest()
    Image.fromarray(pixels(20, 31, 3, seed=50)).save(folder / "00.png")
    assert len({first, renamed, digest()}) == 3


def test_damaged_files_are_named(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK half a file")
    with pytest.raises(datasets.DatasetError, match=r"a\.npz is damaged or no file of image statistics"):
        image_statistics.load(tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError):
        image_statistics.load(tmp_path / "b.npz")


# The file that the project carries. ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imagenet():
    return image_statistics.load("imagenet")


def luminance_kernel(statistics, **options):
    return kernels.deconvolution_kernel(kernels.decompose(kernels.patch_covariance(statistics)), **options)[0]


def test_the_file_is_small_and_says_where_it_is_from(imagenet):
    file = files.path("imagenet_statistics.npz")
    assert file.stat().st_size < 1_000_000
    assert imagenet.provenance["pictures"] == 1000 == int(imagenet.total.images)
    assert imagenet.provenance["skipped"] == []
    assert imagenet.provenance["command"] == (
        "python -m ndlib statistics FOLDER --out FILE.npz --sizes 224 112 56 --orders 4"
    )
    assert list(imagenet.rescaled) == [224, 112, 56]
    assert [p.channels for p in imagenet.prefixes] == [3, 1, 1, 1]
    with np.load(file, allow_pickle=False) as stored:
        for order in (1, 2, 3):
            assert sum(stored[key].nbytes for key in stored if key.startswith(f"prefix/{order}/")) < 150_000
    for prefix in imagenet.prefixes:
        assert prefix.images.tolist() == image_statistics.prefix_counts(1000)


@pytest.mark.parametrize(
    ("size", "exact", "fifteen", "ten", "five"),
    [(None, -0.243, -0.243, -0.131, -0.013), (224, -0.337, -0.328, -0.120, -0.012)],
)
def test_imagenet_kernels_have_a_positive_centre_in_a_negative_ring(imagenet, size, exact, fifteen, ten, five):
    statistics = imagenet.total if size is None else imagenet.rescaled[size]
    spectrum = kernels.decompose(kernels.patch_covariance(statistics))
    for n_iter, ratio in ((None, exact), (15, fifteen), (10, ten), (5, five)):
        kernel = kernels.deconvolution_kernel(spectrum, n_iter=n_iter)[0]
        assert kernel[7, 7] == kernel.max() > 0
        assert max(kernel[6, 7], kernel[8, 7], kernel[7, 6], kernel[7, 8]) < 0
        assert float(kernels.surround_ratio(kernel)) == pytest.approx(ratio, abs=0.002)


def test_imagenet_colours_are_opponent(imagenet):
    spectrum = kernels.decompose(kernels.patch_covariance(imagenet.total, 9, space="rgb"), 3)
    for channel in range(3):
        weights = kernels.opponency(kernels.deconvolution_kernel(spectrum, channel=channel), channel)
        assert (np.delete(weights.numpy(), channel) < -0.2).all()


def test_the_imagenet_fit(imagenet):
    fit = kernels.fit_difference_of_gaussians(luminance_kernel(imagenet.total))
    assert fit.r2 > 0.97
    assert fit.centre > 30 * fit.errors["centre"] and fit.surround > 30 * fit.errors["surround"]
    assert "R^2 0.98" in kernels.summary(imagenet)


def test_rounding_changes_no_kernel(imagenet, tmp_path):
    """Rounded once more, at offsets from the first grid, every kernel stays within 1e-3 of its centre."""
    total = imagenet.total
    for order in (0, 1):
        whole = luminance_kernel(total)
        assert (luminance_kernel(imagenet.prefixes[order][-1]) - whole).abs().max() < 1e-4 * whole.max()
    prefix = imagenet.prefixes[1]
    mean, step = prefix[-1].mean, image_statistics.PRECISION * float(autocovariance(prefix[-1]).max())
    noise = torch.rand(prefix.products.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    noise = (noise + noise.flip(-2, -1)) / 2**0.5
    centred = prefix.shifted(-mean)
    products = centred.products + noise * step * prefix.extent[:, 3].reshape(-1, 1, 1, 1, 1)
    shaken = Statistics(centred.extent, centred.sums, products, None).shifted(mean)
    for n in (0, 1, 2, 5, 10, 30):
        kernel = luminance_kernel(prefix[n])
        assert (luminance_kernel(shaken[n]) - kernel).abs().max() < 1e-3 * kernel.max()


def test_kernels_converge_to_that_of_other_pictures(imagenet):
    prefix = imagenet.prefixes[2]
    half = prefix.images.tolist().index(500)
    wanted = luminance_kernel(prefix[-1] - prefix[half])
    errors = [float((luminance_kernel(prefix[n]) - wanted).norm() / wanted.norm()) for n in (0, 20, half)]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.15


def test_the_file_is_what_the_pictures_give(imagenet, tmp_path):
    folder = os.environ.get("NDLIB_IMAGES")
    if not folder:
        pytest.skip("NDLIB_IMAGES does not name the folder of the 1,000 ImageNet samples")
    names = image_statistics.pictures_in(Path(folder))
    assert len(names) == 1000
    for size, shipped in ((None, imagenet.total), (56, imagenet.rescaled[56])):
        fresh = sum_of(Path(folder), names, size)
        assert_equal(fresh, shipped, atol=1e-6 * float(shipped.extent[3]))
    for order, prefix in enumerate(imagenet.prefixes):
        first = [names[i] for i in np.random.default_rng(order).permutation(1000)[:12]]
        wanted = in_space(sum_of(Path(folder), first), "luminance")
        at = prefix.images.tolist().index(12)
        assert_equal(in_space(prefix[at], "luminance"), wanted, atol=1e-6 * float(wanted.extent[3]))


# Speed. ----------------------------------------------------------------------------------------------------


def test_the_fft_is_twenty_times_as_fast_as_the_patch_matrix(capsys):
    x = photographs.luminance(photographs.photograph("china").double())[:375, :500]

    def by_fft():
        return block(x, 15)

    def by_patches():
        return functional.patch_moments(x[None, None], 15)[1]

    by_fft()
    seconds = {by_fft: [], by_patches: []}
    for _ in range(3):
        for method, times in seconds.items():
            start = time.perf_counter()
            method()
            times.append(time.perf_counter() - start)
    ratio = medians.median(seconds[by_patches]) / medians.median(seconds[by_fft])
    with capsys.disabled():
        print(f"\nFFT against patch matrix, 15x15, {tuple(x.shape)} luminance: {ratio:.0f} times as fast")
    assert ratio > 20
