"""Inverse square roots of covariances, with gradients of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .options import Solver
from .products import add_product, backward_pass, product

__all__ = ["NEWTON_SCHULZ", "Coefficients", "inverse_root", "polar_coefficients", "scalar_iteration"]

EIGH_FROM = 64  # columns from which on a CPU takes steps by eigenvalues rather than by matrix products
POLAR_SMALLEST = 1e-3  # square root of the smallest eigenvalue, relative to the norm, that "polar" is made for

Coefficients = list[tuple[float, float]]  # pairs (a, b), one for each step
NEWTON_SCHULZ = (1.5, 0.5)


def inverse_root(cov: Tensor, solver: Solver, n_iter: int, eps: float) -> Tensor:
    """The root that :func:`ndlib.functional.inverse_sqrt` describes, for arguments that have been checked."""
    a = cov + eps * torch.eye(cov.shape[-1], dtype=cov.dtype, device=cov.device)
    if eps == 0 and a.is_cpu and type(a) is Tensor and not torch.compiler.is_compiling():
        _check_invertible(a, solver)
    if solver == "eigh":
        return _RootByEigh.apply(a, None, eps)
    coefficients = polar_coefficients(n_iter) if solver == "polar" else [NEWTON_SCHULZ] * n_iter
    # An exported program keeps the operators alone, and torch's gradient of eigh divides by differences of eigenvalues.
    if a.device.type == "cpu" and a.shape[-1] >= EIGH_FROM and not torch.compiler.is_exporting():
        return _RootByEigh.apply(a, coefficients, eps)
    return _RootByProducts.apply(a, coefficients)


def _check_invertible(a: Tensor, solver: Solver) -> None:
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


def polar_coefficients(n_iter: int, smallest: float = POLAR_SMALLEST) -> Coefficients:
    """Pairs (a, b) of the cubic steps x <- a x - b x^3 that bring the interval [smallest, 1] nearest to 1.

    With [l, u] the interval reached so far, the cubic whose largest deviation from 1 on it is smallest has equal
    errors at l, at its maximum and at u: a = b (l^2 + l u + u^2), and b such that p(l) + p(sqrt(a / (3 b))) = 2.

    Args:
        n_iter: how many steps.
        smallest: lower end of the interval, relative to the upper one.

    >>> x = 0.01
    >>> for a, b in polar_coefficients(12):
    ...     x = a * x - b * x**3
    >>> round(x, 3)
    1.0

    Source: Grishina, Smirnov and Rakhuba, Accelerating Newton-Schulz Iteration for Orthogonalization via
    Chebyshev-type Polynomials (arXiv 2506.10935), where the interval is that of the singular values.
    """
    low, high = smallest, 1.0
    pairs = []
    for _ in range(n_iter):
        q = low * low + low * high + high * high
        b = 2 / (2 * (q / 3) ** 1.5 + low * (q - low * low))
        a = b * q
        pairs.append((a, b))
        low = a * low - b * low**3
        high = 2 - low
    return pairs


def scalar_iteration(x: Tensor, coefficients: Coefficients) -> Tensor:
    """What the coupled iteration of :class:`_RootByProducts` does to an eigenvalue x of Y: z <- z (a - b x z^2), z = 1
    at first.
    """
    z = torch.ones_like(x)
    for a, b in coefficients:
        z = z * (a - b * x * z * z)
    return z


class _RootByEigh(torch.autograd.Function):
    """Inverse square root through one eigendecomposition A = V diag(l) V', exact or as a number of steps give it.

    D = f(A) = V diag(f(l)) V', and the derivative along dA is V (F o V' dA V) V' with F the divided differences
    F_ij = (f(l_i) - f(l_j)) / (l_i - l_j), which are symmetric, so that the gradient has the same form. The
    backward pass of ``torch.linalg.eigh`` divides by l_i - l_j; here nothing does, and repeated eigenvalues are
    harmless: for the exact root F_ij = -1 / (r_i r_j (r_i + r_j)) with r = sqrt(l), and for the steps F follows a
    recursion of its own (:func:`_differences`).

    On a CPU this takes less than half the time of the steps' matrix products and their backward pass, and it is more
    exact. On a GPU an eigendecomposition is slow.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, coefficients: Coefficients | None, smallest: float) -> Tensor:
        eigenvalues, v = torch.linalg.eigh(a)
        eigenvalues = eigenvalues.clamp(min=smallest)
        if coefficients is None:
            gains = eigenvalues.rsqrt()
        else:
            norm = torch.linalg.vector_norm(eigenvalues, dim=-1, keepdim=True)
            gains = scalar_iteration(eigenvalues / norm, coefficients) / norm.sqrt()
        ctx.save_for_backward(eigenvalues, gains, v)
        ctx.coefficients = coefficients
        return product(v * gains.unsqueeze(-2), v.mT)

    @staticmethod
    @backward_pass
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        eigenvalues, gains, v = ctx.saved_tensors
        inner = product(product(v.mT, grad), v)
        if ctx.coefficients is None:
            root = eigenvalues.sqrt().unsqueeze(-2)
            inner = inner / (-root * root.mT * (root + root.mT))
        else:
            diagonal = inner.diagonal(dim1=-2, dim2=-1).clone()
            norm = torch.linalg.vector_norm(eigenvalues, dim=-1, keepdim=True)
            x = eigenvalues / norm
            inner = inner * _differences(x, ctx.coefficients) / norm.unsqueeze(-1) ** 1.5
            # D = h(A / c) / sqrt(c), and c = ||A||_F depends on A as well.
            straight = inner.diagonal(dim1=-2, dim2=-1)
            through_norm = (gains * diagonal / 2 + x * norm * straight).sum(-1, keepdim=True) / norm
            straight -= through_norm * x
        return product(product(v, inner), v.mT), None, None


def _differences(x: Tensor, coefficients: Coefficients) -> Tensor:
    """Divided differences of :func:`scalar_iteration` between all pairs of x, shape (..., n, n).

    By the product rule (f g)_ij = f_i g_ij + f_ij g_j, those of t, y and z follow from each other as t, y and z do
    in :class:`_RootByProducts`. (Written for z alone, without y = x z, the recursion would be as unstable as
    the uncoupled iteration is for matrices.)
    """
    y, z = x, torch.ones_like(x)
    dy = torch.ones_like(x).unsqueeze(-1) * z.unsqueeze(-2)
    dz = torch.zeros_like(dy)
    for a, b in coefficients:
        t = a - b * z * y
        dt = (dy * (-b * z).unsqueeze(-1)).addcmul_(dz, (-b * y).unsqueeze(-2))
        dy.mul_(t.unsqueeze(-2)).addcmul_(dt, y.unsqueeze(-1))
        dz.mul_(t.unsqueeze(-1)).addcmul_(dt, z.unsqueeze(-2))
        y, z = y * t, t * z
    return dz


class _RootByProducts(torch.autograd.Function):
    """Z / sqrt(c) after the steps T = a I - b Z Y, Y <- Y T, Z <- T Z from Y = A / c, Z = I, for pairs (a, b).

    c is the Frobenius norm of A. Nothing is computed that is not used: the first step needs no product with Z = I, the
    last no new Y. The backward pass is the chain rule through the same products, each of which takes the sum that it
    is a term of with it: on a GPU matrices this small cost less to multiply than to launch.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, coefficients: Coefficients) -> Tensor:
        shape, a = a.shape, a.reshape(-1, *a.shape[-2:])
        norm = torch.linalg.matrix_norm(a, keepdim=True)
        eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device).expand_as(a)
        ys, zs, ts = [a / norm], [eye], []
        for step, (p, q) in enumerate(coefficients):
            ts.append(add_product(p * eye, zs[-1], ys[-1], -q) if step else p * eye - q * ys[0])
            if step < len(coefficients) - 1:
                ys.append(product(ys[-1], ts[-1]))
            zs.append(product(ts[-1], zs[-1]) if step else ts[-1])
        ctx.save_for_backward(norm, *ys, *zs, *ts)
        ctx.coefficients = coefficients
        return (zs[-1] / norm.sqrt()).view(shape)

    @staticmethod
    @backward_pass
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        norm, *saved = ctx.saved_tensors
        n = len(ctx.coefficients)
        ys, zs, ts = saved[:n], saved[n : 2 * n + 1], saved[2 * n + 1 :]
        grad_z = grad.reshape(zs[0].shape) / norm.sqrt()
        through_norm = (grad_z * zs[-1]).sum((-2, -1), keepdim=True) / 2
        grad_y = None
        for step in reversed(range(n)):
            y, z, t = ys[step], zs[step], ts[step]
            q = ctx.coefficients[step][1]
            grad_t = product(grad_z, z.mT) if step else grad_z
            if grad_y is not None:
                grad_t = add_product(grad_t, y.mT, grad_y, 1)
                grad_y = product(grad_y, t.mT)
            else:
                grad_y = torch.zeros_like(y)
            grad_y = add_product(grad_y, z.mT, grad_t, -q) if step else grad_y - q * grad_t
            if step:
                grad_z = add_product(product(t.mT, grad_z), grad_t, y.mT, -q)
        assert grad_y is not None
        through_norm = through_norm + (grad_y * ys[0]).sum((-2, -1), keepdim=True)
        return ((grad_y - through_norm * ys[0]) / norm).view(grad.shape), None
