"""The optimisers that a run can be made with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["OPTIMIZERS", "optimizers"]

OPTIMIZERS = ("sgd", "adamw", "muon")


def optimizers(
    model: nn.Module, name: str, *, lr: float, momentum: float = 0.9, weight_decay: float = 0.0
) -> list[Optimizer]:
    """What updates the parameters of a network, each of them by one of the list.

    * ``"sgd"``: with momentum; ``weight_decay`` is added to the gradient.
    * ``"adamw"``: ``momentum`` is its first beta, the second 0.999; the decay stands apart from the gradient.
    * ``"muon"``: the kernels of the convolutions, as matrices of shape (out, in k k), by Muon: the averaged gradient
      G = U S V^T is replaced by U V^T, found by a Newton-Schulz iteration (Jordan 2024). AdamW updates the other
      parameters, at the same ``lr``: Muon's steps are scaled to the size that AdamW's usually have.

    Raises:
        ValueError: an unknown name, or "muon" where torch is older than 2.9.

    >>> (update,) = optimizers(nn.Linear(2, 1), "sgd", lr=0.1)
    >>> update.param_groups[0]["momentum"]
    0.9
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {name!r}")
    common: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
    if name == "sgd":
        return [torch.optim.SGD(model.parameters(), momentum=momentum, **common)]
    kernels: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for p in model.parameters():
        if p.requires_grad:
            (kernels if name == "muon" and p.ndim == 4 else others).append(p)
    adamw = torch.optim.AdamW(others, betas=(momentum, 0.999), **common)
    return [_muon(kernels, momentum=momentum, **common), adamw] if kernels else [adamw]


def _muon(kernels: list[nn.Parameter], **options: Any) -> Optimizer:
    """torch's Muon takes matrices only: it is given a matrix for each kernel, in step with it."""
    if not hasattr(torch.optim, "Muon"):
        raise ValueError(f"optimizer 'muon' needs torch 2.9 or newer; this is {torch.__version__}")

    def matrix(kernel: Tensor) -> Tensor:
        return kernel.detach().flatten(1)

    matrices = [nn.Parameter(matrix(kernel).clone()) for kernel in kernels]
    optimizer: Optimizer = torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw", **options)

    @torch.no_grad()
    def before(*_: Any) -> None:
        for m, kernel in zip(matrices, kernels, strict=True):
            m.copy_(matrix(kernel))
            m.grad = None if kernel.grad is None else matrix(kernel.grad)

    @torch.no_grad()
    def after(*_: Any) -> None:
        for m, kernel in zip(matrices, kernels, strict=True):
            kernel.copy_(m.view_as(kernel))

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)
    return optimizer
