"""List the architectures: parameters of each form beside the sizes that the paper gives, operations on one picture and
what deconvolution adds to them, and which convolutions are whitened.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from ..experiments.models import ARCHITECTURES, summary

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command.

    >>> parser = argparse.ArgumentParser()
    >>> add_arguments(parser)
    >>> parser.parse_args(["vgg16"]).archs
    ['vgg16']
    """
    parser.add_argument("archs", nargs="*", metavar="ARCH", help=f"one of {', '.join(ARCHITECTURES)} (default: all)")
    parser.add_argument(
        "--variant",
        choices=summary.VARIANTS,
        default="paper",
        help="which layers are deconvolved: those of the authors' code, or all",
    )


def run(chosen: dict[str, Any], _: list[str]) -> Iterator[str]:
    """List the architectures, a line each.

    >>> lines = list(run({"archs": ["vgg-small"], "variant": "paper"}, []))
    >>> lines[1].split()[0]
    'vgg-small'
    """
    yield from summary.list_architectures(**chosen)
