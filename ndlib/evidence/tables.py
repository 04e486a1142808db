"""Tidy tables of results: what their columns mean, and how a file is read line by line.

A tidy table has in each row one value, or one value with its time. ``COLUMNS`` lists the columns and the other names
that are accepted for them. None is required, but a row needs one of ``VALUES``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

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
    "dataset": (),
    "architecture": ("arch",),
    "epochs": (),
    "method": (),
    "setting": ("metric",),  # whatever else tells one experiment from another
    "attempt": ("run", "seed"),
    "split": (),  # "train" or "test" makes a row a line of a log; rows of what a study reports leave it empty
    "images": ("test_images",),  # how many images an accuracy was measured on; if empty, checks.IMAGES is asked
    # The values, in percent and in seconds.
    "accuracy": ("accuracy_percent", "reported_accuracy_percent", "max_top1_percent", "reproduced_percent"),
    "unrounded": ("first_version_accuracy_percent",),  # the same accuracy with all its decimals
    "seconds": ("train_seconds",),
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

_COLUMN_OF = {name: column for column, others in COLUMNS.items() for name in (column, *others)}

Experiment = tuple[str, str, int, str, str]  # data set, architecture, epochs, method, setting


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a tidy table; the attributes are described in ``COLUMNS``, values are in percent and seconds.

    Values are decimals, because the checks ask with how many digits a number was printed.

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


def read_table(file: Path, source: str = STUDY) -> tuple[list[TableRow], list[Problem]]:
    """Read a CSV file, or a ledger (``.jsonl``): its rows, and for each line that cannot be read the problem.

    A file that is missing, damaged or of another kind raises nothing: it is a problem, too.

    Args:
        file: a CSV file with a header, whose columns ``COLUMNS`` knows, or a ledger of :mod:`ndlib.experiments.ledger`.
        source: who reports the values. Values in a column ``original`` become rows of the source ``ORIGINAL``.

    >>> from ndlib.files import path
    >>> rows, problems = read_table(path("published/table1_rep_sbandati2021.csv"))
    >>> len(rows), problems, rows[0].architecture, rows[0].accuracy
    (36, [], 'VGG-16', Decimal('12.69'))
    """
    name, line = Path(file).name, 0
    rows: list[TableRow] = []
    problems: list[Problem] = []
    try:
        with Path(file).open(newline="", encoding="utf-8-sig") as stream:
            if name.endswith(".jsonl"):
                lines: Iterator[tuple[int, Any]] = enumerate(stream, start=1)
                parse: Callable[[Any], list[TableRow]] = _parse_ledger_line
            else:
                columns, lines = _csv_lines(stream)
                line, parse = 1, partial(_parse_fields, columns)
                problems += _problems_of_columns(name, columns)
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
    return rows, problems


def _csv_lines(stream: TextIO) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The columns of a CSV file, as ``COLUMNS`` calls them, and below them the fields of each line with its number."""
    reader = csv.reader(stream, strict=True)
    header = [name.strip() for name in next(reader, [])]
    return [_COLUMN_OF.get(name, name) for name in header], ((reader.line_num, fields) for fields in reader)


def _problems_of_columns(name: str, columns: list[str]) -> list[Problem]:
    if twice := sorted({column for column in columns if columns.count(column) > 1}):
        return [Problem(name, 1, f"more than one column for {', '.join(twice)}")]
    if not set(columns) & set(VALUES):
        return [Problem(name, 1, f"no column of values; one of {', '.join(VALUES)} is needed")]
    unknown = [column for column in columns if column not in COLUMNS and column not in NOT_USED]
    return [Problem(name, 1, f"column {column!r} is not known and not used", serious=False) for column in unknown]


def _parse_fields(columns: list[str], fields: list[str]) -> list[TableRow]:
    if len(fields) != len(columns):
        raise ValueError(f"{len(fields)} fields under {len(columns)} columns")
    texts = zip(columns, (text.strip() for text in fields), strict=True)
    given = {column: text for column, text in texts if column in COLUMNS and text}
    values = {name: _number(name, given.pop(name)) for name in VALUES if name in given}
    if not values:
        raise ValueError(f"the row has no value ({', '.join(VALUES)})")
    whole = {name: _whole_number(name, given.pop(name)) for name in ("epochs", "images") if name in given}
    if given.get("split", "test") not in ("train", "test"):
        raise ValueError(f"split must be train, test or empty, got {given['split']!r}")
    original = values.pop("original", None)
    row = TableRow(source="", **given, **whole, **values)  # type: ignore[arg-type]
    rows = [row] if values else []
    if original is not None:  # a row of its own, of another source
        labels = {name: getattr(row, name) for name in ("dataset", "architecture", "epochs", "method", "setting")}
        rows.append(TableRow(source=ORIGINAL, accuracy=original, **labels))
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


def _whole_number(name: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {text!r}")
    return int(text)


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
