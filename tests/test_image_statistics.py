"""Image statistics against explicit sums over pairs of pixels."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_pictures import tilted_noise

from ndlib.pictures import image_statistics, kernels, photographs
from ndlib.pictures.image_statistics import LAG, SPACES, Statistics, autocovariance, in_space, picture_statistics

FEW = settings(max_examples=8, deadline=None)
LAGS = range(-LAG, LAG + 1)


def pairs(x, dy, dx):
    """All pairs of pixels (p, p + d) of a picture (C, H, W), as two tensors (C, number of pairs)."""
    height, width = x.shape[1:]
    first = x[:, max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)]
    second = x[:, max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)]
    return first.flatten(1), second.flatten(1)


@FEW
@given(st.integers(1, 3), st.integers(15, 40), st.integers(15, 40), st.integers(0, 99))
def test_picture_statistics_equal_a_loop_over_pairs(channels, height, width, seed):
    x = tilted_noise(channels, height, width, seed=seed)
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


def test_strips_of_a_picture_add_up(monkeypatch):
    x = tilted_noise(3, 61, 40)
    whole = picture_statistics(x)
    monkeypatch.setattr(image_statistics, "PIXELS", 40 * 17)
    strips = picture_statistics(x)
    for part in ("extent", "sums", "products", "own"):
        torch.testing.assert_close(getattr(strips, part), getattr(whole, part), atol=1e-10, rtol=0)


@pytest.fixture(scope="module")
def several():
    return [tilted_noise(3, *size, seed=seed) for seed, size in enumerate([(20, 33), (41, 17), (15, 15)])]


@pytest.fixture(scope="module")
def summed(several):
    first, second, third = map(picture_statistics, several)
    return first + second + third


def means(several, which):
    grand = torch.cat([x.flatten(1) for x in several], 1).mean(1)
    return [x.mean((1, 2)) if which == "image" else grand for x in several]


@pytest.mark.parametrize("mean", ["grand", "image"])
@pytest.mark.parametrize("counts", ["unbiased", "biased"])
def test_autocovariance_of_several_pictures_equals_all_pairs(several, summed, mean, counts):
    ours = autocovariance(summed, mean=mean, counts=counts)
    centred = [x - mu[:, None, None] for x, mu in zip(several, means(several, mean), strict=True)]
    for dy, dx in product([-14, -3, 0, 1, 8], [-11, -1, 0, 2, 14]):
        first, second = (torch.cat(taps, 1) for taps in zip(*(pairs(x, dy, dx) for x in centred), strict=True))
        n = first.shape[1] if counts == "unbiased" else sum(x[0].numel() for x in several)
        torch.testing.assert_close(ours[..., dy + LAG, dx + LAG], first @ second.T / n, atol=1e-13, rtol=0)


def test_patch_covariance_is_positive_semidefinite_with_biased_counts_alone():
    x = tilted_noise(1, 17, 19)
    smallest = {}
    for counts in ("biased", "unbiased"):
        cov = kernels.patch_covariance(picture_statistics(x), 15, counts=counts)
        smallest[counts] = float(torch.linalg.eigvalsh(cov)[0])
    assert smallest["biased"] > -1e-12
    assert smallest["unbiased"] < -1e-3


def test_statistics_subtract(several, summed):
    rest = summed - picture_statistics(several[0])
    wanted = picture_statistics(several[1]) + picture_statistics(several[2])
    for part in ("extent", "sums", "products", "own"):
        torch.testing.assert_close(getattr(rest, part), getattr(wanted, part), atol=1e-11, rtol=0)


@pytest.mark.parametrize("space", ["luminance", "rgb", "opponent"])
def test_in_space_equals_statistics_of_converted_pictures(several, space):
    x = several[0]
    direct = picture_statistics(torch.einsum("ic,chw->ihw", SPACES[space], x))
    ours = in_space(picture_statistics(x), space)
    for part in ("sums", "products", "own"):
        torch.testing.assert_close(getattr(ours, part), getattr(direct, part), atol=1e-10, rtol=0)


def test_spaces_are_luminance_and_an_orthonormal_opponent_basis(several):
    torch.testing.assert_close(
        in_space(picture_statistics(several[0]), "luminance").products,
        picture_statistics(photographs.luminance(several[0])).products,
    )
    opponent = SPACES["opponent"]
    torch.testing.assert_close(opponent @ opponent.T, torch.eye(3, dtype=torch.float64))
    grey, red, blue = (opponent @ torch.tensor(c, dtype=torch.float64) for c in ([1, 1, 1], [1, 0, 0], [0, 0, 1]))
    assert grey[1:].abs().max() < 1e-15
    assert red[1] > 0 and blue[2] > 0 and abs(blue[1]) < 1e-15


def test_statistics_name_bad_shapes_and_options(several, summed):
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
