"""Train one network and add the result, training and test accuracy apart, to a ledger. The defaults are the paper's
settings for CIFAR.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .._core.options import parse_option
from ..experiments import ledger, runs
from ..experiments.models import ARCHITECTURES, save
from ..experiments.models.blocks import METHODS, VARIANTS
from ..experiments.optimizers import OPTIMIZERS
from ..experiments.training import AUGMENTATIONS, LOSSES, PRECISIONS
from ._common import a_device, processes, refuse_unwritable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", required=True, help="see help(ndlib.experiments.datasets.load)")
    parser.add_argument("--arch", choices=ARCHITECTURES, default="vgg-small", help="the network")
    parser.add_argument("--method", choices=METHODS, required=True, help="normalisation of each layer")
    parser.add_argument("--width", type=float, default=1.0, help="factor on the hidden channels")
    parser.add_argument("--variant", choices=VARIANTS, default="paper", help="where deconvolution stands")
    parser.add_argument(
        "--option",
        dest="options",
        action="append",
        type=an_option,
        default=[],
        metavar="NAME=VALUE",
        help="of the deconvolution layers, such as block_size=16 or detach_root=True; may be repeated",
    )
    parser.add_argument("--start", default="", metavar="FILE.npz", help="a network of --save-weights to train on")
    parser.add_argument("--keep", choices=runs.KEPT, default="function", help="of a start that is to be deconvolved")
    parser.add_argument("--train-images", type=int, help="the first so many in canonical order (default: all)")
    parser.add_argument("--test-images", type=int, help="likewise (default: all)")
    parser.add_argument(
        "--held-out",
        type=int,
        default=0,
        metavar="N",
        help="test on the N training images after those trained on, and leave the test images alone: for choices",
    )
    parser.add_argument("--epochs", type=int, default=20, help="one annealed run of this length")
    parser.add_argument("--seed", type=int, default=0, help="decides weights, order and augmentation")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="sgd", help="muon: of kernels, AdamW of the rest")
    parser.add_argument("--lr", type=float, default=0.1, help="first learning rate, falling to 0 along a cosine")
    parser.add_argument("--momentum", type=float, default=0.9, help="of SGD and Muon; first beta of AdamW")
    parser.add_argument("--weight-decay", type=float, default=1e-3, help="L2 penalty; with AdamW and Muon decoupled")
    parser.add_argument("--batch-size", type=int, default=128, help="images a step")
    parser.add_argument("--augment", choices=AUGMENTATIONS, default="crop-flip", help="of the training images")
    parser.add_argument("--loss", choices=LOSSES, default="cross-entropy", help="what is made small")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of all but the roots")
    parser.add_argument("--device", type=a_device, default="cpu", help="cpu or cuda")
    parser.add_argument("--ledger", type=Path, help="JSON lines file to add to (default: data/results/DATASET.jsonl)")
    parser.add_argument("--resume", action="store_true", help="go on where this run was interrupted, if it was")
    parser.add_argument("--save-weights", type=Path, help="also write the trained network, half precision, .npz")


def an_option(text: str) -> tuple[str, Any]:
    try:
        return parse_option(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(chosen: dict[str, Any], arguments: list[str]) -> Iterator[str]:
    weights, file, device, resume = (chosen.pop(name) for name in ("save_weights", "ledger", "device", "resume"))
    settings = runs.Settings(**chosen | {"options": dict(chosen["options"])})
    file = file or Path("data", "results", f"{settings.dataset}.jsonl")
    refuse_unwritable(file, weights)
    command = ["python", "-m", "ndlib", *(word for word in arguments if word != "--resume")]
    with processes(device) as (first, device):
        checkpoint = runs.checkpoint_of(settings, file, resume=resume)
        model, record = runs.run(settings, device=device, checkpoint=checkpoint, command=command)
        if not first:
            return
        ledger.append(file, record)
        if weights:
            save(model, weights, record)
        checkpoint.remove()
        yield f"{runs.summary(record)}; added to {file}"
