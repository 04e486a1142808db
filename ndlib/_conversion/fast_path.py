"""torch's transformers and layers that whiten."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

__all__ = ["choose_paths"]


def choose_paths(net: nn.Module) -> None:
    """Close the fast path of torch's encoder layers where a linear layer is not plain, and open it where both are.

    In evaluation that path reads weights itself, past the layers that hold them: it would leave the whitening out.
    """
    for layer in net.modules():
        if isinstance(layer, nn.TransformerEncoderLayer):
            plain = type(layer.linear1) is type(layer.linear2) is nn.Linear
            layer.activation_relu_or_gelu = _activation(layer.activation) if plain else 0


def _activation(function: object) -> int:
    """torch's number for the activations that its fast path knows, 0 for others."""
    if function is F.relu or isinstance(function, nn.ReLU):
        return 1
    return 2 if function is F.gelu or isinstance(function, nn.GELU) else 0
