"""The command line: ``python -m ndlib train ...``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import ledger
from .data import DatasetError
from .models import ARCHITECTURES, save
from .models.blocks import METHODS
from .training import run


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m ndlib", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    train = commands.add_parser(
        "train",
        help="train one network and add the result to a ledger",
        description="Train one network and add the result, training and test accuracy apart, to a ledger. "
        "The defaults are the paper's settings for CIFAR.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    train.add_argument("--dataset", required=True, help="photo-patches, cifar10, cifar100, mnist or fashion-mnist")
    train.add_argument("--arch", choices=ARCHITECTURES, default="vgg-small", help="the network")
    train.add_argument("--method", choices=METHODS, required=True, help="normalisation of each layer")
    train.add_argument("--width", type=float, default=1.0, help="factor on the hidden channels")
    train.add_argument("--train-images", type=int, help="the first so many in canonical order (default: all)")
    train.add_argument("--test-images", type=int, help="likewise (default: all)")
    train.add_argument("--epochs", type=int, default=20, help="one annealed run of this length")
    train.add_argument("--seed", type=int, default=0, help="decides weights, order and augmentation")
    train.add_argument("--lr", type=float, default=0.1, help="first learning rate, falling to 0 along a cosine")
    train.add_argument("--weight-decay", type=float, default=1e-3, help="L2 penalty")
    train.add_argument("--batch-size", type=int, default=128, help="images a step")
    train.add_argument("--augment", action=argparse.BooleanOptionalAction, default=True, help="random crop and flip")
    train.add_argument("--device", default="cpu", help="cpu or cuda")
    train.add_argument("--ledger", type=Path, help="JSON lines file to add to (default: data/results/DATASET.jsonl)")
    train.add_argument("--save-weights", type=Path, help="also write the trained network, half precision, .npz")

    chosen = vars(parser.parse_args(arguments))
    chosen.pop("command")
    weights, file = chosen.pop("save_weights"), chosen.pop("ledger")
    file = file or Path("data", "results", f"{chosen['dataset']}.jsonl")
    try:
        model, record = run(**chosen, command=["python", "-m", "ndlib", *arguments])
        ledger.append(file, record)
        if weights:
            save(model, weights, record)
    except (ValueError, DatasetError, FloatingPointError, OSError) as error:
        print(f"python -m ndlib: {error}", file=sys.stderr)
        return 1
    print(
        f"{ledger.display_name(record['method'])}, {ledger.display_name(record['dataset'])}, "
        f"{record['epochs']} epochs: "
        f"test {record['test_last']:.2f} % (best {record['test_best']:.2f}), train {record['train_last']:.2f} %, "
        f"{record['train_seconds']:.0f} s of training; added to {file}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
