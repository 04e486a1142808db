"""The command line: ``python -m ndlib`` followed by ``train``, ``sweep``, ``segment``, ``models``,
``bench``, ``statistics`` or ``audit``."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from . import ledger, runs
from .data import DatasetError
from .layers import parse_option
from .models import ARCHITECTURES, one_of, save
from .models.blocks import METHODS, VARIANTS
from .optimizers import OPTIMIZERS
from .training import AUGMENTATIONS, LOSSES, PRECISIONS

BENCHED = ("vgg-small", "vgg16", "resnet18")


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen = vars(_parser().parse_args(arguments))
    command = {
        "train": _train,
        "sweep": _sweep,
        "segment": _segment,
        "models": _models,
        "bench": _bench,
        "statistics": _statistics,
        "audit": _audit,
    }[chosen.pop("command")]
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
    train.add_argument("--dataset", required=True, help="see help(ndlib.data.load)")
    train.add_argument("--arch", choices=ARCHITECTURES, default="vgg-small", help="the network")
    train.add_argument("--method", choices=METHODS, required=True, help="normalisation of each layer")
    train.add_argument("--width", type=float, default=1.0, help="factor on the hidden channels")
    train.add_argument("--variant", choices=VARIANTS, default="paper", help="where deconvolution stands")
    train.add_argument(
        "--option",
        dest="options",
        action="append",
        type=_option,
        default=[],
        metavar="NAME=VALUE",
        help="of the deconvolution layers, such as block_size=16 or detach_root=True; may be repeated",
    )
    train.add_argument("--start", default="", metavar="FILE.npz", help="a network of --save-weights to train on")
    train.add_argument("--keep", choices=runs.KEPT, default="function", help="of a start that is to be deconvolved")
    train.add_argument("--train-images", type=int, help="the first so many in canonical order (default: all)")
    train.add_argument("--test-images", type=int, help="likewise (default: all)")
    train.add_argument(
        "--held-out",
        type=int,
        default=0,
        metavar="N",
        help="test on the N training images after those trained on, and leave the test images alone: for choices",
    )
    train.add_argument("--epochs", type=int, default=20, help="one annealed run of this length")
    train.add_argument("--seed", type=int, default=0, help="decides weights, order and augmentation")
    train.add_argument("--optimizer", choices=OPTIMIZERS, default="sgd", help="muon: of kernels, AdamW of the rest")
    train.add_argument("--lr", type=float, default=0.1, help="first learning rate, falling to 0 along a cosine")
    train.add_argument("--momentum", type=float, default=0.9, help="of SGD and Muon; first beta of AdamW")
    train.add_argument("--weight-decay", type=float, default=1e-3, help="L2 penalty; with AdamW and Muon decoupled")
    train.add_argument("--batch-size", type=int, default=128, help="images a step")
    train.add_argument("--augment", choices=AUGMENTATIONS, default="crop-flip", help="of the training images")
    train.add_argument("--loss", choices=LOSSES, default="cross-entropy", help="what is made small")
    train.add_argument("--precision", choices=PRECISIONS, default="float32", help="of all but the roots")
    train.add_argument("--device", type=_device, default="cpu", help="cpu or cuda")
    train.add_argument("--ledger", type=Path, help="JSON lines file to add to (default: data/results/DATASET.jsonl)")
    train.add_argument("--resume", action="store_true", help="go on where this run was interrupted, if it was")
    train.add_argument("--save-weights", type=Path, help="also write the trained network, half precision, .npz")

    sweep = commands.add_parser(
        "sweep",
        help="make all runs of a file that the ledger does not hold yet",
        description="Make all runs that a TOML file describes and the ledger does not hold yet. Interrupted, the same "
        "command goes on after the last epoch that was finished. The project's own sweeps are in data/sweeps.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    sweep.add_argument("file", type=Path, metavar="FILE.toml", help="the runs, see help(ndlib.runs)")
    sweep.add_argument("--device", type=_device, default="cpu", help="cpu or cuda")
    sweep.add_argument("--ledger", type=Path, help="JSON lines file to add to (default: data/results/FILE.jsonl)")
    sweep.add_argument("--list", action="store_true", help="show what is there and what is to be run, and stop")

    segment = commands.add_parser(
        "segment",
        help="train DeepLabV3 to name every pixel",
        description="Train DeepLabV3 (ResNet-50) from random weights and add the result to a file. The defaults are "
        "the published settings for Cityscapes; shorter sides are rescaled to the base size.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    segment.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="where the data set is unpacked")
    segment.add_argument("--dataset", choices=("cityscapes", "pets"), required=True, help="what it is")
    segment.add_argument("--method", choices=("none", "bn", "nd"), required=True, help="normalisation of each layer")
    segment.add_argument(
        "--classes", type=int, choices=(19, 21), default=19, help="of Cityscapes: the standard's, or the authors'"
    )
    segment.add_argument("--base-size", type=int, default=520, help="pixels; training crops have 480/520 of it")
    segment.add_argument("--epochs", type=int, default=30, help="one annealed run of this length")
    segment.add_argument("--batch-size", type=int, default=8, help="pictures a step")
    segment.add_argument("--lr", type=float, default=0.1, help="first learning rate, falling to 0 by the power 0.9")
    segment.add_argument("--momentum", type=float, default=0.9, help="of SGD")
    segment.add_argument("--weight-decay", type=float, default=1e-4, help="L2 penalty")
    segment.add_argument("--seed", type=int, default=0, help="decides weights, order and augmentation")
    segment.add_argument("--workers", type=int, default=0, help="processes that read pictures")
    segment.add_argument("--device", type=_device, default="cpu", help="cpu or cuda")
    segment.add_argument("--out", type=Path, default=Path("data/segmentation.jsonl"), help="JSON lines file to add to")

    models = commands.add_parser(
        "models",
        help="list the architectures: their size, what they cost and what is whitened",
        description="List the architectures: parameters of each form beside the sizes that the paper gives, operations "
        "on one picture and what deconvolution adds to them, and which convolutions are whitened.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    models.add_argument("archs", nargs="*", metavar="ARCH", help=f"of {', '.join(ARCHITECTURES)} (default: all)")
    models.add_argument("--variant", choices=VARIANTS, default="paper", help="where deconvolution stands")

    bench = commands.add_parser(
        "bench",
        help="time and memory of deconvolution beside batch normalisation",
        description="A training step of each network and its memory, the stages of the deconvolved layers, and "
        "inference after folding: measured in turns in one process, ratios first; every result is added to a file.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    bench.add_argument("archs", nargs="*", metavar="ARCH", help=f"such as {' '.join(BENCHED)} (default: these)")
    bench.add_argument("--width", type=float, default=1.0, help="factor on the hidden channels")
    bench.add_argument("--batch-size", type=_positive, default=128, help="images a step")
    bench.add_argument(
        "--compile", dest="compiled", action="store_true", help="only steps with BN and ND, and through torch.compile"
    )
    bench.add_argument("--rounds", type=_positive, default=5, help="how often each is timed")
    bench.add_argument("--device", type=_device, default="cpu", help="cpu or cuda")
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
    audit = commands.add_parser(
        "audit",
        help="check tables of published results",
        description="Checks on tables of results: is each value what its column says? The columns are described in "
        "ndlib.audit. Exit status: 0 nothing found, 1 something found, 2 something could not be read.",
    )
    audit.add_argument("files", type=Path, nargs="+", metavar="FILE", help="tables of one study, .csv, or a ledger")
    audit.add_argument("--original", type=Path, metavar="FILE.csv", help="the values that the study repeats")
    audit.add_argument(
        "--independent", type=Path, nargs="+", default=[], metavar="FILE.csv", help="values of other studies"
    )
    audit.add_argument("--json", dest="as_json", action="store_true", help="everything, as JSON")
    return parser


def _option(text: str) -> tuple[str, Any]:
    try:
        return parse_option(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _device(text: str) -> str:
    try:
        device = torch.device(text)
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"unknown device {text!r}; there are cpu and cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"ndlib does not run on {text!r}; choose cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise argparse.ArgumentTypeError(f"there is no GPU {text!r} that this PyTorch can use; choose cpu")
    return text


def _refuse_unwritable(*files: Path | None) -> None:
    """Raise ValueError if one of these files cannot be written, before hours of work that would be lost; make none."""
    for file in filter(None, files):
        there = next(place for place in (file, *file.absolute().parents) if place.exists())
        if there.is_dir() == (there is file) or not os.access(there, os.W_OK):
            raise ValueError(f"{file} cannot be written; name a file in a folder that can be")


def _models(chosen: dict[str, Any], _: list[str]) -> Iterator[str]:
    from .models import summary

    yield from summary.table(**chosen)


def _bench(chosen: dict[str, Any], arguments: list[str]) -> Iterator[str]:
    from . import benchmark

    chosen["archs"] = chosen["archs"] or list(BENCHED)
    for arch in chosen["archs"]:
        one_of("architecture", arch, ARCHITECTURES)
    _refuse_unwritable(chosen["out"])
    if chosen["official"] and not chosen["compiled"]:
        benchmark.check_checkout(chosen["official"])  # now, not after an hour
    # A place on somebody's disk does not belong into the record.
    places = ("--official", "--out")
    words = ["PATH" if before in places else word for before, word in zip(["", *arguments], arguments, strict=False)]
    command = shlex.join(["python", "-m", "ndlib", *words])
    yield from benchmark.run(checkout=chosen.pop("official"), file=chosen.pop("out"), command=command, **chosen)


def _train(chosen: dict[str, Any], arguments: list[str]) -> Iterator[str]:
    weights, file, device, resume = (chosen.pop(name) for name in ("save_weights", "ledger", "device", "resume"))
    settings = runs.Settings(**chosen | {"options": dict(chosen["options"])})
    file = file or Path("data", "results", f"{settings.dataset}.jsonl")
    _refuse_unwritable(file, weights)
    command = ["python", "-m", "ndlib", *(word for word in arguments if word != "--resume")]
    with _processes(device) as (first, device):
        checkpoint = runs.checkpoint_of(settings, file, resume=resume)
        model, record = runs.run(settings, device=device, checkpoint=checkpoint, command=command)
        if not first:
            return
        ledger.append(file, record)
        if weights:
            save(model, weights, record)
        checkpoint.remove()
        yield f"{runs.summary(record)}; added to {file}"


def _sweep(chosen: dict[str, Any], _: list[str]) -> Iterator[str]:
    file = chosen["ledger"] or Path("data", "results", f"{chosen['file'].stem}.jsonl")
    wanted = runs.read_sweep(chosen["file"])
    if chosen["list"]:
        yield from runs.overview(wanted, file)
        return
    _refuse_unwritable(file)
    with _processes(chosen["device"]) as (first, device):
        for line in runs.sweep(wanted, file, device=device, first=first):
            if first:
                yield line


def _segment(chosen: dict[str, Any], arguments: list[str]) -> Iterator[str]:
    from . import segmentation

    def report(entry: dict[str, float]) -> None:
        scores = ", ".join(f"{name} {entry[name]:.2f} %" for name in entry if name.startswith("miou"))
        print(f"epoch {entry['epoch']}: loss {entry['loss']:.3f}, {scores}", flush=True)

    folder, file = chosen.pop("data"), chosen.pop("out")
    _refuse_unwritable(file)
    command = shlex.join(["python", "-m", "ndlib", *arguments])
    record = segmentation.run(folder, command=command, report=report, **chosen)
    ledger.append_line(file, record)
    yield f"added to {file}"


@contextmanager
def _processes(device: str) -> Iterator[tuple[bool, str]]:
    """Join the other processes, if torchrun started several; whether this is the first, and its device."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield True, device
        return
    import torch.distributed as dist

    cuda = device == "cuda"
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield dist.get_rank() == 0, f"cuda:{os.environ['LOCAL_RANK']}" if cuda else device
    finally:
        dist.destroy_process_group()


def _audit(chosen: dict[str, Any], _: list[str]) -> Iterator[str]:
    from . import audit

    report, status = audit.run(**chosen)
    yield report
    if status:
        raise SystemExit(status)


def _statistics(chosen: dict[str, Any], arguments: list[str]) -> Iterator[str]:
    from . import image_statistics, kernels

    file = chosen["out"]
    _refuse_unwritable(file)
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
