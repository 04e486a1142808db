"""Check the layers on a device in two minutes: against the CPU in double precision, for hidden waiting, compiled, and
timed beside batch normalisation. The last line is one JSON record to contribute.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from ..experiments import device_check
from ._common import a_device, a_positive_integer

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command.

    >>> parser = argparse.ArgumentParser()
    >>> add_arguments(parser)
    >>> parser.parse_args([]).device
    'cpu'
    """
    parser.add_argument("--device", type=a_device, default="cpu", help="cpu or cuda")
    parser.add_argument("--rounds", type=a_positive_integer, default=3, help="how often each network is timed")


def run(chosen: dict[str, Any], _: list[str]) -> Iterator[str]:
    """What was found, line by line, and the record.

    Raises:
        ValueError: something is out of tolerance; the message lists what.

    >>> run({"device": "cpu", "rounds": 1}, [])  # nothing is checked before the first line is asked for
    <generator object run at ...>
    """
    record = device_check.check(chosen["device"], rounds=chosen["rounds"])
    yield f"{record['device']}, torch {record['torch']}"
    for name, far in record["differences"].items():
        yield f"  {name:24}{far:10.1e}, at most {device_check.TOLERANCES[name.rpartition(' ')[2]]:.0e}"
    waiting = "the host never waits" if not record["waits"] else f"the host waits: {record['waits']}"
    yield f"  {waiting}" if chosen["device"].startswith("cuda") else "  waiting: of a CUDA device only, not run"
    compiled = record["compiled"]
    yield f"  compiled: {compiled if isinstance(compiled, str) else f'loss differs by {compiled:.1e}'}"
    bn = record["seconds"]["BN"][0]
    for kind, (median, _low, _high) in record["seconds"].items():
        yield f"  {kind:24}{1000 * median:8.1f} ms a step, {median / bn:.2f} of BN's"
    yield json.dumps(record)
    if record["failed"]:
        raise ValueError(f"out of tolerance: {', '.join(record['failed'])}")
