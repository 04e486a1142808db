"""The architectures of the benchmarks, each written once with the normalisation as a parameter."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..layers import parse_option
from .resnet import resnet18
from .vgg import vgg16, vgg_small

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {"vgg-small": vgg_small, "vgg16": vgg16, "resnet18": resnet18}


def build(
    arch: str,
    *,
    method: str,
    classes: int,
    channels: int = 3,
    width: float = 1.0,
    options: dict[str, Any] | None = None,
) -> nn.Module:
    """A network by name.

    Args:
        arch: one of ``ARCHITECTURES``.
        method: ``"none"``, ``"bn"``, ``"nd"``, or ``"nd-first"`` (the first convolution deconvolved, BN elsewhere).
        classes, channels: outputs and input channels.
        width: factor on the number of channels of every hidden layer.
        options: of every deconvolved convolution, such as ``{"block_size": 16}``; they replace what the architecture
            has.

    Raises:
        ValueError: unknown architecture or method; the message lists the valid ones.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {arch!r}; there are {', '.join(ARCHITECTURES)}")
    make = ARCHITECTURES[arch]
    return make(method=method, classes=classes, channels=channels, width=width, options=options or {})


def save(model: nn.Module, file: Path, record: dict[str, Any]) -> None:
    """Write a trained network for reading, not for training on: half precision, with the record of its run.

    Of the symmetric running roots only the upper triangle is stored.
    """
    arrays: dict[str, Any] = {"record": np.array(json.dumps(record))}
    for name, tensor in model.state_dict().items():
        array = tensor.cpu().numpy()
        if name.endswith("running_deconv"):
            array = array[..., *np.triu_indices(array.shape[-1])]
        arrays[name] = array.astype(np.float16) if array.dtype.kind == "f" else array
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **arrays)


def load(file: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network that :func:`save` wrote, in evaluation mode and single precision, and the record of its run."""
    with np.load(file, allow_pickle=False) as stored:
        arrays = dict(stored)
    record = json.loads(str(arrays.pop("record")))
    state = {}
    for name, array in arrays.items():
        tensor = torch.from_numpy(array)
        if name.endswith("running_deconv"):
            tensor = _from_triangle(tensor)
        state[name] = tensor.float() if tensor.is_floating_point() else tensor
    classes, channels = state["classifier.weight"].shape[0], state["features.0.weight"].shape[1]
    options = dict(map(parse_option, record["options"].split()))
    sizes: dict[str, Any] = {"classes": classes, "channels": channels, "width": record["width"], "options": options}
    model = build(record["arch"], method=record["method"], **sizes)
    model.load_state_dict(state)
    return model.eval(), record


def _from_triangle(values: Tensor) -> Tensor:
    n = (math.isqrt(8 * values.shape[-1] + 1) - 1) // 2
    i, j = torch.triu_indices(n, n)
    full = values.new_zeros(*values.shape[:-1], n, n)
    full[..., i, j] = full[..., j, i] = values
    return full
