"""Measures of sparsity of any tensor: how unequal its magnitudes are."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["hoyer", "kurtosis", "l1_l2"]


def l1_l2(x: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """||x||_1 / (sqrt(n) ||x||_2) over n elements: 1 if all magnitudes are equal, 1/sqrt(n) if one is left.

    Args:
        x: any real tensor, any unit.
        dim: dimensions to measure over; None takes all elements.

    Returns:
        Without unit, of the shape of ``x`` less ``dim``; NaN where every element is 0.

    >>> l1_l2(torch.tensor([[2.0, -2, 2, -2], [0, 0, -3, 0]]), dim=1).tolist()
    [1.0, 0.5]
    """
    dims = _dims(x, dim)
    n = _count(x, dims)
    return torch.linalg.vector_norm(x, 1, dims) / (math.sqrt(n) * torch.linalg.vector_norm(x, 2, dims))


def hoyer(x: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """Hoyer's sparseness (sqrt(n) - ||x||_1 / ||x||_2) / (sqrt(n) - 1), from 0 (all magnitudes equal) to 1 (one left).

    Arguments and result as in :func:`l1_l2`; it needs at least two elements. Gaussian noise has about 0.2.

    Source: Hoyer, Non-negative Matrix Factorization with Sparseness Constraints, JMLR 5, 2004.

    Raises:
        ValueError: fewer than two elements.

    >>> hoyer(torch.tensor([[2.0, -2, 2, -2], [0, 0, -3, 0]]), dim=1).tolist()
    [0.0, 1.0]
    """
    dims = _dims(x, dim)
    n = _count(x, dims)
    if n < 2:
        raise ValueError(
            f"sparseness needs at least 2 elements, got {n} over the dimensions {dims} of {tuple(x.shape)}"
        )
    root = math.sqrt(n)
    return root * (1 - l1_l2(x, dims)) / (root - 1)


def kurtosis(x: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """Excess kurtosis E[(x - mu)^4] / (E[(x - mu)^2])^2 - 3 (moments over n): 0 for a Gaussian, above for heavy tails.

    Arguments and result as in :func:`l1_l2`; NaN where all elements are equal.

    >>> kurtosis(torch.tensor([1.0, -1.0])).item()
    -2.0
    """
    dims = _dims(x, dim)
    square = (x - x.mean(dims, keepdim=True)).square()
    return square.square().mean(dims) / square.mean(dims).square() - 3


def _dims(x: Tensor, dim: int | tuple[int, ...] | None) -> tuple[int, ...]:
    return tuple(range(x.dim())) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)


def _count(x: Tensor, dims: tuple[int, ...]) -> int:
    return math.prod(x.shape[d] for d in dims)
