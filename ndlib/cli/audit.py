"""Checks on tables of results: is each value what its column says? The columns are described in ndlib.evidence.tables.
Exit status: 0 nothing found, 1 something found, 2 something could not be read.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..evidence.report import audit_files
from ..evidence.tables import COLUMNS

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command.

    >>> parser = argparse.ArgumentParser()
    >>> add_arguments(parser)
    >>> parser.parse_args(["table.csv", "--json"]).as_json
    True
    """
    parser.add_argument(
        "files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="tables of one study (separated by commas, semicolons or tabs, or in Markdown), or a ledger (.jsonl)",
    )
    parser.add_argument("--original", type=Path, metavar="FILE.csv", help="the published values that the study repeats")
    parser.add_argument(
        "--independent", type=Path, nargs="+", default=[], metavar="FILE.csv", help="values that other studies found"
    )
    parser.add_argument(
        "--column",
        dest="names",
        type=a_column,
        action="append",
        default=[],
        metavar="NAME=THEIRS",
        help="take the column THEIRS for NAME, such as accuracy=top1; may be repeated",
    )
    parser.add_argument("--json", dest="as_json", action="store_true", help="print all findings as JSON")


def a_column(text: str) -> tuple[str, str]:
    """A column and its name in the file, as a pair.

    >>> a_column("accuracy=score")
    ('accuracy', 'score')
    """
    name, _, theirs = text.partition("=")
    if name not in COLUMNS or not theirs:
        raise argparse.ArgumentTypeError(f"must be NAME=THEIRS with a NAME among {', '.join(COLUMNS)}, got {text!r}")
    return name, theirs


def run(chosen: dict[str, Any], _: list[str]) -> Iterator[str]:
    """Check the tables; what was found, in words.

    >>> from ndlib.files import path
    >>> chosen = {"original": None, "independent": [], "as_json": False}
    >>> next(run({"files": [path("results/cifar10.jsonl")]} | chosen, [])).split()[0]
    '17'
    """
    report, status = audit_files(**chosen | {"names": dict(chosen.get("names", []))})
    yield report
    if status:
        raise SystemExit(status)
