"""Autocovariances, for lags up to 14 pixels, of all pictures below a folder, into a file; and their deconvolution
kernel in numbers. Interrupted, the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..pictures import fits, folders, statistics_files
from ._common import refuse_unwritable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("folder", type=Path, nargs="?", help="searched with all folders in it")
    what.add_argument("--merge", type=Path, nargs=2, metavar=("A.npz", "B.npz"), help="add up the sums of two files")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.npz", help="file to write")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[], help="also rescale the shorter side to so many pixels (antialiased)"
    )
    parser.add_argument(
        "--orders", type=int, default=0, help="also keep the sums of the first 1, 2, 3, ... pictures in random orders"
    )


def run(chosen: dict[str, Any], arguments: list[str]) -> Iterator[str]:
    file = chosen["out"]
    refuse_unwritable(file)
    if chosen["merge"]:
        if chosen["sizes"] or chosen["orders"]:
            raise ValueError("--merge takes what the two files hold: leave out --sizes and --orders")
        collection = statistics_files.merge(*map(statistics_files.load_statistics, chosen["merge"]))
        statistics_files.save_statistics(file, collection)
    else:
        sizes, orders = chosen["sizes"], chosen["orders"]
        collection = folders.collect(chosen["folder"], file, sizes=sizes, orders=orders)
    skipped = [f"skipped {reason}" for reason in collection.provenance["skipped"]]
    pictures = collection.provenance["pictures"]
    yield "\n".join(
        [*skipped, f"{pictures} pictures, {len(skipped)} skipped: {file}", fits.describe_kernel(collection)]
    )
