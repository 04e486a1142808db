"""Tidy tables of results: what their columns mean, and how a file is read line by line.

A tidy table has in each row one value, or one value with its time. ``COLUMNS`` lists the columns and the other names
that are accepted for them, whatever their capitals, signs and units. None is required, but a row needs one of
``VALUES``. Files may be separated by commas, semicolons or tabs, or be a table in Markdown, see :mod:`.formats`. A
column of accuracies of which none is above 1 holds fractions, unless it says that it is in per cent.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from .formats import Printed, decoded, number, plain_name, table_lines

__all__ = [
    "COLUMNS",
    "NOT_USED",
    "ORIGINAL",
    "STUDY",
    "VALUES",
    "Experiment",
    "Problem",
    "TableRow",
    "TableRows",
    "ledger_rows",
    "read_table",
]

COLUMNS: dict[str, tuple[str, ...]] = {
    "dataset": ("data", "data_set"),
    "architecture": ("arch", "model", "network", "net"),
    "epochs": ("epoch",),
    "method": ("norm", "normalisation", "normalization"),
    "setting": ("metric",),  # whatever else tells one experiment from another
    "attempt": ("run", "seed", "trial"),
    "split": (),  # "train" or "test" makes a row a line of a log; rows of what a study reports leave it empty
    "images": (
        "test_images",
        "n_test",
    ),  # how many images an accuracy was measured on; if empty, checks.IMAGES is asked
    # The values, in percent and in seconds.
    "accuracy": (
        *("accuracy_percent", "reported_accuracy_percent", "max_top1_percent", "reproduced_percent"),
        *("acc", "top1", "top1_accuracy", "top1_acc", "test_accuracy", "test_acc"),
    ),
    "unrounded": ("first_version_accuracy_percent",),  # the same accuracy with all its decimals
    "seconds": ("train_seconds", "time_s"),
    "average": ("reported_average_accuracy_percent", "recovered_test_mean_percent"),  # a printed mean of the attempts
    "average_seconds": ("published_mean_train_seconds",),
    "original": ("original_percent",),  # what the study that is repeated printed in this place
}
VALUES = ("accuracy", "unrounded", "seconds", "average", "average_seconds", "original")
NOT_USED = (  # known, but no check asks for it
    "name_in_log",
    "net_size_millions",
    "reproduced_train_time",
    "runs",
    "seconds_as_printed",  # of unknown span
    "standard_deviation_percent",
    "stated_percent_difference_from_original",
    "table",
    "test_seconds",
)
STUDY, ORIGINAL = "study", "original"  # sources of rows; independent studies go by the names of their files

_COLUMN_OF = {plain_name(name): column for column, others in COLUMNS.items() for name in (column, *others)}
_COLUMN_OF |= {plain_name(name): name for name in NOT_USED}
ACCURACIES = ("accuracy", "unrounded", "average", "original")

Experiment = tuple[str, str, int, str, str]  # data set, architecture, epochs, method, setting


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a tidy table; the attributes are described in ``COLUMNS``, values are in percent and seconds.

    Values are decimals, because the checks ask with how many digits a number was printed. ``spread`` is what stands
    behind a ±: the accuracy is then a mean of several runs.

    >>> row = TableRow(dataset="CIFAR-10", architecture="VGG-16", epochs=20, method="ND", accuracy=Decimal("93.20"))
    >>> row.experiment
    ('CIFAR-10', 'VGG-16', 20, 'ND', '')
    >>> print(row)
    CIFAR-10, 20 epochs, VGG-16 ND
    """

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
    spread: Decimal | None = None

    @property
    def experiment(self) -> Experiment:
        """What all runs of one experiment share."""
        return self.dataset, self.architecture, self.epochs, self.method, self.setting

    @property
    def value(self) -> Decimal | None:
        """The accuracy with as many decimals as are known."""
        return self.accuracy if self.unrounded is None else self.unrounded

    def __str__(self) -> str:
        epochs = self.epochs and f"{self.epochs} epoch{'s' * (self.epochs > 1)}"
        name = [self.dataset, epochs, f"{self.architecture} {self.method}".strip(), self.setting]
        return ", ".join(str(part) for part in [*name, self.attempt and f"run {self.attempt}"] if part)


TableRows = Sequence[TableRow]


class Problem(NamedTuple):
    """Something in a file that cannot be read or is not used; a ``serious`` one means that rows are missing.

    >>> Problem("table.csv", 4, "not read: 1 fields under 2 columns").serious
    True
    """

    file: str
    line: int
    message: str
    serious: bool = True


def read_table(
    file: Path, source: str = STUDY, names: Mapping[str, str] | None = None
) -> tuple[list[TableRow], list[Problem]]:
    """Read a table, or a ledger (``.jsonl``): its rows, and for each line that cannot be read the problem.

    A file that is missing, damaged or of another kind raises nothing: it is a problem, too.

    Args:
        file: a table with a header, whose columns ``COLUMNS`` knows, or a ledger of :mod:`ndlib.experiments.ledger`.
        source: who reports the values. Values in a column ``original`` become rows of the source ``ORIGINAL``.
        names: columns of this file that go by other names, ``{"accuracy": "score"}``.

    >>> from ndlib.files import path
    >>> rows, problems = read_table(path("published/table1_rep_sbandati2021.csv"))
    >>> len(rows), problems, rows[0].architecture, rows[0].accuracy
    (36, [], 'VGG-16', Decimal('12.69'))
    """
    name, line = Path(file).name, 0
    rows: list[TableRow] = []
    problems: list[Problem] = []
    in_percent: set[str] = set()
    try:
        text = decoded(Path(file).read_bytes())
        if name.endswith(".jsonl"):
            lines: Iterator[tuple[int, Any]] = enumerate(text.split("\n"), start=1)
            parse: Callable[[Any], list[TableRow]] = _parse_ledger_line
            in_percent |= set(ACCURACIES)
        else:
            header, lines = table_lines(text)
            columns = _columns(header, names or {})
            in_percent |= {column for column, told in zip(columns, header, strict=True) if _says_percent(told)}
            line, parse = 1, partial(_parse_fields, columns, in_percent)
            problems += _problems_of_columns(name, columns, names or {})
            if any(problem.serious for problem in problems):
                return [], problems
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
    return _of_fractions(rows, name, in_percent, problems), problems


def _columns(header: list[str], names: Mapping[str, str]) -> list[str]:
    """The columns of a file, as ``COLUMNS`` calls them."""
    named = {plain_name(theirs): ours for ours, theirs in names.items()}
    return [named.get(plain_name(told), _COLUMN_OF.get(plain_name(told), told)) for told in header]


def _says_percent(told: str) -> bool:
    return "%" in told or "percent" in told.casefold() or "per cent" in told.casefold()


def _of_fractions(rows: list[TableRow], name: str, in_percent: set[str], problems: list[Problem]) -> list[TableRow]:
    """Accuracies in per cent: columns of which no value is above 1 were fractions."""
    for column in ("accuracy", "unrounded", "average"):
        values = [v for v in (getattr(row, column) for row in rows) if v is not None]
        if values and max(values) <= 1 and column not in in_percent:
            problems.append(Problem(name, 1, f"column {column!r} is read as fractions, 1 for 100 %", serious=False))
            rows = [
                row if (v := getattr(row, column)) is None else replace(row, **{column: v.scaleb(2)}) for row in rows
            ]
    return rows


def _problems_of_columns(name: str, columns: list[str], names: Mapping[str, str]) -> list[Problem]:
    if missing := sorted(set(names) - set(columns)):
        return [Problem(name, 1, f"there is no column {names[missing[0]]!r} to take for {missing[0]}")]
    if twice := sorted({column for column in columns if column in COLUMNS and columns.count(column) > 1}):
        return [Problem(name, 1, f"more than one column for {', '.join(twice)}")]
    if not set(columns) & set(VALUES):
        return [
            Problem(name, 1, f"no column of values; one of {', '.join(VALUES)} is needed, or --column accuracy=...")
        ]
    unknown = [column for column in columns if column not in COLUMNS and column not in NOT_USED]
    return [Problem(name, 1, f"column {column!r} is not known and not used", serious=False) for column in unknown]


def _parse_fields(columns: list[str], in_percent: set[str], fields: list[str]) -> list[TableRow]:
    if len(fields) != len(columns):
        raise ValueError(f"{len(fields)} fields under {len(columns)} columns")
    texts = zip(columns, (text.strip() for text in fields), strict=True)
    given = {column: text for column, text in texts if column in COLUMNS and text}
    printed = {name: _number(name, given.pop(name)) for name in VALUES if name in given}
    if not printed:
        raise ValueError(f"the row has no value ({', '.join(VALUES)})")
    in_percent |= {name for name, value in printed.items() if value.percent}
    values = {name: value.value for name, value in printed.items()}
    whole = {name: _whole_number(name, given.pop(name)) for name in ("epochs", "images") if name in given}
    if given.get("split", "test") not in ("train", "test"):
        raise ValueError(f"split must be train, test or empty, got {given['split']!r}")
    original = values.pop("original", None)
    spread = printed["accuracy"].spread if "accuracy" in printed else None
    row = TableRow(source="", spread=spread, **given, **whole, **values)  # type: ignore[arg-type]
    rows = [row] if values else []
    if original is not None:  # a row of its own, of another source
        labels = {name: getattr(row, name) for name in ("dataset", "architecture", "epochs", "method", "setting")}
        rows.append(TableRow(source=ORIGINAL, accuracy=original, **labels))
    return rows


def _number(name: str, text: str) -> Printed:
    try:
        printed = number(text)
    except ValueError as error:
        raise ValueError(f"{name} is {error}") from None
    value = printed.value
    if not value.is_finite() or value < 0 or (value > 100 and "seconds" not in name):
        kind = "a time in seconds" if "seconds" in name else "a percentage between 0 and 100"
        raise ValueError(f"{name} must be {kind}, got {text}")
    return printed


def _whole_number(name: str, text: str) -> int:
    whole = re.fullmatch(r"(\d{1,15})(?:\.0+)?", text)  # spreadsheets write 20.0
    if not whole or int(whole[1]) < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {text!r}")
    return int(whole[1])


def _parse_ledger_line(text: str) -> list[TableRow]:
    return ledger_rows([json.loads(text)])


_RUN_OF_LEDGER = ("dataset", "arch", "epochs", "method", "seed")
_SETTING_OF_LEDGER = (
    "split",
    "width",
    "variant",
    "options",
    "train_images",
    "lr",
    "momentum",
    "weight_decay",
    "batch_size",
)


def ledger_rows(records: Iterable[dict[str, Any]]) -> list[TableRow]:
    """The runs of a ledger as rows of a table: of each run its best test accuracy and its training time.

    Runs that differ in data, width, learning rate and the like differ in ``setting``, so that no check takes them for
    attempts at one experiment.

    Args:
        records: as :mod:`ndlib.experiments.ledger` reads them.

    Raises:
        ValueError: a record lacks a key.

    >>> from ndlib import files
    >>> from ndlib.experiments import ledger
    >>> row = ledger_rows(ledger.read(files.path("results/cifar10.jsonl"))[:1])[0]
    >>> row.dataset, row.images, row.setting.split()[0]
    ('cifar10', 2000, 'width=1.0')
    """
    rows = []
    for r in records:
        if lacking := {*_RUN_OF_LEDGER, "test_images", "test_best", "train_seconds"} - r.keys():
            raise ValueError(f"not a ledger record: there is no {', '.join(sorted(lacking))}")
        dataset, architecture, epochs, method, seed = (r[name] for name in _RUN_OF_LEDGER)
        rows.append(
            TableRow(
                source="",
                dataset=dataset,
                architecture=architecture,
                epochs=epochs,
                method=method,
                setting=" ".join(
                    f"{name}={r[name]}" for name in _SETTING_OF_LEDGER if r.get(name) not in ("", "test", None)
                ),
                attempt=str(seed),
                images=r["test_images"],
                accuracy=Decimal(f"{r['test_best']:.6f}"),
                seconds=Decimal(f"{r['train_seconds']:.3f}"),
            )
        )
    return rows
