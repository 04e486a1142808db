"""How far the difference of two arms can be trusted: 95 % intervals, by one rule.

An arm is the runs that differ in nothing but the seed. Its few runs give a poor standard deviation, so that it is taken
from all arms of the *comparison*: the recorded runs of the same network on the same data for as many epochs, in
whichever ledger they stand. The same runs therefore have the same interval wherever they are compared.

Seeds are paired only where the comparison shows that they carry something: where runs of different arms with the same
seed are alike beyond chance (:func:`seed_correlation`). Then what they share is taken out.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from ..files import path
from . import ledger
from .ledger import Record
from .settings import Hyperparameters, recorded_types

__all__ = [
    "LEVEL",
    "Interval",
    "Scatter",
    "SeedCorrelation",
    "comparison",
    "contrast",
    "difference",
    "of_mean",
    "recorded_runs",
    "scatter",
    "seed_correlation",
]

LEVEL = 0.01  # how rarely chance alone may look like correlated seeds; there are dozens of comparisons

Key = str | Callable[[Record], float]  # which number of a run is compared: a key of the ledger, or a function

_COMPARISON = ("dataset", "split", "train_images", "test_images", "arch", "width", "epochs", "augment")
_ARM = tuple(
    key
    for key in (*_COMPARISON, "variant", "method", "options", "start", "keep", *recorded_types(Hyperparameters))
    if key != "seed"
)


class Interval(NamedTuple):
    """A difference of means of n runs each (the fewest of them) and the ends of its 95 % interval.

    >>> Interval(mean=1.0, low=0.5, high=1.5, n=3).half
    0.5
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def half(self) -> float:
        """Half the width."""
        return (self.high - self.low) / 2


class SeedCorrelation(NamedTuple):
    """How alike runs of different arms with the same seed are, and how often chance makes them so.

    ``value`` is the intraclass correlation of the seeds; ``chance`` the probability of one at least as large if seeds
    mean nothing (F test); ``deviation`` and ``freedom`` belong to what is left of the scatter without the shared part.

    >>> SeedCorrelation(0.9, 0.001, deviation=0.2, freedom=10).shown
    True
    """

    value: float
    chance: float
    deviation: float
    freedom: int

    @property
    def shown(self) -> bool:
        """Whether chance makes it more rarely than ``LEVEL``."""
        return self.chance < LEVEL


class Scatter(NamedTuple):
    """The standard deviation of a run within its arm, pooled over the arms, and what its seed has to do with it.

    >>> runs = [{"method": m, "seed": s, "test_last": v} for m, s, v in (("bn", 0, 1), ("bn", 1, 3), ("nd", 0, 5))]
    >>> round(scatter(runs).deviation, 3), scatter(runs).freedom
    (1.414, 1)
    """

    deviation: float
    freedom: int
    seeds: SeedCorrelation


def seed_correlation(arms: Iterable[Mapping[int, float]]) -> SeedCorrelation:
    """Are runs of different arms with the same seed alike?

    The values minus the mean of their arm are analysed by seed: a seed that shifts all arms alike makes the means of
    the seeds differ by more than what is left. Only arms with the most common set of seeds count.

    Args:
        arms: of each arm the value of each seed.

    >>> apart = seed_correlation([{0: 1.0, 1: 2.0, 2: 3.0}, {0: 7.0, 1: 5.0, 2: 6.0}])
    >>> alike = seed_correlation([{0: 1.0, 1: 2.0, 2: 3.0}, {0: 5.1, 1: 6.0, 2: 7.0}])
    >>> f"{apart.value:.2f} {apart.shown} {alike.value:.2f} {alike.shown}"
    '-0.50 False 1.00 True'
    """
    from scipy import stats

    arms = [arm for arm in arms if len(arm) > 1]
    sets = Counter(tuple(sorted(arm)) for arm in arms)
    seeds, k = max(sets.items(), key=lambda item: (item[1], len(item[0])), default=((), 0))
    n = len(seeds)
    if k < 2:
        return SeedCorrelation(0.0, 1.0, math.nan, 0)
    table = [
        [arm[seed] - statistics.fmean(arm.values()) for seed in seeds] for arm in arms if tuple(sorted(arm)) == seeds
    ]
    of_seeds = [statistics.fmean(column) for column in zip(*table, strict=True)]
    between = k * math.fsum(value**2 for value in of_seeds) / (n - 1)
    freedom = (n - 1) * (k - 1)
    left = math.fsum((v - s) ** 2 for row in table for v, s in zip(row, of_seeds, strict=True)) / freedom
    if not left:
        return SeedCorrelation(1.0 if between else 0.0, 0.0 if between else 1.0, 0.0, freedom)
    value = (between - left) / (between + (k - 1) * left)
    return SeedCorrelation(value, float(stats.f.sf(between / left, n - 1, freedom)), math.sqrt(left), freedom)


def _value(run: Record, key: Key) -> float:
    return float(run[key] if isinstance(key, str) else key(run))


def _label(run: Record, keys: Sequence[str]) -> tuple[object, ...]:
    return tuple(run.get(key) for key in keys)


@cache
def recorded_runs() -> tuple[Record, ...]:
    """The runs of all ledgers in ``data/results``; one that stands in two of them counts once.

    >>> len(recorded_runs()) > 900
    True
    """
    found: dict[tuple[object, ...], Record] = {}
    for file in sorted(path("results").glob("*.jsonl")):
        for run in ledger.read(file):
            found.setdefault((*_label(run, _ARM), run["seed"]), run)
    return tuple(found.values())


def comparison(run: Record) -> list[Record]:
    """The recorded runs that a run is compared with: the same network on the same data, for as many epochs.

    >>> run = next(run for run in recorded_runs() if run["arch"] == "logistic")
    >>> {(other["arch"], other["epochs"]) for other in comparison(run)}
    {('logistic', 1)}
    """
    label = _label(run, _COMPARISON)
    return [other for other in recorded_runs() if _label(other, _COMPARISON) == label]


def scatter(runs: Iterable[Record], key: Key = "test_last") -> Scatter:
    """The scatter of runs within their arms, pooled over all arms of two runs or more.

    Raises:
        ValueError: no arm has two seeds, so that nothing is known of the scatter.

    >>> runs = [{"method": m, "seed": s, "test_last": 10.0 * s} for m in ("bn", "nd") for s in (0, 1, 2)]
    >>> found = scatter(runs)
    >>> found.deviation, found.freedom, found.seeds.shown
    (10.0, 4, True)
    """
    arms: dict[tuple[object, ...], dict[int, float]] = defaultdict(dict)
    for run in runs:
        arms[_label(run, _ARM)].setdefault(run["seed"], _value(run, key))
    groups = [arm for arm in arms.values() if len(arm) > 1]
    if not groups:
        raise ValueError("an interval needs an arm with two or more seeds")
    freedom = sum(len(group) - 1 for group in groups)
    variance = math.fsum((len(group) - 1) * statistics.variance(group.values()) for group in groups) / freedom
    return Scatter(math.sqrt(variance), freedom, seed_correlation(groups))


_known: dict[tuple[object, ...], Scatter] = {}


def _scatter_around(arms: Sequence[list[Record]], key: Key) -> Scatter:
    """The scatter of the comparison that the arms belong to; arms that no ledger has are added to it."""
    label = (_label(arms[0][0], _COMPARISON), key)
    recorded = comparison(arms[0][0])
    if all(run in recorded for arm in arms for run in arm):
        if label not in _known:
            _known[label] = scatter(recorded, key)
        return _known[label]
    return scatter([*recorded, *(run for arm in arms for run in arm)], key)


def contrast(plus: Sequence[Iterable[Record]], minus: Sequence[Iterable[Record]], key: Key = "test_last") -> Interval:
    """The means of some arms minus the means of others, and the 95 % interval (Student's t).

    Arms of different comparisons, such as of two numbers of epochs, bring each its own scatter (Welch).

    Args:
        plus, minus: arms; each is the runs of one arm.
        key: which number of a run is compared.

    Raises:
        ValueError: an arm has no runs, or one seed twice.

    >>> ours = [{"method": "nd", "seed": seed, "test_last": value} for seed, value in enumerate((12, 13, 14))]
    >>> theirs = [{"method": "bn", "seed": seed, "test_last": value} for seed, value in enumerate((9, 11, 10))]
    >>> mean, low, high, n = contrast([ours], [theirs])
    >>> f"{mean:.1f} ({low:.1f} to {high:.1f}), n = {n}"
    '3.0 (0.7 to 5.3), n = 3'
    """
    from scipy import stats

    sides = [[list(arm) for arm in side] for side in (plus, minus)]
    arms = [arm for side in sides for arm in side]
    seeds = [[run["seed"] for run in arm] for arm in arms]
    if not all(seeds) or any(len(set(each)) != len(each) for each in seeds):
        raise ValueError(f"every arm needs runs, and each seed once, got the seeds {seeds}")
    mean = math.fsum(
        sign * statistics.fmean(_value(run, key) for run in arm)
        for sign, side in zip((1, -1), sides, strict=True)
        for arm in side
    )
    parts: dict[tuple[object, ...], list[list[Record]]] = defaultdict(list)
    for arm in arms:
        parts[_label(arm[0], _COMPARISON)].append(arm)
    variances = []
    for part in parts.values():
        found = _scatter_around(part, key)
        alike = len(parts) == 1 and len(sides[0]) == len(sides[1]) and len({tuple(sorted(each)) for each in seeds}) == 1
        known = found.seeds if found.seeds.shown and alike else found
        variances.append((known.deviation**2 * sum(1 / len(arm) for arm in part), known.freedom))
    total = sum(variance for variance, _ in variances)
    freedom = total**2 / sum(variance**2 / f for variance, f in variances) if total else 1.0
    half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(total)
    return Interval(mean, mean - half, mean + half, min(map(len, arms)))


def difference(ours: Iterable[Record], theirs: Iterable[Record], key: Key = "test_last") -> Interval:
    """The mean of our runs minus the mean of theirs, and the 95 % interval by the rule of this module.

    >>> narrow = ledger.select(recorded_runs(), arch="resnet18", epochs=2, options="", split="test")
    >>> nd, bn = (ledger.select(narrow, method=method) for method in ("nd", "bn"))
    >>> difference(nd, bn).high < 0
    True
    """
    return contrast([ours], [theirs], key)


def of_mean(runs: Iterable[Record], key: Key = "test_last") -> Interval:
    """The mean of the runs of one arm and its 95 % interval, with the scatter of its comparison.

    >>> found = of_mean([{"seed": seed, "test_last": 10.0 + seed} for seed in range(3)])
    >>> f"{found.mean:.1f} ± {found.half:.1f}"
    '11.0 ± 2.5'
    """
    return contrast([runs], [], key)
