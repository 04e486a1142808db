"""The method as functions: patches, their moments, the inverse square root, and how white the result is.

The steps of one deconvolution layer, each a function here (notation of the book):

    X = patch_matrix(x, k)                  one row per patch, one column per pixel and channel of it
    mu, Cov = moments(X)                    mean row, covariance of the columns
    D = inverse_sqrt(Cov, eps=eps)          (Cov + eps I)^(-1/2), so that Cov((X - mu) D) is close to I
    W D, b - W D mu = fold(W, b, mu, D)     the convolution that whitens and filters in one go

Source of the method: Ye et al., Network Deconvolution, ICLR 2020 (arXiv 1905.11926).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Solver = Literal["newton_schulz", "eigh"]
Grouping = Literal["interleaved", "contiguous"]


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
        x: batch of shape (N, C, *spatial), with one, two or three spatial dimensions.
        kernel_size, stride, dilation: pixels, one number or one per spatial dimension.
        padding: zeros added on each side, pixels; the padded zeros are part of the patches.

    Returns:
        Matrix of shape (N * positions, C * taps).

    Raises:
        ValueError: the padded picture is smaller than the kernel.
    """
    n = x.dim() - 2
    if n < 1:
        raise ValueError(f"x must have shape (N, C, *spatial), got shape {tuple(x.shape)}")
    kernel, strides, pads, dilations = (
        (v,) * n if isinstance(v, int) else tuple(v) for v in (kernel_size, stride, padding, dilation)
    )
    if any(pads):
        x = F.pad(x, [p for q in reversed(pads) for p in (q, q)])
    for axis, (k, s, d) in enumerate(zip(kernel, strides, dilations, strict=True), start=2):
        span = (k - 1) * d + 1
        if x.shape[axis] < span:
            raise ValueError(
                f"a kernel that spans {span} pixels does not fit into {x.shape[axis]} (padding included): "
                "use a larger picture, more padding or a smaller kernel_size"
            )
        x = x.unfold(axis, span, s)[..., ::d]
    # (N, C, positions..., taps...) -> (N, positions..., C, taps...); the reshape makes the only copy.
    x = x.permute(0, *range(2, 2 + n), 1, *range(2 + n, 2 + 2 * n))
    return x.reshape(-1, math.prod(x.shape[1 + n :]))


def split_columns(matrix: Tensor, n_blocks: int, grouping: Grouping = "interleaved") -> Tensor:
    """Cut each row of a matrix into ``n_blocks`` rows of one block each.

    The published layer estimates one covariance for all blocks, by treating the blocks of a row as
    further rows. ``"interleaved"`` (its convolution) puts column c into block c mod n_blocks;
    ``"contiguous"`` (its linear layer) cuts the columns into consecutive runs.

    Args:
        matrix: shape (..., rows, columns), columns divisible by ``n_blocks``.

    Returns:
        Shape (..., rows * n_blocks, columns / n_blocks).
    """
    *lead, _, columns = matrix.shape
    width = columns // n_blocks
    if grouping == "interleaved":
        matrix = matrix.unflatten(-1, (width, n_blocks)).transpose(-1, -2)
    return matrix.reshape(*lead, -1, width)


def join_columns(matrix: Tensor, n_blocks: int, grouping: Grouping = "interleaved") -> Tensor:
    """Undo :func:`split_columns`: shape (..., rows * n_blocks, width) to (..., rows, n_blocks * width)."""
    matrix = matrix.unflatten(-2, (-1, n_blocks))
    if grouping == "interleaved":
        matrix = matrix.transpose(-1, -2)
    return matrix.flatten(-2)


class _Moments(torch.autograd.Function):
    """Mean and covariance with one matrix product in the backward pass instead of autograd's two.

    With Xc = X - mean, d Cov = (1/N)(dX' Xc + Xc' dX), the mean's own variation dropping out because the
    columns of Xc sum to zero. Hence grad X = (1/N) Xc (G + G') + (1/N) 1 g'.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.mean(-2)
        centred = x - mean.unsqueeze(-2)
        ctx.save_for_backward(centred)
        return mean, centred.mT @ centred / x.shape[-2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_mean: Tensor, grad_cov: Tensor) -> Tensor:
        (centred,) = ctx.saved_tensors
        n = centred.shape[-2]
        return centred @ ((grad_cov + grad_cov.mT) / n) + (grad_mean / n).unsqueeze(-2)


def moments(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Mean row and covariance of the columns: mu = X'1/N and Cov = (X - mu)'(X - mu)/N (divided by N, not N - 1).

    Args:
        matrix: shape (..., N, n), N rows (samples) of n columns.

    Returns:
        mean of shape (..., n) in the units of x, covariance of shape (..., n, n) in their square.

    Raises:
        ValueError: fewer than two rows.
    """
    if matrix.dim() < 2 or matrix.shape[-2] < 2:
        raise ValueError(
            f"a covariance needs at least 2 rows, got a matrix of shape {tuple(matrix.shape)}: "
            "use a larger batch or picture, or a smaller sampling_stride"
        )
    mean, cov = _Moments.apply(matrix)
    return mean, cov


def patch_moments(
    x: Tensor,
    kernel_size: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of all patches of a batch: ``moments(patch_matrix(x, ...))``.

    Arguments as in :func:`patch_matrix`; returns shapes (n,) and (n, n) with n = C * taps.
    """
    return moments(patch_matrix(x, kernel_size, stride=stride, padding=padding, dilation=dilation))


class _InverseSqrtEigh(torch.autograd.Function):
    """Exact inverse square root of a symmetric positive definite matrix, differentiable at repeated eigenvalues.

    With A = V diag(l) V', the derivative of A^(-1/2) along dA is V (F o V' dA V) V', F the divided
    differences of l^(-1/2). Written as -1 / (sqrt(a b) (sqrt(a) + sqrt(b))) they hold for a = b too, where
    the backward pass of ``torch.linalg.eigh`` divides by a - b.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, smallest: float) -> Tensor:
        eigenvalues, v = torch.linalg.eigh(a)
        root = eigenvalues.clamp(min=smallest).sqrt().unsqueeze(-2)
        ctx.save_for_backward(root, v)
        return (v / root) @ v.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        root, v = ctx.saved_tensors
        differences = -1 / (root * root.mT * (root + root.mT))
        return v @ (differences * (v.mT @ ((grad + grad.mT) / 2) @ v)) @ v.mT, None


def inverse_sqrt(cov: Tensor, *, solver: Solver = "newton_schulz", n_iter: int = 5, eps: float = 1e-5) -> Tensor:
    """Inverse square root D of A = Cov + eps I, exact or by ``n_iter`` coupled Newton-Schulz steps.

    ``"newton_schulz"``, the published solver, starts from Y = A / ||A||_F and Z = I and repeats
    T = (3 I - Z Y) / 2, Y <- Y T, Z <- T Z; then D = Z / sqrt(||A||_F). Few steps give a soft spectral
    filter rather than the root: see :func:`newton_schulz_response`. ``"eigh"`` gives the exact root.

    Args:
        cov: symmetric positive semi-definite, shape (..., n, n).
        n_iter: Newton-Schulz steps; not used by ``"eigh"``.
        eps: added to the diagonal, in the units of ``cov``.

    Returns:
        D of shape (..., n, n), symmetric, in units of 1 / sqrt(cov). Gradients flow through every step.

    Raises:
        ValueError: unknown solver, n_iter < 1, eps < 0, or a matrix that has no inverse root because it is
            zero (Newton-Schulz) or singular (eigh) with eps = 0. On a CUDA device the last is not checked,
            so that nothing waits for the device; the result is then not finite.
    """
    if solver not in get_args(Solver):
        raise ValueError(f"solver must be one of {get_args(Solver)}, got {solver!r}")
    if n_iter < 1:
        raise ValueError(f"n_iter must be at least 1, got {n_iter}")
    if eps < 0:
        raise ValueError(f"eps must not be negative, got {eps}")
    eye = torch.eye(cov.shape[-1], dtype=cov.dtype, device=cov.device)
    a = cov + eps * eye
    if eps == 0 and a.device.type == "cpu":
        _check_invertible(a, solver)

    if solver == "eigh":
        root: Tensor = _InverseSqrtEigh.apply(a, eps)
        return root
    norm = torch.linalg.matrix_norm(a, keepdim=True)
    y = a / norm
    z = t = 1.5 * eye - 0.5 * y  # the first step from Z = I
    for _ in range(n_iter - 1):
        y = y @ t
        t = 1.5 * eye - 0.5 * z @ y
        z = t @ z
    return z / norm.sqrt()


def _check_invertible(a: Tensor, solver: str) -> None:
    with torch.no_grad():
        if solver == "eigh":
            eigenvalues = torch.linalg.eigvalsh(a)
            threshold = eigenvalues[..., -1] * a.shape[-1] * torch.finfo(a.dtype).eps
            broken = bool((eigenvalues[..., 0] <= threshold).any())
        else:
            broken = bool((torch.linalg.matrix_norm(a) == 0).any())
    if broken:
        raise ValueError(
            f"the covariance is {'singular' if solver == 'eigh' else 'zero (a constant input)'} and eps is 0: "
            "there is no inverse square root; pass eps > 0, such as 1e-5"
        )


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
    """
    norm = torch.linalg.vector_norm(eigenvalues, dim=-1, keepdim=True)
    y = eigenvalues / norm
    z = torch.ones_like(y)
    for _ in range(n_iter):
        t = 1.5 - 0.5 * z * y
        y = y * t
        z = t * z
    return z / norm.sqrt()


def whiteness(cov: Tensor) -> Tensor:
    """How near a covariance is to a multiple of the identity: (tr Cov)^2 / (n tr Cov^2), between 1/n and 1.

    It is 1 if and only if all eigenvalues are equal, and 1/n if a single one is left; the scale of the data
    does not matter. John's statistic for the test of sphericity (Biometrika 58, 1971) is 1/whiteness - 1.

    Args:
        cov: symmetric positive semi-definite and not zero, shape (..., n, n).

    Returns:
        Shape (...), without unit.
    """
    trace = cov.diagonal(dim1=-2, dim2=-1).sum(-1)
    return trace**2 / (cov.shape[-1] * cov.square().sum((-2, -1)))


def fold(
    weight: Tensor,
    bias: Tensor | None,
    mean: Tensor,
    deconv: Tensor,
    *,
    n_blocks: int = 1,
    grouping: Grouping = "interleaved",
) -> tuple[Tensor, Tensor]:
    """Whitening and weights as one linear map: (x - mu) D w + b = x (D w) + (b - mu' D w).

    Args:
        weight: shape (out, in, *kernel); with g channel groups, ``in`` counts the channels of one group.
        bias: shape (out,), or None for none.
        mean: shape (g, n): one mean per channel group, shared by its blocks.
        deconv: shape (g, n, n), symmetric.
        n_blocks, grouping: how the columns of one channel group are cut, see :func:`split_columns`.

    Returns:
        weight and bias of the plain layer that does the same to every full patch, shapes as given.
    """
    rows = weight.reshape(deconv.shape[0], -1, n_blocks * deconv.shape[-1])
    rows = split_columns(rows, n_blocks, grouping) @ deconv
    shift = (rows @ mean.unsqueeze(-1)).reshape(weight.shape[0], n_blocks).sum(1)
    weight = join_columns(rows, n_blocks, grouping).reshape(weight.shape)
    return weight, -shift if bias is None else bias - shift
