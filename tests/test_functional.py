"""Each step of the method against closed forms, plain loops and finite differences."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ndlib._core import moments as core_moments
from ndlib._core import roots
from ndlib._core.products import product
from ndlib.functional import (
    fold_weights,
    inverse_sqrt,
    join_columns,
    moments,
    newton_schulz_response,
    patch_matrix,
    patch_moments,
    polar_coefficients,
    split_columns,
    whiteness,
)

CONVOLUTION = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(n, seed=0, rows=None):
    x = random(rows or 3 * n, n, seed=seed) @ random(n, n, seed=seed + 1)
    return x.T @ x / len(x)


# Patches. -------------------------------------------------------------------------------------------------


def test_patch_matrix_by_hand():
    x = torch.arange(2.0 * 9).reshape(1, 2, 3, 3)
    assert patch_matrix(x, 2).tolist() == [
        [0, 1, 3, 4, 9, 10, 12, 13],
        [1, 2, 4, 5, 10, 11, 13, 14],
        [3, 4, 6, 7, 12, 13, 15, 16],
        [4, 5, 7, 8, 13, 14, 16, 17],
    ]


@settings(max_examples=60, deadline=None)
@given(
    dims=st.integers(1, 3),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    channels=st.integers(1, 3),
)
def test_patch_matrix_times_weights_is_the_convolution(dims, kernel, stride, padding, dilation, channels):
    x = random(2, channels, *range(5, 5 + dims))
    weight = random(4, channels, *[kernel] * dims, seed=1)
    wanted = CONVOLUTION[dims](x, weight, stride=stride, padding=padding, dilation=dilation)
    rows = patch_matrix(x, kernel, stride=stride, padding=padding, dilation=dilation)
    computed = (rows @ weight.flatten(1).T).reshape(2, -1, 4).transpose(1, 2)
    torch.testing.assert_close(computed, wanted.flatten(2))


def test_patch_matrix_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"spans 5 pixels does not fit into 4"):
        patch_matrix(torch.zeros(1, 1, 4, 4), 3, dilation=2)
    with pytest.raises(ValueError, match=r"shape \(N, C, \*spatial\), got shape \(4, 4\)"):
        patch_matrix(torch.zeros(4, 4), 3)


@pytest.mark.parametrize("grouping", ["interleaved", "contiguous"])
@pytest.mark.parametrize("lead", [(), (3,)])
def test_columns_are_split_as_documented(grouping, lead):
    matrix = random(*lead, 5, 12)
    blocks = split_columns(matrix, 3, grouping)
    assert blocks.shape == (*lead, 3, 5, 4)
    for g in range(3):
        columns = [c for c in range(12) if (c % 3 == g if grouping == "interleaved" else c // 4 == g)]
        assert torch.equal(blocks[..., g, :, :], matrix[..., columns])
    assert torch.equal(join_columns(blocks, grouping), matrix)


# Moments. -------------------------------------------------------------------------------------------------


def test_moments_are_mean_and_covariance():
    x = random(2, 50, 6) + 3
    mean, cov = moments(x)
    for k in range(2):
        torch.testing.assert_close(mean[k], x[k].mean(0))
        torch.testing.assert_close(cov[k], torch.cov(x[k].T, correction=0))


def test_moments_hold_on_to_a_small_variance_beside_a_large_mean():
    x = 1000 + random(4000, 3)
    _, cov = moments(x.float())
    torch.testing.assert_close(cov.double(), torch.cov(x.float().double().T, correction=0), rtol=1e-4, atol=1e-4)


def test_patch_moments_are_the_moments_of_the_patches():
    x = random(2, 3, 8, 8)
    mean, cov = patch_moments(x, 3, stride=2, padding=1)
    rows = F.unfold(x, 3, padding=1, stride=2).transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(mean, rows.mean(0))
    torch.testing.assert_close(cov, torch.cov(rows.T, correction=0))


def test_patch_moments_of_dilated_patches():
    x = random(2, 2, 8, 8)
    rows = patch_matrix(x, 3, dilation=2)
    torch.testing.assert_close(patch_moments(x, 3, dilation=2)[1], torch.cov(rows.T, correction=0))


def test_patch_moments_of_pictures_taken_in_unequal_parts(monkeypatch):
    """Three pictures of different mean, of which two and then one are gathered."""
    x = random(3, 2, 5, 5) + torch.arange(3.0).view(3, 1, 1, 1)
    monkeypatch.setattr(core_moments, "IN_CACHE", 2 * 9 * 18)  # elements of two pictures: 9 patches of 18 pixels each
    mean, cov = patch_moments(x, 3)
    rows = patch_matrix(x, 3)
    torch.testing.assert_close(mean, rows.mean(0))
    torch.testing.assert_close(cov, torch.cov(rows.T, correction=0))


@pytest.mark.parametrize("rows", [2, 3, 9], ids=["rank one", "rank deficient", "full rank"])
def test_gradient_of_the_moments(rows):
    assert torch.autograd.gradcheck(moments, random(rows, 4).requires_grad_())


def test_one_row_is_no_sample():
    with pytest.raises(ValueError, match=r"at least 2 rows, got 1"):
        moments(torch.zeros(1, 4))
    with pytest.raises(ValueError, match=r"a matrix must have shape \(..., N, n\), got shape \(5,\)"):
        moments(torch.ones(5))


# Inverse square root. --------------------------------------------------------------------------------------

SOLVERS = ["newton_schulz", "polar", "eigh"]
TRIDIAGONAL = 2 * torch.eye(6).double() - torch.diag(torch.ones(5), 1).double() - torch.diag(torch.ones(5), -1).double()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    "a",
    [torch.eye(5).double(), torch.diag(torch.tensor([0.1, 1.0, 1.0, 4.0])).double(), TRIDIAGONAL, covariance(6)],
    ids=["identity", "diagonal", "tridiagonal", "random"],
)
def test_the_root_inverts(a, solver):
    d = inverse_sqrt(a, solver=solver, n_iter=60, eps=0)
    torch.testing.assert_close(d @ a @ d, torch.eye(len(a), dtype=a.dtype), atol=1e-8, rtol=0)
    torch.testing.assert_close(d, d.T)


def test_the_root_of_a_diagonal_matrix():
    d = inverse_sqrt(torch.diag(torch.tensor([4.0, 0.25])).double(), solver="eigh", eps=0)
    torch.testing.assert_close(d, torch.diag(torch.tensor([0.5, 2.0])).double())


@pytest.mark.parametrize("solver", SOLVERS)
def test_eps_is_added_to_the_diagonal(solver):
    """Rank one: eigenvalue u'u + eps along u, eps elsewhere."""
    u = torch.tensor([[3.0], [4.0]]).double()
    d = inverse_sqrt(u @ u.T, solver=solver, n_iter=60, eps=0.01)
    along, across = u / 5, torch.tensor([[-0.8], [0.6]]).double()
    torch.testing.assert_close(d @ along, along / math.sqrt(25.01))
    torch.testing.assert_close(d @ across, across / 0.1)


def test_solutions_of_a_batch_are_those_of_its_members():
    stack = torch.stack([covariance(4, 0), 100 * covariance(4, 5)])
    for solver in SOLVERS:
        together = inverse_sqrt(stack, solver=solver)
        for one, d in zip(stack, together, strict=True):
            torch.testing.assert_close(d, inverse_sqrt(one, solver=solver))


@pytest.mark.parametrize("n_iter", [1, 2, 5, 15])
def test_steps_are_a_filter_on_the_spectrum(n_iter):
    a = covariance(8) + 1e-3 * torch.eye(8)
    eigenvalues, v = torch.linalg.eigh(a)
    d = inverse_sqrt(a, n_iter=n_iter, eps=0)
    gains = newton_schulz_response(eigenvalues, n_iter)
    torch.testing.assert_close(d, v @ torch.diag(gains) @ v.T)


def test_response_by_hand_and_its_bound():
    # One step on eigenvalues 3 and 4: norm 5, gains (3 - 3/5)/2/sqrt(5) and (3 - 4/5)/2/sqrt(5).
    gains = newton_schulz_response(torch.tensor([3.0, 4.0]).double(), 1)
    torch.testing.assert_close(gains, torch.tensor([1.2, 1.1]).double() / 5**0.5)
    # A tiny eigenvalue gains 3/2 a step and no more.
    spectrum = torch.tensor([1e-9, 1.0]).double()
    torch.testing.assert_close(newton_schulz_response(spectrum, 5)[0].item(), 1.5**5, rtol=1e-6, atol=0)
    torch.testing.assert_close(newton_schulz_response(spectrum, 100), spectrum.rsqrt())


def test_polar_steps_are_the_best_cubics():
    """Of all cubics a x - b x^3 none deviates less from 1 over the interval that the steps before it reached."""
    low, high = 1e-3, 1.0
    for a, b in polar_coefficients(12):
        x = torch.linspace(low, high, 20001, dtype=torch.float64)

        def deviation(a, b, x=x):
            return (a * x - b * x**3 - 1).abs().max().item()

        best = deviation(a, b)
        for da, db in [(1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3), (1e-3, 1e-3), (-1e-3, -1e-3)]:
            assert deviation(a * (1 + da), b * (1 + db)) > best
        y = a * x - b * x**3
        low, high = y.min().item(), y.max().item()
    assert 1 - low < 1e-3


def root_of_gram(solver, eps):
    return lambda x: inverse_sqrt(x.T @ x, solver=solver, eps=eps)


@pytest.mark.parametrize("solver", SOLVERS)
def test_gradient_of_the_root(solver):
    assert torch.autograd.gradcheck(root_of_gram(solver, 1e-2), random(9, 4).requires_grad_())


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    "x",
    [torch.eye(4).double(), torch.diag(torch.tensor([1.0, 1.0, 2.0, 2.0])).double(), random(2, 5)],
    ids=["all equal", "two pairs", "rank deficient"],
)
def test_gradient_at_repeated_eigenvalues(solver, x):
    assert torch.autograd.gradcheck(root_of_gram(solver, 1e-2), x.clone().requires_grad_())


@pytest.mark.parametrize("solver", ["newton_schulz", "polar"])
@pytest.mark.parametrize("n_iter", [1, 2, 5, 15])
def test_steps_by_eigenvalues_and_by_products_agree(monkeypatch, solver, n_iter):
    a = torch.stack([covariance(7), covariance(7, rows=3), torch.eye(7).double()])  # random, of rank 3, all equal
    grad = random(3, 7, 7, seed=5)  # not symmetric
    results = []
    for start in (8, 7):
        monkeypatch.setattr(roots, "EIGH_FROM", start)
        leaf = a.clone().requires_grad_()
        d = inverse_sqrt(leaf, solver=solver, n_iter=n_iter, eps=1e-3)
        results.append((d, *torch.autograd.grad(d, leaf, grad)))
    names = [d.grad_fn.name() for d, _ in results]
    assert "RootByEigh" not in names[0] and "RootByEigh" in names[1]
    for products, eigenvalues in zip(*results, strict=True):
        torch.testing.assert_close(eigenvalues, products, rtol=1e-9, atol=1e-9 * products.abs().max().item())


def test_steps_by_eigenvalues_are_the_more_exact_in_single_precision():
    a = covariance(80)
    exact = inverse_sqrt(a)
    error = (inverse_sqrt(a.float()) - exact).norm() / exact.norm()
    assert error < 1e-5


def test_exact_gradients_agree_with_many_steps():
    x = random(9, 4)
    grads = []
    for solver in ("newton_schulz", "eigh"):
        leaf = x.clone().requires_grad_()
        d = inverse_sqrt(leaf.T @ leaf, solver=solver, n_iter=60, eps=1e-3)
        grads.append(torch.autograd.grad((d * random(4, 4, seed=3)).sum(), leaf)[0])
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"solver": "cholesky"}, "solver must be one of .* got 'cholesky'"),
        ({"n_iter": 0}, "n_iter must be a whole number of at least 1, got 0"),
        ({"eps": -1e-5}, "eps must be a finite number of at least 0, got -1e-05"),
    ],
)
def test_inverse_sqrt_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        inverse_sqrt(torch.eye(2), **arguments)


def test_without_eps_some_matrices_have_no_root():
    with pytest.raises(ValueError, match=r"zero .*eps > 0"):
        inverse_sqrt(torch.zeros(3, 3), eps=0)
    with pytest.raises(ValueError, match=r"singular .*eps > 0"):
        inverse_sqrt(torch.ones(3, 3), eps=0, solver="eigh")
    assert inverse_sqrt(torch.zeros(3, 3), eps=1e-5).isfinite().all()


@pytest.mark.parametrize(("solver", "bad"), [("newton_schulz", torch.zeros(2, 2)), ("eigh", torch.ones(2, 2))])
def test_one_matrix_without_a_root_is_found_among_others(solver, bad):
    with pytest.raises(ValueError, match="eps > 0"):
        inverse_sqrt(torch.stack([torch.eye(2), bad]), solver=solver, eps=0)


def test_the_root_takes_five_steps_and_a_small_eps_unless_told_otherwise():
    a = torch.diag(torch.tensor([1.0, 0.1]))
    assert torch.equal(inverse_sqrt(a), inverse_sqrt(a, n_iter=5, eps=1e-5))


@pytest.mark.parametrize("function", [lambda x: moments(x)[1], root_of_gram("eigh", 1e-5)], ids=["moments", "root"])
def test_a_second_derivative_is_refused(function):
    x = random(9, 3).requires_grad_()
    (grad,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()


# Whiteness and folding. -------------------------------------------------------------------------------------


def test_whiteness_of_known_spectra():
    torch.testing.assert_close(whiteness(7 * torch.eye(5)), torch.tensor(1.0))
    torch.testing.assert_close(whiteness(torch.ones(4, 4)), torch.tensor(0.25))
    torch.testing.assert_close(whiteness(torch.diag(torch.tensor([1.0, 3.0]))), torch.tensor(0.8))


@pytest.mark.parametrize("n_blocks", [3, 16])  # as rows, and as columns
@pytest.mark.parametrize("grouping", ["interleaved", "contiguous"])
@pytest.mark.parametrize("groups", [1, 2])
def test_folded_weights_do_what_whitening_first_does(grouping, groups, n_blocks):
    width = 4
    columns = n_blocks * width
    x = random(20, groups * columns)
    weight, bias = random(6, columns, seed=1), random(6, seed=2)
    mean, root = random(groups, width, seed=3), covariance(width)[None].repeat(groups, 1, 1)
    root[-1] *= 2
    new_weight, new_bias = fold_weights(weight, bias, mean, root, n_blocks=n_blocks, grouping=grouping)
    for g in range(groups):
        part = x[:, g * columns : (g + 1) * columns]
        white = join_columns((split_columns(part, n_blocks, grouping) - mean[g]) @ root[g], grouping)
        out = slice(g * 3, (g + 1) * 3) if groups == 2 else slice(None)
        torch.testing.assert_close(part @ new_weight[out].T + new_bias[out], white @ weight[out].T + bias[out])


@pytest.mark.parametrize("n_blocks", [1, 16])
def test_folding_multiplies_the_root_from_the_side_of_the_input(n_blocks):
    """D is symmetric, so a transposed D is told from D only by a matrix that is not: fold must not transpose."""
    d = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    weight, _ = fold_weights(torch.ones(1, 2 * n_blocks), None, torch.zeros(1, 2), d[None], n_blocks=n_blocks)
    assert weight.tolist() == [n_blocks * [1.0] + n_blocks * [3.0]]


@pytest.mark.parametrize("own_means", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("groups", [1, 2])
def test_many_blocks_fold_with_the_gradients_of_few(groups, layout, own_means):
    """Blocks as columns against autograd through the definition: cut, multiply, join."""
    n_blocks, n = 16, 2 * 4
    weight = random(6, 2 * n_blocks, 2, 2).to(memory_format=layout).requires_grad_()
    mean = random(groups, n_blocks if own_means else 1, n, seed=1).requires_grad_()
    root = random(groups, n, n, seed=2).requires_grad_()
    rows = split_columns(weight.flatten(1).view(groups, 6 // groups, -1), n_blocks)  # (groups, blocks, filters, n)
    white = rows @ root.unsqueeze(1)
    wanted = join_columns(white).reshape(weight.shape), -(white @ mean.unsqueeze(-1)).sum(1).flatten()
    found = fold_weights(weight, torch.zeros(6).to(weight), mean, root, n_blocks=n_blocks)
    up = random(*weight.shape, seed=3), random(6, seed=4)
    for ours, theirs in zip(
        (*found, *torch.autograd.grad(found, (weight, mean, root), up)),
        (*wanted, *torch.autograd.grad(wanted, (weight, mean, root), up)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("lead", [(), (1,), (1, 1), (3,)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_products_by_whichever_way(lead, dtype):
    """Of one matrix in single precision and of all others, as they lie and transposed."""
    torch.manual_seed(0)
    a, b = torch.randn(*lead, 40, 7, dtype=torch.float64), torch.randn(*lead, 40, 7, dtype=torch.float64)
    for one, other in ((a, b.mT), (a.mT, b), (a.mT.contiguous(), b), (a[..., ::2, :], b.mT)):
        computed = product(one.to(dtype), other.to(dtype))
        assert computed.dtype == dtype
        torch.testing.assert_close(computed.double(), one @ other, rtol=1e-5, atol=1e-5)
