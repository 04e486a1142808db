"""Train DeepLabV3 (ResNet-50) from random weights and add the result to a file. The defaults are the published settings
for Cityscapes; shorter sides are rescaled to the base size.
"""

from __future__ import annotations

import argparse
import inspect
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..experiments import ledger, segmentation
from ._common import a_device, refuse_unwritable

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command.

    >>> parser = argparse.ArgumentParser()
    >>> add_arguments(parser)
    >>> parser.parse_args("--data . --dataset pets --method nd".split()).base_size
    520
    """
    parser.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER", help="folder in which the data set was unpacked"
    )
    parser.add_argument("--dataset", choices=("cityscapes", "pets"), required=True, help="which data set it is")
    parser.add_argument("--method", choices=("none", "bn", "nd"), required=True, help="normalisation of the layers")
    parser.add_argument(
        "--classes",
        type=int,
        choices=(19, 21),
        help="classes of Cityscapes: 19 as in the standard, or 21 as in the authors' code",
    )
    parser.add_argument(
        "--base-size", type=int, help="side of the pictures in pixels; training crops have 480/520 of it"
    )
    parser.add_argument("--epochs", type=int, default=30, help="passes over the training pictures")
    parser.add_argument("--batch-size", type=int, help="pictures in a training step")
    parser.add_argument("--lr", type=float, help="learning rate of the first step; it falls to 0 by the power 0.9")
    parser.add_argument("--momentum", type=float, help="momentum of SGD")
    parser.add_argument("--weight-decay", type=float, help="L2 penalty")
    parser.add_argument("--seed", type=int, help="number that decides weights, order of the pictures and augmentation")
    parser.add_argument("--workers", type=int, help="processes that read pictures")
    parser.add_argument("--device", type=a_device, default="cpu", help="cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("data/segmentation.jsonl"), help="JSON lines file to add to")
    functions = segmentation.fit_segmentation, segmentation.train_segmentation  # which state the defaults
    stated = {name: parameter for f in functions for name, parameter in inspect.signature(f).parameters.items()}
    shared = ("classes", "base_size", "seed", "batch_size", "lr", "momentum", "weight_decay", "workers")
    parser.set_defaults(**{name: stated[name].default for name in shared})


def run(chosen: dict[str, Any], arguments: list[str]) -> Iterator[str]:
    """Train; after the epochs, each printed as it ends, where the record was added.

    >>> next(run({"data": Path("nowhere"), "out": Path("new.jsonl"), "dataset": "pets", "method": "nd"}, []))
    Traceback (most recent call last):
        ...
    ndlib.files.DatasetError: there is no nowhere/oxford-iiit-pet/images; download the set (800 MB) with: ...
    """

    def report(entry: dict[str, float]) -> None:
        scores = ", ".join(f"{name} {entry[name]:.2f} %" for name in entry if name.startswith("miou"))
        print(f"epoch {entry['epoch']}: loss {entry['loss']:.3f}, {scores}", flush=True)

    folder, file = chosen.pop("data"), chosen.pop("out")
    refuse_unwritable(file)
    command = shlex.join(["python", "-m", "ndlib", *arguments])
    record = segmentation.train_segmentation(folder, command=command, report=report, **chosen)
    ledger.append_line(file, record)
    yield f"added to {file}"
