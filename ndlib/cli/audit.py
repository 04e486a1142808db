"""Checks on tables of results: is each value what its column says? The columns are described in ndlib.evidence.tables.
Exit status: 0 nothing found, 1 something found, 2 something could not be read.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..evidence.report import audit_files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="tables of one study, .csv, or a ledger")
    parser.add_argument("--original", type=Path, metavar="FILE.csv", help="the values that the study repeats")
    parser.add_argument(
        "--independent", type=Path, nargs="+", default=[], metavar="FILE.csv", help="values of other studies"
    )
    parser.add_argument("--json", dest="as_json", action="store_true", help="everything, as JSON")


def run(chosen: dict[str, Any], _: list[str]) -> Iterator[str]:
    report, status = audit_files(**chosen)
    yield report
    if status:
        raise SystemExit(status)
