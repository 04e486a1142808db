"""Runs from their description to their ledger record, alone or in sweeps; an interrupted run can be continued.

A run is a :class:`.settings.Settings`. A sweep is a TOML file: ``[settings]`` of all its runs, a table ``[[arms]]`` for
each thing compared, and in either a list of values where a list of runs is meant::

    [settings]
    dataset = "cifar10"
    train_images = 10_000
    epochs = 3
    seed = [0, 1, 2]

    [[arms]]
    method = "bn"

    [[arms]]
    method = "nd"
    lr = [0.05, 0.1]
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import pickle
import shlex
import tomllib
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._core.options import RECOMMENDED, parse_option
from ..conversion import convert, convert_pretrained
from ..files import cache_folder, path
from . import ledger, models
from .checkpoints import Checkpoint, stretches_in
from .datasets import Dataset, load
from .ledger import Record
from .provenance import provenance
from .settings import KEPT, PREFIX, TYPES, Settings, folder_name, given_fields
from .training import fit, normaliser

__all__ = [
    "checkpoint_of",
    "describe_run",
    "find_record",
    "initial_network",
    "overview",
    "read_sweep",
    "select_images",
    "sweep",
    "train_once",
]

WHITENING_IMAGES = 5000  # that a frozen first layer is fitted to
PRETRAINED_IMAGES = 500  # that every layer of a network converted with convert_pretrained is measured on

_load = lru_cache(maxsize=1)(load)  # the runs of a sweep mostly have one data set


def select_images(settings: Settings) -> Dataset:
    """The images of a run: those trained on, and those tested on in the place of ``test_images``.

    Raises:
        ValueError: an unknown data set, or more images than it has.

    >>> data = select_images(Settings("photo-patches", "bn", train_images=300, held_out=50))
    >>> len(data.train_images), len(data.test_images)
    (300, 50)
    """
    whole = _load(settings.dataset, settings.size)
    if not settings.held_out:
        return whole.subset(settings.train_images, settings.test_images)
    return whole.hold_out(settings.train_images, settings.held_out)


def find_record(settings: Settings, file: Path) -> Record | None:
    """The record of this run in a ledger; None where there is no such ledger or no such record.

    >>> find_record(Settings("photo-patches", "bn"), Path("nowhere.jsonl")) is None
    True
    """
    if not file.exists():
        return None
    wanted = settings.configuration()
    if None in wanted.values():  # of all the images, how many are there?
        data = select_images(settings)
        wanted |= {"train_images": len(data.train_images), "test_images": len(data.test_images)}
    return next(iter(ledger.select(ledger.read(file), **wanted)), None)


def train_once(
    settings: Settings,
    *,
    device: str = "cpu",
    progress: bool = True,
    checkpoint: Checkpoint | None = None,
    command: Sequence[str] = (),
) -> tuple[nn.Module, Record]:
    """One run: load, build, :func:`.training.fit`; the network and the ledger record.

    ``command`` is what is written down as the way to repeat the run, by default ``settings.command()``.

    Raises:
        ValueError: settings that do not go together.
        FloatingPointError: the loss is no longer finite.

    >>> small = Settings("photo-patches", "none", width=0.1, train_images=32, test_images=10, epochs=1, batch_size=32)
    >>> network, record = train_once(small, progress=False)
    >>> record["method"], record["params"] == sum(p.numel() for p in network.parameters())
    ('none', True)
    """
    data = select_images(settings)
    torch.manual_seed(settings.seed)
    model = initial_network(settings, data)
    stretches = stretches_in(checkpoint)
    processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    about = {"processes": processes, **provenance(device)}
    curve = fit(model, data, settings, device=device, progress=progress, checkpoint=checkpoint, about=about)
    made_before = sum(stretch["epochs"] for stretch in stretches)
    if made_before < len(curve):
        stretches.append({"epochs": len(curve) - made_before, **about})
    record: Record = {
        "schema": ledger.VERSION,
        **settings.configuration(),
        "data_sha256": data.sha256(),
        "train_images": len(data.train_images),
        "test_images": len(data.test_images),
        "metric": "top-1",
        **{f"{split}_best": max(e[split] for e in curve) for split in ("train", "test")},
        **{f"{split}_last": curve[-1][split] for split in ("train", "test")},
        "curve": curve,
        "train_seconds": round(sum(e["train_seconds"] for e in curve), 3),
        "test_seconds": round(sum(e["test_seconds"] for e in curve), 3),
        "params": sum(p.numel() for p in model.parameters()),
        "stretches": stretches,
        **about,
        "command": shlex.join(_without_place(word) for word in command or settings.command()),
    }
    return model, {key: record[key] for key in ledger.SCHEMA}


def _without_place(word: str) -> str:
    """A place on somebody's disk does not belong in the record."""
    return f"{PREFIX}PATH" if word.startswith(PREFIX) else word


def initial_network(settings: Settings, data: Dataset) -> nn.Module:
    """The network that a run begins with, in training mode; random numbers are torch's.

    Raises:
        ValueError: a combination that does not exist, or a start that does not fit the rest.

    >>> settings = Settings("photo-patches", "bn", width=0.25, train_images=100, test_images=10)
    >>> initial_network(settings, select_images(settings)).training
    True
    """
    model = models.build(
        settings.arch,
        method=settings.method,
        classes=len(data.classes),
        channels=data.train_images.shape[1],
        size=data.train_images.shape[-1],
        width=settings.width,
        variant=settings.variant,
        options=settings.options,
    )

    def first(n: int) -> Tensor:
        mean, std = normaliser(data, torch.device("cpu"))
        return (data.train_images[:n].float() - mean) / std

    if settings.method == "bn-frozen":
        models.fit_whitening(model, first(WHITENING_IMAGES))
    if settings.start:
        _begin_with(model, settings, first(PRETRAINED_IMAGES))
    return model


def _begin_with(model: nn.Module, settings: Settings, images: Tensor) -> None:
    """Give a network the state of the one that ``settings.start`` names, deconvolved if it must be."""
    models.one_of("thing to keep", settings.keep, KEPT)
    trained, trained_on = _deconvolved_start(settings, images)
    theirs, ours = ([m for m in net.modules() if m.state_dict() and not list(m.children())] for net in (trained, model))
    if len(theirs) != len(ours):
        raise ValueError(
            f"{settings.start}, deconvolved to keep its {settings.keep}, has other layers than the deconvolved "
            f"{settings.arch}: normalisation that cannot be fused, or layers that are not converted"
        )
    if trained_on != folder_name(settings.dataset):  # the classifier, the last of all layers, knows other classes
        theirs.pop()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* was saved with ")  # the run's own options hold from now on
        for source, target in zip(theirs, ours, strict=False):
            target.load_state_dict(source.state_dict())


def _deconvolved_start(settings: Settings, images: Tensor) -> tuple[nn.Module, str]:
    """The network that ``settings.start`` names, in the form that the run has, and the data set it was trained on."""
    file = Path(settings.start)
    trained, record = _load_start(file if file.exists() else path(settings.start))
    wanted, found = ((r["arch"], r["width"]) for r in (settings.configuration(), record))
    if wanted != found:
        raise ValueError("{} is {} of width {:g}, not {} of width {:g}".format(settings.start, *found, *wanted))
    change = record["method"], settings.method
    if change in (("bn", "nd"), ("none", "nd")):
        if settings.variant == "paper":
            raise ValueError("a trained network is deconvolved uniformly; add the variant uniform or recommended")
        options = (dict(RECOMMENDED) if settings.variant == "recommended" else {}) | settings.options
        if settings.keep == "weights":
            trained, _ = convert(trained, **options)
        else:
            trained, _ = convert_pretrained(trained, images, **options)
    elif change[0] != change[1]:
        raise ValueError("{} has the form {}; no {} can be made of it".format(settings.start, *change))
    return trained, record["dataset"]


def _load_start(file: Path) -> tuple[nn.Module, Record]:
    """What ``models.load_network`` returns; it raises many things for a file that is something else."""
    try:
        return models.load_network(file)
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as e:
        raise ValueError(f"{file} is no weights file of ndlib, such as train --save-weights writes") from e


def checkpoint_of(settings: Settings, file: Path, *, resume: bool) -> Checkpoint:
    """Where a run that will be added to the ledger ``file`` is kept until then, in the cache folder of the data sets;
    forgotten unless ``resume``.

    >>> checkpoint_of(Settings("cifar10", "nd"), Path("cifar10.jsonl"), resume=False).load() is None
    True
    """
    described = json.dumps([str(file.resolve()), dataclasses.asdict(settings)], sort_keys=True, default=str)
    name = hashlib.sha256(described.encode()).hexdigest()[:16]
    checkpoint = Checkpoint(cache_folder() / "checkpoints" / f"{name}.pt")
    if not resume:
        checkpoint.remove()
    return checkpoint


def read_sweep(file: Path) -> list[Settings]:
    """The runs of a sweep, repetitions of all arms one after the other, so that a part of it already compares them.

    Raises:
        ValueError: the file is not TOML, has a table or a setting that there is not, or a value of another type.

    >>> text = "[settings]\\ndataset = 'mnist'\\nmethod = ['bn', 'nd']"
    >>> file = Path("sweep.toml")
    >>> file.write_text(text)
    50
    >>> [run.method for run in read_sweep(file)]
    ['bn', 'nd']
    >>> file.unlink()
    """
    common, arms = _tables(file)
    runs = [(n, settings) for n, arm in enumerate(arms) for settings in _crossed(common | arm)]
    for _, settings in runs:
        for required in ("dataset", "method"):
            if required not in settings:
                raise ValueError(f"{file}: a run has no {required}")
    try:
        runs = [(n, _typed(settings)) for n, settings in runs]
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    runs.sort(key=lambda pair: (pair[1].get("seed", 0), pair[0]))
    return [Settings(**settings) for _, settings in runs]


def _tables(file: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The table of all runs and those of the arms; they have no name that is not a setting's."""
    with file.open("rb") as stream:
        try:
            tables = tomllib.load(stream)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{file} is not TOML: {error}") from error
    if unknown := sorted(tables.keys() - {"settings", "arms"}):
        raise ValueError(f"{file}: unknown table {unknown[0]!r}; there are settings and arms")
    known = [f.name for f in given_fields()]
    common, arms = tables.get("settings", {}), tables.get("arms", [{}])
    if not isinstance(common, dict):
        raise ValueError(f"{file}: settings must be a table, [settings], got {common!r}")
    if not isinstance(arms, list) or not all(isinstance(arm, dict) for arm in arms):
        raise ValueError(f"{file}: arms must be tables, [[arms]] each, got {arms!r}")
    for table in (common, *arms):
        if unknown := sorted(table.keys() - set(known)):
            raise ValueError(f"{file}: unknown setting {unknown[0]!r}; there are {', '.join(known)}")
    return common, arms


def _typed(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with values of the right types; an integer is accepted for a number."""
    typed = dict(settings)
    for f in fields(Settings):
        kind, words, _ = TYPES[str(f.type)]
        if f.name in typed:
            value = typed[f.name]
            typed[f.name] = value = float(value) if kind is float and type(value) is int else value
            if type(value) is not kind:
                raise ValueError(f"{f.name} must be {words}, got {value!r}")
    if "options" in typed:
        typed["options"] = dict(parse_option(f"{name}={value}") for name, value in typed["options"].items())
    return typed


def _crossed(table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    lists = {name: value for name, value in table.items() if isinstance(value, list)}
    for values in itertools.product(*lists.values()):
        yield table | dict(zip(lists, values, strict=True))


def sweep(
    settings: Sequence[Settings], file: Path, *, device: str = "cpu", first: bool = True, progress: bool = True
) -> Iterator[str]:
    """Make the runs that the ledger ``file`` does not hold yet and add them to it; a line of text for each.

    An interrupted run continues after the last epoch that it finished. A run whose loss is no longer finite gets its
    line and no record, and the sweep continues. Of several processes that share each run only the ``first`` writes.

    >>> list(sweep([], Path("results.jsonl")))
    []
    """
    for number, wanted in enumerate(settings, start=1):
        if done := find_record(wanted, file):
            yield f"{number}/{len(settings)} {describe_run(done)}; was there"
            continue
        checkpoint = checkpoint_of(wanted, file, resume=True)
        try:
            _, record = train_once(wanted, device=device, progress=progress, checkpoint=checkpoint)
        except FloatingPointError as error:
            checkpoint.remove()
            yield f"{number}/{len(settings)} no result, {error}: {shlex.join(wanted.command())}"
            continue
        if first:
            ledger.append(file, record)
            checkpoint.remove()
        yield f"{number}/{len(settings)} {describe_run(record)}"


def overview(settings: Sequence[Settings], file: Path) -> Iterator[str]:
    """A line for each run of a sweep: its result, or that it was not run and the command that makes it alone.

    >>> list(overview([Settings("mnist", "bn")], Path("nowhere.jsonl")))
    ['not run: python -m ndlib train --dataset mnist --method bn']
    """
    for wanted in settings:
        done = find_record(wanted, file)
        yield describe_run(done) if done else f"not run: {shlex.join(wanted.command())}"


def describe_run(record: Record) -> str:
    """A line about a run, from its ledger record.

    >>> record = ledger.read(path("results/cifar10.jsonl"))[0]
    >>> describe_run(record).split(", lr")[0]
    'ND, VGG-small, CIFAR-10, seed 0, 3 epochs'
    """
    named = [ledger.display_name(record[key]) for key in ("method", "arch", "dataset")]
    where = {"test": "test", "held-out": "held-out training images"}[record["split"]]
    named += [record["options"]] * bool(record["options"])
    named += [record["optimizer"]] * (record["optimizer"] != "sgd")
    named += [f"in {len(record['stretches'])} stretches"] * (len(record["stretches"]) > 1)
    named += [f"from {record['start']}", f"keeping the {record['keep']}"] * bool(record["start"])
    epochs = f"{record['epochs']} epoch{'s' * (record['epochs'] > 1)}"
    return (
        f"{', '.join(named)}, seed {record['seed']}, {epochs}, "
        f"lr {record['lr']}: {where} {record['test_last']:.2f} % "
        f"(best {record['test_best']:.2f}), train {record['train_last']:.2f} %, "
        f"{record['train_seconds']:.0f} s of training"
    )
