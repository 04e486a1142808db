"""Measure a training step of each network and its memory, the stages of the deconvolved layers, and inference after
folding: in turns in one process, ratios first. Every result is added to a file.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..experiments import baselines, benchmark
from ..experiments.models import ARCHITECTURES, one_of
from ._common import a_device, a_positive_integer, refuse_unwritable

__all__ = ["BENCHED", "add_arguments", "run"]

BENCHED = ("vgg-small", "vgg16", "resnet18")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command.

    >>> parser = argparse.ArgumentParser()
    >>> add_arguments(parser)
    >>> parser.parse_args(["vgg16", "--rounds", "9"]).rounds
    9
    """
    parser.add_argument("archs", nargs="*", metavar="ARCH", help=f"such as {' '.join(BENCHED)} (default: these)")
    parser.add_argument("--width", type=float, default=1.0, help="factor on the hidden channels")
    parser.add_argument("--batch-size", type=a_positive_integer, default=128, help="images a step")
    parser.add_argument(
        "--compile",
        dest="compiled",
        action="store_true",
        help="time only steps with BN and with ND, each as it is and through torch.compile",
    )
    parser.add_argument("--rounds", type=a_positive_integer, default=5, help="how often each network is timed")
    parser.add_argument("--device", type=a_device, default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--official",
        type=Path,
        metavar="PATH",
        help="a checkout of the authors' repository, whose layers are timed too",
    )
    parser.add_argument("--out", type=Path, default=Path("data/benchmark.jsonl"), help="JSON lines file to add to")


def run(chosen: dict[str, Any], arguments: list[str]) -> Iterator[str]:
    """Measure; each measurement as a table in words.

    >>> next(run({"archs": ["lenet"]}, []))
    Traceback (most recent call last):
        ...
    ValueError: unknown architecture 'lenet'; there are vgg-small, vgg16, resnet18, ...
    """
    chosen["archs"] = chosen["archs"] or list(BENCHED)
    for arch in chosen["archs"]:
        one_of("architecture", arch, ARCHITECTURES)
    refuse_unwritable(chosen["out"])
    if chosen["official"] and not chosen["compiled"]:
        baselines.check_checkout(chosen["official"])  # now, not after an hour
    # A place on somebody's disk does not belong in the record.
    places = ("--official", "--out")
    words = ["PATH" if before in places else word for before, word in zip(["", *arguments], arguments, strict=False)]
    command = shlex.join(["python", "-m", "ndlib", *words])
    yield from benchmark.measure(checkout=chosen.pop("official"), file=chosen.pop("out"), command=command, **chosen)
