"""List the architectures: parameters of each form beside the sizes that the paper gives, operations on one picture and
what deconvolution adds to them, and which convolutions are whitened.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from ..experiments.models import ARCHITECTURES, summary
from ..experiments.models.blocks import VARIANTS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("archs", nargs="*", metavar="ARCH", help=f"of {', '.join(ARCHITECTURES)} (default: all)")
    parser.add_argument("--variant", choices=VARIANTS, default="paper", help="where deconvolution stands")


def run(chosen: dict[str, Any], _: list[str]) -> Iterator[str]:
    yield from summary.table(**chosen)
