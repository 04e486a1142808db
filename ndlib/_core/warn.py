"""Warnings that point at the line of the user's code."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import torch

# Code between the user and the warning: this package, and torch, which calls the forward pass of a layer.
_BETWEEN = tuple(f"{folder}{os.sep}" for folder in (Path(__file__).parents[1], Path(torch.__file__).parent))


def warn(message: str) -> None:
    """Warn at the innermost line that stands neither in this package nor in torch, however deep the call is."""
    level, frame = 1, sys._getframe()
    while frame.f_code.co_filename.startswith(_BETWEEN) and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
