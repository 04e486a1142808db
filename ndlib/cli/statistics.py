"""Measure the autocovariances of all pictures below a folder, for lags up to 14 pixels, write them into a file, and
print their deconvolution kernel in numbers. After an interruption the same command continues where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..pictures import fits, folders, statistics_files
from ._common import refuse_unwritable

__all__ = ["add_arguments", "run"]

LISTED = 20  # files that are named on the screen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command.

    >>> parser = argparse.ArgumentParser()
    >>> add_arguments(parser)
    >>> parser.parse_args("pictures --out all.npz --sizes 64 128".split()).sizes
    [64, 128]
    """
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("folder", type=Path, nargs="?", help="folder of pictures, searched with all folders in it")
    what.add_argument(
        "--merge", type=Path, nargs=2, metavar=("A.npz", "B.npz"), help="add up the sums of two files instead"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.npz", help="file to write")
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=[],
        help="also measure the pictures with their shorter side rescaled to these numbers of pixels (antialiased)",
    )
    parser.add_argument(
        "--orders",
        type=int,
        default=0,
        help="also keep the sums of the first 1, 2, 3, ... pictures, in this number of random orders",
    )


def run(chosen: dict[str, Any], arguments: list[str]) -> Iterator[str]:
    """Measure, or merge; what was skipped, and the kernel in numbers.

    >>> files = [Path("a.npz"), Path("b.npz")]
    >>> next(run({"out": Path("c.npz"), "merge": files, "sizes": [64], "orders": 0}, []))
    Traceback (most recent call last):
        ...
    ValueError: --merge takes what the two files hold: leave out --sizes and --orders
    """
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
    about = collection.provenance
    yield "\n".join([*_what_was_not_read(about), _in_a_line(about, file), fits.describe_kernel(collection)])


def _what_was_not_read(about: dict[str, Any]) -> Iterator[str]:
    """A line for each of the first files that were skipped or left out; the result names all of them."""
    for word in ("skipped", "left_out"):
        names = about.get(word, [])
        yield from (f"{word.replace('_', ' ')} {name}" for name in names[:LISTED])
        if len(names) > LISTED:
            yield f"{word.replace('_', ' ')} {len(names) - LISTED:,} more: see the provenance in the file"


def _in_a_line(about: dict[str, Any], file: Path) -> str:
    counted = [f"{about['pictures']} pictures", f"{len(about['skipped'])} skipped"]
    counted += [f"{len(about['left_out'])} other files left out"] if about.get("left_out") else []
    counted += [f"{number} {note}" for note, number in about.get("notes", {}).items()]
    in_floating_point = sum(part.get("schema", 1) < 2 for part in about.get("merged", []))
    counted += [f"{in_floating_point} of the files merged with sums in floating point"] if in_floating_point else []
    return f"{', '.join(counted)}: {file}"
