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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._core.patches import Grouping, Patches, cut, into_blocks, on_cpu, out_of_blocks, paste, plain_patches
from ._core.patches import join_columns as join_columns
from ._core.patches import patch_matrix as patch_matrix
from ._core.patches import split_columns as split_columns

Solver = Literal["newton_schulz", "eigh", "polar"]

# The product of torch.compile on processors. On some it takes half the time of torch.matmul's, and the same elsewhere.
ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")
IN_CACHE = 2**20  # numbers of a piece of the patch matrix on a CPU: 4 MB
EIGH_FROM = 64  # columns from which on a CPU takes steps by eigenvalues rather than by matrix products


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in float32 proper: TF32 keeps 10 bits, in which eps = 1e-5 beside a variance of 1 is lost.

    It has no gradient: the functions below that call it have their own.
    """
    # A compiled graph has no memory of a setting that held while it was made, but it calls operators of its own as they
    # are. Elsewhere such a call would cost as much as a small product.
    return _opaque_product(a, b) if torch.compiler.is_compiling() else _product(a, b)


def add_product(onto: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """onto + scale * a @ b in float32 proper, shapes (batch, n, n), in one launch; ``onto`` may be overwritten."""
    if torch.compiler.is_compiling():
        return onto + scale * _opaque_product(a, b)
    with _full_precision():
        return onto.baddbmm_(a, b, alpha=scale)


@contextmanager
def _full_precision() -> Iterator[None]:
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:  # somebody has set it for a backend, PyTorch's newer way, which cannot be mixed with this one
        with _full_precision_of_backends():
            yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)


@contextmanager
def _full_precision_of_backends() -> Iterator[None]:
    backends: Any = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def _product(a: Tensor, b: Tensor) -> Tensor:
    by_onednn = ONEDNN and a.device.type == "cpu" and a.dtype == b.dtype == torch.float32
    with _full_precision():
        if not by_onednn or a.shape[:-2].numel() > 1 or b.shape[:-2].numel() > 1:
            return a @ b
        # The operator copies a transposed matrix with one thread, where a stack of one is copied with all.
        rows, columns = a[None].contiguous().view(a.shape[-2:]), b.mT.reshape(b.shape[-1], b.shape[-2])
        return torch.ops.mkldnn._linear_pointwise(rows, columns, None, "none", [], "").view(*a.shape[:-1], b.shape[-1])


_opaque_product = torch.library.custom_op("ndlib::product", _product, mutates_args=())
_opaque_product.register_fake(torch.matmul)


class _Moments(torch.autograd.Function):
    """Mean and covariance of the rows of :func:`.patch_samples`, some images at a time.

    Those of all N rows follow from those of the pieces, n_i rows with mean mu_i and covariance Cov_i:

        mu = sum n_i mu_i / N,   Cov = sum n_i (Cov_i + (mu_i - mu)(mu_i - mu)') / N.

    With Xc = X - mu, d Cov = (1/N)(dX' Xc + Xc' dX), the mean's own variation dropping out because the columns of Xc
    sum to zero. Hence grad X = (1/N) Xc (G + G') + (1/N) 1 g', one matrix product instead of autograd's two.

    What is kept for it is the batch, which the layer keeps anyway, and not the patches: they are cut out anew. On a CPU
    that is even the faster way, for a piece that stays in the cache is sooner cut out than the whole is fetched.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, patches: Patches, pooled: bool, at_a_time: int) -> tuple[Tensor, Tensor]:
        counts, means, scatters = [], [], []
        for piece in x.split(at_a_time):
            rows = _samples(cut(piece, patches), pooled)
            counts.append(rows.shape[-2])
            means.append(rows.mean(-2))
            centred = rows - means[-1].unsqueeze(-2)
            scatters.append(product(centred.mT, centred))
        n, mean, scatter = sum(counts), means[0], scatters[0]
        if len(means) > 1:
            weights, each = mean.new_tensor(counts).unsqueeze(-1), torch.stack(means, -2)
            mean = (weights * each).sum(-2) / n
            apart = each - mean.unsqueeze(-2)
            scatter = sum(scatters, product(apart.mT, weights * apart))
        ctx.save_for_backward(x, mean)
        ctx.patches, ctx.pooled, ctx.at_a_time, ctx.n = patches, pooled, at_a_time, n
        return mean, scatter / n

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_mean: Tensor, grad_cov: Tensor) -> tuple[Tensor, None, None, None]:
        x, mean = ctx.saved_tensors
        patches, pooled = ctx.patches, ctx.pooled
        through, constant = (grad_cov + grad_cov.mT) / ctx.n, (grad_mean / ctx.n).unsqueeze(-2)
        grad = torch.empty_like(x)
        for piece, onto in zip(x.split(ctx.at_a_time), grad.split(ctx.at_a_time), strict=True):
            cut_out = cut(piece, patches)
            new = product(_samples(cut_out, pooled) - mean.unsqueeze(-2), through) + constant
            new = new.unflatten(2, (-1, patches.blocks)).squeeze(1) if pooled else new.transpose(1, 2)
            paste(new.transpose(0, 1), onto, patches)
        return grad, None, None, None


def _samples(cut_out: Tensor, pooled: bool) -> Tensor:
    """What :func:`.cut` returns as shape (groups, 1 or blocks, samples, n), in float32 at least."""
    samples = cut_out.transpose(0, 1).to(torch.promote_types(cut_out.dtype, torch.float32))
    return samples.flatten(1, 2).unsqueeze(1) if pooled else samples.transpose(1, 2)


def sample_moments(x: Tensor, patches: Patches, *, pooled: bool = True) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the rows of :func:`.patch_samples`, in float32 at least.

    Args:
        pooled: whether the rows of all blocks of a group are taken together.

    Returns:
        Mean of shape (groups, 1 or blocks, n) and covariance (groups, 1 or blocks, n, n).

    Raises:
        ValueError: fewer than two rows, or a padded picture smaller than the kernel.
    """
    rows = patches.rows(x) * (patches.blocks if pooled else 1)
    if rows < 2:
        raise ValueError(
            f"a covariance needs at least 2 rows, got {rows}: use a larger batch or picture, or a smaller "
            "sampling_stride"
        )
    at_a_time = len(x)
    if on_cpu(x):
        numbers = patches.rows(x[:1]) * x.shape[1] * math.prod(patches.kernel_size)
        at_a_time = max(1, IN_CACHE // numbers)
    return _Moments.apply(x, patches, pooled, at_a_time)


def moments(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Mean row and covariance of the columns: mu = X'1/N and Cov = (X - mu)'(X - mu)/N (divided by N, not N - 1).

    Args:
        matrix: shape (..., N, n), N rows (samples) of n columns.

    Returns:
        mean of shape (..., n) in the units of x, covariance of shape (..., n, n) in their square.

    Raises:
        ValueError: fewer than two rows, or no rows and columns at all.
    """
    if matrix.dim() < 2:
        raise ValueError(f"a matrix must have shape (..., N, n), got shape {tuple(matrix.shape)}")
    *batch, rows, columns = matrix.shape
    side_by_side = matrix.reshape(-1, rows, columns).transpose(0, 1).flatten(1)
    mean, cov = sample_moments(side_by_side, Patches(groups=math.prod(batch)))
    return mean.view(*batch, columns), cov.view(*batch, columns, columns)


def patch_moments(
    x: Tensor,
    kernel_size: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of all patches of a batch: ``moments(patch_matrix(x, ...))``.

    Arguments as in :func:`.patch_matrix`; returns shapes (n,) and (n, n) with n = C * taps.
    """
    mean, cov = sample_moments(x, plain_patches(x, kernel_size, stride, padding, dilation))
    return mean[0, 0], cov[0, 0]


Steps = list[tuple[float, float]]  # pairs (a, b), one for each step


def _scalar_iteration(x: Tensor, steps: Steps) -> Tensor:
    """What the coupled iteration below does to an eigenvalue x of Y: z <- z (a - b x z^2) from z = 1."""
    z = torch.ones_like(x)
    for a, b in steps:
        z = z * (a - b * x * z * z)
    return z


class _RootByEigh(torch.autograd.Function):
    """Inverse square root through one eigendecomposition A = V diag(l) V', exact or as a number of steps give it.

    D = f(A) = V diag(f(l)) V', and the derivative along dA is V (F o V' dA V) V' with F the divided differences
    F_ij = (f(l_i) - f(l_j)) / (l_i - l_j), which are symmetric, so that the gradient has the same form. The
    backward pass of ``torch.linalg.eigh`` divides by l_i - l_j; here nothing does, and repeated eigenvalues are
    harmless: for the exact root F_ij = -1 / (r_i r_j (r_i + r_j)) with r = sqrt(l), and for the steps F follows a
    recursion of its own (:meth:`_differences`).

    On a CPU this takes less than half the time of the steps' matrix products and their backward pass, and it is more
    exact. On a GPU an eigendecomposition is slow.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, steps: Steps | None, smallest: float) -> Tensor:
        eigenvalues, v = torch.linalg.eigh(a)
        eigenvalues = eigenvalues.clamp(min=smallest)
        if steps is None:
            gains = eigenvalues.rsqrt()
        else:
            norm = torch.linalg.vector_norm(eigenvalues, dim=-1, keepdim=True)
            gains = _scalar_iteration(eigenvalues / norm, steps) / norm.sqrt()
        ctx.save_for_backward(eigenvalues, gains, v)
        ctx.steps = steps
        return product(v * gains.unsqueeze(-2), v.mT)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        eigenvalues, gains, v = ctx.saved_tensors
        inner = product(product(v.mT, grad), v)
        if ctx.steps is None:
            root = eigenvalues.sqrt().unsqueeze(-2)
            inner = inner / (-root * root.mT * (root + root.mT))
        else:
            diagonal = inner.diagonal(dim1=-2, dim2=-1).clone()
            norm = torch.linalg.vector_norm(eigenvalues, dim=-1, keepdim=True)
            x = eigenvalues / norm
            inner = inner * _RootByEigh._differences(x, ctx.steps) / norm.unsqueeze(-1) ** 1.5
            # D = h(A / c) / sqrt(c), and c = ||A||_F depends on A as well.
            straight = inner.diagonal(dim1=-2, dim2=-1)
            through_norm = (gains * diagonal / 2 + x * norm * straight).sum(-1, keepdim=True) / norm
            straight -= through_norm * x
        return product(product(v, inner), v.mT), None, None

    @staticmethod
    def _differences(x: Tensor, steps: Steps) -> Tensor:
        """Divided differences of :func:`_scalar_iteration` between all pairs of x, shape (..., n, n).

        By the product rule (f g)_ij = f_i g_ij + f_ij g_j, those of t, y and z follow from each other as t, y and z do
        in :class:`_RootByProducts`. (Written for z alone, without y = x z, the recursion would be as unstable as
        the uncoupled iteration is for matrices.)
        """
        y, z = x, torch.ones_like(x)
        dy = torch.ones_like(x).unsqueeze(-1) * z.unsqueeze(-2)
        dz = torch.zeros_like(dy)
        for a, b in steps:
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
    def forward(ctx: Any, a: Tensor, steps: Steps) -> Tensor:
        shape, a = a.shape, a.reshape(-1, *a.shape[-2:])
        norm = torch.linalg.matrix_norm(a, keepdim=True)
        eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device).expand_as(a)
        ys, zs, ts = [a / norm], [eye], []
        for step, (p, q) in enumerate(steps):
            ts.append(add_product(p * eye, zs[-1], ys[-1], -q) if step else p * eye - q * ys[0])
            if step < len(steps) - 1:
                ys.append(product(ys[-1], ts[-1]))
            zs.append(product(ts[-1], zs[-1]) if step else ts[-1])
        ctx.save_for_backward(norm, *ys, *zs, *ts)
        ctx.steps = steps
        return (zs[-1] / norm.sqrt()).view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        norm, *saved = ctx.saved_tensors
        n = len(ctx.steps)
        ys, zs, ts = saved[:n], saved[n : 2 * n + 1], saved[2 * n + 1 :]
        grad_z = grad.reshape(zs[0].shape) / norm.sqrt()
        through_norm = (grad_z * zs[-1]).sum((-2, -1), keepdim=True) / 2
        grad_y = None
        for step in reversed(range(n)):
            y, z, t = ys[step], zs[step], ts[step]
            q = ctx.steps[step][1]
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


POLAR_SMALLEST = 1e-3  # square root of the smallest eigenvalue, relative to the norm, that "polar" is made for


def polar_coefficients(n_iter: int, smallest: float = POLAR_SMALLEST) -> Steps:
    """Pairs (a, b) of the cubic steps x <- a x - b x^3 that bring the interval [smallest, 1] nearest to 1.

    With [l, u] the interval reached so far, the cubic whose largest deviation from 1 on it is smallest has equal
    errors at l, at its maximum and at u: a = b (l^2 + l u + u^2), and b such that p(l) + p(sqrt(a / (3 b))) = 2.

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


def inverse_sqrt(cov: Tensor, *, solver: Solver = "newton_schulz", n_iter: int = 5, eps: float = 1e-5) -> Tensor:
    """Inverse square root D of A = Cov + eps I, exact or by ``n_iter`` steps of a coupled iteration.

    ``"newton_schulz"``, the published solver, starts from Y = A / ||A||_F and Z = I and repeats
    T = (3 I - Z Y) / 2, Y <- Y T, Z <- T Z; then D = Z / sqrt(||A||_F). Few steps give a soft spectral
    filter rather than the root: see :func:`newton_schulz_response`. ``"polar"`` replaces the 3/2 and 1/2 by
    the pair that is optimal for each step (:func:`polar_coefficients`): weak directions, down to a millionth of
    the norm, rise by 2.6 a step instead of 1.5, and in exchange strong ones are exact only at the end; take
    ten steps or more. ``"eigh"`` gives the exact root by an eigendecomposition.

    The first two name the filter that is applied, not the arithmetic. On a CPU, from n = 64 on, the same result and
    the same gradient come from one eigendecomposition and scalars, which is faster and more exact than the steps.

    Args:
        cov: symmetric positive semi-definite, shape (..., n, n).
        n_iter: steps; not used by ``"eigh"``.
        eps: added to the diagonal, in the units of ``cov``.

    Returns:
        D of shape (..., n, n), symmetric, in units of 1 / sqrt(cov). Gradients flow through every step.

    Raises:
        ValueError: unknown solver, n_iter < 1, eps < 0, or a matrix that has no inverse root because it is
            zero (iterations) or singular (eigh) with eps = 0. On a CUDA device and in a compiled graph the last is
            not checked, so that nothing waits for the device; the result is then not finite.
    """
    if solver not in get_args(Solver):
        raise ValueError(f"solver must be one of {get_args(Solver)}, got {solver!r}")
    if n_iter < 1:
        raise ValueError(f"n_iter must be at least 1, got {n_iter}")
    if not eps >= 0:  # nor NaN
        raise ValueError(f"eps must not be negative, got {eps}")
    a = cov + eps * torch.eye(cov.shape[-1], dtype=cov.dtype, device=cov.device)
    if eps == 0 and a.device.type == "cpu" and not torch.compiler.is_compiling():
        _check_invertible(a, solver)
    if solver == "eigh":
        return _RootByEigh.apply(a, None, eps)
    steps = polar_coefficients(n_iter) if solver == "polar" else [(1.5, 0.5)] * n_iter
    if a.device.type == "cpu" and a.shape[-1] >= EIGH_FROM:
        return _RootByEigh.apply(a, steps, eps)
    return _RootByProducts.apply(a, steps)


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
    return _scalar_iteration(eigenvalues / norm, [(1.5, 0.5)] * n_iter) / norm.sqrt()


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


class _Fold(torch.autograd.Function):
    """The weights times the root, W D, with all blocks in one product, and W D mu.

    A filter is a row like those of the patches, and cut into blocks as they are. With G and g the gradients of the two,
    those of W, mu and D are (G + g mu') D', D' W' g and W' (G + g mu').
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, mean: Tensor, deconv: Tensor, patches: Patches) -> tuple[Tensor, Tensor]:
        rows = product(_filters(weight, deconv, patches), deconv)
        shift = product(rows.view(len(deconv), -1, patches.blocks * rows.shape[-1]), _means(mean, patches).mT)
        return _unfilters(rows, weight, patches), shift.flatten()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Patches], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.patches = inputs[3]

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_weight: Tensor, grad_shift: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        weight, mean, deconv = ctx.saved_tensors
        patches, (of_weight, of_mean, of_deconv, _) = ctx.patches, ctx.needs_input_grad
        by_filter, grad_shift = (len(deconv), len(weight) // len(deconv), -1), grad_shift.view(len(deconv), -1, 1)
        grad = _filters(grad_weight, deconv, patches)
        grad = torch.addcmul(grad.view(by_filter), grad_shift, _means(mean, patches)).view_as(grad)
        new_weight = _unfilters(product(grad, deconv.mT), weight, patches) if of_weight else None
        if not (of_mean or of_deconv):  # where the running averages serve
            return new_weight, None, None, None
        rows = _filters(weight, deconv, patches)
        of_blocks = product(grad_shift.mT, rows.view(by_filter)).view(len(deconv), patches.blocks, -1)
        new_mean = product(of_blocks if mean.shape[1] > 1 else of_blocks.sum(1, keepdim=True), deconv)
        return new_weight, new_mean, product(rows.mT, grad) if of_deconv else None, None


def _means(mean: Tensor, patches: Patches) -> Tensor:
    """The mean of a whole filter, shape (groups, 1, blocks * n), whether or not the blocks share theirs."""
    return mean.expand(-1, patches.blocks, -1).flatten(1).unsqueeze(1)


def _filters(weight: Tensor, deconv: Tensor, patches: Patches) -> Tensor:
    """The blocks of all filters as rows, shape (groups, filters * blocks, n)."""
    return into_blocks(weight.movedim(1, -1), patches).reshape(len(deconv), -1, deconv.shape[-1])


def _unfilters(rows: Tensor, like: Tensor, patches: Patches) -> Tensor:
    """Undo :func:`_filters`."""
    samples = rows.view(len(like), 1, patches.blocks, -1)
    return out_of_blocks(samples, (*like.shape[2:], like.shape[1]), patches).movedim(-1, 1)


def fold_weights(
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
        weight: shape ``(out, in, *kernel)``; with g channel groups, ``in`` counts the channels of one group.
        bias: shape (out,), or None for none.
        mean: shape (g, n), one mean for each channel group, shared by its blocks, or (g, n_blocks, n).
        deconv: shape (g, n, n), symmetric.
        n_blocks, grouping: how the columns of one channel group are cut, see :func:`.split_columns`.

    Returns:
        weight and bias of the plain layer that does the same to every full patch, shapes as given.
    """
    groups, n = deconv.shape[:2]
    patches = Patches(tuple(weight.shape[2:]), blocks=n_blocks, grouping=grouping)
    folded, shift = _Fold.apply(weight, mean.reshape(groups, -1, n), deconv, patches)
    return folded, -shift if bias is None else bias - shift
