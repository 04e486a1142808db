"""The state of an unfinished run, in a file."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..files import written_whole

__all__ = ["Checkpoint", "stretches_in"]


@dataclass(frozen=True)
class Checkpoint:
    """A file with the state of a run after its last finished epoch, so that an interruption costs one epoch at most.

    >>> checkpoint = Checkpoint(Path("run.pt"))
    >>> checkpoint.save({"curve": [1.0]})
    >>> checkpoint.load()
    {'curve': [1.0]}
    >>> checkpoint.remove()
    >>> checkpoint.load() is None
    True
    """

    file: Path

    def save(self, state: dict[str, Any]) -> None:
        """Write it whole or not at all."""
        with written_whole(self.file) as stream:
            torch.save(state, stream)

    def load(self) -> dict[str, Any] | None:
        """The state, or None where there is none. Nothing in the file is executed.

        Raises:
            ValueError: the file is damaged.
        """
        if not self.file.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.file, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{self.file} is damaged ({error}); delete it, and the run starts anew") from error
        return state

    def remove(self) -> None:
        """Forget the run."""
        self.file.unlink(missing_ok=True)


def stretches_in(checkpoint: Checkpoint | None) -> list[dict[str, Any]]:
    """The parts in which the unfinished run in a checkpoint was made so far; empty where there is none.

    >>> stretches_in(None)
    []
    """
    state = checkpoint.load() if checkpoint else None
    if state is None:
        return []
    made: list[dict[str, Any]] = state.get("stretches", [{"epochs": len(state["curve"])}])
    return made
