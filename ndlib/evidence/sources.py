"""The files in ``data/published`` and their rows: what the paper and its reproductions on CIFAR printed."""

from __future__ import annotations

from functools import cache

from ..files import path
from .tables import ORIGINAL, STUDY, TableRow, read_table

__all__ = [
    "JIANG",
    "LOGS",
    "OBADAGE",
    "PAPER",
    "RECOVERED",
    "SBANDATI",
    "SINGLE",
    "SOURCES",
    "STUDY_FILES",
    "TABLE",
    "other_rows",
    "study_rows",
    "table_rows",
]

PAPER, SBANDATI, JIANG, OBADAGE = "paper", "Sbandati 2021", "Jiang 2021", "Obadage 2024"
RECOVERED = "Obadage 2024, logs"  # test means that the study did not print, from its own logs
SOURCES = (PAPER, SBANDATI, JIANG, OBADAGE, RECOVERED)

TABLE = "table1_original_ye2020.csv"
SINGLE = {  # the studies that print one accuracy a cell
    SBANDATI: "table1_rep_sbandati2021.csv",
    JIANG: "table1_rep_jiang2021.csv",
}
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


def study_rows(source: str = OBADAGE) -> list[TableRow]:
    """All rows of one study, as the study that is audited. Of that of 2024: runs, means, logs and mean times.

    Args:
        source: a reproduction.

    >>> sum(row.accuracy is not None and not row.split for row in study_rows())  # the runs of the study of 2024
    360
    >>> len(study_rows(JIANG))
    32
    """
    files = (SINGLE[source],) if source in SINGLE else STUDY_FILES
    return [row for file in files for row in table_rows(file)]


def other_rows(source: str = OBADAGE) -> list[TableRow]:
    """What the values of a study are compared with: the paper's, and those of the other studies of one value a cell.

    The study of 2024 is not among these, since most of its values are no test accuracies.

    Args:
        source: the study that is audited, whose own rows are left out.

    >>> sorted({row.source for row in other_rows()})
    ['Jiang 2021', 'Sbandati 2021', 'original']
    >>> sorted({row.source for row in other_rows(JIANG)})
    ['Sbandati 2021', 'original']
    """
    independent = [row for name, file in SINGLE.items() if name != source for row in table_rows(file, name)]
    return [*table_rows(TABLE, ORIGINAL), *independent]
