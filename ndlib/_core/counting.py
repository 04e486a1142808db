"""Which training steps measure their batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from .options import Options

__all__ = ["WARM_UP", "StepCount", "is_measured"]

WARM_UP = 100  # training steps in which every batch is measured, whatever update_every says


def is_measured(step: int, options: Options) -> bool:
    """Whether the batch of a training step, counted from 0, is measured.

    After the warm-up one of every k = update_every, each time one later: 0, k + 1, 2 k + 2, ..., of k^2 that repeat. So
    all kinds of batches are met in turn where several forward passes make a step, as those of a discriminator do.
    """
    frozen = options.freeze_after is not None and step >= options.freeze_after
    every, later = options.update_every, step - WARM_UP
    return not frozen and (later < 0 or later % every == later // every % every)


def _circle(every: int) -> int:
    """Steps after which measuring repeats. A compiled step measures every k-th and takes no turns: its numbers must be
    few.
    """
    return every if torch.compiler.is_compiling() else every**2


@dataclass
class StepCount:
    """The training steps of a layer, on the host, which must not wait for the device to be told its count.

    ``torch.compile`` makes a step anew for every value of a number that the step depends on. So steps are counted only
    as long as something depends on their number, and round in a circle once only its remainder matters.
    """

    taken: int = 0
    measures: bool = True  # whether the present step measures its batch
    replayed: bool = False  # whether it is computed once more, and has been counted and remembered before
    outside: bool = False  # whether any step was ever taken outside a backward pass
    frozen: bool = False  # whether the running averages serve and are left alone, by freeze_statistics
    kept: bool = False  # whether batches are measured and not remembered, by keep_statistics
    original: StepCount | None = None  # the count of the layer that this one's layer is a replica of

    def of_replica(self) -> StepCount:
        """The count of a replica on another device: all of them take one step, and the original takes it with them."""
        return replace(self, original=self)

    def advance(self, options: Options) -> bool:
        """Count a training step, and tell whether its batch is measured."""
        every, last, step = options.update_every, options.freeze_after, self.taken
        if self.frozen:
            measures = False
        elif every == 1 and last is None:
            measures = True
        elif last is not None and step >= last:
            measures = False
        else:
            if last is None and step >= WARM_UP + every:
                step = WARM_UP + (step - WARM_UP) % _circle(every)
            self.taken = step + 1
            if self.original is not None:
                self.original.taken = self.taken
            measures = is_measured(step, options)
        if not torch.compiler.is_compiling():  # for which a value to remember is a value to compile for
            self.measures = measures
        return measures

    def momentum(self, options: Options) -> float:
        """Weight of the batch that the present step measures in the running averages.

        Batches that are measured less often weigh more, so that the averages reach back as many steps.
        """
        every = 1 if self.taken <= WARM_UP else options.update_every
        return 1 - (1 - options.momentum) ** every
