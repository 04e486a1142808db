"""The widget of the chapter on the inverse square root: the gain that a few Newton-Schulz steps give each direction."""

from __future__ import annotations

from functools import cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from ...functional import newton_schulz_response, patch_moments
from ...pictures import photographs
from .. import plotting
from . import bundle
from .base import Array, BookWidget

__all__ = ["NewtonSchulz", "photograph_spectrum"]

SPECTRUM_SIZE = 576  # directions of the made-up spectra: 64 channels, 3 x 3 pixels
SPECTRUM_PHOTOGRAPHS = ("cat", "china", "coffee", "flower")


@cache
def photograph_spectrum() -> NDArray[np.float64]:
    """Eigenvalues, the largest first, of the covariance of 24 x 24 grey patches of four photographs, squared pixels.

    >>> spectrum = photograph_spectrum()
    >>> spectrum.shape, bool(spectrum[0] > 1000 * spectrum[-1])
    ((576,), True)
    """
    covariances = []
    for name in SPECTRUM_PHOTOGRAPHS:
        picture = photographs.luminance(photographs.photograph(name).double())
        covariances.append(patch_moments(picture[None, None], 24, stride=14)[1])
    return torch.linalg.eigvalsh(torch.stack(covariances).mean(0)).flip(0).clamp(min=0).numpy()


class NewtonSchulz(BookWidget):
    """The gain that ``steps`` Newton-Schulz steps give to each direction, and the variance that the direction then has.

    Args:
        eigenvalues: variances of your data along its principal directions; if given, ``spectrum`` is ``"own"``.
        steps: 0 to 20.
        eps: added to every variance, in their units.
        spectrum: ``"flat"``, ``"1/k"``, ``"1/k²"`` (576 directions, the strongest of variance 1),
            ``"photographs"`` (24 x 24 grey patches of four photographs, squared pixel values) or ``"own"``.
        direction: the direction that is marked, 1 for the strongest.

    ``gains`` are as drawn, the strongest direction first. Set ``eigenvalues`` to look at a spectrum of your own, such
    as that of a layer's covariance.

    >>> w = NewtonSchulz(steps=5, spectrum="1/k")
    >>> w.gains.shape
    (576,)
    >>> w.eigenvalues = [4.0, 1.0]
    >>> w.spectrum, w.gains.round(2).tolist()
    ('own', [0.5, 1.0])
    """

    _name = "newton-schulz"
    _esm = bundle.module(_name)
    _css = bundle.style(_name)

    steps = traitlets.Int(5, min=0, max=20).tag(sync=True)
    eps = traitlets.Float(1e-5, min=1e-8, max=0.1).tag(sync=True)
    spectrum = traitlets.Enum(["flat", "1/k", "1/k²", "photographs", "own"], "1/k").tag(sync=True)
    direction = traitlets.Int(100, min=1).tag(sync=True)
    photographs = Array(np.float64)
    own = Array(np.float64)

    def __init__(self, eigenvalues: ArrayLike | None = None, **traits: Any) -> None:
        super().__init__(photographs=photograph_spectrum(), **traits)
        if eigenvalues is not None:
            self.eigenvalues = np.asarray(eigenvalues)

    @property
    def eigenvalues(self) -> NDArray[np.float64]:
        """Variances of the data along their principal directions, the largest first."""
        k = np.arange(1.0, SPECTRUM_SIZE + 1)
        made_up = {"flat": k**0, "1/k": 1 / k, "1/k²": 1 / k**2}
        return made_up[self.spectrum] if self.spectrum in made_up else getattr(self, self.spectrum)

    @eigenvalues.setter
    def eigenvalues(self, values: ArrayLike) -> None:
        array = np.asarray(values, np.float64)
        if array.ndim != 1 or array.size < 2 or array.min() < 0 or array.max() <= 0:
            raise ValueError(
                f"eigenvalues must be two or more variances, none negative and not all 0, got shape {array.shape}"
            )
        self.own = np.sort(array)[::-1]
        self.direction = min(self.direction, array.size)
        self.spectrum = "own"

    @property
    def gains(self) -> NDArray[np.float64]:
        """The gain of each direction, as drawn: shape (n,), units of 1 / sqrt(eigenvalue)."""
        return newton_schulz_response(torch.tensor(self.eigenvalues + self.eps), self.steps).numpy()

    def describe(self) -> str:
        after = np.median(self.gains**2 * self.eigenvalues)
        return (
            f"Gain of {self.steps} Newton-Schulz steps for each direction of the data, against its variance. Strong "
            "directions get the gain of the inverse square root, weak ones far less. "
            f"The median variance after whitening is {after:.2g}; it would be 1 if the data were white."
        )

    def still(self) -> Figure:
        variances, gains = self.eigenvalues, self.gains
        fig, (left, right) = plt.subplots(1, 2, figsize=(plotting.WIDTH, 3.2))
        line = np.geomspace(max(variances[-1], 1e-12) / 2, 2 * variances[0], 100)
        left.loglog(line, line**-0.5, color=plotting.COLORS["none"], linewidth=1.5)
        left.loglog(variances, gains, linewidth=4, color=plotting.COLORS["nd"])
        left.set(xlabel="variance of the direction in the data", ylabel="gain of the filter")
        right.axhline(1, color=plotting.COLORS["none"], linewidth=1.5)
        right.semilogx(variances, gains**2 * variances, linewidth=4, color=plotting.COLORS["nd"])
        right.set(xlabel="variance of the direction in the data", ylabel="its variance after whitening", ylim=(0, 1.1))
        plt.close(fig)
        return fig
