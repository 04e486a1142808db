"""The published accuracies on CIFAR: the paper and three reproductions, what each value is, and what is odd about it.

    >>> cell = {"dataset": "CIFAR-10", "epochs": 20, "architecture": "VGG-16", "method": "ND"}
    >>> for result in select_results(**cell):
    ...     print(result.source, result.accuracy, result.kind)
    paper 93.25 test
    Sbandati 2021 93.08 test
    Jiang 2021 93.1 test
    Obadage 2024 92.83 test

The files in ``data/published`` hold what the studies printed; :mod:`ndlib.evidence.marking` joins and marks the values.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

from ..files import path
from .checks import IMAGES
from .marking import (
    Attempt,
    Mark,
    PublishedResult,
    obadage_results,
    paper_results,
    recovered_results,
    single_results,
)
from .sources import (
    JIANG,
    OBADAGE,
    PAPER,
    RECOVERED,
    SBANDATI,
    SINGLE,
    SOURCES,
    TABLE,
    other_rows,
    study_rows,
    table_rows,
)
from .tables import ORIGINAL

__all__ = [
    "DATASETS",
    "EPOCHS",
    "JIANG",
    "OBADAGE",
    "PAPER",
    "RECOVERED",
    "SBANDATI",
    "SOURCES",
    "Attempt",
    "Difference",
    "Mark",
    "PublishedResult",
    "all_results",
    "architectures",
    "bn_nd_pairs",
    "differences",
    "hours",
    "median_seconds",
    "other_rows",
    "printed_time_ratios",
    "recovered_table",
    "select_results",
    "study_rows",
    "time_ratios",
]

DATASETS = ("CIFAR-10", "CIFAR-100")
EPOCHS = (1, 20, 100)


@cache
def all_results() -> tuple[PublishedResult, ...]:
    """Every cell of Table 1 in every source, in the order of the table.

    >>> len(all_results())
    320
    """
    paper, obadage = paper_results(), obadage_results()
    single = [r for source in SINGLE for r in single_results(source, paper, obadage)]
    return (*paper, *single, *obadage, *recovered_results())


def select_results(among: Iterable[PublishedResult] | None = None, /, **conditions: Any) -> list[PublishedResult]:
    """The results whose attributes have the given values.

    Args:
        among: results to choose from; None for :func:`all_results`.

    >>> {result.source for result in select_results(dataset="CIFAR-100", epochs=20, kind="train")}
    {'Obadage 2024'}
    """
    among = all_results() if among is None else among
    return [r for r in among if all(getattr(r, name) == value for name, value in conditions.items())]


def bn_nd_pairs(among: Iterable[PublishedResult]) -> list[tuple[PublishedResult, PublishedResult]]:
    """BN beside ND of the same source, data set, architecture and epochs, where both are there.

    >>> bn, nd = bn_nd_pairs(select_results(source=PAPER, epochs=1))[0]
    >>> bn.architecture == nd.architecture, f"{nd.accuracy - bn.accuracy:.2f} points"
    (True, '60.06 points')
    """
    both: dict[tuple[Any, ...], dict[str, PublishedResult]] = defaultdict(dict)
    for r in among:
        both[r.source, r.dataset, r.epochs, r.architecture][r.method] = r
    return [(found["BN"], found["ND"]) for found in both.values() if {"BN", "ND"} <= found.keys()]


class Difference(NamedTuple):
    """A test accuracy of a reproduction minus the paper's of the same cell, in points, with a 95 % interval.

    The interval is ``value`` plus and minus ``half``. ``binomial`` is the part of ``half`` that comes from the limited
    number of test images alone, and all of it where there is one run only: then the interval is too short.

    >>> first = differences()[0]
    >>> first.half >= first.binomial
    True
    """

    result: PublishedResult
    paper: PublishedResult
    value: float
    half: float
    binomial: float


def differences(among: Iterable[PublishedResult] | None = None) -> list[Difference]:
    """Every test accuracy of a reproduction beside the paper's.

    Two uncertainties are added as squares. *Runs*: with n attempts of standard deviation s, the paper's one run and
    their mean differ by chance with s sqrt(1 + 1/n), times the quantile of Student's t with n - 1 degrees of freedom;
    this takes the paper's run to scatter as the attempts do. *Test images*: 1.96 times the binomial error of both
    accuracies on 10,000 images, as if each network had met images of its own, which makes the interval rather too long.

    Args:
        among: results of any kind and source; None for :func:`all_results`. Training accuracies are left out.

    >>> for d in differences(select_results(source=RECOVERED, architecture="VGG-16", method="ND")):
    ...     print(f"{d.value:.2f} +- {d.half:.2f}")
    -0.23 +- 1.74
    """
    from scipy.stats import t

    paper = {r.cell: r for r in select_results(source=PAPER)}
    found = []
    for r in select_results(among, kind="test"):
        if r.source == PAPER:
            continue
        shares = (r.accuracy / 100, paper[r.cell].accuracy / 100)
        binomial = 196 * sum(p * (1 - p) / IMAGES[r.dataset][0] for p in shares) ** 0.5
        n, runs = len(r.attempts), 0.0
        if n > 1:
            spread = statistics.stdev(a.accuracy for a in r.attempts)
            runs = float(t.ppf(0.975, n - 1)) * spread * (1 + 1 / n) ** 0.5
        value = r.accuracy - paper[r.cell].accuracy
        found.append(Difference(r, paper[r.cell], value, math.hypot(runs, binomial), binomial))
    return found


def median_seconds(result: PublishedResult) -> float:
    """Seconds of training, median of the runs, because some of the published times stand in the wrong place.

    >>> median_seconds(select_results(source=OBADAGE, architecture="VGG-16", method="BN")[0]) > 0
    True
    """
    return statistics.median(a.train_seconds for a in result.attempts if a.train_seconds is not None)


def time_ratios(dataset: str, epochs: int) -> dict[str, float]:
    """By architecture the training time with ND over that with BN, in the study that publishes its runs.

    >>> f"{time_ratios('CIFAR-10', 100)['VGG-16']:.1f} times as long"
    '3.4 times as long'
    """
    both = bn_nd_pairs(select_results(source=OBADAGE, dataset=dataset, epochs=epochs))
    return {bn.architecture: median_seconds(nd) / median_seconds(bn) for bn, nd in both}


def printed_time_ratios() -> dict[tuple[str, str], float]:
    """By data set and architecture, ND over BN of the times that Jiang and colleagues print.

    Their report calls them seconds and does not say of what: an epoch, or the whole of training. A ratio needs neither.

    Source: Jiang, Wu, Zhu and Zhang 2021, Table 2.

    >>> f"{printed_time_ratios()['CIFAR-10', 'VGG-16']:.1f} times as long"
    '3.1 times as long'
    """
    with path(f"published/{SINGLE[JIANG]}").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["epochs"] == "20"]
    seconds = {(r["dataset"], r["architecture"], r["method"]): float(r["seconds_as_printed"]) for r in rows}
    return {(d, a): nd / seconds[d, a, "BN"] for (d, a, method), nd in seconds.items() if method == "ND"}


def hours(text: str) -> float:
    """A time as the table of ImageNet gives it, in hours.

    >>> hours("1d 2h 30m 36s")
    26.51
    """
    units = {"d": 24, "h": 1, "m": 1 / 60, "s": 1 / 3600}
    return sum(int(part[:-1]) * units[part[-1]] for part in text.split())


def architectures() -> list[str]:
    """The ten architectures, in the order of the table.

    >>> architectures()[:2]
    ['VGG-16', 'ResNet-18']
    """
    return list(dict.fromkeys(row.architecture for row in table_rows(TABLE, ORIGINAL)))


def recovered_table() -> str:
    """The test means that the study's logs give back, as CSV: ``recovered_test_means_20_epochs.csv`` in data/published.

    >>> print(recovered_table().splitlines()[1])
    DenseNet-121,CIFAR-100,20,BN,3,75.530,0.221
    """
    lines = ["architecture,dataset,epochs,method,runs,recovered_test_mean_percent,standard_deviation_percent"]
    for r in select_results(source=RECOVERED):
        labels = f"{r.architecture},{r.dataset},{r.epochs},{r.method},{len(r.attempts)}"
        lines.append(f"{labels},{r.accuracy:.3f},{statistics.stdev(a.accuracy for a in r.attempts):.3f}")
    return "\n".join(lines) + "\n"
