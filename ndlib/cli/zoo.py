"""Convert networks that nobody here wrote, train them for a step, make them plain again, and note what comes of it: of
every file of timm and torchvision the smallest architecture that has batch normalisation, and networks of
segmentation_models_pytorch, MONAI and Hugging Face. Needs the extra "zoo". The same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..experiments import zoo, zoo_networks
from ._common import refuse_unwritable

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command.

    >>> parser = argparse.ArgumentParser()
    >>> add_arguments(parser)
    >>> parser.parse_args(["--family", "timm"]).family
    ['timm']
    """
    families = zoo_networks.FAMILIES
    parser.add_argument("--family", action="append", choices=families, help="a package (default: all of them)")
    parser.add_argument("--file", type=Path, default=Path("data", "zoo.jsonl"), help="JSON lines to add to")
    parser.add_argument("--compare", type=Path, help="an earlier file: fail if a network does worse than there")
    parser.add_argument("--show", action="store_true", help="show what the file holds, and convert nothing")


def run(chosen: dict[str, Any], _: list[str]) -> Iterator[str]:
    """Visit the networks; a line for each.

    >>> from ndlib.files import path
    >>> chosen = {"file": path("zoo.jsonl"), "family": None, "show": True, "compare": None}
    >>> " networks with batch normalisation, " in next(run(chosen, []))
    True
    """
    if not chosen["show"]:
        refuse_unwritable(chosen["file"])
        yield from zoo.visit(chosen["file"], chosen["family"])
    for row in zoo.summary(zoo.read(chosen["file"])):
        yield (
            f"{row['family']}: {row['networks']} networks with batch normalisation, {row['without']} without it "
            f"afterwards; {row['converted']} layers whiten, {row['plain']} stay plain; {row['trains']} of "
            f"{row['trained']} train; largest error of to_plain {row['fold_error']:.1e}, of convert_pretrained "
            f"{row['pretrained_error']:.1e}; failed: {', '.join(row['failed']) or 'none'}"
        )
    if chosen["compare"] and (worse := zoo.worse(zoo.read(chosen["file"]), zoo.read(chosen["compare"]))):
        raise ValueError("worse than before: " + "; ".join(worse))
