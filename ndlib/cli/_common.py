"""What several commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

__all__ = ["a_device", "a_positive_integer", "processes", "refuse_unwritable"]


def a_positive_integer(text: str) -> int:
    """A number of things, of which there is at least one.

    >>> a_positive_integer("3")
    3
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def a_device(text: str) -> str:
    """The name of a device that is there: ``cpu``, ``cuda`` or ``cuda:1``.

    >>> a_device("cpu")
    'cpu'
    """
    try:
        device = torch.device(text)
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"unknown device {text!r}; there are cpu and cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"ndlib does not run on {text!r}; choose cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise argparse.ArgumentTypeError(f"there is no GPU {text!r} that this PyTorch can use; choose cpu")
    return text


def refuse_unwritable(*files: Path | None) -> None:
    """Raise ValueError if one of these files cannot be written, before hours of work that would be lost; make none.

    >>> refuse_unwritable(Path("results.jsonl"), None)
    """
    for file in filter(None, files):
        there = next(place for place in (file, *file.absolute().parents) if place.exists())
        if there.is_dir() == (there is file) or not os.access(there, os.W_OK):
            raise ValueError(f"{file} cannot be written; name a file in a folder that can be")


@contextmanager
def processes(device: str) -> Iterator[tuple[bool, str]]:
    """Join the other processes, if torchrun started several; whether this is the first, and its device.

    >>> with processes("cpu") as (first, device):
    ...     print(first, device)
    True cpu
    """
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
