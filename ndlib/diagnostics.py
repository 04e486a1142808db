"""How white the input of a deconvolution layer is, and what the layer makes of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ._core.guards import NOT_FINITE
from ._core.hooks import before_forward
from ._core.products import in_full_precision
from ._core.whitening import Deconvolution
from .functional import whiteness

__all__ = ["LayerWhiteness", "check_finite", "layer_whiteness"]


@dataclass(frozen=True)
class LayerWhiteness:
    """Spectrum of a layer's input before and after whitening, strongest direction first.

    ``before``: eigenvalues of the covariance (without eps), shape (groups, n), in squared units of the input.
    ``after``: variance of the same directions after whitening. ``whiteness_before`` and ``whiteness_after``:
    ``functional.whiteness`` of the whole matrices, mean over the groups. ``cutoff``: the smallest eigenvalue whose
    direction comes out with at least half of the variance 1; infinite if there is none.

    >>> before, after = torch.tensor([[4.0, 1.0]]), torch.tensor([[1.0, 0.5]])
    >>> seen = LayerWhiteness(before, after, whiteness_before=0.74, whiteness_after=0.9, cutoff=1.0)
    >>> seen.condition_before, seen.condition_after
    (4.0, 2.0)
    """

    before: Tensor
    after: Tensor
    whiteness_before: float
    whiteness_after: float
    cutoff: float

    @property
    def condition_before(self) -> float:
        """Largest over smallest eigenvalue; infinite for a singular covariance."""
        return _condition(self.before)

    @property
    def condition_after(self) -> float:
        """The same after whitening."""
        return _condition(self.after)

    def __str__(self) -> str:
        return (
            f"whiteness {self.whiteness_before:.3f} -> {self.whiteness_after:.3f}, condition number "
            f"{self.condition_before:.2g} -> {self.condition_after:.2g}, half of the variance above eigenvalue "
            f"{self.cutoff:.2g} (largest {float(self.before.max()):.2g})"
        )


def _condition(spectrum: Tensor) -> float:
    smallest = spectrum.amin(-1).clamp(min=0)
    return float((spectrum.amax(-1) / smallest).amax())


def layer_whiteness(model: nn.Module, x: Tensor) -> dict[str, LayerWhiteness]:
    """Run a network (or a single layer) on an input, and look at every deconvolution layer on the way.

    A layer in evaluation is shown with its running root, one in training with the root of this batch. Neither the
    network nor its running averages change.

    Args:
        model: the network. x: its input.

    Returns:
        A :class:`.LayerWhiteness` for the name of each layer that was reached; the name of ``model`` itself is "".

    Raises:
        TypeError: a layer whose root is a product of several, ``baselines.KroneckerConv2d``.

    >>> from ndlib import DeconvLinear
    >>> x = torch.randn(500, 4) @ torch.diag(torch.tensor([2.0, 1.0, 0.5, 0.1]))
    >>> seen = layer_whiteness(nn.Sequential(DeconvLinear(4, 2)), x)["0"]
    >>> seen.whiteness_before < 0.5 < seen.whiteness_after
    True
    """
    model = copy.deepcopy(model)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, Deconvolution)}
    found: dict[str, LayerWhiteness] = {}

    def look(name: str, layer: Any, x: Tensor) -> None:
        found[name] = _look_at(layer, x)

    with torch.no_grad(), before_forward(layers, look):
        model(x)
    return found


@in_full_precision
def _look_at(layer: Deconvolution, x: Tensor) -> LayerWhiteness:
    if not hasattr(layer, "running_deconv"):
        raise TypeError(f"{layer} whitens with more than one root, of which none can be looked at alone")
    _, cov = layer.measure(layer.prepared(x))
    root = layer.root(cov) if layer.training else layer.running_whitening()[1]
    cov, root = cov.double(), root.double()
    eigenvalues, v = torch.linalg.eigh(cov)
    white = root.mT @ cov @ root
    after = (v.mT @ white @ v).diagonal(dim1=-2, dim2=-1)
    passed = eigenvalues[after >= 0.5]
    return LayerWhiteness(
        before=eigenvalues.flip(-1),
        after=after.flip(-1),
        whiteness_before=float(whiteness(cov).mean()),
        whiteness_after=float(whiteness(white).mean()),
        cutoff=float(passed.min()) if len(passed) else float("inf"),
    )


def check_finite(model: nn.Module) -> None:
    """Raise if any deconvolution layer of a model met NaN or infinite input, or a diverging root, since the last call.

    On a CPU the layers raise by themselves; on other devices, and compiled, they only note it, since asking at every
    step would make the host wait for the device. Call this once in a while, at the end of an epoch for instance.

    Raises:
        FloatingPointError: names every such layer.

    >>> from ndlib import DeconvConv2d
    >>> check_finite(nn.Sequential(DeconvConv2d(3, 8, 3)))  # nothing is raised
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, Deconvolution)}
    for module in layers.values():
        module.settle()
    hit = [name or type(model).__name__ for name, m in layers.items() if bool(m.nonfinite)]
    for module in layers.values():
        module.nonfinite.zero_()
    if hit:
        raise FloatingPointError(NOT_FINITE.format(layer=", ".join(hit)))
