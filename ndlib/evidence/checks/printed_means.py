"""Printed means beside the means of their runs."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..tables import STUDY, Experiment, TableRow, TableRows
from ._shared import by_experiment, decimals_of_column, not_applicable, plural, reported, values_of
from .outcomes import Finding, Outcome

__all__ = ["PrintedMean", "averages", "not_the_mean", "printed_means", "shifts"]

QUANTITIES = {"accuracy": "average", "seconds": "average_seconds"}  # of the runs, and of their printed mean
FAR = 0.02  # relative; in most tables printed mean times differ from their runs by more than rounding
ENOUGH_ROWS = 3  # wrong means of one column, of which a shift of the whole column can be told

Column = tuple[str, str, int]  # data set, method, epochs: a column of a printed table


class PrintedMean(NamedTuple):
    """A printed mean beside its runs, in percent or seconds; ``wrong`` if it is not their mean.

    >>> PrintedMean(TableRow(), printed=90.0, runs=[88.0, 90.0, 92.0], wrong=False).mean
    90.0
    """

    row: TableRow
    printed: float
    runs: list[float]
    wrong: bool
    sure: str = "certain"

    @property
    def mean(self) -> float:
        """The mean of the runs."""
        return statistics.fmean(self.runs)


def printed_means(rows: TableRows, quantity: str) -> list[PrintedMean]:
    """The printed means of ``"accuracy"`` or ``"seconds"`` for which the runs are there too.

    A mean of accuracies is wrong if it differs from that of the runs by more than one unit of the last decimal, a mean
    of times if it differs by more than 2 %. It is certainly wrong only beyond what cutting digits off, or storing them
    in 16 bits, can do.

    >>> from decimal import Decimal
    >>> rows = [TableRow(attempt=n, accuracy=Decimal(text)) for n, text in (("1", "90.10"), ("2", "90.30"))]
    >>> [mean.wrong for mean in printed_means([*rows, TableRow(average=Decimal("90.25"))], "accuracy")]
    [True]
    """
    runs_of = by_experiment(r for r in reported(rows) if getattr(r, quantity) is not None)
    printed = [r for r in rows if r.source == STUDY and getattr(r, QUANTITIES[quantity]) is not None]
    raw = [v for inside in runs_of.values() for v in values_of(inside, quantity)]
    unit = max(10.0 ** -decimals_of_column(column) for column in (raw, values_of(printed, QUANTITIES[quantity])))
    found = []
    for r in printed:
        if runs := [float(v) for v in values_of(runs_of.get(r.experiment, []), quantity)]:
            value, mean = float(getattr(r, QUANTITIES[quantity])), statistics.fmean(runs)
            limit = unit + 1e-9 if quantity == "accuracy" else max(FAR * abs(mean), unit)
            far = abs(value - mean) > max(2 * limit, abs(mean) * 2.0**-8)
            found.append(PrintedMean(r, value, runs, abs(value - mean) > limit, "certain" if far else "likely"))
    return found


def averages(rows: TableRows) -> Outcome:
    """Are the printed means those of their runs?

    >>> from decimal import Decimal
    >>> rows = [TableRow(attempt=n, accuracy=Decimal(text)) for n, text in (("1", "90.10"), ("2", "90.30"))]
    >>> averages([*rows, TableRow(average=Decimal("90.25"))]).findings[0].message
    'The published average, 90.25, is not the mean of the two runs, 90.20'
    """
    looked, findings = [], []
    shifted = {id(r) for finding in shifts(rows).findings for r in finding.rows}
    for quantity in QUANTITIES:
        found = printed_means(rows, quantity)
        wrong = [m for m in found if m.wrong and id(m.row) not in shifted]
        if found:
            looked.append(plural(len(found), {"accuracy": "mean accuracy", "seconds": "mean time"}[quantity]))
        if quantity == "accuracy":
            findings += [*_explained(wrong, {m.row.experiment: m.runs for m in found})]
        else:
            findings += [Finding("seconds", (m.row,), not_the_mean(m), m.sure) for m in wrong]
    if not looked:
        return not_applicable("needs printed means and their runs")
    return Outcome(tuple(findings), ", ".join(looked))


_WORDS = {1: "one run", 2: "two runs", 3: "three runs", 4: "four runs", 5: "five runs"}


def not_the_mean(m: PrintedMean) -> str:
    """A sentence that a printed mean is not that of its runs, with both numbers.

    >>> not_the_mean(PrintedMean(TableRow(average_seconds=75), 75.0, [60.0, 70.0], wrong=True))
    'The published mean time, 75 s, is not that of the two runs, 65 s'
    """
    of = _WORDS.get(len(m.runs), f"{len(m.runs)} runs")
    if m.row.average is not None:
        return f"The published average, {m.printed:.2f}, is not the mean of the {of}, {m.mean:.2f}"
    return f"The published mean time, {m.printed:,g} s, is not that of the {of}, {m.mean:,.0f} s"


def _explained(wrong: list[PrintedMean], runs: dict[Experiment, list[float]]) -> Iterator[Finding]:
    """The wrong means, of a column together with the slip of a formula that explains all of it if there is just one."""
    for column in _by_column(wrong).values():
        slips = set.intersection(*(_slips_of(m, runs) for m in column))
        for m in column:
            message = not_the_mean(m)
            if len(slips) == 1:
                ((i, method, n),) = slips
                message += f"; it is the mean with run {n} of {method} in the place of run {i}"
            yield Finding("average", (m.row,), message, m.sure)


def _slips_of(m: PrintedMean, runs: dict[Experiment, list[float]]) -> set[tuple[int, str, int]]:
    """Each (i, method, n) for which run n of that method in the place of run i gives the mean that is printed."""
    dataset, architecture, epochs, own, setting = m.row.experiment
    return {
        (i + 1, method, n + 1)
        for (*experiment, method, other_setting), others in runs.items()
        if (*experiment, other_setting) == (dataset, architecture, epochs, setting) and method != own
        for i in range(len(m.runs))
        for n, other in enumerate(others)
        if abs(m.printed - statistics.fmean([*m.runs[:i], *m.runs[i + 1 :], other])) < 0.01
    }


def _by_column(found: Iterable[PrintedMean]) -> dict[Column, list[PrintedMean]]:
    columns: dict[Column, list[PrintedMean]] = defaultdict(list)
    for m in found:
        columns[m.row.dataset, m.row.method, m.row.epochs].append(m)
    return dict(columns)


def shifts(rows: TableRows) -> Outcome:
    """Does a printed column of means belong to another column of runs?

    A column is a data set, a method and a number of epochs. One with three or more wrong means is a finding if more
    than half of these are within 0.2 % of the runs of one other column of the data set.

    >>> from decimal import Decimal
    >>> from dataclasses import replace
    >>> times = {"A": (60, 90), "B": (65, 99), "C": (72, 113), "D": (80, 121)}  # of BN and of ND
    >>> rows = []
    >>> for name, (bn, nd) in times.items():
    ...     for method, seconds, printed in (("BN", bn, bn), ("ND", nd, bn)):  # the means of BN are printed for ND
    ...         row = TableRow(dataset="CIFAR-10", architecture=name, epochs=1, method=method)
    ...         rows.append(replace(row, accuracy=Decimal(50), seconds=Decimal(seconds)))
    ...         rows.append(replace(row, average_seconds=Decimal(printed)))
    >>> [finding.message.split(" in 4 ")[0] for finding in shifts(rows).findings]
    ['The column of mean times of ND, CIFAR-10, 1 epoch has']
    """
    findings, looked = [], 0
    for quantity in QUANTITIES:
        columns = _by_column(printed_means(rows, quantity))
        looked += len(columns)
        for at, column in columns.items():
            wrong = [m for m in column if m.wrong]
            if len(wrong) < ENOUGH_ROWS:
                continue
            owner, matches = _owner(wrong, {other: columns[other] for other in columns if other[0] == at[0]}, at)
            if owner is not None and matches >= ENOUGH_ROWS and 2 * matches > len(wrong):
                what = {"accuracy": "means", "seconds": "mean times"}[quantity]
                message = (
                    f"The column of {what} of {_name_of_column(at)} has in {matches} of {len(column)} rows those of "
                    f"{_name_of_column(owner)}, its own in {len(column) - len(wrong)}"
                )
                findings.append(Finding("shift", tuple(m.row for m in wrong), message, "likely"))
    if not looked:
        return not_applicable("needs printed means and their runs")
    return Outcome(tuple(findings), plural(looked, "column"))


def _owner(wrong: list[PrintedMean], columns: dict[Column, list[PrintedMean]], at: Column) -> tuple[Column | None, int]:
    """The other column whose runs have most of these means, and how many it has."""
    matches = {other: _matches(wrong, column) for other, column in columns.items() if other != at}
    owner = max(matches, key=lambda other: matches[other], default=None)
    return owner, matches[owner] if owner is not None else 0


def _matches(wrong: list[PrintedMean], column: list[PrintedMean]) -> int:
    raw = {m.row.architecture: m.mean for m in column}
    near = [m for m in wrong if m.row.architecture in raw]
    return sum(abs(m.printed - raw[m.row.architecture]) <= 0.002 * m.printed for m in near)


def _name_of_column(column: Column) -> str:
    dataset, method, epochs = column
    return f"{method}, {dataset}, {epochs} epoch{'s' * (epochs > 1)}"
