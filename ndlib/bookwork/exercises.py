"""Check the answers to the exercises of the book."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["check"]


def check(answer: Any, solution: Any, *, tolerance: float = 1e-6) -> None:
    """Print whether an answer equals the solution.

    An answer of another shape than the solution is told apart from one with other values, so that a transposed result
    can be recognised.

    Args:
        answer: a number, a list or an array; None if the exercise has not been answered yet.
        solution: the same.
        tolerance: largest relative error ||answer - solution|| / ||solution|| that counts as right.

    >>> check([1.0, 2.0], torch.tensor([1.0, 2.0]))
    Right.
    >>> check([1.0, 2.5], [1.0, 2.0])
    Not yet: the relative error is 0.22.
    >>> check(None, 3)
    Not answered yet.
    """
    if answer is None:
        print("Not answered yet.")
        return
    given, wanted = (torch.as_tensor(value, dtype=torch.float64) for value in (answer, solution))
    if given.shape != wanted.shape:
        print(f"Not yet: the answer has shape {tuple(given.shape)}, the solution {tuple(wanted.shape)}.")
        return
    error = float((given - wanted).norm() / wanted.norm().clamp_min(1e-300))
    print("Right." if error <= tolerance else f"Not yet: the relative error is {error:.2g}.")
