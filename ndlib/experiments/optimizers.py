"""The optimisers that a run can be made with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["OPTIMIZERS", "KernelMuon", "optimizers"]

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
    return [KernelMuon(kernels, momentum=momentum, **common), adamw] if kernels else [adamw]


class KernelMuon(Optimizer):
    """torch's Muon, which takes matrices only, for kernels: it is given a matrix for each, in step with it.

    To whoever clears gradients, unscales them or changes the learning rate it is an optimiser of the kernels.

    >>> layer = nn.Conv2d(2, 3, 3)
    >>> update = KernelMuon([layer.weight], lr=0.01)
    >>> loss = update.step(lambda: layer(torch.ones(1, 2, 4, 4)).sum())
    >>> update.param_groups[0]["params"][0].shape
    torch.Size([3, 2, 3, 3])
    """

    def __init__(self, kernels: list[nn.Parameter], **options: Any) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(f"optimizer 'muon' needs torch 2.9 or newer; this is {torch.__version__}")
        super().__init__(kernels, options)
        self.chosen = tuple(options)
        self.matrices = [nn.Parameter(_matrix(kernel).clone()) for kernel in kernels]
        self.muon = torch.optim.Muon(self.matrices, adjust_lr_fn="match_rms_adamw", **options)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; ``closure`` computes the gradient first, and its loss is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        (group,) = self.param_groups
        pairs = list(zip(self.matrices, group["params"], strict=True))
        for matrix, kernel in pairs:
            matrix.copy_(_matrix(kernel))
            matrix.grad = None if kernel.grad is None else _matrix(kernel.grad)
        self.muon.param_groups[0].update({name: group[name] for name in self.chosen})
        self.muon.step()
        for matrix, kernel in pairs:
            kernel.copy_(matrix.view_as(kernel))
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "muon": self.muon.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.muon.load_state_dict(state_dict["muon"])
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "muon"})


def _matrix(kernel: Tensor) -> Tensor:
    return kernel.detach().flatten(1)
