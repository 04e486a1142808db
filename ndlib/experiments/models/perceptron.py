"""Networks without convolutions: a multilayer perceptron and logistic regression."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ...layers import ChannelDeconv
from .blocks import Layers, Overrides

__all__ = ["Perceptron", "logistic", "mlp_relu", "mlp_sigmoid", "whitened"]


class Perceptron(nn.Module):
    """Pictures as vectors, features of them, and a linear layer.

    >>> import torch
    >>> Perceptron(48, [], nn.Linear(48, 10))(torch.zeros(2, 3, 4, 4)).shape
    torch.Size([2, 10])
    """

    def __init__(self, inputs: int, features: list[nn.Module], classifier: nn.Module) -> None:
        super().__init__()
        self.inputs = inputs
        self.features = nn.Sequential(nn.Flatten(), *features)
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        if x[0].numel() != self.inputs:
            raise ValueError(
                f"the network takes {self.inputs} values a picture, got {tuple(x.shape[1:])}; "
                "models.build(..., channels=..., size=...) sets their number"
            )
        logits: Tensor = self.classifier(self.features(x))
        return logits


def whitened(layers: Layers, features: int) -> list[nn.Module]:
    """``ChannelDeconv`` in blocks of 32 before a linear layer if the method is ``"nd"``, otherwise nothing.

    >>> [layer.n_blocks for layer in whitened(Layers("nd"), 64)], whitened(Layers("bn"), 64)
    ([2], [])
    """
    if layers.method != "nd":
        return []
    options: Overrides = {"block_size": min(32, features)} | layers.options
    return [ChannelDeconv(features, **options)]


def _mlp(layers: Layers, inputs: int, classes: int, activation: Callable[[], nn.Module]) -> Perceptron:
    hidden = layers.scaled(128)

    def linear(before: int, after: int) -> nn.Linear:
        made = nn.Linear(before, after, bias=layers.method == "none")
        if made.bias is not None:
            nn.init.zeros_(made.bias)
        return made

    features: list[nn.Module] = []
    for before in (inputs, hidden):
        norm = [nn.BatchNorm1d(hidden)] if layers.method == "bn" else []
        features += [*whitened(layers, before), linear(before, hidden), *norm, activation()]
    return Perceptron(inputs, [*features, *whitened(layers, hidden)], linear(hidden, classes))


def mlp_sigmoid(layers: Layers, inputs: int, classes: int) -> Perceptron:
    """784-128-128-10 with sigmoid, the authors' network for MNIST.

    Linear layers have a bias in the plain form only, and it starts at 0. Batch normalisation follows each but the
    last; ``ChannelDeconv`` with blocks of 32 features stands before each, so that the pixels are whitened too.

    >>> [type(m).__name__ for m in mlp_sigmoid(Layers("bn"), 784, 10).features]
    ['Flatten', 'Linear', 'BatchNorm1d', 'Sigmoid', 'Linear', 'BatchNorm1d', 'Sigmoid']
    """
    return _mlp(layers, inputs, classes, nn.Sigmoid)


def mlp_relu(layers: Layers, inputs: int, classes: int) -> Perceptron:
    """The same with ReLU.

    >>> [type(m).__name__ for m in mlp_relu(Layers("nd"), 784, 10).features]
    ['Flatten', 'ChannelDeconv', 'Linear', 'ReLU', 'ChannelDeconv', 'Linear', 'ReLU', 'ChannelDeconv']
    """
    return _mlp(layers, inputs, classes, nn.ReLU)


def logistic(layers: Layers, inputs: int, classes: int) -> Perceptron:
    """A linear layer from pixels to classes: plain, or behind ``ChannelDeconv`` with blocks of 32 pixel values.

    The authors' code (``SimpleCNN_v1``) has several whitened forms, of which only this one runs: the others name a
    layer, or an argument, that their published version no longer has. Of the 3072 values of a picture block b holds
    every 96th, b, b + 96, ..., so that a block sees one pixel in 96; ``options={"block_size": 3072}`` takes all.

    >>> [type(m).__name__ for m in logistic(Layers("nd"), 3072, 10).features]
    ['Flatten', 'ChannelDeconv']
    """
    return Perceptron(inputs, whitened(layers, inputs), nn.Linear(inputs, classes))
