"""The networks that learn on a page: their digits, weights, batches and steps, the same as in race.mjs.

A network has two convolutions of 3x3 with pooling and ReLU, and a linear layer. An arm is plain, with batch
normalisation behind each convolution, or with deconvolution in the place of all three layers.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ... import files
from ...layers import DeconvConv2d, DeconvLinear

__all__ = [
    "Digits",
    "accuracy",
    "batches",
    "digits",
    "network",
    "pack",
    "random_numbers",
    "standardised",
    "train",
    "unpack",
]

TRAINED, HELD_OUT, SIDE = 600, 200, 28  # digits on the page, pixels
CHANNELS = 8, 16
MEAN, DEVIATION = 0.1307, 0.3081  # of the pixels of MNIST, in [0, 1]
BATCH, MOMENTUM, DECAY = 64, 0.9, 1e-3  # chosen by race_study; the decay is that of Ye et al.


class Digits(NamedTuple):
    """Pictures (N, 1, 28, 28), standardised, and labels (N,), to train on and held out.

    >>> [len(part) for part in digits()]
    [600, 600, 200, 200]
    """

    images: Tensor
    labels: Tensor
    held_out: Tensor
    held_out_labels: Tensor


def pack(images: NDArray[np.uint8], labels: NDArray[np.integer[Any]]) -> bytes:
    """Digits without loss: labels, a bit for each pixel that is not 0, and the values of these pixels; deflated.

    >>> pictures, labels = np.eye(28, dtype=np.uint8)[None] * 255, np.array([7])
    >>> [array.shape for array in unpack(pack(pictures, labels), 1)]
    [(1, 28, 28), (1,)]
    """
    parts = labels.astype(np.uint8), np.packbits(images > 0), images[images > 0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    return packer.compress(b"".join(part.tobytes() for part in parts)) + packer.flush()


def unpack(packed: bytes, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """So many pictures (count, 28, 28) and labels (count,), as :func:`pack` took them.

    >>> pictures, labels = np.eye(28, dtype=np.uint8)[None] * 255, np.array([7])
    >>> bool((unpack(pack(pictures, labels), 1)[0] == pictures).all())
    True
    """
    values = np.frombuffer(zlib.decompress(packed, -15), np.uint8)
    labels, bits, ink = np.split(values, [count, count + count * SIDE * SIDE // 8])
    images = np.zeros(count * SIDE * SIDE, np.uint8)
    images[np.unpackbits(bits) > 0] = ink
    return images.reshape(count, SIDE, SIDE), labels.copy()


def standardised(images: Tensor) -> Tensor:
    """Pixels 0 to 255, shape (N, 28, 28) or (N, 1, 28, 28), as a network takes them.

    >>> stripes = torch.tensor([0, 255]).repeat(392).view(1, 28, 28)
    >>> [round(value, 2) for value in standardised(stripes)[0, 0, 0, :2].tolist()]
    [-0.42, 2.82]
    """
    return ((images.double() / 255 - MEAN) / DEVIATION).float().view(-1, 1, SIDE, SIDE)


def digits() -> Digits:
    """The digits that the page carries.

    >>> digits().images.shape
    torch.Size([600, 1, 28, 28])
    """
    packed = files.path("live-race-digits.bin").read_bytes()
    images, labels = (torch.from_numpy(array) for array in unpack(packed, TRAINED + HELD_OUT))
    x = standardised(images)
    return Digits(x[:TRAINED], labels[:TRAINED].long(), x[TRAINED:], labels[TRAINED:].long())


def random_numbers(seed: int, n: int) -> NDArray[np.float64]:
    """The first n numbers in [0, 1) of a seed, as every language with 32-bit integers makes them (Mulberry32).

    >>> [round(number, 3) for number in random_numbers(1, 2).tolist()]
    [0.627, 0.003]
    """
    state = np.uint32(seed % 2**32) + np.arange(1, n + 1, dtype=np.uint32) * np.uint32(0x6D2B79F5)
    t = (state ^ state >> np.uint32(15)) * (state | np.uint32(1))
    t ^= t + (t ^ t >> np.uint32(7)) * (t | np.uint32(61))
    return (t ^ t >> np.uint32(14)) / 2**32


def network(method: str, seed: int, **options: Any) -> nn.Sequential:
    """An arm, ``"none"``, ``"bn"`` or ``"nd"`` with the options of its layers; all arms of a seed begin alike.

    Weights and biases lie between -1 and 1 over the square root of a layer's inputs.

    >>> sum(parameter.numel() for parameter in network("nd", seed=1).parameters())
    9098
    """
    white = method == "nd"
    convolution: Callable[..., nn.Conv2d] = partial(DeconvConv2d, **options) if white else nn.Conv2d
    linear: Callable[..., nn.Linear] = partial(DeconvLinear, **options) if white else nn.Linear
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((1, *CHANNELS)):
        normalisation = [nn.BatchNorm2d(outputs)] if method == "bn" else []
        layers += [convolution(inputs, outputs, 3, padding=1), *normalisation, nn.MaxPool2d(2), nn.ReLU()]
    layers += [nn.Flatten(), linear(CHANNELS[-1] * (SIDE // 4) ** 2, 10)]
    numbers = iter(random_numbers(2 * seed, 10_000))
    with torch.no_grad():
        for layer in layers:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                for parameter in layer.parameters():
                    drawn = torch.from_numpy(2 * np.fromiter(numbers, np.float64, parameter.numel()) - 1)
                    parameter.copy_(drawn.view_as(parameter) / layer.weight[0].numel() ** 0.5)
    return nn.Sequential(*layers)


def batches(seed: int, steps: int, size: int = BATCH) -> Iterator[NDArray[np.int64]]:
    """Which digits each step sees: all in a random order, then in another; a rest that fills no batch is left out.

    >>> [len(batch) for batch in batches(seed=1, steps=3, size=64)]
    [64, 64, 64]
    """
    full = TRAINED // size
    numbers = random_numbers(2 * seed + 1, -(-steps // full) * (TRAINED - 1)).reshape(-1, TRAINED - 1)
    for step in range(steps):
        if step % full == 0:
            order = np.arange(TRAINED)
            for i, number in zip(range(TRAINED - 1, 0, -1), numbers[step // full], strict=True):
                j = int(number * (i + 1))
                order[i], order[j] = order[j], order[i]
        yield order[step % full * size :][:size]


def train(
    model: nn.Sequential,
    digits: Digits,
    seed: int,
    rate: float,
    steps: int,
    batch: int = BATCH,
    momentum: float = MOMENTUM,
) -> Iterator[float]:
    """Train by SGD, and yield the loss of each step after it.

    >>> model = network("bn", seed=1)
    >>> losses = list(train(model, digits(), seed=1, rate=0.05, steps=8))
    >>> losses[-1] < losses[0]
    True
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum, weight_decay=DECAY)
    for chosen in batches(seed, steps, batch):
        model.train()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(digits.images[chosen]), digits.labels[chosen])
        loss.backward()
        optimizer.step()
        yield loss.item()


def accuracy(model: nn.Sequential, digits: Digits) -> float:
    """Percent of the held-out digits that a model names, in evaluation.

    >>> accuracy(network("none", seed=1), digits()) < 30
    True
    """
    with torch.no_grad():
        return 100 * (model.eval()(digits.held_out).argmax(1) == digits.held_out_labels).double().mean().item()
