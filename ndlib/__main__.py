"""The command line: ``python -m ndlib`` followed by ``train``, ``bench`` or ``statistics``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import ledger
from .data import DatasetError
from .layers import parse_option
from .models import ARCHITECTURES, save
from .models.blocks import METHODS
from .training import run


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen = vars(_parser().parse_args(arguments))
    command = {"train": _train, "bench": _bench, "statistics": _statistics}[chosen.pop("command")]
    try:
        for lines in command(chosen, arguments):
            print(lines, flush=True)
    except (ValueError, DatasetError, FloatingPointError, OSError) as error:
        print(f"python -m ndlib: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("python -m ndlib: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
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
    train.add_argument(
        "--option",
        dest="options",
        action="append",
        type=_option,
        default=[],
        metavar="NAME=VALUE",
        help="of the deconvolution layers, such as block_size=16 or detach_root=True; may be repeated",
    )
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

    bench = commands.add_parser(
        "bench",
        help="time and memory of deconvolution beside batch normalisation",
        description="A training step of each network and its memory, the stages of the deconvolved layers, and "
        "inference after folding: measured in turns in one process, ratios first; every result is added to a file.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    bench.add_argument("archs", nargs="*", metavar="ARCH", help=f"of {', '.join(ARCHITECTURES)} (default: all)")
    bench.add_argument("--batch-size", type=int, default=128, help="images a step")
    bench.add_argument("--rounds", type=int, default=5, help="how often each is timed")
    bench.add_argument("--device", default="cpu", help="cpu or cuda")
    bench.add_argument(
        "--official", type=Path, metavar="PATH", help="a checkout of the authors' repository, compared too"
    )
    bench.add_argument("--out", type=Path, default=Path("data/benchmark.jsonl"), help="JSON lines file to add to")

    statistics = commands.add_parser(
        "statistics",
        help="statistics and deconvolution kernel of a folder of pictures",
        description="Autocovariances, for lags up to 14 pixels, of all pictures below a folder, into a file; and their "
        "deconvolution kernel in numbers. Interrupted, the same command goes on where it stopped.",
    )
    what = statistics.add_mutually_exclusive_group(required=True)
    what.add_argument("folder", type=Path, nargs="?", help="searched with all folders in it")
    what.add_argument("--merge", type=Path, nargs=2, metavar=("A.npz", "B.npz"), help="add up the sums of two files")
    statistics.add_argument("--out", type=Path, required=True, metavar="FILE.npz", help="file to write")
    statistics.add_argument(
        "--sizes", type=int, nargs="+", default=[], help="also rescale the shorter side to so many pixels (antialiased)"
    )
    statistics.add_argument(
        "--orders", type=int, default=0, help="also keep the sums of the first 1, 2, 3, ... pictures in random orders"
    )
    return parser


def _option(text: str) -> tuple[str, Any]:
    try:
        return parse_option(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _bench(chosen: dict[str, Any], arguments: list[str]) -> Iterator[str]:
    from . import benchmark

    chosen["archs"] = chosen["archs"] or list(ARCHITECTURES)
    if unknown := sorted(set(chosen["archs"]) - ARCHITECTURES.keys()):
        raise ValueError(f"unknown architecture {unknown[0]!r}; there are {', '.join(ARCHITECTURES)}")
    command = shlex.join(["python", "-m", "ndlib", *arguments])
    yield from benchmark.run(checkout=chosen.pop("official"), file=chosen.pop("out"), command=command, **chosen)


def _train(chosen: dict[str, Any], arguments: list[str]) -> Iterator[str]:
    weights, file = chosen.pop("save_weights"), chosen.pop("ledger")
    chosen["options"] = dict(chosen["options"])
    file = file or Path("data", "results", f"{chosen['dataset']}.jsonl")
    model, record = run(**chosen, command=["python", "-m", "ndlib", *arguments])
    ledger.append(file, record)
    if weights:
        save(model, weights, record)
    yield (
        f"{ledger.display_name(record['method'])}, {ledger.display_name(record['dataset'])}, "
        f"{record['epochs']} epochs: "
        f"test {record['test_last']:.2f} % (best {record['test_best']:.2f}), train {record['train_last']:.2f} %, "
        f"{record['train_seconds']:.0f} s of training; added to {file}"
    )


def _statistics(chosen: dict[str, Any], arguments: list[str]) -> Iterator[str]:
    from . import image_statistics, kernels

    file = chosen["out"]
    if chosen["merge"]:
        if chosen["sizes"] or chosen["orders"]:
            raise ValueError("--merge takes what the two files hold: leave out --sizes and --orders")
        collection = image_statistics.merge(*map(image_statistics.load, chosen["merge"]))
        image_statistics.save(file, collection)
    else:
        sizes, orders = chosen["sizes"], chosen["orders"]
        collection = image_statistics.collect(chosen["folder"], file, sizes=sizes, orders=orders)
    skipped = [f"skipped {reason}" for reason in collection.provenance["skipped"]]
    pictures = collection.provenance["pictures"]
    yield "\n".join([*skipped, f"{pictures} pictures, {len(skipped)} skipped: {file}", kernels.summary(collection)])


if __name__ == "__main__":
    sys.exit(main())
