"""What the layers check while they train.

On a CPU a bad value raises at once. On other devices, and in a compiled step, it only leaves a flag that
``check_finite`` reads: to ask at every step would make the host wait for the device, or break the graph.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .warn import warn

__all__ = ["NOT_FINITE", "PLAIN", "check_input", "check_root", "diverged", "warn_of_few_rows"]

PLAIN = (Tensor, nn.Parameter)  # tensors with values; torch's fake tensors, for instance, have none

NOT_FINITE = (
    "{layer}: the input holds NaN or infinite values, or the inverse root diverged; look for a diverging loss "
    "(a lower learning rate helps), bad values in the data, or a larger eps"
)


def check_input(layer: nn.Module, x: Tensor, flag: Tensor) -> None:
    """Raise FloatingPointError, or set the flag, where a batch holds values that are not finite."""
    x = x.detach()
    if x.numel() == 0:
        return  # measuring it fails, and says why
    low, high = torch.aminmax(x if x.is_contiguous() else x.movedim(1, -1))  # it would copy channels last
    finite = (low - low) == (high - high)  # 0 if finite, else NaN, which equals nothing
    if not x.is_cpu or type(x) not in PLAIN or torch.compiler.is_compiling():
        flag.logical_or_(~finite)
    elif not finite:
        raise FloatingPointError(NOT_FINITE.format(layer=layer))


def check_root(layer: nn.Module, cov: Tensor, root: Tensor, eps: float, flag: Tensor) -> None:
    """Raise FloatingPointError, or set the flag, unless a root is finite and no larger than any solver can make it.

    No solver has a gain above 2 / sqrt(eps).
    """
    size = torch.linalg.matrix_norm(root.detach()).amax()
    limit = 2 * math.sqrt(cov.shape[-1] / eps) if eps > 0 else math.inf
    broken = ~(size < limit)  # NaN is not
    if not cov.is_cpu or type(cov) not in PLAIN or torch.compiler.is_compiling():
        flag.logical_or_(broken)
    elif broken:
        raise diverged(layer, cov.detach(), eps)


def diverged(layer: nn.Module, cov: Tensor, eps: float) -> FloatingPointError:
    """Why there is no root of this covariance."""
    if not torch.isfinite(cov).all():  # finite input whose covariance overflows
        return FloatingPointError(NOT_FINITE.format(layer=layer))
    spectrum = torch.linalg.eigvalsh(cov.double()).flatten()
    return FloatingPointError(
        f"{layer}: the inverse root diverged. The covariance has eigenvalues from {spectrum.min():.3g} to "
        f"{spectrum.max():.3g}, eps is {eps:g}; a larger eps, fewer n_iter or "
        'solver="eigh" helps'
    )


def warn_of_few_rows(layer: nn.Module, rows: int, columns: int) -> None:
    """Warn of a covariance that rests on eps."""
    warn(
        f"{layer}: {rows} rows for a covariance of {columns} columns, which is therefore singular and "
        "rests on eps; a larger batch, a smaller block_size or a smaller sampling_stride helps"
    )
