"""Times and accuracies that do not go together with the rest of the table, or with the values of other studies."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise

from ..tables import ORIGINAL, STUDY, Experiment, TableRow, TableRows
from ._shared import by_experiment, not_applicable, plural, reported, values_of
from .outcomes import Finding, Outcome

__all__ = ["above", "deviation", "misplaced", "squared_deviation", "times"]


def misplaced(rows: TableRows) -> Outcome:
    """Does a time repeat an accuracy of its own experiment?

    >>> from decimal import Decimal
    >>> numbers = (("1", 63, 70), ("2", 64, 63))  # run, accuracy, seconds
    >>> runs = [TableRow(attempt=n, accuracy=Decimal(a), seconds=Decimal(s)) for n, a, s in numbers]
    >>> [str(finding.rows[0]) for finding in misplaced(runs).findings]
    ['run 2']
    """
    runs = reported(rows)
    accuracies = {
        experiment: {v for r in inside for v in (r.value, r.accuracy)}
        for experiment, inside in by_experiment(runs).items()
    }
    timed = [r for r in runs if r.seconds is not None]
    odd = [r for r in timed if r.seconds in accuracies[r.experiment]]
    findings = (
        Finding("time", (r,), "an accuracy where the time should stand", "likely", f"{r.seconds:f}") for r in odd
    )
    return Outcome(tuple(findings), plural(len(timed), "time")) if timed else not_applicable("needs times")


FACTOR = 1.5  # between the ratio of an experiment and the median ratio
DEVIATIONS = 5  # robust standard deviations of the ratios
ENOUGH_RATIOS = 5  # for a median that one odd experiment does not move


def times(rows: TableRows) -> Outcome:
    """Do more epochs take longer by the same factor as in the other experiments?

    In each experiment the times an epoch (medians of the runs) after two numbers of epochs have a ratio. One that
    differs from the median ratio by more than a factor of 1.5, and by more than five robust standard deviations of the
    ratios, is a finding.

    >>> from decimal import Decimal
    >>> from dataclasses import replace
    >>> runs = [
    ...     TableRow(architecture=name, epochs=epochs, accuracy=Decimal(50), seconds=Decimal(60 * epochs))
    ...     for name in "ABCDEF" for epochs in (1, 20)
    ... ]
    >>> runs[-1] = replace(runs[-1], seconds=Decimal(300))  # as long as 5 epochs should take
    >>> [finding.message for finding in times(runs).findings]
    ['20 epochs take 5 times as long as 1; in the median experiment it is 20 times']
    """
    timed = by_experiment(r for r in reported(rows) if r.seconds and r.epochs)
    per_epoch = {
        experiment: statistics.median(float(v) / experiment[2] for v in values_of(runs, "seconds"))
        for experiment, runs in timed.items()
    }
    looked, findings = 0, []
    for few, many in pairwise(sorted({experiment[2] for experiment in timed})):
        ratios = _log_ratios(per_epoch, few, many)
        if len(ratios) < ENOUGH_RATIOS:
            continue
        looked += len(ratios)
        middle = statistics.median(ratios.values())
        scale = 1.4826 * statistics.median(abs(v - middle) for v in ratios.values())
        for experiment, value in ratios.items():
            if abs(value - middle) > max(math.log(FACTOR), DEVIATIONS * scale):
                message = (
                    f"{many} epochs take {math.exp(value) * many / few:.2g} times as long as {few}; "
                    f"in the median experiment it is {math.exp(middle) * many / few:.2g} times"
                )
                findings.append(Finding("epochs", tuple(timed[experiment]), message, "look"))
    if not looked:
        return not_applicable("needs times of at least five experiments after two numbers of epochs")
    return Outcome(tuple(findings), plural(looked, "ratio"))


def _log_ratios(per_epoch: dict[Experiment, float], few: int, many: int) -> dict[Experiment, float]:
    """Logarithms of the time an epoch takes with many epochs over that with few, where both are known."""
    ratios = {}
    for experiment in per_epoch:
        dataset, architecture, epochs, method, setting = experiment
        before = (dataset, architecture, few, method, setting)
        if epochs == many and before in per_epoch:
            ratios[experiment] = math.log(per_epoch[experiment] / per_epoch[before])
    return ratios


MARGIN = 5.0  # points


def above(rows: TableRows) -> Outcome:
    """Is a mean above every independent value of the same experiment by more than five points?

    >>> from decimal import Decimal
    >>> rows = [TableRow(accuracy=Decimal(90)), TableRow(source="another study", accuracy=Decimal(84))]
    >>> above(rows).findings[0].message
    '6.0 points above the highest of 1 other value'
    """
    others = by_experiment(r for r in rows if r.source != STUDY and r.accuracy is not None)
    findings, looked = [], 0
    for experiment, runs in by_experiment(reported(rows)).items():
        if experiment not in others:
            continue
        looked += 1
        mean, most = _mean_accuracy(runs), float(max(values_of(others[experiment])))
        if mean > most + MARGIN:
            message = f"{mean - most:.1f} points above the highest of {plural(len(others[experiment]), 'other value')}"
            findings.append(Finding("above", tuple(runs), message, "look", f"{mean:.2f} beside {most:g}"))
    if not looked:
        return not_applicable("needs values of other studies (--original, --independent)")
    return Outcome(tuple(findings), plural(looked, "experiment"))


def _mean_accuracy(runs: list[TableRow]) -> float:
    return statistics.fmean(float(r.value or 0) for r in runs)


THRESHOLD = 0.1  # relative


def squared_deviation(runs: Sequence[float], original: float) -> float:
    """Averaged squared deviation of runs from an original value: sum over runs of (run - original)^2 / (n - 1).

    Accuracies are given in percent and count as fractions of 1. The study of Obadage et al. does not say that it
    divides by the number of runs less one; only so computed the deviations have the ranges that it prints.

    Source: Obadage et al. 2024, arXiv 2410.01189.

    >>> round(squared_deviation([60.0, 40.0, 50.0], 50.0), 12)
    0.01
    """
    return sum((run - original) ** 2 for run in runs) / 1e4 / (len(runs) - 1)


def deviation(rows: TableRows) -> Outcome:
    """Does a mean deviate from the original by more than 10 % of it, up or down?

    >>> from decimal import Decimal
    >>> rows = [TableRow(accuracy=Decimal(40)), TableRow(source=ORIGINAL, accuracy=Decimal(50))]
    >>> deviation(rows).findings[0].message
    '20 % below the original'
    """
    original = {r.experiment: float(r.accuracy) for r in rows if r.source == ORIGINAL and r.accuracy}
    findings, squares = [], []
    repeated = {e: runs for e, runs in by_experiment(reported(rows)).items() if e in original}
    for experiment, runs in repeated.items():
        values, mean = [float(r.value or 0) for r in runs], _mean_accuracy(runs)
        relative = mean / original[experiment] - 1
        squares += [squared_deviation(values, original[experiment])] if len(values) > 1 else []
        if abs(relative) > THRESHOLD + 1e-9:
            numbers = f"{mean:.2f}, original {original[experiment]:g}"
            message = f"{100 * abs(relative):.0f} % {'above' if relative > 0 else 'below'} the original"
            findings.append(Finding("deviation", tuple(runs), message, "look", numbers))
    if not repeated:
        return not_applicable("needs the original values (--original, or a column original)")
    looked = plural(len(repeated), "experiment")
    if squares:
        looked += f"; averaged squared deviations {min(squares):.2f} to {max(squares):.2f}"
    return Outcome(tuple(findings), looked)
