"""Deconvolution kernels against patch matrices, closed forms and other libraries."""

import statistics as medians
import time
from itertools import product

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_pictures import luminance_kernel, tilted_noise

from ndlib import functional
from ndlib.pictures import kernels, photographs, statistics_files
from ndlib.pictures.image_statistics import LAG, SPACES, Statistics, autocovariance, picture_statistics

FEW = settings(max_examples=8, deadline=None)


@pytest.fixture(scope="module")
def several():
    return [tilted_noise(3, *size, seed=seed) for seed, size in enumerate([(20, 33), (41, 17), (15, 15)])]


@pytest.fixture(scope="module")
def summed(several):
    first, second, third = map(picture_statistics, several)
    return first + second + third


# Covariances of patches. -----------------------------------------------------------------------------------


@FEW
@given(st.integers(1, 3), st.sampled_from([1, 3, 5, 7]), st.integers(0, 12), st.integers(0, 12), st.integers(0, 99))
def test_exact_patch_covariance_equals_patch_moments(channels, k, more_rows, more_columns, seed):
    x = tilted_noise(channels, k + 1 + more_rows, k + more_columns, seed=seed)
    _, wanted = functional.patch_moments(x[None], k)
    torch.testing.assert_close(kernels.exact_patch_covariance(x, k), wanted, atol=1e-13, rtol=1e-12)


def test_exact_patch_covariance_of_the_largest_side():
    x = tilted_noise(3, 40, 52)
    _, wanted = functional.patch_moments(x[None], 15)
    torch.testing.assert_close(kernels.exact_patch_covariance(x, 15), wanted, atol=1e-12, rtol=1e-10)


def test_covariances_are_exact_beside_a_large_mean():
    x = tilted_noise(1, 30, 30)
    shifted = kernels.exact_patch_covariance(x + 1e6, 5)
    torch.testing.assert_close(shifted, kernels.exact_patch_covariance(x, 5), atol=1e-9, rtol=0)
    ours, wanted = (autocovariance(picture_statistics(y), mean="image") for y in (x + 1e6, x))
    torch.testing.assert_close(ours, wanted, atol=1e-9, rtol=0)


def block(x, k):
    return kernels.block_toeplitz(autocovariance(picture_statistics(x)), k)


def test_block_toeplitz_equals_a_loop_over_taps(summed):
    k, c = 3, autocovariance(summed)
    ours = kernels.block_toeplitz(c, k)
    taps = list(product(range(3), range(k), range(k)))
    for (row, (a, py, px)), (column, (b, qy, qx)) in product(enumerate(taps), enumerate(taps)):
        assert ours[row, column] == c[a, b, LAG + qy - py, LAG + qx - px]
    torch.testing.assert_close(ours, ours.T)


def test_patch_covariance_of_stacked_statistics(summed, several):
    both = Statistics(*(torch.stack([getattr(summed, p)] * 2) for p in ("extent", "sums", "products", "own")))
    torch.testing.assert_close(kernels.patch_covariance(both, 5, space="rgb")[1], block_of(summed))
    torch.testing.assert_close(kernels.patch_covariance(both[1], 5, space="rgb"), block_of(summed))


def block_of(statistics):
    return kernels.patch_covariance(statistics, 5, space="rgb")


def test_estimator_difference_comes_from_the_borders():
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
def test_patch_side_must_be_odd_and_at_most_15(summed, k):
    for function in (kernels.patch_covariance, lambda s, k: kernels.exact_patch_covariance(tilted_noise(20, 20), k)):
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
def test_deconvolution_matrix_equals_inverse_sqrt(colour, eps):
    exact = functional.inverse_sqrt(covariance(colour), solver="eigh", eps=eps)
    torch.testing.assert_close(kernels.deconvolution_matrix(colour, eps=eps), exact, rtol=1e-8, atol=1e-8)
    for steps in (5, 15):
        wanted = functional.inverse_sqrt(covariance(colour), n_iter=steps, eps=eps)
        ours = kernels.deconvolution_matrix(colour, eps=eps, n_iter=steps)
        torch.testing.assert_close(ours, wanted, rtol=1e-8, atol=1e-8)


def test_deconvolution_kernel_is_a_row_of_the_matrix(colour):
    rows = kernels.deconvolution_matrix(colour).reshape(3, 5, 5, 3, 5, 5)
    torch.testing.assert_close(kernels.deconvolution_kernel(colour), rows[0, 2, 2])
    torch.testing.assert_close(kernels.deconvolution_kernel(colour, channel=2, pixel=(1, 4)), rows[2, 1, 4])
    with pytest.raises(ValueError, match=r"no channel 3, pixel \(2, 2\) in patches of 3 x 5 x 5"):
        kernels.deconvolution_kernel(colour, channel=3)
    with pytest.raises(ValueError, match=r"no channel 0, pixel \(-1, 0\)"):
        kernels.deconvolution_kernel(colour, pixel=(-1, 0))


def test_decompose_clips_and_counts_negative_eigenvalues():
    vectors, _ = torch.linalg.qr(tilted_noise(9, 9))
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


def test_kernel_of_white_noise_is_a_delta():
    noise = torch.randn(1, 400, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 5
    kernel = kernels.deconvolution_kernel(kernels.decompose(kernels.patch_covariance(picture_statistics(noise), 7)))[0]
    assert kernel[3, 3] == pytest.approx(5, rel=0.02)
    kernel[3, 3] = 0
    assert kernel.abs().max() < 5 * 0.02


RHO = 0.6


def test_kernel_of_exponentially_correlated_noise_is_its_autoregression():
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


def test_kernel_of_a_separable_covariance_is_exact():
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


def test_deconvolution_matrix_turns_with_an_orthonormal_change_of_colours():
    statistics = picture_statistics(photographs.photograph("coffee"))
    rgb, opponent = (
        kernels.deconvolution_matrix(kernels.decompose(kernels.patch_covariance(statistics, 3, space=space), 3))
        for space in ("rgb", "opponent")
    )
    turn = torch.kron(SPACES["opponent"], torch.eye(9, dtype=torch.float64))
    torch.testing.assert_close(turn @ rgb @ turn.T, opponent, atol=1e-8, rtol=1e-8)


def test_surround_ratio_and_mass_of_a_known_kernel():
    kernel = torch.tensor([[0.0, -1, 0], [-0.5, 4, -0.5], [0, -1, 1]])
    assert kernels.surround_ratio(kernel) == -0.25
    assert kernels.surround_mass(kernel) == 0.375
    torch.testing.assert_close(kernels.surround_ratio(torch.stack([kernel, -kernel])), torch.tensor([-0.25, 1.0]))


# The kernel of ImageNet. -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imagenet():
    return statistics_files.load_statistics("imagenet")


@pytest.mark.parametrize(
    ("size", "exact", "fifteen", "ten", "five"),
    [(None, -0.243, -0.243, -0.131, -0.013), (224, -0.337, -0.328, -0.120, -0.012)],
)
def test_imagenet_kernel_has_a_positive_centre_in_a_negative_ring(imagenet, size, exact, fifteen, ten, five):
    statistics = imagenet.total if size is None else imagenet.rescaled[size]
    spectrum = kernels.decompose(kernels.patch_covariance(statistics))
    for n_iter, ratio in ((None, exact), (15, fifteen), (10, ten), (5, five)):
        kernel = kernels.deconvolution_kernel(spectrum, n_iter=n_iter)[0]
        assert kernel[7, 7] == kernel.max() > 0
        assert max(kernel[6, 7], kernel[8, 7], kernel[7, 6], kernel[7, 8]) < 0
        assert float(kernels.surround_ratio(kernel)) == pytest.approx(ratio, abs=0.002)


def test_imagenet_kernel_opposes_colours(imagenet):
    spectrum = kernels.decompose(kernels.patch_covariance(imagenet.total, 9, space="rgb"), 3)
    for channel in range(3):
        weights = kernels.opponency(kernels.deconvolution_kernel(spectrum, channel=channel), channel)
        assert (np.delete(weights.numpy(), channel) < -0.2).all()


def test_imagenet_kernels_converge_to_that_of_other_pictures(imagenet):
    prefix = imagenet.prefixes[2]
    half = prefix.images.tolist().index(500)
    wanted = luminance_kernel(prefix[-1] - prefix[half])
    errors = [float((luminance_kernel(prefix[n]) - wanted).norm() / wanted.norm()) for n in (0, 20, half)]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.15


# Speed. ----------------------------------------------------------------------------------------------------


def test_fft_is_twenty_times_as_fast_as_the_patch_matrix(capsys):
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
