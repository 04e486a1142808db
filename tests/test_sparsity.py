"""Measures of sparsity against known vectors and scipy."""

import numpy as np
import pytest
import scipy.stats
import torch

from ndlib.pictures import sparsity


def test_sparsity_measures_of_known_vectors():
    one, equal = torch.tensor([0.0, 0, -3, 0]), torch.tensor([2.0, -2, 2, -2])
    assert (sparsity.hoyer(one), sparsity.hoyer(equal)) == (1, 0)
    assert (sparsity.l1_l2(one), sparsity.l1_l2(equal)) == (0.5, 1)
    x = torch.tensor([3.0, 4.0])
    assert sparsity.l1_l2(x) == pytest.approx(7 / 5 / 2**0.5)
    assert sparsity.hoyer(x) == pytest.approx((2**0.5 - 7 / 5) / (2**0.5 - 1), rel=1e-5)
    assert sparsity.kurtosis(torch.tensor([1.0, -1.0])) == -2
    assert torch.isnan(sparsity.hoyer(torch.zeros(3)))
    with pytest.raises(ValueError, match="at least 2 elements"):
        sparsity.hoyer(torch.ones(3, 1), dim=1)


def test_sparsity_measures_along_dimensions():
    x = torch.from_numpy(scipy.stats.laplace.rvs(size=(3, 200, 50), random_state=0)) + 1
    for dim, axis in ((None, None), (1, 1), (-1, -1), ((1, 2), (1, 2))):
        wanted = scipy.stats.kurtosis(x.numpy(), axis=axis)
        np.testing.assert_allclose(sparsity.kurtosis(x, dim).numpy(), wanted, rtol=1e-10)
    torch.testing.assert_close(sparsity.hoyer(x, (1, 2)), torch.stack([sparsity.hoyer(part) for part in x]))
    torch.testing.assert_close(sparsity.l1_l2(x, 0), x.abs().sum(0) / (3**0.5 * x.square().sum(0).sqrt()))
