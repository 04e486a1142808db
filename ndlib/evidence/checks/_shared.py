"""What the checks share: which rows they look at, how they group them, and how they count in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import TypeVar

from ..tables import STUDY, Experiment, TableRow, TableRows
from .outcomes import Outcome

__all__ = [
    "by_experiment",
    "decimals_of",
    "decimals_of_column",
    "group",
    "logged_lines",
    "not_applicable",
    "plural",
    "reported",
    "values_of",
]

Key = TypeVar("Key")


def reported(rows: TableRows) -> list[TableRow]:
    """The rows in which the study reports an accuracy."""
    return [r for r in rows if r.source == STUDY and not r.split and r.value is not None]


def logged_lines(rows: TableRows) -> dict[tuple[Experiment, str], dict[str, TableRow]]:
    """The lines of the study's logs: by run (experiment and attempt), then by split."""
    found: dict[tuple[Experiment, str], dict[str, TableRow]] = defaultdict(dict)
    for r in rows:
        if r.source == STUDY and r.split and r.accuracy is not None:
            found[r.experiment, r.attempt][r.split] = r
    return dict(found)


def group(rows: Iterable[TableRow], key: Callable[[TableRow], Key]) -> dict[Key, list[TableRow]]:
    """The rows that share a key, under this key."""
    found: dict[Key, list[TableRow]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return dict(found)


def by_experiment(rows: Iterable[TableRow]) -> dict[Experiment, list[TableRow]]:
    """The rows of each experiment."""
    return group(rows, lambda r: r.experiment)


def decimals_of(value: Decimal) -> int:
    """How many decimals a number is printed with."""
    return -int(value.as_tuple().exponent)


def decimals_of_column(values: Iterable[Decimal | None]) -> int:
    """How many decimals the numbers of a column are printed with.

    As many as at least one number in twenty has: spreadsheets drop zeros at the end, and now and then a number was not
    rounded as the others of its column were.
    """
    counts = sorted(decimals_of(v) for v in values if v is not None)
    return counts[-1 - len(counts) // 20] if counts else 0


def values_of(rows: TableRows, quantity: str = "accuracy") -> list[Decimal]:
    """The values of one column, without the empty ones."""
    return [v for v in (getattr(r, quantity) for r in rows) if v is not None]


def not_applicable(why: str) -> Outcome:
    """The outcome of a check that could not look."""
    return Outcome((), why, applicable=False)


def plural(count: int, what: str) -> str:
    """A count in words: ``"1 value"``, ``"2,000 values"``, ``"3 accuracies"``."""
    many = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{count:,} {what if count == 1 else many}"
