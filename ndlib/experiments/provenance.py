"""What a result came from: machine, versions, commit and date."""

from __future__ import annotations

import contextlib
import datetime
import platform
import subprocess
from pathlib import Path

import torch

from .. import __version__
from .ledger import Record

__all__ = ["commit", "describe_device", "provenance"]


def provenance(device: str) -> Record:
    """What a result came from, for its record: device, versions, commit and date.

    >>> sorted(provenance("cpu"))
    ['commit', 'date', 'device', 'ndlib', 'python', 'torch']
    """
    return {
        "device": describe_device(device),
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a class of its own, which torch.load refuses
        "ndlib": __version__,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def describe_device(device: str) -> str:
    """What the run ran on, for the ledger: the GPU's name, or the processor's and the number of threads.

    >>> describe_device("cpu").startswith("cpu: ")
    True
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].split(":", 1)[1].strip() if lines else name
    return f"cpu: {name}, {torch.get_num_threads()} threads"


def commit() -> str | None:
    """The commit of the checkout that this package runs from, with "+" if ndlib/ differs from it; None outside one.

    >>> name = commit()
    >>> name is None or len(name.removesuffix("+")) == 40
    True
    """

    package = Path(__file__).parents[1]

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=package, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        git("ls-files", "--error-unmatch", "__init__.py")  # a wheel inside some other project's checkout is not it
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    return None
