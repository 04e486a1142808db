"""Reported values beside the study's logs, and runs that repeat other runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable
from decimal import Decimal
from typing import NamedTuple

from ..tables import TableRow, TableRows
from ._shared import decimals_of_column, group, logged_lines, not_applicable, plural, reported
from .outcomes import Finding, Outcome

__all__ = ["Trace", "copies", "logs", "traces"]


class Trace(NamedTuple):
    """Where the logs have a reported value: ``rule`` is equals-test, equals-train, another-run or unlogged.

    >>> Trace(TableRow(), "equals-test", "the test accuracy in the study's logs", "93.2").rule
    'equals-test'
    """

    row: TableRow
    rule: str
    reason: str
    numbers: str


def traces(rows: TableRows) -> list[Trace]:
    """For each reported value whose run has lines in the study's logs, which of the logged numbers it is.

    A value equals a logged one if they differ by less than one unit of the last printed decimal: it may have been
    rounded or cut off. A value that equals neither number of its own run may be the training accuracy of another.

    >>> from dataclasses import replace
    >>> run = TableRow(dataset="CIFAR-100", architecture="VGG-16", attempt="1", accuracy=Decimal("98.41"))
    >>> logged = [replace(run, split="test", accuracy=Decimal("71.98")), replace(run, split="train")]
    >>> traces([run, *logged])[0][1:]
    ('equals-train', "the training accuracy in the study's logs", '98.41, test 71.98')
    """
    lines = logged_lines(rows)
    runs = [r for r in reported(rows) if (r.experiment, r.attempt) in lines]
    unit = Decimal("0.99").scaleb(-decimals_of_column(r.accuracy for r in runs))
    trained = group(
        (by_split["train"] for by_split in lines.values() if "train" in by_split), lambda r: (r.dataset, r.accuracy)
    )
    found = []
    for r in runs:
        by_split = lines[r.experiment, r.attempt]
        figures = {split: row.accuracy for split, row in by_split.items() if row.accuracy is not None}
        value = r.value if r.accuracy is None else r.accuracy
        same = {split for split, figure in figures.items() if value is not None and abs(value - figure) <= unit}
        test = f"{float(figures['test']):g}" if "test" in figures else "unknown"
        if "test" in same:
            found.append(Trace(r, "equals-test", "the test accuracy in the study's logs", test))
        elif "train" in same:
            numbers = f"{float(figures['train']):g}, test {test}"
            found.append(Trace(r, "equals-train", "the training accuracy in the study's logs", numbers))
        elif others := trained.get((r.dataset, r.value)):
            for other in others:
                whose = f"in the logs the training accuracy of {_name_of_run(other)}"
                found.append(Trace(r, "another-run", whose, f"{r.value:f}"))
        else:
            found.append(Trace(r, "unlogged", "not in the study's logs", f"{r.value:f}, logged as test: {test}"))
    return found


def _name_of_run(row: TableRow) -> str:
    return f"{row.architecture} {row.method}, run {row.attempt}"


def logs(rows: TableRows) -> Outcome:
    """Are the reported values the test accuracies of their logs?

    >>> from dataclasses import replace
    >>> run = TableRow(dataset="CIFAR-100", architecture="VGG-16", attempt="1", accuracy=Decimal("98.41"))
    >>> outcome = logs([run, replace(run, split="test", accuracy=Decimal("71.98"))])
    >>> outcome.findings[0].rule, outcome.findings[0].numbers
    ('unlogged', '98.41, logged as test: 71.98')
    """
    found = traces(rows)
    if not found:
        return not_applicable("needs lines of logs (column split) for the reported runs")
    odd = [t for t in found if t.rule != "equals-test"]
    findings = tuple(Finding(t.rule, (t.row,), t.reason, "likely", t.numbers) for t in odd)
    return Outcome(findings, plural(len(found), "value"))


MOST_BY_CHANCE = 0.5  # equal pairs: where chance makes more, a copy proves nothing


def copies(rows: TableRows) -> Outcome:
    """Do runs of different experiments share both accuracy and time?

    If accuracies and times are independent, chance makes about pairs of equal accuracies times pairs of equal times
    over all pairs of runs that are equal in both. Where the logs tell which run owns the numbers, only the others are
    found.

    >>> numbers = [(80 + n, 60 + n) for n in range(4)] + [(80, 60)]  # the last repeats the first
    >>> runs = [
    ...     TableRow(architecture=name, attempt="1", accuracy=Decimal(accuracy), seconds=Decimal(seconds))
    ...     for name, (accuracy, seconds) in zip("ABCDE", numbers)
    ... ]
    >>> [finding.rows[0].architecture for finding in copies(runs).findings]
    ['A', 'E']
    """
    runs = [r for r in reported(rows) if r.accuracy is not None and r.seconds is not None]
    pairs = math.comb(len(runs), 2)
    if not pairs:
        return not_applicable("needs runs with accuracies and times")
    expected = _equal_pairs(r.accuracy for r in runs) * _equal_pairs(r.seconds for r in runs) / pairs
    if expected > MOST_BY_CHANCE:
        return not_applicable(f"these numbers are too coarse: chance alone makes about {expected:.1f} equal pairs")
    recorded, traced = logged_lines(rows), {id(t.row): t for t in traces(rows)}
    findings = []
    for alike in group(runs, lambda r: (r.accuracy, r.seconds)).values():
        if len({r.experiment for r in alike}) < 2:
            continue
        owners = [r for r in alike if _is_own(traced.get(id(r)))] if recorded else []
        for r in alike:
            others = [other for other in owners or alike if other is not r]
            if others and not any(r is owner for owner in owners):
                numbers = f"{r.accuracy:f} %, {r.seconds:f} s"
                findings.append(
                    Finding("copy", (r,), f"value and time of {_name_of_run(others[0])}", "likely", numbers)
                )
    return Outcome(tuple(findings), f"{plural(len(runs), 'run')}; chance would make {expected:.2g} equal pairs")


def _is_own(trace: Trace | None) -> bool:
    return trace is not None and trace.rule in ("equals-test", "equals-train")


def _equal_pairs(values: Iterable[Hashable]) -> int:
    return sum(math.comb(count, 2) for count in Counter(values).values())
