"""Check the answers to the exercises of the book."""

from __future__ import annotations

from typing import Any

import torch


def check(answer: Any, solution: Any, *, tolerance: float = 1e-6) -> None:
    """Print whether an answer, a number or an array, equals the solution up to a relative error.

    ``None`` stands for an exercise that nobody has answered yet. An answer of the wrong shape is told apart
    from a wrong value, so that a transposed result can be recognised.
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
