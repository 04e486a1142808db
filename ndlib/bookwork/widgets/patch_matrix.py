"""The widget of a picture's patches: each window is a row of X, and each covariance belongs to two of its pixels."""

from __future__ import annotations

from functools import cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
import traitlets
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ... import functional
from ...pictures import photographs
from .. import plotting
from . import bundle
from .base import Array, BookWidget

__all__ = ["PatchMatrix", "window_weights"]

NUMBERS = np.array([[1, 1, 2, 3, 3], [1, 2, 4, 3, 2], [0, 3, 9, 6, 1], [1, 2, 5, 8, 2], [1, 1, 2, 3, 2.0]])
SMALLEST, LARGEST = 2, 5  # pixels of a window; the five by five picture has more than one position up to 4


class PatchMatrix(BookWidget):
    """A window on a picture, the matrix X of all such windows, and the covariance or the whitening matrix of X.

    Args:
        picture: ``"numbers"``, a picture of five by five numbers, or ``"photograph"``, 16 by 16 pixels of an eye.
        k: the window is k by k pixels, 2 to 5.
        row: the row of X that is marked: the position of the window, in reading order from 0.
        column, other: the two columns of X that are compared: pixels of the window, in reading order from 0.
        rows: ``"x"`` for X, ``"centred"`` for X less its mean.
        shown: the matrix beside X: ``"covariance"``, ``"correlation"`` or ``"D"``.
        eps: added to the diagonal of the covariance for D, squared pixel values.
        w: the weights that each row is multiplied by: ``"mean"`` of the window, ``"edge"``, the step from left to
            right, or ``"D"``, the middle column of the whitening matrix.

    ``matrix``, ``mean``, ``covariance`` and ``whitening`` are as drawn, and equal to what
    :func:`ndlib.functional.patch_matrix`, ``moments`` and ``inverse_sqrt`` give. So are ``weights`` and the ``result``
    y = Xw, which is the picture convolved with w.

    >>> w = PatchMatrix(picture="photograph", k=3)
    >>> w.matrix.shape, w.mean.shape, w.covariance.shape, w.whitening.shape
    ((196, 9), (9,), (9, 9), (9, 9))
    >>> w.weights.round(3).tolist(), w.result.shape
    ([-0.167, 0.0, 0.167, -0.167, 0.0, 0.167, -0.167, 0.0, 0.167], (196,))
    >>> w.row, w.column, w.other = 10, 0, 4
    >>> w.picture = "numbers"                   # this picture has nine windows: the mark goes to the last row
    >>> w.row
    8
    """

    _name = "patch-matrix"
    _esm = bundle.module(_name)
    _css = bundle.style(_name)

    numbers = Array(np.float64)
    photograph = Array(np.float64)
    picture = traitlets.Enum(["numbers", "photograph"], "numbers").tag(sync=True)
    k = traitlets.Int(3, min=SMALLEST, max=LARGEST).tag(sync=True)
    row = traitlets.Int(5, min=0).tag(sync=True)
    column = traitlets.Int(4, min=0).tag(sync=True)
    other = traitlets.Int(5, min=0).tag(sync=True)
    rows = traitlets.Enum(["x", "centred"], "x").tag(sync=True)
    shown = traitlets.Enum(["covariance", "correlation", "D"], "covariance").tag(sync=True)
    eps = traitlets.Float(1e-3, min=1e-5, max=10).tag(sync=True)
    w = traitlets.Enum(["mean", "edge", "D"], "edge").tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        super().__init__(numbers=NUMBERS.flatten(), photograph=_eye().flatten(), **traits)

    @traitlets.observe("picture", "k", "row", "column", "other")
    def _within_reach(self, change: Any) -> None:
        """Move the marks to the last row and column where a smaller picture or window has fewer of them."""
        if not self.numbers.size or not self.photograph.size:
            return
        self.k = min(self.k, len(self._pixels()) - 1)
        rows, columns = self.matrix.shape
        self.row = min(self.row, rows - 1)
        self.column, self.other = min(self.column, columns - 1), min(self.other, columns - 1)

    def _pixels(self) -> NDArray[np.float64]:
        values: NDArray[Any] = self.numbers if self.picture == "numbers" else self.photograph
        return values.reshape(-1, int(np.sqrt(values.size)))

    @property
    def matrix(self) -> NDArray[np.float64]:
        """X, shape (positions, k * k)."""
        return functional.patch_matrix(torch.tensor(self._pixels())[None, None], self.k).numpy()

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean row of X, shape (k * k,)."""
        return functional.moments(torch.from_numpy(self.matrix))[0].numpy()

    @property
    def covariance(self) -> NDArray[np.float64]:
        """The covariance of the columns of X, shape (k * k, k * k)."""
        return functional.moments(torch.from_numpy(self.matrix))[1].numpy()

    @property
    def whitening(self) -> NDArray[np.float64]:
        """D = (Cov + eps I)^(-1/2), shape (k * k, k * k)."""
        return functional.inverse_sqrt(torch.from_numpy(self.covariance), solver="eigh", eps=self.eps).numpy()

    @property
    def weights(self) -> NDArray[np.float64]:
        """w, shape (k * k,)."""
        return self.whitening[:, self.k**2 // 2] if self.w == "D" else window_weights(self.w, self.k)

    @property
    def result(self) -> NDArray[np.float64]:
        """y = Xw, or (X - mean) w where the rows are centred, shape (positions,)."""
        matrix = self.matrix if self.rows == "x" else self.matrix - self.mean
        return matrix @ self.weights

    def describe(self) -> str:
        rows, columns = self.matrix.shape
        covariance = self.covariance[self.column, self.other]
        return (
            f"A picture with a window of {self.k} by {self.k} pixels, the matrix X with {rows} rows and {columns} "
            f"columns whose row {self.row + 1} the window is, and the covariance of its columns. Columns "
            f"{self.column + 1} and {self.other + 1} have the covariance {covariance:.3g}."
        )

    def still(self) -> Figure:
        pixels, matrix, covariance = self._pixels(), self.matrix, self.covariance
        top, left = divmod(self.row, pixels.shape[1] - self.k + 1)
        fig, axes = plt.subplots(1, 3, figsize=(plotting.WIDTH, 2.8))
        for ax, values, title in ((axes[0], pixels, "picture"), (axes[1], matrix, "X")):
            ax.imshow(values, cmap="gray", vmin=0, vmax=pixels.max(), aspect="auto" if ax is axes[1] else "equal")
            ax.set(title=title, xticks=[], yticks=[])
            ax.grid(False)
        frames = ((axes[0], left, top, self.k, self.k), (axes[1], 0, self.row, matrix.shape[1], 1))
        for ax, x, y, width, height in frames:
            ax.add_patch(Rectangle((x - 0.5, y - 0.5), width, height, fill=False, color="#D55E00", linewidth=2))
        shown = plotting.show_signed(axes[2], torch.from_numpy(covariance), "covariance of the columns")
        fig.colorbar(shown, ax=axes[2], shrink=0.8)
        plt.close(fig)
        return fig


def window_weights(kind: str, k: int) -> NDArray[np.float64]:
    """Weights for the k x k pixels of a window: its ``"middle"`` alone, its ``"mean"``, or the ``"edge"`` in it.

    >>> window_weights("edge", 3).reshape(3, 3)[0].round(3).tolist()    # the step from left to right
    [-0.167, 0.0, 0.167]
    """
    if kind == "middle":
        return np.eye(k * k)[k * k // 2]
    if kind == "mean":
        return np.full(k * k, 1 / k**2)
    places = np.tile(np.arange(k) - (k - 1) / 2, k)
    return places / np.abs(places).sum()


@cache
def _eye() -> NDArray[np.float64]:
    """An eye of the cat Chelsea by Stéfan van der Walt (CC0): 16 by 16 grey pixels, each the mean of 4 by 4."""
    grey = photographs.luminance(photographs.photograph("cat").double())[76:140, 148:212]
    return F.avg_pool2d(grey[None], 4)[0].numpy()
