"""The widget of two weights and one valley: gradient descent on the inputs as they are and on deconvolved inputs."""

from __future__ import annotations

from functools import cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ...functional import inverse_sqrt
from .. import plotting
from . import bundle
from .base import BookWidget

__all__ = ["Descent"]

STEPS, SAMPLES = 60, 200
BEST = np.array([1.0, 1.0])  # the weights that made the targets
LOW, HIGH = -2.0, 4.0  # either weight in the picture
PATIENCE = 1_000_000  # steps after which nobody waits any longer


class Descent(BookWidget):
    """Least squares with two weights by gradient descent, on the inputs as they are and on deconvolved inputs.

    The loss is ``|Xw - y|^2 / 2N`` with N = 200 rows, and the targets y = X (1, 1)' have no noise. With deconvolution
    the weights u act on X D, D = Cov^(-1/2), and the path shows the weights w = D u that give the same outputs. Both
    paths start from the same function of the inputs.

    Args:
        correlation: of the two inputs, -0.99 to 0.99.
        scale: standard deviation of the second input, 0.2 to 1; the first has 1.
        rate: the learning rate of both, 0.02 to 2.2.
        w1, w2: the weights at the start, -2 to 4.

    ``path`` and ``deconvolved_path`` are (w1, w2) after 0 to 60 steps, as drawn. ``losses`` and ``deconvolved_losses``
    are the losses along them; the widget draws these divided by the first.

    >>> w = Descent(correlation=0.95, rate=0.3)
    >>> w.path.shape, w.deconvolved_path.shape
    ((61, 2), (61, 2))
    >>> bool(w.losses[-1] > w.deconvolved_losses[-1])
    True
    >>> round(w.condition, 2), round(w.best_rate, 2), round(w.largest_rate, 3)
    (39.0, 1.0, 1.026)
    >>> w.steps_to_hundredth(), w.steps_to_hundredth(deconvolved=True)
    (103, 7)
    """

    _name = "descent"
    _esm = bundle.module(_name)
    _css = bundle.style(_name)

    correlation = traitlets.Float(0.95, min=-0.99, max=0.99).tag(sync=True)
    scale = traitlets.Float(1.0, min=0.2, max=1.0).tag(sync=True)
    rate = traitlets.Float(0.3, min=0.02, max=2.2).tag(sync=True)
    w1 = traitlets.Float(-0.4, min=LOW, max=HIGH).tag(sync=True)
    w2 = traitlets.Float(3.6, min=LOW, max=HIGH).tag(sync=True)

    @property
    def inputs(self) -> NDArray[np.float64]:
        """X, shape (200, 2): columns of mean zero whose covariance is exactly that of the traits."""
        mix = np.array([[1, self.correlation], [0, np.sqrt(1 - self.correlation**2)]])
        return _white() @ mix * np.array([1, self.scale])

    @property
    def covariance(self) -> NDArray[np.float64]:
        """The covariance of the two inputs, X'X / N, shape (2, 2)."""
        return self.inputs.T @ self.inputs / SAMPLES

    @property
    def whitening(self) -> NDArray[np.float64]:
        """D = Cov^(-1/2), shape (2, 2)."""
        return inverse_sqrt(torch.from_numpy(self.covariance), solver="eigh", eps=0).numpy()

    @property
    def path(self) -> NDArray[np.float64]:
        """The weights after 0 to 60 steps on the inputs as they are, shape (61, 2)."""
        return _descend(self.inputs, self.inputs @ BEST, self.rate, np.array([self.w1, self.w2]))

    @property
    def deconvolved_path(self) -> NDArray[np.float64]:
        """The weights w = D u after 0 to 60 steps on the deconvolved inputs X D, shape (61, 2)."""
        d = self.whitening
        start = np.linalg.solve(d, np.array([self.w1, self.w2])).astype(np.float64)
        return _descend(self.inputs @ d, self.inputs @ BEST, self.rate, start) @ d

    def loss(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The loss ``|Xw - y|^2 / 2N`` of weights of shape (..., 2)."""
        residuals = (weights - BEST) @ self.inputs.T
        return np.asarray(np.square(residuals).mean(-1) / 2)

    @property
    def losses(self) -> NDArray[np.float64]:
        """The losses along ``path``, shape (61,)."""
        return self.loss(self.path)

    @property
    def deconvolved_losses(self) -> NDArray[np.float64]:
        """The losses along ``deconvolved_path``, shape (61,)."""
        return self.loss(self.deconvolved_path)

    @property
    def condition(self) -> float:
        """Largest eigenvalue of the covariance divided by the smallest."""
        low, high = np.linalg.eigvalsh(self.covariance)
        return float(high / low)

    @property
    def largest_rate(self) -> float:
        """2 / (largest eigenvalue of the covariance): at larger rates plain gradient descent diverges."""
        return float(2 / np.linalg.eigvalsh(self.covariance)[1])

    @property
    def best_rate(self) -> float:
        """2 / (sum of the eigenvalues), at which plain gradient descent is fastest."""
        return float(2 / np.linalg.eigvalsh(self.covariance).sum())

    def steps_to_hundredth(self, deconvolved: bool = False) -> float:
        """Steps until the loss is at most a hundredth of the loss at the start; infinity if it never is."""
        values, vectors = np.linalg.eigh(self.covariance)
        terms = values * (vectors.T @ ([self.w1, self.w2] - BEST)) ** 2
        factors = (1 - self.rate * (np.ones(2) if deconvolved else values)) ** 2
        if (factors[terms > 1e-20 * terms.sum()] >= 1).any():
            return np.inf
        left = (terms * np.minimum(factors, 1) ** np.arange(PATIENCE + 1)[:, None]).sum(1)
        there = left <= left[0] / 100
        return int(there.argmax()) if there.any() else np.inf

    def describe(self) -> str:
        def count(deconvolved: bool) -> str:
            steps = self.steps_to_hundredth(deconvolved)
            return "never reaches" if steps == np.inf else f"takes {steps} steps to"

        return (
            f"Contours of a loss over two weights, whose inputs have a correlation of {self.correlation:.2f}: the "
            f"condition number is {self.condition:.3g}. At the learning rate {self.rate:.2f} plain gradient descent "
            f"{count(False)} a hundredth of the loss, with deconvolved inputs it {count(True)} a hundredth, on a "
            "straight path to the minimum."
        )

    def still(self) -> Figure:
        fig, (left, right) = plt.subplots(1, 2, figsize=(plotting.WIDTH, 3.6))
        axis = np.linspace(LOW, HIGH, 121)
        grid = self.loss(np.stack(np.meshgrid(axis, axis), -1))
        left.contour(axis, axis, grid, 0.045 * np.arange(1, 13) ** 2, colors="#BBBBBB", linewidths=0.8)
        steps = np.arange(STEPS + 1)
        for method, path, losses in (
            ("none", self.path, self.losses),
            ("nd", self.deconvolved_path, self.deconvolved_losses),
        ):
            style: dict[str, Any] = {"color": plotting.COLORS[method], "markersize": 3}
            left.plot(*path.T, "o-", **style)
            right.semilogy(steps, np.maximum(losses / max(losses[0], 1e-300), 1e-30), **style)
        left.plot(*BEST, "o", color=plotting.INK)
        left.set(xlim=(LOW, HIGH), ylim=(LOW, HIGH), aspect="equal")
        left.set(xlabel="weight of input 1", ylabel="weight of input 2")
        right.set(xlabel="step", ylabel="loss / loss at the start", ylim=(1e-7, 30))
        plt.close(fig)
        return fig


def _descend(
    x: NDArray[np.float64], y: NDArray[np.float64], rate: float, start: NDArray[np.float64]
) -> NDArray[np.float64]:
    path = [start]
    for _ in range(STEPS):
        w = path[-1]
        path.append(w - rate * x.T @ (x @ w - y) / SAMPLES)
    return np.stack(path)


@cache
def _white() -> NDArray[np.float64]:
    """Normal numbers, (200, 2), made to have mean zero and covariance I; the same in Python and in JavaScript.

    Park and Miller's generator x -> 16807 x mod (2^31 - 1) from 11 on gives uniform numbers; of each two in turn Box
    and Muller make two normal ones.
    """
    seed, uniform = 11, np.empty((SAMPLES, 2))
    for i in range(uniform.size):
        seed = 16807 * seed % 2147483647
        uniform.flat[i] = seed / 2147483647
    angle = 2 * np.pi * uniform[:, 1]
    drawn = np.sqrt(-2 * np.log(uniform[:, :1])) * np.stack([np.cos(angle), np.sin(angle)], 1)
    drawn -= drawn.mean(0)
    root = inverse_sqrt(torch.from_numpy(drawn.T @ drawn / SAMPLES), solver="eigh", eps=0)
    return drawn @ root.numpy()
