"""Network deconvolution for PyTorch: whiten the input of every layer by the inverse root of its patch covariance.

    import ndlib

    model, report = ndlib.convert(model, **ndlib.RECOMMENDED)    # every convolution whitens its input
    ...                                                          # train as before
    plain = ndlib.to_plain(model.eval())                         # a plain network with the same outputs

``RECOMMENDED`` is a mapping of options; without it the layers are the published ones.

The method stands in this folder: ``functional`` (the mathematics), ``layers``, ``conversion``, ``averages``,
``diagnostics``, and what they are built from, ``_core`` and ``_conversion``. It needs torch and NumPy alone. The wings
serve the book: ``pictures`` (statistics and kernels of photographs), ``experiments`` (data sets, networks, training,
ledgers), ``evidence`` (published numbers and the audit), ``bookwork`` (figures, widgets, exercises) and ``cli``. Each
loads when it is first used.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._core.options import RECOMMENDED
    from .averages import freeze_statistics, keep_statistics, synchronise_statistics, update_statistics
    from .conversion import convert, convert_pretrained, to_plain
    from .diagnostics import check_finite, layer_whiteness
    from .layers import (
        ChannelDeconv,
        DeconvConv1d,
        DeconvConv2d,
        DeconvConv3d,
        DeconvConvTranspose1d,
        DeconvConvTranspose2d,
        DeconvConvTranspose3d,
        DeconvLinear,
    )

__version__ = "0.1.0"
__all__ = [
    "RECOMMENDED",
    "ChannelDeconv",
    "DeconvConv1d",
    "DeconvConv2d",
    "DeconvConv3d",
    "DeconvConvTranspose1d",
    "DeconvConvTranspose2d",
    "DeconvConvTranspose3d",
    "DeconvLinear",
    "check_finite",
    "convert",
    "convert_pretrained",
    "freeze_statistics",
    "keep_statistics",
    "layer_whiteness",
    "synchronise_statistics",
    "to_plain",
    "update_statistics",
]

_HOME = {
    "RECOMMENDED": "_core.options",
    **dict.fromkeys([name for name in __all__ if "Deconv" in name], "layers"),
    **dict.fromkeys(
        ("freeze_statistics", "keep_statistics", "synchronise_statistics", "update_statistics"), "averages"
    ),
    **dict.fromkeys(("convert", "convert_pretrained", "to_plain"), "conversion"),
    **dict.fromkeys(("check_finite", "layer_whiteness"), "diagnostics"),
}
_ROOMS = ("averages", "conversion", "diagnostics", "files", "functional", "layers")
_WINGS = ("bookwork", "cli", "evidence", "experiments", "pictures")

_OLDEST_TORCH = (2, 9)  # torch.compile included; as in pyproject.toml


def _check_torch() -> None:
    """Say what is wrong where torch is too old, which otherwise fails somewhere inside. The answer costs no import."""
    try:
        found = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:  # none, or one that says nothing of itself
        return
    if tuple(int(number) for number in found.split(".")[:2]) < _OLDEST_TORCH:
        wanted = ".".join(map(str, _OLDEST_TORCH))
        raise ImportError(f"ndlib needs torch {wanted} or newer, and torch {found} is installed: upgrade torch")


_check_torch()


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    if name in (*_ROOMS, *_WINGS):
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS, *_WINGS, "__version__"])
