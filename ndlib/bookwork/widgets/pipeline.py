"""The widget of the whole layer: one picture from its windows to the output, stage by stage."""

from __future__ import annotations

from functools import cached_property

import matplotlib.pyplot as plt
import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ... import functional
from ...pictures import restore
from .. import plotting
from . import bundle
from .blur_lab import Photographed, noise_field
from .patch_matrix import window_weights

__all__ = ["Pipeline"]

SIDE = 64  # pixels of the square that is shown
STAGES = ["picture", "window", "x", "cov", "spectrum", "d", "w", "dw", "y"]


class Pipeline(Photographed):
    """A picture on its way through a deconvolution layer: X, Cov, its spectrum, D, w, Dw, and the output.

    A picture that the reader brings, takes with the camera or draws never leaves the browser, so Python cannot follow
    it.

    Args:
        picture: a picture of your own, or None; its middle square is shown, grey and scaled to 64 x 64 pixels.
        photograph: one of ``names``: ``"cat"``, ``"pagoda"``, ``"page"``, or ``"yours"`` if you gave a picture.
        k: the window is k by k pixels: 3, 5 or 7.
        w: the weights of the filter, ``"middle"``, ``"mean"`` or ``"edge"``.
        eps: added to the diagonal of the covariance, squared pixel values.
        steps: of the Newton-Schulz iteration, 1 to 20; None for the exact root.
        blur: standard deviation of a Gaussian blur that the picture gets first, pixels; 0 for none.
        noise: standard deviation of noise that it gets then, pixel values.
        stage: the one that is enlarged, one of ``STAGES``.
        row, column, other, direction: what is lit: a row of X, two pixels of the window, a direction; all from 0.

    ``image``, ``matrix``, ``covariance``, ``variances``, ``whitening``, ``weights``, ``folded`` and ``result`` are what
    the stages show, and equal to what :mod:`ndlib.functional` gives. Where the blur has taken nothing away for good, D
    undoes it: the output is nearly that of the sharp picture.

    >>> sharp, blurred = Pipeline(eps=1e-8), Pipeline(eps=1e-8, blur=0.8)
    >>> sharp.matrix.shape, sharp.whitening.shape, sharp.result.shape
    ((3600, 25), (25, 25), (3600,))
    >>> bool(np.corrcoef(sharp.result, blurred.result)[0, 1] > 0.9)
    True
    >>> blurred.noise = 0.05                                  # and noise it cannot undo
    >>> bool(np.corrcoef(sharp.result, blurred.result)[0, 1] < 0.5)
    True
    """

    _name = "pipeline"
    _esm = bundle.module(_name)
    _css = bundle.style(_name)

    _side = SIDE

    k = traitlets.Enum([3, 5, 7], 5).tag(sync=True)
    w = traitlets.Enum(["middle", "mean", "edge"], "middle").tag(sync=True)
    eps = traitlets.Float(1e-5, min=1e-8, max=0.1).tag(sync=True)
    steps = traitlets.Int(None, min=1, max=20, allow_none=True).tag(sync=True)
    blur = traitlets.Float(0.0, min=0.0, max=2.0).tag(sync=True)
    noise = traitlets.Float(0.0, min=0.0, max=0.2).tag(sync=True)
    stage = traitlets.Enum(STAGES, "picture").tag(sync=True)
    row = traitlets.Int(1820, min=0).tag(sync=True)
    column = traitlets.Int(12, min=0).tag(sync=True)
    other = traitlets.Int(13, min=0).tag(sync=True)
    direction = traitlets.Int(0, min=0).tag(sync=True)

    @property
    def image(self) -> NDArray[np.float64]:
        """The picture after blur and noise: (64, 64), 0 black, 1 white."""
        image = torch.from_numpy(self._pixels())
        if self.blur:
            image = restore.convolve(image, restore.gaussian_kernel(self.blur))
        return image.numpy() + self.noise * self._noise

    @cached_property
    def _noise(self) -> NDArray[np.float64]:
        return noise_field().ravel()[: SIDE * SIDE].reshape(SIDE, SIDE)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """X, shape (positions, k * k)."""
        return functional.patch_matrix(torch.tensor(self.image)[None, None], self.k).numpy()

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Cov, shape (k * k, k * k)."""
        return functional.moments(torch.from_numpy(self.matrix))[1].numpy()

    @property
    def variances(self) -> NDArray[np.float64]:
        """The eigenvalues of Cov, the largest first, shape (k * k,)."""
        return np.linalg.eigvalsh(self.covariance)[::-1].astype(np.float64)

    @property
    def whitening(self) -> NDArray[np.float64]:
        """D, shape (k * k, k * k)."""
        root = {"solver": "eigh"} if self.steps is None else {"solver": "newton_schulz", "n_iter": self.steps}
        return functional.inverse_sqrt(torch.from_numpy(self.covariance), eps=self.eps, **root).numpy()

    @property
    def weights(self) -> NDArray[np.float64]:
        """w, shape (k * k,)."""
        return window_weights(self.w, self.k)

    @property
    def folded(self) -> NDArray[np.float64]:
        """Dw, shape (k * k,)."""
        return self.whitening @ self.weights

    @property
    def result(self) -> NDArray[np.float64]:
        """y = (X - mean) Dw, shape (positions,)."""
        matrix = self.matrix
        return (matrix - matrix.mean(0)) @ self.folded

    def describe(self) -> str:
        folded = self.folded
        return (
            f"A photograph of {SIDE} by {SIDE} pixels; the covariance of the {self.k**2} pixels of its windows, "
            f"positive throughout; the filter Dw, whose middle weighs {folded[self.k**2 // 2]:.3g} and whose "
            f"least weight is {folded.min():.3g}; and the output, in which outlines are left and flat parts grey."
        )

    def still(self) -> Figure:
        fig, axes = plotting.panels(1, 4)
        side, k = SIDE - self.k + 1, self.k
        result = self.result.reshape(side, side)
        plotting.show_picture(axes[0, 0], torch.from_numpy(self.image), "picture")
        plotting.show_signed(axes[0, 1], torch.from_numpy(self.covariance), "Cov")
        plotting.show_signed(axes[0, 2], torch.from_numpy(self.folded.reshape(k, k)), "Dw")
        plotting.show_picture(axes[0, 3], torch.from_numpy(0.5 + result / (6 * result.std())), "output")
        plt.close(fig)
        return fig
