"""The command line: ``ndlib``, or ``python -m ndlib``, followed by a command."""

from __future__ import annotations

import argparse
import importlib
import sys

__all__ = ["COMMANDS", "main", "make_parser"]

# One module a command, with ``add_arguments`` and ``run``; only that of the command given is imported, so that --help
# does not wait for torch.
COMMANDS = {
    "train": "train one network and add the result to a ledger",
    "sweep": "make all runs of a file that the ledger does not hold yet",
    "segment": "train DeepLabV3 to name the class of every pixel",
    "models": "list the architectures: their size, what they cost and what is whitened",
    "bench": "measure time and memory of deconvolution beside batch normalisation",
    "check": "check the layers on a device: parity with the CPU, waiting, compiling, speed",
    "statistics": "measure statistics and deconvolution kernel of a folder of pictures",
    "zoo": "convert networks that others have published, and note what comes of it",
    "audit": "check tables of published results",
}


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Says the default of an argument where there is one to say."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        empty = action.default in (None, "", []) or action.default is False
        return action.help if empty else super()._get_help_string(action)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit status is 0, or 1 after a message, 2 for wrong arguments, 130 when interrupted.

    >>> main(["models", "lenet"])  # which writes to stderr that there is no such architecture
    1
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen = vars(make_parser(arguments).parse_args(arguments))
    from ..files import DatasetError

    command = importlib.import_module(f".{chosen.pop('command')}", __name__)
    try:
        for lines in command.run(chosen, arguments):
            print(lines, flush=True)
    except (ValueError, DatasetError, FloatingPointError, OSError) as error:
        print(f"ndlib: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ndlib: interrupted", file=sys.stderr)
        return 130
    return 0


def make_parser(arguments: list[str]) -> argparse.ArgumentParser:
    """The names of all commands, and the arguments of the one that is given.

    >>> make_parser(["models"]).parse_args(["models", "vgg16"]).archs
    ['vgg16']
    """
    whole = argparse.ArgumentParser(prog="ndlib", description=__doc__)
    commands = whole.add_subparsers(dest="command", required=True)
    for name, text in COMMANDS.items():
        if name not in arguments[:1]:
            commands.add_parser(name, help=text)
            continue
        module = importlib.import_module(f".{name}", __name__)
        one = commands.add_parser(name, help=text, description=module.__doc__, formatter_class=_Formatter)
        module.add_arguments(one)
    return whole
