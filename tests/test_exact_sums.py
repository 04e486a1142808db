"""Sums in whole numbers: against a loop over pairs, and the same bits in every order and by every way."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ndlib.pictures import exact_sums
from ndlib.pictures.exact_sums import Sums, sums_of
from ndlib.pictures.image_statistics import LAG, picture_statistics
from ndlib.pictures.reading import turned

FEW = settings(max_examples=10, deadline=None)
SIDES = st.integers(15, 40)
DTYPES = st.sampled_from([np.uint8, np.uint16])


def pixels(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def assert_same_bits(ours, wanted):
    assert ours.parts.keys() == wanted.parts.keys()
    for bits, part in wanted.parts.items():
        assert ours.parts[bits].keys() == part.keys()
        for what, values in part.items():
            assert values.dtype == torch.int64 and torch.equal(ours.parts[bits][what], values), (bits, what)


@FEW
@given(SIDES, SIDES, st.integers(0, 99))
def test_sums_of_bytes_are_those_of_a_loop_over_pairs(height, width, seed):
    x = pixels(height, width, 3, seed=seed)
    ours = sums_of(x)
    part = ours.parts[8]
    assert part["extent"].tolist() == [1, height, width, height * width]
    x = x.astype(np.int64) - 128
    for dy, dx in product(range(LAG + 1), range(-LAG, LAG + 1)):
        first = x[: height - dy, max(0, -dx) : width - max(0, dx)].reshape(-1, 3)
        second = x[dy:, max(0, dx) : width + min(0, dx)].reshape(-1, 3)
        assert np.array_equal(part["products"][:, :, dy, dx + LAG], first.T @ second)
        assert np.array_equal(part["sums"][:, LAG + dy, LAG + dx], first.sum(0))
        assert np.array_equal(part["sums"][:, LAG - dy, LAG - dx], second.sum(0))


@FEW
@given(DTYPES, st.sampled_from([1, 3]), SIDES, SIDES, st.integers(0, 99))
def test_statistics_are_those_of_the_values(dtype, channels, height, width, seed):
    x = pixels(height, width, channels, dtype=dtype, seed=seed)
    values = torch.from_numpy(x / np.iinfo(dtype).max).permute(2, 0, 1).expand(3, -1, -1)
    ours, wanted = sums_of(x).statistics(), picture_statistics(values)
    for part, most in (("extent", 0), ("sums", 1e-11), ("products", 1e-11), ("own", 4e-8)):
        torch.testing.assert_close(getattr(ours, part), getattr(wanted, part), atol=most, rtol=0)


@FEW
@given(DTYPES, st.sampled_from([1, 3]), st.sampled_from([400, 2000, 2**18]))
def test_strips_change_no_bit(dtype, channels, strip):
    x = pixels(61, 47, channels, dtype=dtype)
    whole = sums_of(x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact_sums, "PIXELS", strip)
        assert_same_bits(sums_of(lambda top, bottom: x[top:bottom], x.shape[:2]), whole)


@pytest.mark.parametrize("value", [0, 1])
def test_products_without_the_instruction_are_the_same_bits(value, monkeypatch):
    """Also where all products are as large as can be and odd, which float32 would round if it added too many."""
    pictures = [pixels(70, 90, 3), np.full((200, 300, 3), value, np.uint8), pixels(40, 50, 3, dtype=np.uint16)]
    with_it = [sums_of(x) for x in pictures]
    monkeypatch.setattr(exact_sums, "int8_product", None)
    for x, wanted in zip(pictures, with_it, strict=True):
        assert_same_bits(sums_of(x), wanted)


@FEW
@given(st.permutations(range(7)), st.integers(1, 6))
def test_order_and_merging_change_no_bit(order, cut):
    kinds = [(3, np.uint8), (1, np.uint8), (3, np.uint16), (1, np.uint16)]
    each = [sums_of(pixels(15 + n, 20, kinds[n % 4][0], dtype=kinds[n % 4][1], seed=n)) for n in range(7)]
    in_turn, parts = Sums(), [Sums(), Sums()]
    for one in each:
        in_turn.add(one)
    for place, n in enumerate(order):
        parts[place >= cut].add(each[n])
    parts[0].add(parts[1])
    assert_same_bits(parts[0], in_turn)
    assert torch.equal(parts[0].statistics().products, in_turn.statistics().products)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_sums_of_a_turned_picture_are_the_sums_turned(orientation, dtype):
    x = pixels(20, 33, 3, dtype=dtype)
    as_seen = turned(torch.from_numpy(x.astype(np.int32)).permute(2, 0, 1), orientation).permute(1, 2, 0)
    assert_same_bits(sums_of(x).turned(orientation), sums_of(as_seen.numpy().astype(dtype)))


def test_sets_of_sums_run_up():
    pictures = [sums_of(pixels(20, 20 + n, 3, seed=n)) for n in range(3)]
    several = Sums((3,))
    for n, one in enumerate(pictures):
        several.add(one, at=n)
    running = several.running().statistics("luminance")
    total = Sums()
    for n, one in enumerate(pictures):
        total.add(one)
        assert torch.equal(running.extent[n], total.statistics().extent)
        torch.testing.assert_close(running.sums[n], total.statistics("luminance").sums, atol=1e-10, rtol=0)


def test_sums_name_what_is_missing():
    with pytest.raises(ValueError, match="sides of at least 15 pixels, got 40 x 14"):
        sums_of(pixels(14, 40, 3))
    with pytest.raises(ValueError, match="no pictures in these sums"):
        Sums().statistics()
