"""Make all runs that a TOML file describes and the ledger does not hold yet. After an interruption the same command
continues after the last epoch that was finished. The project's own sweeps are in data/sweeps.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..experiments import runs
from ._common import a_device, processes, refuse_unwritable

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command.

    >>> parser = argparse.ArgumentParser()
    >>> add_arguments(parser)
    >>> parser.parse_args(["runs.toml", "--list"]).device
    'cpu'
    """
    parser.add_argument(
        "file", type=Path, metavar="FILE.toml", help="description of the runs, see help(ndlib.experiments.runs)"
    )
    parser.add_argument("--device", type=a_device, default="cpu", help="cpu or cuda")
    parser.add_argument("--ledger", type=Path, help="JSON lines file to add to (default: data/results/FILE.jsonl)")
    parser.add_argument(
        "--list", action="store_true", help="list the runs that were made and those that are left, and make none"
    )


def run(chosen: dict[str, Any], _: list[str]) -> Iterator[str]:
    """Make the runs, or list them; a line for each.

    >>> from ndlib.files import path
    >>> chosen = {"file": path("sweeps/logistic.toml"), "ledger": None, "list": True, "device": "cpu"}
    >>> next(run(chosen, [])).split(" --")[0]
    'not run: python -m ndlib train'
    """
    file = chosen["ledger"] or Path("data", "results", f"{chosen['file'].stem}.jsonl")
    wanted = runs.read_sweep(chosen["file"])
    if chosen["list"]:
        yield from runs.overview(wanted, file)
        return
    refuse_unwritable(file)
    with processes(chosen["device"]) as (first, device):
        for line in runs.sweep(wanted, file, device=device, first=first):
            if first:
                yield line
