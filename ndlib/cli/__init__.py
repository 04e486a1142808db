"""The command line: ``ndlib``, or ``python -m ndlib``, followed by a command."""

from __future__ import annotations

import argparse
import importlib
import sys

__all__ = ["COMMANDS", "main"]

# One module a command, with ``add_arguments`` and ``run``; only that of the command given is imported, so that --help
# does not wait for torch.
COMMANDS = {
    "train": "train one network and add the result to a ledger",
    "sweep": "make all runs of a file that the ledger does not hold yet",
    "segment": "train DeepLabV3 to name every pixel",
    "models": "list the architectures: their size, what they cost and what is whitened",
    "bench": "time and memory of deconvolution beside batch normalisation",
    "statistics": "statistics and deconvolution kernel of a folder of pictures",
    "audit": "check tables of published results",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit status is 0, or 1 after a message, 2 for wrong arguments, 130 when interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen = vars(parser(arguments).parse_args(arguments))
    from ..files import DatasetError

    command = importlib.import_module(f".{chosen.pop('command')}", __name__)
    try:
        for lines in command.run(chosen, arguments):
            print(lines, flush=True)
    except (ValueError, DatasetError, FloatingPointError, OSError) as error:
        print(f"python -m ndlib: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("python -m ndlib: interrupted", file=sys.stderr)
        return 130
    return 0


def parser(arguments: list[str]) -> argparse.ArgumentParser:
    """All commands, and the arguments of the one that is given."""
    whole = argparse.ArgumentParser(prog="python -m ndlib", description=__doc__)
    commands = whole.add_subparsers(dest="command", required=True)
    for name, summary in COMMANDS.items():
        if name not in arguments[:1]:
            commands.add_parser(name, help=summary)
            continue
        module = importlib.import_module(f".{name}", __name__)
        one = commands.add_parser(
            name, help=summary, description=module.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        module.add_arguments(one)
    return whole
