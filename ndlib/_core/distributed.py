"""Moments over several processes, as if one process had the whole batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Sum(torch.autograd.Function):
    """Sum over the processes of a group; as every process uses the sum, gradients are summed as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        x = x.clone()
        dist.all_reduce(x, group=group)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        grad = grad.clone()
        dist.all_reduce(grad, group=ctx.group)
        return grad, None


def synchronise(mean: Tensor, cov: Tensor, rows: int, group: dist.ProcessGroup) -> tuple[Tensor, Tensor]:
    """Moments of the rows of all processes from the moments of each: with n = sum n_i,

        mu = sum n_i mu_i / n,   Cov = sum n_i (Cov_i + (mu_i - mu)(mu_i - mu)') / n.

    Two reductions, the second around the common mean, so that a large mean costs no digits.

    Args:
        mean: shape (..., k); cov: shape (..., k, k); rows: how many samples of this process went into them.
    """
    weighted = torch.cat([mean.flatten() * rows, mean.new_tensor([rows])])
    total = _Sum.apply(weighted, group)
    n = total[-1]
    common = (total[:-1] / n).view_as(mean)
    shift = mean - common
    scatter = cov + shift.unsqueeze(-1) * shift.unsqueeze(-2)
    return common, _Sum.apply(scatter * rows, group) / n


def rows_before(rows: int, group: dist.ProcessGroup | None, device: torch.device) -> tuple[int, int]:
    """How many rows the processes before this one hold, and all of them together; (0, rows) without a group.

    The host needs these numbers, so that on a CUDA device this waits for it.
    """
    if group is None:
        return 0, rows
    counts = [torch.zeros((), dtype=torch.long, device=device) for _ in range(dist.get_world_size(group))]
    dist.all_gather(counts, torch.tensor(rows, device=device), group=group)
    sizes = [int(c) for c in counts]
    return sum(sizes[: dist.get_rank(group)]), sum(sizes)
