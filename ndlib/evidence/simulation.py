"""Tables of made-up studies in which nothing is wrong, to see what the checks say to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np

from .tables import ORIGINAL, TableRow

__all__ = ["honest_table"]


def honest_table(seed: int, *, steady: bool = False) -> list[TableRow]:
    """A made-up study in which nothing is wrong, in the form of the reproduction of 2024, drawn at random.

    Ten networks on two data sets with two methods, for 1, 20 and 100 epochs, three runs of each: 360 runs with training
    times, their printed means, logs of the runs of 20 epochs, the original and one independent study. Test accuracies
    are counts of 10,000 images. The runs of an experiment differ by a standard deviation of 3 points after 1 epoch and
    of 0.4 points after more, but in one experiment with BN out of ten by 5 points. An epoch takes 5 % more or less than
    on average, and every run some seconds to start.

    Args:
        seed: the same seed gives the same table.
        steady: let the runs of all experiments differ by 0.4 points.

    >>> rows = honest_table(0)
    >>> len(rows), sum(bool(row.attempt and not row.split) for row in rows)
    (960, 360)
    """
    rng = np.random.default_rng(seed)
    rows: list[TableRow] = []
    for dataset, best in (("CIFAR-10", 95.0), ("CIFAR-100", 78.0)):
        for number in range(10):
            cost = rng.uniform(20, 200)
            for method in ("BN", "ND"):
                slower = 1.0 if method == "BN" else rng.uniform(2, 4)
                for epochs, below in ((1, 40.0), (20, 4.0), (100, 1.0)):
                    level = best - below * rng.uniform(0.5, 1.5) - (method == "BN") * rng.uniform(0, 2)
                    spread = 3.0 if epochs == 1 else 5.0 if method == "BN" and rng.random() < 0.1 else 0.4
                    spread = 0.4 if steady else spread
                    row = TableRow(dataset=dataset, architecture=f"network {number}", epochs=epochs, method=method)
                    rows += _honest_experiment(rng, row, level, spread, cost * slower)
    return [replace(row, file="honest.csv", line=line) for line, row in enumerate(rows, start=2)]


def _honest_experiment(
    rng: np.random.Generator, row: TableRow, level: float, spread: float, seconds_an_epoch: float
) -> Iterator[TableRow]:
    """Three runs with their logs, their printed means, and the values of the original and of another study."""
    accuracies, seconds = [], []
    for attempt in "123":
        run = rng.normal(level, spread)
        accuracies.append(_counted(rng, 10_000, run))
        seconds.append(_rounded((seconds_an_epoch * row.epochs + rng.uniform(3, 8)) * rng.normal(1, 0.05)))
        printed, exact = _rounded(accuracies[-1]), _rounded(accuracies[-1], 3)
        yield replace(row, attempt=attempt, accuracy=printed, unrounded=exact, seconds=seconds[-1])
        if row.epochs == 20:
            yield replace(row, attempt=attempt, split="test", accuracy=_rounded(accuracies[-1]))
            yield replace(row, attempt=attempt, split="train", accuracy=_rounded(_counted(rng, 50_000, run + 4), 3))
    yield replace(row, average=_rounded(sum(accuracies) / 3), average_seconds=_rounded(sum(seconds) / 3))
    for source in (ORIGINAL, "another study"):
        yield replace(row, source=source, accuracy=_rounded(_counted(rng, 10_000, rng.normal(level, spread))))


def _counted(rng: np.random.Generator, images: int, percent: float) -> Decimal:
    """The percentage that a network of this accuracy gets right of so many images, drawn at random."""
    return 100 * Decimal(int(rng.binomial(images, min(max(percent, 1.0), 99.9) / 100))) / images


def _rounded(value: Any, decimals: int = 2) -> Decimal:
    return Decimal(f"{value:.{decimals}f}")
