"""The files in ``data/published`` and their rows: what the paper and its two reproductions on CIFAR printed."""

from __future__ import annotations

from functools import cache

from ..files import path
from .tables import ORIGINAL, STUDY, TableRow, read_table

__all__ = [
    "LOGS",
    "OBADAGE",
    "PAPER",
    "RECOVERED",
    "REPORT",
    "SBANDATI",
    "SOURCES",
    "STUDY_FILES",
    "TABLE",
    "other_rows",
    "study_rows",
    "table_rows",
]

PAPER, SBANDATI, OBADAGE = "paper", "Sbandati 2021", "Obadage 2024"
RECOVERED = "Obadage 2024, logs"  # test means that the study did not print, from its own logs
SOURCES = (PAPER, SBANDATI, OBADAGE, RECOVERED)

TABLE, REPORT = "table1_original_ye2020.csv", "table1_rep_sbandati2021.csv"
LOGS = "table1_rep_obadage2024_logs_20_epochs.csv"
STUDY_FILES = (  # the tables of the study that publishes its runs
    "table1_rep_obadage2024_raw.csv",
    "table1_rep_obadage2024_averages.csv",
    LOGS,
    "table89_train_seconds_obadage2024.csv",
)


@cache
def table_rows(file: str, source: str = STUDY) -> tuple[TableRow, ...]:
    """The rows of a file in ``data/published``.

    Args:
        source: who reports the values, see :func:`ndlib.evidence.tables.read_table`.

    Raises:
        ValueError: something in the file cannot be read; the message says what and in which line.

    >>> len(table_rows(TABLE, ORIGINAL))
    120
    """
    found, problems = read_table(path(f"published/{file}"), source)
    if problems:
        raise ValueError(f"{problems[0].file}, line {problems[0].line}: {problems[0].message}")
    return tuple(found)


def study_rows() -> list[TableRow]:
    """All rows of the study of 2024: runs, means, logs and mean times.

    >>> sum(row.accuracy is not None and not row.split for row in study_rows())  # its runs
    360
    """
    return [row for file in STUDY_FILES for row in table_rows(file)]


def other_rows() -> list[TableRow]:
    """The values of the paper and of the study of 2021, for the checks that compare with other studies.

    >>> sorted({row.source for row in other_rows()})
    ['Sbandati 2021', 'original']
    """
    return [*table_rows(TABLE, ORIGINAL), *table_rows(REPORT, SBANDATI)]
