"""The method as functions: patches, their moments, the inverse square root, and how white the result is.

The steps of one deconvolution layer, each a function here (notation of the book):

    X = patch_matrix(x, k)                  one row per patch, one column per pixel and channel of it
    mu, Cov = moments(X)                    mean row, covariance of the columns
    D = inverse_sqrt(Cov, eps=eps)          (Cov + eps I)^(-1/2), so that Cov((X - mu) D) is close to I
    W D, b - W D mu = fold_weights(W, b, mu, D)    the convolution that whitens and filters in one go

Source of the method: Ye et al., Network Deconvolution, ICLR 2020 (arXiv 1905.11926).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ._core.folding import fold
from ._core.moments import sample_moments
from ._core.options import Grouping, Options, Solver
from ._core.patches import Patches, count_rows, join_columns, patch_samples, patches_of, split_columns
from ._core.products import in_full_precision
from ._core.roots import NEWTON_SCHULZ, inverse_root, polar_coefficients, scalar_iteration

__all__ = [
    "fold_weights",
    "inverse_sqrt",
    "join_columns",
    "moments",
    "newton_schulz_response",
    "patch_matrix",
    "patch_moments",
    "polar_coefficients",
    "split_columns",
    "whiteness",
]


def patch_matrix(
    x: Tensor,
    kernel_size: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """Patches of a batch as the rows of a matrix (im2col).

    Row (n, i, j) holds ``x[n, :, i*s : i*s + k, j*s : j*s + k]`` flattened, channel first, then the
    pixels of the patch from left to right and top to bottom: the order in which ``weight.flatten(1)``
    lists a convolution's weights, so that ``patch_matrix(x, k) @ weight.flatten(1).T`` *is* the convolution.

    Args:
        x: batch of shape ``(N, C, *spatial)``, with one, two or three spatial dimensions.
        kernel_size, stride, dilation: pixels, one number or one per spatial dimension.
        padding: zeros added on each side, pixels; the padded zeros are part of the patches.

    Returns:
        Matrix of shape (N * positions, C * taps), in the units of ``x``.

    Raises:
        ValueError: the padded picture is smaller than the kernel.

    >>> x = torch.arange(9.0).view(1, 1, 3, 3)
    >>> patch_matrix(x, 2).tolist()
    [[0.0, 1.0, 3.0, 4.0], [1.0, 2.0, 4.0, 5.0], [3.0, 4.0, 6.0, 7.0], [4.0, 5.0, 7.0, 8.0]]

    Source: Ye et al. 2020, section 3.1.
    """
    return patch_samples(x, patches_of(_dimensions(x), kernel_size, stride, padding, dilation))[0, 0]


def _dimensions(x: Tensor) -> int:
    if x.dim() < 3:
        raise ValueError(f"x must have shape (N, C, *spatial), got shape {tuple(x.shape)}")
    return x.dim() - 2


@in_full_precision
def moments(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Mean row and covariance of the columns: mu = X'1/N and Cov = (X - mu)'(X - mu)/N (divided by N, not N - 1).

    Args:
        matrix: shape (..., N, n), N rows (samples) of n columns.

    Returns:
        mean of shape (..., n) in the units of x, covariance of shape (..., n, n) in their square.

    Raises:
        ValueError: fewer than two rows, or no rows and columns at all.

    >>> mean, cov = moments(torch.tensor([[0.0, 1.0], [2.0, 5.0]]))
    >>> mean.tolist(), cov.tolist()
    ([1.0, 3.0], [[1.0, 2.0], [2.0, 4.0]])
    """
    if matrix.dim() < 2:
        raise ValueError(f"a matrix must have shape (..., N, n), got shape {tuple(matrix.shape)}")
    *batch, rows, columns = matrix.shape
    side_by_side = matrix.reshape(-1, rows, columns).transpose(0, 1).flatten(1)
    mean, cov = sample_moments(side_by_side, Patches(groups=math.prod(batch)), rows)
    return mean.view(*batch, columns), cov.view(*batch, columns, columns)


@in_full_precision
def patch_moments(
    x: Tensor,
    kernel_size: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of all patches of a batch: ``moments(patch_matrix(x, ...))``, in less memory.

    Args:
        x, kernel_size, stride, padding, dilation: as in :func:`.patch_matrix`.

    Returns:
        Mean of shape (n,) in the units of ``x`` and covariance of shape (n, n) in their square, n = C * taps.

    Raises:
        ValueError: fewer than two patches, or a padded picture smaller than the kernel.

    >>> x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> mean, cov = patch_moments(x, 3)
    >>> cov.shape, torch.allclose(cov, moments(patch_matrix(x, 3))[1], atol=1e-5)
    (torch.Size([27, 27]), True)
    """
    patches = patches_of(_dimensions(x), kernel_size, stride, padding, dilation)
    mean, cov = sample_moments(x, patches, count_rows(x, patches))
    return mean[0, 0], cov[0, 0]


@in_full_precision
def inverse_sqrt(cov: Tensor, *, solver: Solver = "newton_schulz", n_iter: int = 5, eps: float = 1e-5) -> Tensor:
    """Inverse square root D of A = Cov + eps I, by an eigendecomposition or by ``n_iter`` steps of an iteration.

    ``"newton_schulz"``, the published solver, starts from Y = A / ||A||_F and Z = I and repeats
    T = (3 I - Z Y) / 2, Y <- Y T, Z <- T Z; then D = Z / sqrt(||A||_F). Few steps give a soft spectral
    filter rather than the root: see :func:`newton_schulz_response`. ``"polar"`` replaces the 3/2 and 1/2 by
    the pair that is optimal for each step (:func:`polar_coefficients`): weak directions, down to a millionth of
    the norm, rise by 2.6 a step instead of 1.5, and in exchange strong ones are exact only at the end; take
    ten steps or more. ``"eigh"`` takes the root of every eigenvalue. It is as exact as the covariance allows: in
    float32 eigenvalues below 1e-7 of the largest one are rounding (4 % of the root of 15x15 RGB patches with
    eps = 1e-5); compute in float64 where that matters.

    The first two name the filter that is applied, not the arithmetic. On a CPU, from n = 64 on, the same result and
    the same gradient come from one eigendecomposition and scalars, which is faster and more exact than the steps.

    Args:
        cov: symmetric positive semi-definite, shape (..., n, n).
        n_iter: steps; not used by ``"eigh"``.
        eps: added to the diagonal, in the units of ``cov``.

    Returns:
        D of shape (..., n, n), symmetric, in units of 1 / sqrt(cov). Gradients flow through every step.

    Raises:
        ValueError, TypeError: an unknown solver, n_iter or eps that is not possible, or a matrix that has no inverse
            root because it is zero (iterations) or singular (eigh) with eps = 0. On a CUDA device and in a compiled
            graph the last is not checked, so that nothing waits for the device; the result is then not finite.

    >>> inverse_sqrt(torch.diag(torch.tensor([4.0, 0.25])), solver="eigh", eps=0.0).diagonal().tolist()
    [0.5, 2.0]
    >>> after_five_steps = inverse_sqrt(torch.diag(torch.tensor([4.0, 0.25])), n_iter=5, eps=0.0)
    >>> [round(gain, 2) for gain in after_five_steps.diagonal().tolist()]
    [0.5, 1.97]

    Source: Ye et al. 2020, section 3.3; Higham 2008, Functions of Matrices, section 6.3.
    """
    Options(solver=solver, n_iter=n_iter, eps=eps)  # raises where one of them is not possible
    return inverse_root(cov, solver, n_iter, eps)


def newton_schulz_response(eigenvalues: Tensor, n_iter: int) -> Tensor:
    """The gain that ``n_iter`` Newton-Schulz steps apply to each eigenvalue: the scalar filter they are.

    Newton-Schulz keeps the eigenvectors: if A = V diag(l) V', then D = V diag(g) V' with
    c = ||l||_2 (= ||A||_F), y = l / c, z = 1, then ``n_iter`` times t = (3 - z y) / 2, y <- y t, z <- t z,
    and g = z / sqrt(c). The exact root would be l^(-1/2); a step lifts the gain of a small eigenvalue by
    3/2 at the most, so g <= 1.5^n_iter / sqrt(c) and small eigenvalues stay small.

    Args:
        eigenvalues: the *whole* spectrum of A (eps included), shape (..., n), in the units of the covariance.

    Returns:
        Gains of shape (..., n); the whitened variance of a direction is ``gain**2 * eigenvalue``.

    >>> spectrum = torch.tensor([1.0, 0.1, 0.001])
    >>> whitened = newton_schulz_response(spectrum, 5) ** 2 * spectrum
    >>> [round(variance, 3) for variance in whitened.tolist()]
    [1.0, 0.995, 0.056]
    """
    norm = torch.linalg.vector_norm(eigenvalues, dim=-1, keepdim=True)
    return scalar_iteration(eigenvalues / norm, [NEWTON_SCHULZ] * n_iter) / norm.sqrt()


def whiteness(cov: Tensor) -> Tensor:
    """How near a covariance is to a multiple of the identity: (tr Cov)^2 / (n tr Cov^2), between 1/n and 1.

    It is 1 if and only if all eigenvalues are equal, and 1/n if a single one is left; the scale of the data
    does not matter. John's statistic for the test of sphericity (Biometrika 58, 1971) is 1/whiteness - 1.

    Args:
        cov: symmetric positive semi-definite and not zero, shape (..., n, n).

    Returns:
        Shape (...), without unit.

    >>> whiteness(torch.eye(4)).item(), whiteness(torch.ones(4, 4)).item()
    (1.0, 0.25)
    """
    trace = cov.diagonal(dim1=-2, dim2=-1).sum(-1)
    return trace**2 / (cov.shape[-1] * cov.square().sum((-2, -1)))


@in_full_precision
def fold_weights(
    weight: Tensor,
    bias: Tensor | None,
    mean: Tensor,
    root: Tensor,
    *,
    n_blocks: int = 1,
    grouping: Grouping = "interleaved",
) -> tuple[Tensor, Tensor]:
    """Whitening and weights as one linear map: (x - mu) D w + b = x (D w) + (b - mu' D w).

    Args:
        weight: shape ``(out, in, *kernel)``; with g channel groups, ``in`` counts the channels of one group.
        bias: shape (out,), or None for none.
        mean: shape (g, n), one mean for each channel group, shared by its blocks, or (g, n_blocks, n).
        root: D, shape (g, n, n), symmetric.
        n_blocks, grouping: how the columns of one channel group are cut, see :func:`.split_columns`.

    Returns:
        weight and bias of the plain layer that does the same to every full patch, shapes as given.

    >>> weight, mean, root = torch.ones(1, 2), torch.tensor([[1.0, 2.0]]), torch.eye(2)[None] / 2
    >>> fold_weights(weight, None, mean, root)
    (tensor([[0.5000, 0.5000]]), tensor([-1.5000]))

    Source: Ye et al. 2020, section 3.2 (implicit deconvolution).
    """
    groups, n = root.shape[:2]
    patches = Patches(tuple(weight.shape[2:]), blocks=n_blocks, grouping=grouping)
    return fold(weight, bias, mean.reshape(groups, -1, n), root, patches)
