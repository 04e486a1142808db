"""Network deconvolution for PyTorch: whiten the input of every layer by the inverse root of its patch covariance.

    from ndlib import DeconvConv2d, DeconvLinear

The method itself (``functional``, ``layers``) needs torch alone; the other modules load when first used.
"""

import importlib
from types import ModuleType

from . import functional, layers
from .layers import DeconvConv2d, DeconvLinear, check_finite

__version__ = "0.1.0"
__all__ = ["DeconvConv2d", "DeconvLinear", "check_finite", "functional", "layers"]

_LOADED_ON_USE = {"data", "exercise", "ledger", "models", "plotting", "restore", "training"}


def __getattr__(name: str) -> ModuleType:
    if name in _LOADED_ON_USE:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
