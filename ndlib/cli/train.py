"""Train one network and add the result, training and test accuracy apart, to a ledger. The defaults are the paper's
settings for CIFAR.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from .._core.options import parse_option
from ..experiments import ledger, runs
from ..experiments.models import save_network
from ..experiments.settings import PREFIX, TYPES, Settings, choices_of, folder_name, given_fields
from ._common import a_device, processes, refuse_unwritable

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an argument for each of the settings, and for where and how to run.

    >>> parser = argparse.ArgumentParser()
    >>> add_arguments(parser)
    >>> parser.parse_args("--dataset cifar10 --method nd --lr 0.05".split()).lr
    0.05
    """
    for f in given_fields():
        about = f.metadata
        argument: dict[str, Any] = {"dest": f.name, "help": about["help"], "metavar": about.get("metavar")}
        if f.name == "options":
            argument |= {"action": "append", "type": an_option, "default": []}
        else:
            argument |= {"type": TYPES[str(f.type)].given, "choices": choices_of(f) or None}
            argument |= {"required": True} if f.default is MISSING else {"default": f.default}
        flag = about.get("flag", "--" + f.name.replace("_", "-"))
        parser.add_argument(flag, *about.get("aliases", ()), **argument)
    parser.add_argument("--device", type=a_device, default="cpu", help="cpu or cuda")
    parser.add_argument("--ledger", type=Path, help="JSON lines file to add to (default: data/results/DATASET.jsonl)")
    parser.add_argument("--resume", action="store_true", help="continue this run where it was interrupted, if it was")
    parser.add_argument("--save-weights", type=Path, help="also write the trained network, half precision, .npz")


def an_option(text: str) -> tuple[str, Any]:
    """An option of the layers, ``"block_size=16"``, as a pair.

    >>> an_option("block_size=16")
    ('block_size', 16)
    """
    try:
        return parse_option(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(chosen: dict[str, Any], arguments: list[str]) -> Iterator[str]:
    """Train; the line that says what was found.

    >>> import os
    >>> words = "train --dataset photo-patches --method none --width 0.1 --train-images 32 --test-images 9".split()
    >>> parser = argparse.ArgumentParser()
    >>> add_arguments(parser)
    >>> chosen = vars(parser.parse_args([*words[1:], "--batch-size", "32", "--epochs", "1", "--ledger", "new.jsonl"]))
    >>> next(run(chosen, words)).split(", seed")[0]
    'plain, VGG-small, photo patches'
    >>> os.remove("new.jsonl")
    """
    weights, file, device, resume = (chosen.pop(name) for name in ("save_weights", "ledger", "device", "resume"))
    settings = Settings(**chosen | {"options": dict(chosen["options"])})
    file = file or Path("data", "results", f"{folder_name(settings.dataset).removeprefix(PREFIX)}.jsonl")
    refuse_unwritable(file, weights)
    command = ["python", "-m", "ndlib", *(word for word in arguments if word != "--resume")]
    with processes(device) as (first, device):
        checkpoint = runs.checkpoint_of(settings, file, resume=resume)
        model, record = runs.train_once(settings, device=device, checkpoint=checkpoint, command=command)
        if not first:
            return
        ledger.append(file, record)
        if weights:
            save_network(model, weights, record)
        checkpoint.remove()
        yield f"{runs.describe_run(record)}; added to {file}"
