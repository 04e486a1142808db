"""The record of runs: one JSON object a line, flat keys, appended and never rewritten."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .settings import PREFIX, Hyperparameters, recorded_types

__all__ = [
    "NAMES",
    "SCHEMA",
    "VERSION",
    "LedgerError",
    "Record",
    "append",
    "append_line",
    "display_name",
    "migrated",
    "read",
    "select",
    "validate",
]

Record = dict[str, Any]
VERSION = 4  # of the table that follows

# What lines of earlier versions lack, and its value for them. An empty list of stretches: not recorded.
ADDED: dict[int, Record] = {
    2: {"split": "test"},
    3: {"start": "", "keep": ""},
    4: {"size": 0, "stretches": []},
}

_SETTING = recorded_types()
_NETWORK = ("arch", "width", "variant", "method", "options", "start", "keep")

# What a line holds, in this order. Accuracies in percent, times in seconds, counts as integers. The settings are those
# of ``settings.Settings``, which says what each means; "keep" is "" without a start.
SCHEMA: dict[str, type | tuple[type, ...]] = {
    "schema": int,  # VERSION
    "dataset": _SETTING["dataset"],
    "size": _SETTING["size"],  # side of the pictures of a folder in pixels, 0 of sets that have one size
    # "test": tested on test images; "held-out": on training images that were not trained on, and the test images were
    # not looked at. Then test_images, test_best and so on speak of those.
    "split": str,
    "data_sha256": str,  # of exactly the images and labels used, see datasets.Dataset.sha256
    "train_images": _SETTING["train_images"],  # how many there were, never None
    "test_images": _SETTING["test_images"],
    **{key: _SETTING[key] for key in _NETWORK},
    **recorded_types(Hyperparameters),
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
    # The parts that a run was made in, one unless it was interrupted: "epochs", "processes" and the seven keys that
    # follow, of each. The last of them is what "processes" and those keys say of the whole.
    "stretches": list,
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
    """A record does not have the form of the ledger.

    >>> validate({"seed": 0} | dict.fromkeys(SCHEMA.keys() - {"seed"}))
    Traceback (most recent call last):
        ...
    ndlib.experiments.ledger.LedgerError: schema must be <class 'int'>, got None
    """


def display_name(slug: str) -> str:
    """The name shown for a slug of the ledger: ``cifar10`` is CIFAR-10, ``nd`` is ND. KeyError if there is none.

    A folder of pictures has its own name.

    >>> display_name("cifar10"), display_name("nd")
    ('CIFAR-10', 'ND')
    """
    return slug.removeprefix(PREFIX) if slug.startswith(PREFIX) else NAMES[slug]


def validate(record: Record) -> None:
    """Raise :class:`LedgerError` unless a record has exactly the keys and types of ``SCHEMA``.

    >>> from ndlib.files import path
    >>> record = read(path("results/cifar10.jsonl"))[0]
    >>> validate(record)
    >>> validate(record | {"test_best": 101.0})
    Traceback (most recent call last):
        ...
    ndlib.experiments.ledger.LedgerError: test_best must be a percentage, got 101.0
    """
    missing, unknown = SCHEMA.keys() - record.keys(), record.keys() - SCHEMA.keys()
    if missing or unknown:
        raise LedgerError(f"a ledger record lacks {sorted(missing)} and has unknown keys {sorted(unknown)}")
    for key, kind in SCHEMA.items():
        value = record[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise LedgerError(f"{key} must be {kind}, got {value!r}")
    if record["schema"] != VERSION:
        raise LedgerError(f"schema {record['schema']} is not known; this version writes schema {VERSION}")
    if record["split"] not in ("test", "held-out"):
        raise LedgerError(f"split must be 'test' or 'held-out', got {record['split']!r}")
    for key in ("train_best", "train_last", "test_best", "test_last"):
        if not 0 <= record[key] <= 100:
            raise LedgerError(f"{key} must be a percentage, got {record[key]}")


def append(file: Path, record: Record) -> None:
    """Add one validated record to a ledger.

    >>> from ndlib.files import path
    >>> record = read(path("results/cifar10.jsonl"))[0]
    >>> append(Path("new.jsonl"), record)
    >>> read(Path("new.jsonl")) == [record]
    True
    >>> Path("new.jsonl").unlink()
    """
    validate(record)
    append_line(file, {key: record[key] for key in SCHEMA})


def append_line(file: Path, record: Record) -> None:
    """Add a record to a file of JSON lines, in a single write: a reader sees the whole line or none of it.

    >>> append_line(Path("new.jsonl"), {"a": 1})
    >>> Path("new.jsonl").read_text().splitlines()
    ['{"a": 1}']
    >>> Path("new.jsonl").unlink()
    """
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
    """All records of some ledgers, those of earlier versions brought up to this one.

    A damaged line is skipped with a warning that gives its number.

    Raises:
        LedgerError: a line of a later version. Were it skipped, a sweep would make its run again.

    >>> from ndlib.files import path
    >>> read(path("results/cifar10.jsonl"))[0]["arch"]
    'vgg-small'
    """
    records = []
    for file in files:
        for number, line in enumerate(file.read_bytes().splitlines(), start=1):
            try:
                record = json.loads(line)
                later = type(record.get("schema")) is int and record["schema"] > VERSION
                if not later:
                    record = migrated(record)
                    validate(record)
            except (ValueError, AttributeError, RecursionError) as error:
                warnings.warn(f"{file}, line {number}: skipped, not a ledger record ({error})", stacklevel=2)
                continue
            if later:
                raise LedgerError(
                    f"{file}, line {number}: schema {record['schema']} is of a later ndlib than this, which knows "
                    f"schemas up to {VERSION}: update it"
                )
            records.append(record)
    return records


def migrated(record: Record) -> Record:
    """A record of an earlier version with what later ones added, in the order of ``SCHEMA``.

    >>> migrated({"schema": 3, "dataset": "mnist"})
    {'schema': 4, 'dataset': 'mnist', 'size': 0, 'stretches': []}
    """
    schema = record.get("schema")
    if type(schema) is not int or not 1 <= schema < VERSION:
        return record
    for version in range(schema + 1, VERSION + 1):
        record = {**ADDED[version], **record}
    record["schema"] = VERSION
    return {key: record[key] for key in (*SCHEMA, *sorted(record.keys() - SCHEMA.keys())) if key in record}


def select(records: Iterable[Record], **conditions: Any) -> list[Record]:
    """The records whose keys have the given values: ``select(records, dataset="cifar10", method="nd")``.

    >>> select([{"method": "bn", "seed": 0}, {"method": "nd", "seed": 0}], method="nd")
    [{'method': 'nd', 'seed': 0}]
    """
    return [r for r in records if all(r[key] == value for key, value in conditions.items())]
