"""How far the difference of two arms can be trusted: 95 % intervals of means over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .ledger import Record

__all__ = ["Interval", "paired_difference", "pooled_half_width"]


class Interval(NamedTuple):
    """A mean of n values and the ends of its 95 % interval.

    >>> Interval(mean=1.0, low=0.5, high=1.5, n=3).low
    0.5
    """

    mean: float
    low: float
    high: float
    n: int


def paired_difference(ours: Iterable[Record], theirs: Iterable[Record], key: str = "test_last") -> Interval:
    """Mean difference of runs with the same seed, ours minus theirs, and its 95 % interval (Student's t).

    Pairing takes out what two runs of a seed share, such as the order of the images.

    Raises:
        ValueError: the seeds of the two are not the same, occur twice, or are fewer than two.

    >>> ours = [{"seed": seed, "test_last": 10.0 + seed} for seed in range(3)]
    >>> theirs = [{"seed": seed, "test_last": 9.0} for seed in range(3)]
    >>> mean, low, high, n = paired_difference(ours, theirs)
    >>> f"{mean:.1f} ({low:.1f} to {high:.1f}), n = {n}"
    '2.0 (-0.5 to 4.5), n = 3'
    """
    from scipy import stats

    pairs = [[(r["seed"], r[key]) for r in runs] for runs in (ours, theirs)]
    seeds = [sorted(seed for seed, _ in side) for side in pairs]
    if seeds[0] != seeds[1] or len(set(seeds[0])) != len(seeds[0]) or len(seeds[0]) < 2:
        raise ValueError(f"a paired difference needs the same two or more seeds on both sides, got {seeds}")
    by_seed = [dict(side) for side in pairs]
    differences = [by_seed[0][seed] - by_seed[1][seed] for seed in seeds[0]]
    n, mean = len(differences), statistics.fmean(differences)
    half = float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(differences) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def pooled_half_width(groups: Iterable[Sequence[float]], n: int) -> float:
    """Half the width of the 95 % interval of a mean of n values, from the scatter within several groups (Student's t).

    A few values alone give a poor standard deviation; groups that scatter alike give a good one together.

    Args:
        groups: two or more values each, such as the accuracies of one arm; their means do not matter.
        n: values that the mean is taken of. For the difference of two means of n values, multiply by sqrt(2).

    >>> f"{pooled_half_width([[10.0, 12.0], [50.0, 53.0, 56.0]], n=4):.2f}"
    '4.11'
    """
    from scipy import stats

    groups = list(groups)
    freedom = sum(len(group) - 1 for group in groups)
    variance = sum((len(group) - 1) * statistics.variance(group) for group in groups) / freedom
    return float(stats.t.ppf(0.975, freedom)) * math.sqrt(variance / n)
