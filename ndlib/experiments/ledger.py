"""The record of runs: one JSON object a line, flat keys, appended and never rewritten."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Record = dict[str, Any]
VERSION = 3  # of the table that follows; version 1 had no "split", version 2 neither "start" nor "keep"

# What a line holds, in this order. Accuracies in percent, times in seconds, counts as integers.
SCHEMA: dict[str, type | tuple[type, ...]] = {
    "schema": int,  # VERSION
    "dataset": str,
    # "test": tested on test images; "held-out": on training images that were not trained on, and the test images were
    # not looked at. Then test_images, test_best and so on speak of those.
    "split": str,
    "data_sha256": str,  # of exactly the images and labels used, see data.Dataset.sha256
    "train_images": int,
    "test_images": int,
    "arch": str,
    "width": float,
    "variant": str,  # where deconvolution stands in the network: "paper", exceptions included
    "method": str,  # one of models.METHODS, see models.build
    "options": str,  # options of the layers that differ from the variant's, "name=value ...", sorted; "" for none
    "start": str,  # the file of a trained network that the run began with; "" for random weights
    "keep": str,  # what a deconvolved network has of that one: "function" or "weights"; "" without a start
    "epochs": int,
    "seed": int,
    "optimizer": str,
    "lr": float,
    "schedule": str,
    "momentum": float,
    "weight_decay": float,
    "batch_size": int,
    "augment": str,
    "loss": str,
    "precision": str,
    "processes": int,
    "metric": str,  # what the next four are, in percent: "top-1"
    # Training accuracy is measured on the batches as they are met during an epoch (augmented, the network in
    # training mode and changing), test accuracy on the test images after it. The best test accuracy over the
    # epochs was chosen by looking at the test images, as is usual in this literature; the last was not.
    "train_best": float,
    "train_last": float,
    "test_best": float,
    "test_last": float,
    "curve": list,  # an object for each epoch: epoch, loss, train, test, train_seconds, test_seconds
    "train_seconds": float,  # evaluation not included
    "test_seconds": float,
    "params": int,
    "device": str,
    "python": str,
    "torch": str,
    "ndlib": str,
    "commit": (str, type(None)),  # of the checkout that ran, with "+" if ndlib/ was changed; None outside one
    "date": str,  # ISO 8601, UTC
    "command": str,
}

NAMES = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "mnist": "MNIST",
    "fashion-mnist": "Fashion-MNIST",
    "imagenette96": "Imagenette",
    "imagenette48": "Imagenette, 48 px",
    "photo-patches": "photo patches",
    "vgg-small": "VGG-small",
    "vgg16": "VGG-16",
    "resnet18": "ResNet-18",
    "preact18": "Preact-18",
    "densenet121": "DenseNet-121",
    "resnext29": "ResNext-29",
    "mobilenetv2": "MobileNet v2",
    "dpn92": "DPN-92",
    "pnasneta": "PNASNetA",
    "senet18": "SENet-18",
    "efficientnet": "EfficientNet",
    "mlp-sigmoid": "MLP, sigmoid",
    "mlp-relu": "MLP, ReLU",
    "logistic": "logistic regression",
    "imagenet-vgg11": "VGG-11 (ImageNet)",
    "imagenet-resnet18": "ResNet-18 (ImageNet)",
    "imagenet-densenet121": "DenseNet-121 (ImageNet)",
    "deeplabv3": "DeepLabV3 (ResNet-50)",
    "none": "plain",
    "bn": "BN",
    "nd": "ND",
    "nd-first": "ND first, then BN",
    "bn-frozen": "frozen whitening, then BN",
    "kronecker": "ND, channels and pixels apart",
}


class LedgerError(ValueError):
    """A record does not have the form of the ledger."""


def display_name(slug: str) -> str:
    """The name shown for a slug of the ledger: ``cifar10`` is CIFAR-10, ``nd`` is ND. KeyError if there is none."""
    return NAMES[slug]


def validate(record: Record) -> None:
    """Raise :class:`LedgerError` unless a record has exactly the keys and types of ``SCHEMA``."""
    missing, unknown = SCHEMA.keys() - record.keys(), record.keys() - SCHEMA.keys()
    if missing or unknown:
        raise LedgerError(f"a ledger record lacks {sorted(missing)} and has unknown keys {sorted(unknown)}")
    for key, kind in SCHEMA.items():
        value = record[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise LedgerError(f"{key} must be {kind}, got {value!r}")
    if record["schema"] != VERSION:
        raise LedgerError(f"schema {record['schema']} is not known; this version writes and reads schema {VERSION}")
    if record["split"] not in ("test", "held-out"):
        raise LedgerError(f"split must be 'test' or 'held-out', got {record['split']!r}")
    for key in ("train_best", "train_last", "test_best", "test_last"):
        if not 0 <= record[key] <= 100:
            raise LedgerError(f"{key} must be a percentage, got {record[key]}")


def append(file: Path, record: Record) -> None:
    """Add one validated record to a ledger."""
    validate(record)
    append_line(file, {key: record[key] for key in SCHEMA})


def append_line(file: Path, record: Record) -> None:
    """Add a record to a file of JSON lines, in a single write: a reader sees the whole line or none of it."""
    line = json.dumps(record, allow_nan=False) + "\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab+") as stream:
        if stream.tell() and not _ends_with_newline(stream):
            line = "\n" + line  # an interrupted writer left half a line: keep it apart from this one
        stream.write(line.encode())
        stream.flush()
        os.fsync(stream.fileno())


def _ends_with_newline(stream: Any) -> bool:
    stream.seek(-1, os.SEEK_END)
    return bool(stream.read(1) == b"\n")


def read(*files: Path) -> list[Record]:
    """All records of some ledgers. A damaged line is skipped with a warning that gives its number."""
    records = []
    for file in files:
        for number, line in enumerate(file.read_bytes().splitlines(), start=1):
            try:
                record = json.loads(line)
                validate(record)
            except (ValueError, AttributeError) as error:
                warnings.warn(f"{file}, line {number}: skipped, not a ledger record ({error})", stacklevel=2)
            else:
                records.append(record)
    return records


def select(records: Iterable[Record], **conditions: Any) -> list[Record]:
    """The records whose keys have the given values: ``select(records, dataset="cifar10", method="nd")``."""
    return [r for r in records if all(r[key] == value for key, value in conditions.items())]
