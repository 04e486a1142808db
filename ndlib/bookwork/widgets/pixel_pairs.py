"""The widget of pixels in pairs: how alike two pixels are at a distance, and three ways to whiten such pairs."""

from __future__ import annotations

from functools import cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
import traitlets
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ...functional import inverse_sqrt, moments
from ...pictures import photographs
from .. import plotting
from . import bundle
from .base import BookWidget

__all__ = ["PixelPairs"]

FARTHEST = 16  # pixels
EPS = 1e-5
DRAWN, STRIDE = 1000, 5003  # pairs of the cloud, and the step from one to the next in reading order: a prime
OFFSETS = {"right": (0, 1), "down": (1, 0), "diagonal": (1, 1)}


class PixelPairs(BookWidget):
    """Pairs of pixels of a photograph at a distance, as a cloud of points, and the cloud whitened in three ways.

    Args:
        distance: of the two pixels, 0 to 16.
        direction: from the pixel to its neighbour, ``"right"``, ``"down"`` or ``"diagonal"`` (both at once).
        method: ``"raw"``, ``"pca"``, ``"zca"`` or ``"cholesky"``.

    ``points`` is the cloud as drawn: pairs less their means, times ``matrix``. ``covariance`` and ``correlation`` are
    those of the pairs before that.

    >>> w = PixelPairs(distance=1, method="zca")
    >>> w.points.shape, w.matrix.shape, round(w.correlation, 2)
    ((1000, 2), (2, 2), 0.89)
    >>> (w.matrix.T @ w.covariance @ w.matrix).round(2).tolist()    # the identity, up to eps
    [[1.0, 0.0], [0.0, 1.0]]
    """

    _name = "pixel-pairs"
    _esm = bundle.module(_name)
    _css = bundle.style(_name)

    photo = traitlets.Bytes().tag(sync=True)  # grey levels, row after row
    width = traitlets.Int().tag(sync=True)
    distance = traitlets.Int(1, min=0, max=FARTHEST).tag(sync=True)
    direction = traitlets.Enum(list(OFFSETS), "right").tag(sync=True)
    method = traitlets.Enum(["raw", "pca", "zca", "cholesky"], "raw").tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        levels = _photograph()
        super().__init__(photo=levels.tobytes(), width=levels.shape[1], **traits)

    def _pairs(self) -> torch.Tensor:
        """All pairs, shape (N, 2), grey from 0 to 1; the first pixels are the same ones at every distance."""
        picture = torch.from_numpy(_photograph()).double() / 255
        rows, columns = (size - FARTHEST for size in picture.shape)
        down, across = (self.distance * step for step in OFFSETS[self.direction])
        second = picture[down : down + rows, across : across + columns]
        return torch.stack([picture[:rows, :columns].flatten(), second.flatten()], 1)

    @property
    def covariance(self) -> NDArray[np.float64]:
        """The covariance of the two pixels, shape (2, 2), squared grey values."""
        return moments(self._pairs())[1].numpy()

    @property
    def correlation(self) -> float:
        """The correlation of the two pixels: 1 at a distance of 0."""
        (a, b), (_, c) = self.covariance
        return float(b / np.sqrt(a * c))

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The matrix, shape (2, 2), with which a pair, as a row, is multiplied."""
        covariance = torch.from_numpy(self.covariance)
        softened = covariance + EPS * torch.eye(2, dtype=torch.float64)
        if self.method == "zca":
            return inverse_sqrt(covariance, solver="eigh", eps=EPS).numpy()
        if self.method == "cholesky":
            return torch.linalg.inv(torch.linalg.cholesky(softened)).T.numpy()
        if self.method == "pca":
            values, vectors = torch.linalg.eigh(softened)
            strong = vectors[:, 1] * torch.sign(vectors[0, 1])
            weak = torch.stack([-strong[1], strong[0]])  # a rotation, never a reflection
            return torch.stack([strong / values[1].sqrt(), weak / values[0].sqrt()], 1).numpy()
        return np.eye(2)

    @property
    def points(self) -> NDArray[np.float64]:
        """The cloud as drawn, shape (1000, 2): grey values less their mean, or whitened numbers."""
        pairs = self._pairs()
        centred = (pairs - moments(pairs)[0]).numpy()
        return centred[np.arange(DRAWN) * STRIDE % len(centred)] @ self.matrix

    def describe(self) -> str:
        way = {"raw": "as they are", "pca": "whitened by PCA", "zca": "whitened by ZCA"}.get(
            self.method, "whitened by Cholesky"
        )
        return (
            f"Left, a photograph of a cat. Right, a cloud of {DRAWN} pairs of its pixels {way}, {self.distance} pixels "
            f"apart ({self.direction}), with the ellipse of two standard deviations. Correlation of the two pixels "
            f"{self.correlation:.3f}."
        )

    def still(self) -> Figure:
        points = self.points
        limit = 3.4 * (np.sqrt(self.covariance[0, 0]) if self.method == "raw" else 1)
        after = self.matrix.T @ self.covariance @ self.matrix
        values, vectors = np.linalg.eigh(after)
        angle = np.linspace(0, 2 * np.pi, 73)
        circle = np.stack([np.cos(angle), np.sin(angle)], 1)
        ellipse = 2 * circle * np.sqrt(values.clip(0)) @ vectors.T
        color = plotting.COLORS["none" if self.method == "raw" else "nd"]
        fig, (left, right) = plt.subplots(1, 2, figsize=(plotting.WIDTH, 3.4))
        plotting.show_picture(left, torch.from_numpy(_photograph()) / 255)
        right.plot(*points.T, ".", markersize=2, color=color, alpha=0.6)
        right.plot(*ellipse.T, color=color)
        right.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        right.set(xlabel="pixel", ylabel="its neighbour")
        plt.close(fig)
        return fig


@cache
def _photograph() -> NDArray[np.uint8]:
    """The face of the cat Chelsea by Stéfan van der Walt (CC0), grey, at half its size."""
    grey = photographs.luminance(photographs.photograph("cat"))[20:244, 40:296]
    half = F.avg_pool2d(grey[None], 2)[0]
    return (half * 255).round().byte().numpy()
