"""Checks on tables of results: does a value fit what its column says it is?

A tidy table has one value, or one value with its time, in each row; ``COLUMNS`` lists the columns and the other names
that are accepted for them. ``read`` reads such a file and reports what it cannot read by line. Each check is a function
from rows to an :class:`Outcome`; ``CHECKS`` lists them, ``run`` applies them all. From the command line:

    python -m ndlib audit RESULTS.csv [MEANS.csv LOGS.csv ...] --original PAPER.csv --independent OTHER.csv

A finding is a question to whoever made the table, not a verdict on anybody.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# The columns of a tidy table, with other names for the same. None is required, but a row needs one of the values.
COLUMNS: dict[str, tuple[str, ...]] = {
    "dataset": (),
    "architecture": ("arch",),
    "epochs": (),
    "method": (),
    "setting": ("metric",),  # whatever else tells one experiment from another
    "attempt": ("run", "seed"),
    "split": (),  # "train" or "test" makes a row a line of a log; rows of what a study reports leave it empty
    "images": ("test_images",),  # what an accuracy was measured on; known for the data sets in IMAGES
    # The values. Percent and seconds.
    "accuracy": ("accuracy_percent", "reported_accuracy_percent", "max_top1_percent", "reproduced_percent"),
    "unrounded": ("first_version_accuracy_percent",),  # the same accuracy with all its decimals
    "seconds": ("train_seconds",),
    "average": ("reported_average_accuracy_percent", "recovered_test_mean_percent"),  # a printed mean of the attempts
    "average_seconds": ("published_mean_train_seconds",),
    "original": ("original_percent",),  # what the study under repetition printed in this place
}
VALUES = ("accuracy", "unrounded", "seconds", "average", "average_seconds", "original")
NOT_USED = (  # known, but no check asks for it
    "name_in_log",
    "net_size_millions",
    "reproduced_train_time",
    "runs",
    "standard_deviation_percent",
    "stated_percent_difference_from_original",
    "test_seconds",
)
IMAGES = {  # test and training images
    "CIFAR-10": (10_000, 50_000),
    "CIFAR-100": (10_000, 50_000),
    "MNIST": (10_000, 60_000),
    "Fashion-MNIST": (10_000, 60_000),
}
SURE = {
    "certain": "arithmetic: it cannot be otherwise if the columns are what they say",
    "likely": "chance does this in few honest tables",
    "look": "a reason to look; honest tables have it too",
}
STUDY, ORIGINAL = "study", "original"  # sources of rows; independent studies go by the names of their files

Block = tuple[str, int, int]  # data set, epochs, and the number of test images if a column gives it, or 0
Column = tuple[str, str, int]  # data set, method, epochs: a column of a printed table
Cell = tuple[str, str, int, str, str]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a tidy table. Values are decimals, since the number of printed digits matters."""

    line: int = 0
    file: str = ""
    source: str = STUDY
    dataset: str = ""
    architecture: str = ""
    epochs: int = 0
    method: str = ""
    setting: str = ""
    attempt: str = ""
    split: str = ""
    images: int = 0
    accuracy: Decimal | None = None
    unrounded: Decimal | None = None
    seconds: Decimal | None = None
    average: Decimal | None = None
    average_seconds: Decimal | None = None

    @property
    def cell(self) -> Cell:
        """What runs of one experiment share."""
        return self.dataset, self.architecture, self.epochs, self.method, self.setting

    @property
    def value(self) -> Decimal | None:
        """The accuracy as exactly as it is known."""
        return self.accuracy if self.unrounded is None else self.unrounded

    def __str__(self) -> str:
        epochs = self.epochs and f"{self.epochs} epoch{'s' * (self.epochs > 1)}"
        name = [self.dataset, epochs, f"{self.architecture} {self.method}".strip(), self.setting]
        return ", ".join(str(part) for part in [*name, self.attempt and f"run {self.attempt}"] if part)


Rows = Sequence[Row]


@dataclass(frozen=True)
class Finding:
    """What a check found: a rule, the rows concerned, and how sure it is (a key of ``SURE``)."""

    rule: str
    rows: tuple[Row, ...]
    message: str
    sure: str
    numbers: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a check looked at and found; where it could not look, ``applicable`` is false and ``looked`` says why."""

    findings: tuple[Finding, ...]
    looked: str
    applicable: bool = True


class Problem(NamedTuple):
    """Something in a file that cannot be read or is not used; a ``serious`` one means that rows are missing."""

    file: str
    line: int
    message: str
    serious: bool = True


# Reading. --------------------------------------------------------------------------------------------------


def read(file: Path, source: str = STUDY) -> tuple[list[Row], list[Problem]]:
    """The rows of a CSV file (or of a ledger, ``.jsonl``), and what could not be read, by line. Never raises."""
    name, line = Path(file).name, 0
    rows: list[Row] = []
    problems: list[Problem] = []
    try:
        with Path(file).open(newline="", encoding="utf-8-sig") as stream:
            if name.endswith(".jsonl"):
                lines: Iterator[Any] = enumerate(stream, start=1)
                parse: Callable[[Any], list[Row]] = lambda text: from_ledger([json.loads(text)])  # noqa: E731
            else:
                reader = csv.reader(stream, strict=True)
                header = [column.strip() for column in next(reader, [])]
                line, known = 1, {other: column for column in COLUMNS for other in (column, *COLUMNS[column])}
                problems += _about(name, header, known)
                if any(problem.serious for problem in problems):
                    return [], problems
                lines = ((reader.line_num, fields) for fields in reader)
                parse = lambda fields: _parse(header, known, fields)  # noqa: E731
            for line, content in lines:
                if not "".join(content).strip():
                    continue
                try:
                    rows += [replace(row, file=name, line=line, source=row.source or source) for row in parse(content)]
                except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
                    problems.append(Problem(name, line, f"not read: {error}"))
    except (OSError, UnicodeError, csv.Error) as error:
        problems.append(Problem(name, line + 1, f"not read from here on: {error}"))
    if not rows and not any(problem.serious for problem in problems):
        problems.append(Problem(name, line + 1, "there are no rows"))
    return rows, problems


def _about(name: str, header: list[str], known: dict[str, str]) -> list[Problem]:
    columns = [known.get(column, column) for column in header]
    if twice := sorted({column for column in columns if columns.count(column) > 1}):
        return [Problem(name, 1, f"more than one column for {', '.join(twice)}")]
    if not set(columns) & set(VALUES):
        return [Problem(name, 1, f"no column of values; one of {', '.join(VALUES)} is needed")]
    unknown = [column for column in columns if column not in COLUMNS and column not in NOT_USED]
    return [Problem(name, 1, f"column {column!r} is not known and not used", serious=False) for column in unknown]


def _parse(header: list[str], known: dict[str, str], fields: list[str]) -> list[Row]:
    if len(fields) != len(header):
        raise ValueError(f"{len(fields)} fields under {len(header)} columns")
    given = {known[c]: text.strip() for c, text in zip(header, fields, strict=True) if c in known and text.strip()}
    values = {name: _number(name, given.pop(name)) for name in VALUES if name in given}
    if not values:
        raise ValueError(f"the row has no value ({', '.join(name for name in VALUES if name in known.values())})")
    whole = {name: _whole(name, given.pop(name)) for name in ("epochs", "images") if name in given}
    if given.get("split", "test") not in ("train", "test"):
        raise ValueError(f"split must be train, test or empty, got {given['split']!r}")
    original = values.pop("original", None)
    row = Row(source="", **given, **whole, **values)  # type: ignore[arg-type]
    rows = [row] if values else []
    if original is not None:  # a row of its own, of another source
        labels = {name: getattr(row, name) for name in ("dataset", "architecture", "epochs", "method", "setting")}
        rows.append(Row(source=ORIGINAL, accuracy=original, **labels))
    return rows


def _number(name: str, text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{name} is no number: {text!r}") from None
    if not value.is_finite() or value < 0 or (value > 100 and "seconds" not in name):
        kind = "a time in seconds" if "seconds" in name else "a percentage between 0 and 100"
        raise ValueError(f"{name} must be {kind}, got {text}")
    return value


def _whole(name: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {text!r}")
    return int(text)


def from_ledger(records: Iterable[dict[str, Any]]) -> list[Row]:
    """Tidy rows of ledger records, see ``ndlib.experiments.ledger``: of each run best test accuracy and time."""
    identity = ("dataset", "arch", "epochs", "method", "seed")
    setting = ("split", "width", "variant", "options", "train_images", "lr", "momentum", "weight_decay", "batch_size")
    rows = []
    for r in records:
        if lacking := {*identity, "test_images", "test_best", "train_seconds"} - r.keys():
            raise ValueError(f"not a ledger record: there is no {', '.join(sorted(lacking))}")
        dataset, architecture, epochs, method, seed = (r[name] for name in identity)
        rows.append(
            Row(
                source="",
                dataset=dataset,
                architecture=architecture,
                epochs=epochs,
                method=method,
                setting=" ".join(f"{name}={r[name]}" for name in setting if r.get(name) not in ("", "test", None)),
                attempt=str(seed),
                images=r["test_images"],
                accuracy=Decimal(f"{r['test_best']:.6f}"),
                seconds=Decimal(f"{r['train_seconds']:.3f}"),
            )
        )
    return rows


# What the checks share. ------------------------------------------------------------------------------------


def _runs(rows: Rows) -> list[Row]:
    """The values that the study reports."""
    return [r for r in rows if r.source == STUDY and not r.split and r.value is not None]


def _logs(rows: Rows) -> dict[tuple[Cell, str], dict[str, Row]]:
    """By run, then by split, the lines of the study's logs."""
    found: dict[tuple[Cell, str], dict[str, Row]] = defaultdict(dict)
    for r in rows:
        if r.source == STUDY and r.split and r.accuracy is not None:
            found[r.cell, r.attempt][r.split] = r
    return dict(found)


def _group(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    found: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return dict(found)


def _decimals(values: Iterable[Decimal | None]) -> int:
    """How many decimals a column is printed with.

    As many as at least one value in twenty has: spreadsheets drop zeros at the end, and now and then a value is left
    unrounded.
    """
    counts = sorted(_own_decimals(v) for v in values if v is not None)
    return counts[-1 - len(counts) // 20] if counts else 0


def _own_decimals(value: Decimal) -> int:
    return -int(value.as_tuple().exponent)


def _values(rows: Rows, quantity: str = "accuracy") -> list[Decimal]:
    return [v for v in (getattr(r, quantity) for r in rows) if v is not None]


def _nothing(why: str) -> Outcome:
    return Outcome((), why, applicable=False)


def _plural(count: int, what: str) -> str:
    many = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{count:,} {what if count == 1 else many}"


_WORDS = {1: "one run", 2: "two runs", 3: "three runs", 4: "four runs", 5: "five runs"}


# The checks. -----------------------------------------------------------------------------------------------


def fits(value: Decimal, images: int, decimals: int) -> bool:
    """Whether a whole number of so many images gives this percentage, which is known to so many decimals.

    ``fits(Decimal("88.516"), 10_000, 3)`` is false, ``fits(Decimal("88.516"), 50_000, 3)`` true.
    """
    nearest = 100 * Decimal(round(value * images / 100)) / images
    return abs(value - nearest) <= max(Decimal(5).scaleb(-decimals - 1), Decimal("1e-9"))


def smallest(values: Iterable[Decimal]) -> int:
    """The smallest number of images from which all these percentages can come, if none of them was rounded."""
    return math.lcm(*((value / 100).as_integer_ratio()[1] for value in values))


@dataclass(frozen=True)
class Grain:
    """The unrounded values of a block beside the numbers of test and training images (0: not known)."""

    known: tuple[Row, ...]
    impossible: tuple[Row, ...]
    test_images: int
    train_images: int
    all_train: bool  # whether all fit the training images

    @property
    def kind(self) -> str:
        """``"train"`` if most of the values cannot be test accuracies, ``"test"`` if all can, or ``"not stated"``."""
        if 2 * len(self.impossible) > len(self.known):
            return "train"
        return "test" if self.known and not self.impossible else "not stated"


def grains(rows: Rows) -> dict[Block, Grain]:
    """Of each data set and number of epochs the values with enough decimals to tell how many images they come from."""
    column = "unrounded" if any(r.unrounded is not None for r in _runs(rows)) else "accuracy"
    runs = [r for r in _runs(rows) if getattr(r, column) is not None]
    of_file = {file: _decimals(_values(inside, column)) for file, inside in _group(runs, lambda r: r.file).items()}
    found = {}
    for block, inside in _group(runs, lambda r: (r.dataset, r.epochs, r.images)).items():
        test, train = (block[2], 0) if block[2] else IMAGES.get(block[0], (0, 0))
        decimals = {id(r): max(of_file[r.file], _own_decimals(getattr(r, column))) for r in inside}
        known = [r for r in inside if test * 10.0 ** -decimals[id(r)] < 100]
        if test and known:
            able = {n: [fits(getattr(r, column), n, decimals[id(r)]) for r in known] for n in (test, train) if n}
            impossible = tuple(r for r, fine in zip(known, able[test], strict=True) if not fine)
            found[block] = Grain(tuple(known), impossible, test, train, all(able.get(train, [False])))
    return found


def granularity(rows: Rows) -> Outcome:
    """Is accuracy times the number of test images a whole number?"""
    found = grains(rows)
    if not found:
        return _nothing("needs a known number of test images, and more printed decimals than one of them makes")
    findings = []
    for grain in found.values():
        if grain.impossible:
            first = grain.impossible[0]
            counts = f"{len(grain.impossible)} of {_plural(len(grain.known), 'value')}"
            also = f"; all fit {grain.train_images:,} training images" if grain.all_train else ""
            message = f"{counts} cannot come from {grain.test_images:,} test images{also}"
            numbers = f"{first.architecture} {first.method}: {first.value:f}".strip()
            findings.append(Finding("impossible", grain.impossible, message, "certain", numbers))
    return Outcome(tuple(findings), _plural(sum(len(g.known) for g in found.values()), "value"))


class Trace(NamedTuple):
    """Where the logs have a reported value: ``rule`` is equals-test, equals-train, another-run or unlogged."""

    row: Row
    rule: str
    reason: str
    numbers: str


def traces(rows: Rows) -> list[Trace]:
    """Each reported value that has a line in the study's logs, and what it is there."""
    logs = _logs(rows)
    runs = [r for r in _runs(rows) if (r.cell, r.attempt) in logs]
    unit = Decimal("0.99").scaleb(-_decimals(r.accuracy for r in runs))  # rounded or cut off
    trained: dict[tuple[str, Decimal | None], list[Row]] = _group(
        (by["train"] for by in logs.values() if "train" in by), lambda r: (r.dataset, r.accuracy)
    )
    found = []
    for r in runs:
        figures = {split: row.accuracy for split, row in logs[r.cell, r.attempt].items() if row.accuracy is not None}
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
                whose = f"in the logs the training accuracy of {_whose(other)}"
                found.append(Trace(r, "another-run", whose, f"{r.value:f}"))
        else:
            found.append(Trace(r, "unlogged", "not in the study's logs", f"{r.value:f}, logged as test: {test}"))
    return found


def _whose(row: Row) -> str:
    return f"{row.architecture} {row.method}, run {row.attempt}"


def logs(rows: Rows) -> Outcome:
    """Are the reported values the test accuracies of their logs?"""
    found = traces(rows)
    if not found:
        return _nothing("needs lines of logs (column split) for the reported runs")
    odd = [t for t in found if t.rule != "equals-test"]
    findings = tuple(Finding(t.rule, (t.row,), t.reason, "likely", t.numbers) for t in odd)
    return Outcome(findings, _plural(len(found), "value"))


def copies(rows: Rows) -> Outcome:
    """Do runs of different experiments share both accuracy and time?"""
    runs = [r for r in _runs(rows) if r.accuracy is not None and r.seconds is not None]
    pairs = math.comb(len(runs), 2)
    if not pairs:
        return _nothing("needs runs with accuracies and times")
    alike = (_pairs(r.accuracy for r in runs), _pairs(r.seconds for r in runs))
    expected = alike[0] * alike[1] / pairs
    if expected > 0.5:
        return _nothing(f"these numbers are too coarse: chance alone makes about {expected:.1f} equal pairs")
    recorded, traced = _logs(rows), {id(t.row): t for t in traces(rows)}
    findings = []
    for group in _group(runs, lambda r: (r.accuracy, r.seconds)).values():
        if len({r.cell for r in group}) < 2:
            continue
        owners = [r for r in group if _is_own(traced.get(id(r)))] if recorded else []
        for r in group:
            others = [other for other in owners or group if other is not r]
            if others and not any(r is owner for owner in owners):
                numbers = f"{r.accuracy:f} %, {r.seconds:f} s"
                findings.append(Finding("copy", (r,), f"value and time of {_whose(others[0])}", "likely", numbers))
    return Outcome(tuple(findings), f"{_plural(len(runs), 'run')}; chance would make {expected:.2g} equal pairs")


def _is_own(trace: Trace | None) -> bool:
    return trace is not None and trace.rule in ("equals-test", "equals-train")


def _pairs(values: Iterable[Hashable]) -> int:
    return sum(math.comb(count, 2) for count in Counter(values).values())


class Mean(NamedTuple):
    """A printed mean beside the mean of its runs."""

    row: Row
    printed: float
    runs: list[float]
    wrong: bool

    @property
    def mean(self) -> float:
        return statistics.fmean(self.runs)


QUANTITIES = {"accuracy": "average", "seconds": "average_seconds"}
FAR = 0.02  # relative; printed mean times differ by more than rounding in most tables


def means(rows: Rows, quantity: str) -> list[Mean]:
    """The printed means of ``"accuracy"`` or ``"seconds"`` for which the runs are there too.

    A mean of accuracies is wrong when it differs by more than one unit of the last decimal, a mean of times when it
    differs by more than 2 %.
    """
    by_cell = _group((r for r in _runs(rows) if getattr(r, quantity) is not None), lambda r: r.cell)
    printed = [r for r in rows if r.source == STUDY and getattr(r, QUANTITIES[quantity]) is not None]
    raw = [v for inside in by_cell.values() for v in _values(inside, quantity)]
    unit = max(10.0 ** -_decimals(column) for column in (raw, _values(printed, QUANTITIES[quantity])))
    found = []
    for r in printed:
        if runs := [float(v) for v in _values(by_cell.get(r.cell, []), quantity)]:
            value, mean = float(getattr(r, QUANTITIES[quantity])), statistics.fmean(runs)
            limit = unit + 1e-9 if quantity == "accuracy" else max(FAR * abs(mean), unit)
            found.append(Mean(r, value, runs, abs(value - mean) > limit))
    return found


def averages(rows: Rows) -> Outcome:
    """Are the printed means those of their runs?"""
    looked, findings = [], []
    shifted = {id(r) for finding in shifts(rows).findings for r in finding.rows}
    for quantity in QUANTITIES:
        found = means(rows, quantity)
        wrong = [m for m in found if m.wrong and id(m.row) not in shifted]
        if found:
            looked.append(_plural(len(found), {"accuracy": "mean accuracy", "seconds": "mean time"}[quantity]))
        if quantity == "accuracy":
            findings += [*_slips(wrong, {m.row.cell: m.runs for m in found})]
        else:
            findings += [Finding("seconds", (m.row,), not_the_mean(m), "certain") for m in wrong]
    return Outcome(tuple(findings), ", ".join(looked)) if looked else _nothing("needs printed means and their runs")


def not_the_mean(m: Mean) -> str:
    """Says that a printed mean is wrong, with both numbers."""
    of = _WORDS.get(len(m.runs), f"{len(m.runs)} runs")
    if m.row.average is not None:
        return f"The published average, {m.printed:.2f}, is not the mean of the {of}, {m.mean:.2f}"
    return f"The published mean time, {m.printed:,g} s, is not that of the {of}, {m.mean:,.0f} s"


def _slips(wrong: list[Mean], runs: dict[Cell, list[float]]) -> Iterator[Finding]:
    """Wrong means; if one slip of a formula, copied down its column, explains a column of them, they say so."""
    for column in _by_column(wrong).values():
        slips = set.intersection(*(_slips_of(m, runs) for m in column))
        for m in column:
            message = not_the_mean(m)
            if len(slips) == 1:
                ((i, method, n),) = slips
                message += f"; it is the mean with run {n} of {method} in the place of run {i}"
            yield Finding("average", (m.row,), message, "certain")


def _slips_of(m: Mean, runs: dict[Cell, list[float]]) -> set[tuple[int, str, int]]:
    """Each (i, method, n) for which run n of that method in the place of run i gives the mean that is printed."""
    dataset, architecture, epochs, own, setting = m.row.cell
    return {
        (i + 1, method, n + 1)
        for (*experiment, method, other_setting), others in runs.items()
        if (*experiment, other_setting) == (dataset, architecture, epochs, setting) and method != own
        for i in range(len(m.runs))
        for n, other in enumerate(others)
        if abs(m.printed - statistics.fmean([*m.runs[:i], *m.runs[i + 1 :], other])) < 0.01
    }


def _by_column(found: Iterable[Mean]) -> dict[Column, list[Mean]]:
    columns: dict[Column, list[Mean]] = defaultdict(list)
    for m in found:
        columns[m.row.dataset, m.row.method, m.row.epochs].append(m)
    return dict(columns)


def shifts(rows: Rows) -> Outcome:
    """Does a printed column of means belong to another column of runs?"""
    findings, looked = [], 0
    for quantity in QUANTITIES:
        columns = _by_column(means(rows, quantity))
        looked += len(columns)
        raw = {at: {m.row.architecture: m.mean for m in column} for at, column in columns.items()}
        for at, column in columns.items():
            wrong = [m for m in column if m.wrong]
            if len(wrong) < 3:
                continue
            matches = {other: _matches(wrong, raw[other]) for other in columns if other[0] == at[0] and other != at}
            best = max(matches, key=lambda other: matches[other], default=None)
            if best is not None and matches[best] >= 3 and 2 * matches[best] > len(wrong):
                what = {"accuracy": "means", "seconds": "mean times"}[quantity]
                message = (
                    f"The column of {what} of {_column(at)} has in {matches[best]} of {len(column)} rows those of "
                    f"{_column(best)}, its own in {len(column) - len(wrong)}"
                )
                findings.append(Finding("shift", tuple(m.row for m in wrong), message, "likely"))
    if not looked:
        return _nothing("needs printed means and their runs")
    return Outcome(tuple(findings), _plural(looked, "column"))


def _matches(wrong: list[Mean], raw: dict[str, float]) -> int:
    near = [m for m in wrong if m.row.architecture in raw]
    return sum(abs(m.printed - raw[m.row.architecture]) <= 0.002 * m.printed for m in near)


def _column(at: Column) -> str:
    dataset, method, epochs = at
    return f"{method}, {dataset}, {epochs} epoch{'s' * (epochs > 1)}"


def misplaced(rows: Rows) -> Outcome:
    """Does a time repeat an accuracy of its own experiment?"""
    runs = _runs(rows)
    by_cell = {cell: {v for r in inside for v in (r.value, r.accuracy)} for cell, inside in _by_cell(runs).items()}
    timed = [r for r in runs if r.seconds is not None]
    odd = [r for r in timed if r.seconds in by_cell[r.cell]]
    findings = (
        Finding("time", (r,), "an accuracy where the time should stand", "likely", f"{r.seconds:f}") for r in odd
    )
    return Outcome(tuple(findings), _plural(len(timed), "time")) if timed else _nothing("needs times")


def _by_cell(rows: Iterable[Row]) -> dict[Cell, list[Row]]:
    return _group(rows, lambda r: r.cell)


def times(rows: Rows) -> Outcome:
    """Do more epochs take longer by the same factor as in the other experiments?

    The times an epoch (median of the runs) after two different numbers of epochs give a ratio for each experiment. One
    that differs from the median ratio by more than a factor of 1.5, and by more than five robust standard deviations
    of the ratios, is a finding.
    """
    cells = {c: inside for c, inside in _by_cell(r for r in _runs(rows) if r.seconds).items() if c[2]}
    speed = {c: statistics.median(float(v) / c[2] for v in _values(inside, "seconds")) for c, inside in cells.items()}
    settings = sorted({cell[2] for cell in cells})
    looked, findings = 0, []
    for few, many in pairwise(settings):
        ratios = {}
        for cell in cells:
            before = (*cell[:2], few, *cell[3:])
            if cell[2] == many and before in cells:
                ratios[cell] = math.log(speed[cell] / speed[before])
        if len(ratios) < 5:
            continue
        looked += len(ratios)
        middle = statistics.median(ratios.values())
        scale = 1.4826 * statistics.median(abs(v - middle) for v in ratios.values())
        for cell, value in ratios.items():
            if abs(value - middle) > max(math.log(1.5), 5 * scale):
                message = (
                    f"{many} epochs take {math.exp(value) * many / few:.2g} times as long as {few}; "
                    f"in the median experiment it is {math.exp(middle) * many / few:.2g} times"
                )
                findings.append(Finding("epochs", tuple(cells[cell]), message, "look"))
    if not looked:
        return _nothing("needs times of at least five experiments after two numbers of epochs")
    return Outcome(tuple(findings), _plural(looked, "ratio"))


MARGIN = 5.0  # points


def above(rows: Rows) -> Outcome:
    """Is a mean above every independent value of the same experiment by more than five points?"""
    others = _group((r for r in rows if r.source != STUDY and r.accuracy is not None), lambda r: r.cell)
    findings, looked = [], 0
    for cell, runs in _by_cell(_runs(rows)).items():
        if cell not in others:
            continue
        looked += 1
        mean, most = statistics.fmean(float(r.value or 0) for r in runs), float(max(_values(others[cell])))
        if mean > most + MARGIN:
            message = f"{mean - most:.1f} points above the highest of {_plural(len(others[cell]), 'other value')}"
            findings.append(Finding("above", tuple(runs), message, "look", f"{mean:.2f} beside {most:g}"))
    if not looked:
        return _nothing("needs values of other studies (--original, --independent)")
    return Outcome(tuple(findings), _plural(looked, "experiment"))


THRESHOLD = 0.1  # relative


def squared_deviation(runs: Sequence[float], original: float) -> float:
    """Averaged squared deviation of runs from an original value, both in percent, as Obadage 2024 computes it.

    Accuracies count as fractions of 1 and the sum is divided by the number of runs less one: so computed it has the
    ranges that the study prints.
    """
    return sum((run - original) ** 2 for run in runs) / 1e4 / (len(runs) - 1)


def deviation(rows: Rows) -> Outcome:
    """Does a mean deviate from the original by more than 10 % of it, up or down?"""
    original = {r.cell: float(r.accuracy) for r in rows if r.source == ORIGINAL and r.accuracy}
    findings, squares = [], []
    cells = {cell: runs for cell, runs in _by_cell(_runs(rows)).items() if cell in original}
    for cell, runs in cells.items():
        values = [float(r.value or 0) for r in runs]
        relative = statistics.fmean(values) / original[cell] - 1
        squares += [squared_deviation(values, original[cell])] if len(values) > 1 else []
        if abs(relative) > THRESHOLD + 1e-9:
            numbers = f"{statistics.fmean(values):.2f}, original {original[cell]:g}"
            message = f"{100 * abs(relative):.0f} % {'above' if relative > 0 else 'below'} the original"
            findings.append(Finding("deviation", tuple(runs), message, "look", numbers))
    if not cells:
        return _nothing("needs the original values (--original, or a column original)")
    looked = _plural(len(cells), "experiment")
    if squares:
        looked += f"; averaged squared deviations {min(squares):.2f} to {max(squares):.2f}"
    return Outcome(tuple(findings), looked)


CHECKS: dict[str, Callable[[Rows], Outcome]] = {
    "granularity": granularity,
    "logs": logs,
    "copies": copies,
    "averages": averages,
    "shifts": shifts,
    "misplaced": misplaced,
    "times": times,
    "above": above,
    "deviation": deviation,
}


def check(rows: Rows) -> dict[str, Outcome]:
    """Every check applied to the rows."""
    return {name: function(rows) for name, function in CHECKS.items()}


# Honest tables, to see what the checks say to them. ---------------------------------------------------------


def honest_table(seed: int, *, steady: bool = False) -> list[Row]:
    """A made-up study in which nothing is wrong, in the form of the reproduction of 2024, drawn at random.

    Ten networks on two data sets with two methods, for 1, 20 and 100 epochs, three runs of each: 360 runs with training
    times, their printed means, logs of the runs of 20 epochs, the original and one independent study. Test accuracies
    are numbers of 10,000 images; runs of a cell differ by a standard deviation of 3 points after 1 epoch and 0.4 after
    more, but one BN cell in ten scatters by 5; with ``steady`` all by 0.4. An epoch takes 5 % more or less, and every
    run some seconds to start.
    """
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for dataset, best in (("CIFAR-10", 95.0), ("CIFAR-100", 78.0)):
        for number in range(10):
            cost = rng.uniform(20, 200)
            for method in ("BN", "ND"):
                slower = 1.0 if method == "BN" else rng.uniform(2, 4)
                for epochs, below in ((1, 40.0), (20, 4.0), (100, 1.0)):
                    level = best - below * rng.uniform(0.5, 1.5) - (method == "BN") * rng.uniform(0, 2)
                    spread = 3.0 if epochs == 1 else 5.0 if method == "BN" and rng.random() < 0.1 else 0.4
                    spread = 0.4 if steady else spread
                    cell = Row(dataset=dataset, architecture=f"network {number}", epochs=epochs, method=method)
                    rows += _honest_cell(rng, cell, level, spread, cost * slower)
    return [replace(row, file="honest.csv", line=line) for line, row in enumerate(rows, start=2)]


def _honest_cell(rng: np.random.Generator, cell: Row, level: float, spread: float, cost: float) -> Iterator[Row]:
    def measured(images: int, percent: float) -> Decimal:
        return 100 * Decimal(int(rng.binomial(images, min(max(percent, 1.0), 99.9) / 100))) / images

    def rounded(value: Any, decimals: int = 2) -> Decimal:
        return Decimal(f"{value:.{decimals}f}")

    accuracies, seconds = [], []
    for attempt in "123":
        run = rng.normal(level, spread)
        accuracies.append(measured(10_000, run))
        seconds.append(rounded((cost * cell.epochs + rng.uniform(3, 8)) * rng.normal(1, 0.05)))
        printed, exact = rounded(accuracies[-1]), rounded(accuracies[-1], 3)
        yield replace(cell, attempt=attempt, accuracy=printed, unrounded=exact, seconds=seconds[-1])
        if cell.epochs == 20:
            yield replace(cell, attempt=attempt, split="test", accuracy=rounded(accuracies[-1]))
            yield replace(cell, attempt=attempt, split="train", accuracy=rounded(measured(50_000, run + 4), 3))
    yield replace(cell, average=rounded(sum(accuracies) / 3), average_seconds=rounded(sum(seconds) / 3))
    for source in (ORIGINAL, "another study"):
        yield replace(cell, source=source, accuracy=rounded(measured(10_000, rng.normal(level, spread))))


# The report. -----------------------------------------------------------------------------------------------


def run(
    files: Sequence[Path], original: Path | None = None, independent: Sequence[Path] = (), as_json: bool = False
) -> tuple[str, int]:
    """Audit files: a report, and 0 if nothing was found, 1 if something was, 2 if something could not be read."""
    sources = [*((file, STUDY) for file in files), *((file, Path(file).stem) for file in independent)]
    rows: list[Row] = []
    problems: list[Problem] = []
    for file, source in [*sources, *([(original, ORIGINAL)] if original else [])]:
        found, wrong = read(file, source)
        rows += found
        problems += wrong
    outcomes = check(rows)
    status = int(any(outcome.findings for outcome in outcomes.values()))
    if any(problem.serious for problem in problems):
        status = 2
    return (_as_json if as_json else report)(outcomes, problems), status


def report(outcomes: dict[str, Outcome], problems: Iterable[Problem] = (), most: int = 4) -> str:
    """Outcomes for reading, of each check the first findings."""
    lines = [f"{p.file}, line {p.line}: {p.message}" for p in problems]
    for name, outcome in outcomes.items():
        count = f"{len(outcome.findings)} found" if outcome.applicable else "not applicable"
        lines += [f"{name:12} {count:15} {meaning(name)}", f"{'':12} ({outcome.looked})"]
        for finding in outcome.findings[:most]:
            place = _place(finding)
            numbers = f" ({finding.numbers})" if finding.numbers else ""
            lines.append(f"{'':4}{finding.sure:7} {place}: {finding.message}{numbers}")
        if len(outcome.findings) > most:
            lines.append(f"{'':4}... and {len(outcome.findings) - most} more; --json has them all")
    return "\n".join(lines)


def meaning(name: str) -> str:
    """The question that a check asks."""
    return (CHECKS[name].__doc__ or "").splitlines()[0]


def _place(finding: Finding) -> str:
    first, *others = finding.rows
    if not others:
        return f"{first} ({first.file}, line {first.line})" if first.file else str(first)
    shared = {f: getattr(first, f) for f in ("dataset", "epochs", "architecture", "method", "setting")}
    shared = {f: v for f, v in shared.items() if all(getattr(r, f) == v for r in others)}
    return str(Row(**shared)) or _plural(len(finding.rows), "row")


def _as_json(outcomes: dict[str, Outcome], problems: Iterable[Problem]) -> str:
    keys = ("file", "line", "dataset", "architecture", "epochs", "method", "setting", "attempt")
    checks = [
        {
            "check": name,
            "meaning": meaning(name),
            "applicable": outcome.applicable,
            "looked": outcome.looked,
            "findings": [
                {
                    "rule": f.rule,
                    "sure": f.sure,
                    "message": f.message,
                    "numbers": f.numbers,
                    "rows": [{key: getattr(r, key) for key in keys} for r in f.rows],
                }
                for f in outcome.findings
            ],
        }
        for name, outcome in outcomes.items()
    ]
    return json.dumps({"problems": [p._asdict() for p in problems], "checks": checks}, indent=1)
