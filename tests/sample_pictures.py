"""What several tests of the pictures use: noise, statistics of files, the kernel of luminance."""

import torch

from ndlib.pictures import kernels, reading
from ndlib.pictures.image_statistics import picture_statistics


def tilted_noise(*shape, seed=0):
    """Smooth, tilted noise: no symmetry that could hide a transposed or mirrored result."""
    noise = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (noise + noise.roll((1, 2), (-2, -1)) + torch.linspace(0, 1, shape[-1], dtype=torch.float64)) / 3


def assert_equal_statistics(ours, wanted, atol=0.0):
    for part in ("extent", "sums", "products"):
        torch.testing.assert_close(getattr(ours, part), getattr(wanted, part), atol=atol, rtol=0)


def sum_of(folder, names, size=None):
    """The statistics of these files of a folder, without :func:`ndlib.pictures.folders.collect`."""
    first, *rest = (picture_statistics(reading.read_picture(folder / name, size)) for name in names)
    return sum(rest, start=first)


def luminance_kernel(statistics, **options):
    return kernels.deconvolution_kernel(kernels.decompose(kernels.patch_covariance(statistics)), **options)[0]
