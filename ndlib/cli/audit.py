"""Checks on tables of results: is each value what its column says? The columns are described in ndlib.evidence.tables.
Exit status: 0 nothing found, 1 something found, 2 something could not be read.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..evidence.report import audit_files

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command.

    >>> parser = argparse.ArgumentParser()
    >>> add_arguments(parser)
    >>> parser.parse_args(["table.csv", "--json"]).as_json
    True
    """
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="tables of one study (.csv), or a ledger (.jsonl)"
    )
    parser.add_argument("--original", type=Path, metavar="FILE.csv", help="the published values that the study repeats")
    parser.add_argument(
        "--independent", type=Path, nargs="+", default=[], metavar="FILE.csv", help="values that other studies found"
    )
    parser.add_argument("--json", dest="as_json", action="store_true", help="print all findings as JSON")


def run(chosen: dict[str, Any], _: list[str]) -> Iterator[str]:
    """Check the tables; what was found, in words.

    >>> from ndlib.files import path
    >>> chosen = {"original": None, "independent": [], "as_json": False}
    >>> next(run({"files": [path("results/cifar10.jsonl")]} | chosen, [])).split()[0]
    'granularity'
    """
    report, status = audit_files(**chosen)
    yield report
    if status:
        raise SystemExit(status)
