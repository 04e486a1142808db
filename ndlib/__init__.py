"""Network deconvolution for PyTorch: whiten the input of every layer by the inverse root of its patch covariance.

    from ndlib import DeconvConv2d, DeconvLinear

The method itself (``patches``, ``functional``, ``layers``) needs torch alone; the other modules load when first used.
"""

import importlib
from types import ModuleType

from . import functional, layers
from .conversion import convert, fold, unfold
from .diagnostics import layer_whiteness
from .layers import ChannelDeconv, DeconvConv1d, DeconvConv2d, DeconvConv3d, DeconvLinear, check_finite

__version__ = "0.1.0"
__all__ = [
    "ChannelDeconv",
    "DeconvConv1d",
    "DeconvConv2d",
    "DeconvConv3d",
    "DeconvLinear",
    "check_finite",
    "convert",
    "fold",
    "functional",
    "layer_whiteness",
    "layers",
    "unfold",
]

_LOADED_ON_USE = {
    "audit",
    "benchmark",
    "data",
    "exercise",
    "image_statistics",
    "kernels",
    "ledger",
    "models",
    "optimizers",
    "plotting",
    "published",
    "restore",
    "runs",
    "segmentation",
    "training",
    "widgets",
    "wording",
}


def __getattr__(name: str) -> ModuleType:
    if name in _LOADED_ON_USE:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
