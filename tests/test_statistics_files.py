"""Files of image statistics, and the one that the project carries."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_pictures import assert_equal_statistics, luminance_kernel, sum_of

from ndlib import files
from ndlib.pictures import folders, reading, statistics_files
from ndlib.pictures.image_statistics import Statistics, autocovariance, in_space


@pytest.fixture(scope="module")
def imagenet():
    return statistics_files.load_statistics("imagenet")


def test_load_statistics_names_a_damaged_file(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK half a file")
    with pytest.raises(files.DatasetError, match=r"a\.npz is damaged or no file of image statistics"):
        statistics_files.load_statistics(tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError):
        statistics_files.load_statistics(tmp_path / "b.npz")


def test_imagenet_statistics_are_small_and_have_their_provenance(imagenet):
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
        assert prefix.images.tolist() == folders.prefix_counts(1000)


def test_rounded_prefixes_give_the_same_kernels(imagenet, tmp_path):
    """Rounded once more, at offsets from the first grid, every kernel stays within 1e-3 of its centre."""
    total = imagenet.total
    for order in (0, 1):
        whole = luminance_kernel(total)
        assert (luminance_kernel(imagenet.prefixes[order][-1]) - whole).abs().max() < 1e-4 * whole.max()
    prefix = imagenet.prefixes[1]
    mean, step = prefix[-1].mean, statistics_files.PRECISION * float(autocovariance(prefix[-1]).max())
    noise = torch.rand(prefix.products.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    noise = (noise + noise.flip(-2, -1)) / 2**0.5
    centred = prefix.shifted(-mean)
    products = centred.products + noise * step * prefix.extent[:, 3].reshape(-1, 1, 1, 1, 1)
    shaken = Statistics(centred.extent, centred.sums, products, None).shifted(mean)
    for n in (0, 1, 2, 5, 10, 30):
        kernel = luminance_kernel(prefix[n])
        assert (luminance_kernel(shaken[n]) - kernel).abs().max() < 1e-3 * kernel.max()


def test_imagenet_statistics_are_those_of_the_pictures(imagenet, tmp_path):
    folder = os.environ.get("NDLIB_IMAGES")
    if not folder:
        pytest.skip("NDLIB_IMAGES does not name the folder of the 1,000 ImageNet samples")
    names = reading.pictures_in(Path(folder))
    assert len(names) == 1000
    for size, shipped in ((None, imagenet.total), (56, imagenet.rescaled[56])):
        fresh = sum_of(Path(folder), names, size)
        assert_equal_statistics(fresh, shipped, atol=1e-6 * float(shipped.extent[3]))
    for order, prefix in enumerate(imagenet.prefixes):
        first = [names[i] for i in np.random.default_rng(order).permutation(1000)[:12]]
        wanted = in_space(sum_of(Path(folder), first), "luminance")
        at = prefix.images.tolist().index(12)
        assert_equal_statistics(in_space(prefix[at], "luminance"), wanted, atol=1e-6 * float(wanted.extent[3]))
