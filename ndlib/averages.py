"""The running averages in the user's hands: measure them again, freeze them, leave them alone, share them.

Tools that look for batch normalisation do not find deconvolution layers. Where such a tool re-measures, freezes or
synchronises batch normalisation, call the function here as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ._conversion.norms import BATCH_NORMS
from ._core.counting import StepCount
from ._core.warn import warn
from ._core.whitening import Deconvolution

__all__ = ["freeze_statistics", "keep_statistics", "synchronise_statistics", "update_statistics"]


def _layers(model: nn.Module) -> list[Deconvolution]:
    layers = [m for m in model.modules() if isinstance(m, Deconvolution)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no deconvolution layer; ndlib.convert makes a network of them")
    return layers


@torch.no_grad()
def update_statistics(
    model: nn.Module, batches: Iterable[Any], *, device: torch.device | str | None = None
) -> nn.Module:
    """Measure the running averages again, of deconvolution layers and of batch normalisation: the mean over batches.

    Call it where weights changed without the averages: after weight averaging (SWA, EMA), or on data of another kind.
    The average over T batches has the weight 1/T for each; what was averaged before is forgotten. All other modules
    are in evaluation mode meanwhile, and every module has its own mode again afterwards.

    Args:
        model: with at least one deconvolution layer.
        batches: a data loader, or anything that yields inputs, or tuples whose first part is the input.
        device: where to move the inputs first; None leaves them.

    Returns:
        The same model.

    Raises:
        ValueError: there are no batches, or no deconvolution layer.

    >>> from ndlib import DeconvConv2d
    >>> model = nn.Sequential(DeconvConv2d(3, 4, 3, running="covariance"))
    >>> batch = torch.randn(32, 3, 8, 8)
    >>> mean, _ = update_statistics(model, [batch])[0].running_whitening()
    >>> torch.allclose(mean, model[0].measure(batch)[0], atol=1e-6)
    True
    """
    layers = _layers(model)
    norms: list[Any] = [m for m in model.modules() if isinstance(m, BATCH_NORMS) and m.track_running_stats]
    modes = [(m, m.training) for m in model.modules()]
    before = [(m, m.options, m.count, int(m.num_batches_tracked)) for m in layers]
    momenta = [(norm, norm.momentum) for norm in norms]
    steps = 0
    try:
        model.eval()
        for layer in layers:
            layer.reset_statistics()
            layer.count = StepCount()  # frozen ones are measured too
            layer.train()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # which averages over all batches
            norm.train()
        for steps, batch in enumerate(batches, start=1):
            for layer in layers:
                layer.options = replace(layer.options, momentum=1 / steps, update_every=1, freeze_after=None)
            x = batch[0] if isinstance(batch, (tuple, list)) else batch
            model(x if device is None else x.to(device))
    finally:
        for layer, options, count, taken in before:
            layer.options, layer.count = options, count
            layer.num_batches_tracked.fill_(max(taken, 1))  # the step count, which a checkpoint goes on from
        for norm, momentum in momenta:
            norm.momentum = momentum
        for module, mode in modes:
            module.training = mode
    averages: list[Any] = [m for m in model.modules() if isinstance(m, AveragedModel)]
    for average in averages:
        average.measured_after = int(average.n_averaged)  # to_plain asks for it
    if steps == 0:
        raise ValueError("there are no batches to measure: the averages are now those of new layers")
    return model


def warn_of_stale_averages(model: nn.Module) -> None:
    """Warn of averaged weights whose layers still have the running averages of other weights."""
    for module in model.modules():
        if isinstance(module, AveragedModel) and not module.use_buffers:
            averaged = int(module.n_averaged)
            if averaged and averaged != getattr(module, "measured_after", None):
                warn(
                    "to_plain: the weights were averaged, and the running averages of the layers belong to other "
                    "weights; call ndlib.update_statistics(model, loader) first"
                )


def freeze_statistics(model: nn.Module, frozen: bool = True) -> nn.Module:
    """Let deconvolution layers whiten with their running averages in training too, and leave the averages alone.

    The counterpart of putting batch normalisation into evaluation mode for fine-tuning; ``model.train()`` does not end
    it, ``freeze_statistics(model, False)`` does. The gradient treats mean and root as constants.

    Raises:
        ValueError: there is no deconvolution layer.

    >>> from ndlib import DeconvLinear
    >>> model = freeze_statistics(nn.Sequential(DeconvLinear(4, 4)))
    >>> _ = model(torch.randn(16, 4))
    >>> model[0].running_mean.tolist()
    [0.0, 0.0, 0.0, 0.0]
    """
    for layer in _layers(model):
        layer.count.frozen = frozen
    return model


@contextmanager
def keep_statistics(model: nn.Module) -> Iterator[nn.Module]:
    """Whiten each batch with its own mean and root, as training does, and let none of them enter the averages.

    For the second forward pass of sharpness-aware minimisation (SAM), and for whatever else runs the training step of
    weights that will not stay.

    Raises:
        ValueError: there is no deconvolution layer.

    >>> from ndlib import DeconvLinear
    >>> model = nn.Sequential(DeconvLinear(4, 4))
    >>> with keep_statistics(model):
    ...     _ = model(torch.randn(16, 4) + 5)
    >>> model[0].running_mean.tolist()
    [0.0, 0.0, 0.0, 0.0]
    """
    layers = _layers(model)
    before = [layer.count.kept for layer in layers]
    for layer in layers:
        layer.count.kept = True
    try:
        yield model
    finally:
        for layer, kept in zip(layers, before, strict=True):
            layer.count.kept = kept


def synchronise_statistics(model: nn.Module, group: dist.ProcessGroup | Literal["world"] | None = "world") -> nn.Module:
    """Let deconvolution layers measure the whole batch of several processes, as ``convert_sync_batchnorm`` does for BN.

    Args:
        group: the processes; ``"world"`` for all there are when a step is taken, None for each its own.

    Raises:
        ValueError: there is no deconvolution layer.

    >>> from ndlib import DeconvLinear
    >>> synchronise_statistics(nn.Sequential(DeconvLinear(4, 4)))[0].process_group
    'world'
    """
    for layer in _layers(model):
        layer.process_group = group
    return model
