"""Mean and covariance of the patches of a batch, a few pictures at a time, with a gradient of their own."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .patches import Patches, cut, paste
from .products import backward_pass, product

__all__ = ["sample_moments"]

IN_CACHE = 2**20  # numbers of a piece of the patch matrix on a CPU: 4 MB


def sample_moments(x: Tensor, patches: Patches, rows: int, *, pooled: bool = True) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the rows of :func:`.patch_samples`, in float32 at least.

    Args:
        rows: how many patches ``x`` has, :func:`.count_rows`.
        pooled: whether the rows of all blocks of a group are taken together.

    Returns:
        Mean of shape (groups, 1 or blocks, n) and covariance (groups, 1 or blocks, n, n).

    Raises:
        ValueError: fewer than two rows.
    """
    samples = rows * patches.blocks if pooled else rows
    if samples < 2:
        raise ValueError(
            f"a covariance needs at least 2 rows, got {samples}: use a larger batch or picture, or a smaller "
            "sampling_stride"
        )
    at_a_time = len(x)
    if x.is_cpu and not torch.compiler.is_compiling():
        numbers = rows // len(x) * x.shape[1] * math.prod(patches.kernel_size)
        at_a_time = max(1, IN_CACHE // numbers)
    return _Moments.apply(x, patches, pooled, at_a_time)


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
    @backward_pass
    def backward(ctx: Any, grad_mean: Tensor, grad_cov: Tensor) -> tuple[Tensor, None, None, None]:
        x, mean = ctx.saved_tensors
        patches, pooled = ctx.patches, ctx.pooled
        through, constant = (grad_cov + grad_cov.mT) / ctx.n, (grad_mean / ctx.n).unsqueeze(-2)
        grad = torch.empty_like(x)
        for piece, onto in zip(x.split(ctx.at_a_time), grad.split(ctx.at_a_time), strict=True):
            new = product(_samples(cut(piece, patches), pooled) - mean.unsqueeze(-2), through) + constant
            new = new.unflatten(2, (-1, patches.blocks)).squeeze(1) if pooled else new.transpose(1, 2)
            paste(new.transpose(0, 1), onto, patches)
        return grad, None, None, None


def _samples(cut_out: Tensor, pooled: bool) -> Tensor:
    """What :func:`.cut` returns as shape (groups, 1 or blocks, samples, n), in float32 at least."""
    samples = cut_out.transpose(0, 1).to(torch.promote_types(cut_out.dtype, torch.float32))
    return samples.flatten(1, 2).unsqueeze(1) if pooled else samples.transpose(1, 2)
