"""What the networks are made of: convolutions, normalisation and classifier, for each method compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..._core.options import RECOMMENDED
from ...functional import inverse_sqrt
from ...layers import DeconvConv2d, DeconvLinear
from ..baselines import KroneckerConv2d, refuse_options

__all__ = ["METHODS", "VARIANTS", "Classifier", "FrozenConv2d", "Layers", "Overrides", "SqueezeExcitation"]

METHODS = ("none", "bn", "nd", "nd-first", "bn-frozen", "kronecker")
VARIANTS = ("paper", "uniform", "recommended")
CHUNK = 500  # pictures measured at a time

Overrides = dict[str, Any]  # options of a layer that differ from its defaults


class FrozenConv2d(DeconvConv2d):
    """A convolution of patches that are whitened with the mean and the exact root of the training images.

    The layer computes y = ((x - mu) D) w + b as :class:`.DeconvConv2d` does, but mu and D come from :meth:`fit`, once
    and for all; only w and b are learnt. The frozen whitening that airbench and hlb-CIFAR10 open with is built from the
    same eigenvectors, lambda^(-1/2) v with both signs, but a nonlinearity follows it before anything is learnt.

    >>> layer = FrozenConv2d(3, 4, 3)
    >>> layer.fit(torch.randn(20, 3, 8, 8))
    >>> layer(torch.zeros(1, 3, 8, 8)).shape
    torch.Size([1, 4, 6, 6])
    """

    def __init__(self, before: int, after: int, kernel_size: int, **arguments: Any) -> None:
        exact: Overrides = {"solver": "eigh", "sampling_stride": 1}
        super().__init__(before, after, kernel_size, **exact | arguments)
        refuse_options(self, running="root", centering="shared")

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Take mu and D = (Cov + eps I)^(-1/2) from all patches of some pictures, as the network will see them.

        >>> layer = FrozenConv2d(3, 4, 1)
        >>> layer.fit(torch.randn(50, 3, 9, 9) * 2)
        >>> (layer.running_deconv.diagonal() - 0.5).abs().max() < 0.05
        tensor(True)
        """
        n = self.columns
        mean = torch.zeros(n, dtype=torch.float64, device=images.device)
        second = torch.zeros(n, n, dtype=torch.float64, device=images.device)
        for chunk in images.split(CHUNK):
            m, cov = (t.squeeze(0) for t in self.measure(chunk.double()))
            mean += len(chunk) / len(images) * m[0]
            second += len(chunk) / len(images) * (cov + m.T @ m)
        root = inverse_sqrt(second - mean.outer(mean), solver="eigh", eps=self.options.eps)
        self.running_mean.copy_(mean)
        self.running_deconv.copy_(root)
        self.restart(1)

    def whitening(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.count.taken == 0:
            raise RuntimeError(
                f"{self} has not been fitted; call models.fit_whitening(model, images) with training images first"
            )
        return self.running_whitening()


@dataclass(frozen=True)
class Layers:
    """Makes the layers of a network as its method has them.

    Args:
        method: ``"none"``; ``"bn"``, batch normalisation where the architecture has it; ``"nd"``, deconvolution instead
            of it; ``"nd-first"`` and ``"bn-frozen"``, the first convolution on whitened patches (of the batch, or of
            the training images), batch normalisation everywhere else; ``"kronecker"``, as ``"nd"``, but channels and
            pixels whitened apart, the same way in every variant.
        variant: ``"paper"``, with the exceptions of the authors' code, ``"uniform"``, all convolutions alike, or
            ``"recommended"``, all convolutions and the classifier as ``ndlib.RECOMMENDED`` has them.
        options: of every deconvolved convolution; they replace what the variant has.
        width: factor on the number of channels of every hidden layer.

    >>> [type(m).__name__ for m in Layers("bn").stem(3, 8, 3)]
    ['Conv2d', 'BatchNorm2d', 'ReLU']
    >>> [type(m).__name__ for m in Layers("nd").stem(3, 8, 3)]
    ['DeconvConv2d', 'ReLU']
    """

    method: str
    variant: str = "paper"
    options: Overrides = field(default_factory=dict)
    width: float = 1.0

    @property
    def first(self) -> str:
        """What the method is in the first convolution."""
        return {"nd-first": "nd", "bn-frozen": "frozen"}.get(self.method, self.method)

    @property
    def rest(self) -> str:
        """What the method is in all others."""
        return {"nd-first": "bn", "bn-frozen": "bn"}.get(self.method, self.method)

    @property
    def paper(self) -> bool:
        return self.variant == "paper"

    @property
    def recommended(self) -> Overrides:
        """What the variant sets in every deconvolved convolution."""
        return dict(RECOMMENDED) if self.variant == "recommended" else {}

    def scaled(self, channels: int) -> int:
        """So many channels at this width: at a width other than 1 a multiple of 8, which blocks divide."""
        return channels if self.width == 1 else max(8, 8 * round(channels * self.width / 8))

    def conv(
        self, before: int, after: int, kernel_size: int, *, exception: Overrides | None = None, **arguments: Any
    ) -> nn.Module:
        """A convolution alone: of whitened patches for ``"nd"``, otherwise a plain one.

        Beside batch normalisation it has no bias, otherwise one, unless the arguments say differently.

        Args:
            before, after: channels.
            exception: options that the authors' code gives this convolution alone; for the variant ``"paper"``.
            arguments: of every convolution, such as ``padding``.
        """
        return self._conv(self.rest, before, after, kernel_size, exception, arguments)

    def first_conv(
        self, before: int, after: int, kernel_size: int, *, exception: Overrides | None = None, **arguments: Any
    ) -> nn.Module:
        """The first convolution of the network alone; arguments as in :meth:`conv`."""
        return self._conv(self.first, before, after, kernel_size, exception, arguments)

    def _conv(
        self, kind: str, before: int, after: int, kernel_size: int, exception: Overrides | None, arguments: Overrides
    ) -> nn.Module:
        every: Overrides = {"bias": kind != "bn"} | arguments
        if kind == "nd":
            every |= (exception or {} if self.paper else {}) | self.recommended | self.options
            return DeconvConv2d(before, after, kernel_size, **every)
        if kind == "kronecker":
            return KroneckerConv2d(before, after, kernel_size, **every | self.options)
        if kind == "frozen":
            return FrozenConv2d(before, after, kernel_size, **every | self.options)
        return nn.Conv2d(before, after, kernel_size, **every)

    def norm(self, channels: int) -> list[nn.Module]:
        """Batch normalisation, if the method has it, as a list of one module or none."""
        return [nn.BatchNorm2d(channels)] if self.rest == "bn" else []

    def conv_norm(self, before: int, after: int, kernel_size: int, **arguments: Any) -> list[nn.Module]:
        """A convolution and, if the method has it, the batch normalisation of its output; arguments of :meth:`conv`."""
        return [self.conv(before, after, kernel_size, **arguments), *self.norm(after)]

    def stem(self, before: int, after: int, kernel_size: int, **arguments: Any) -> list[nn.Module]:
        """The first convolution with its batch normalisation, if it has one, and ReLU; arguments of :meth:`conv`."""
        norm = [nn.BatchNorm2d(after)] if self.first == "bn" else []
        return [self.first_conv(before, after, kernel_size, **arguments), *norm, nn.ReLU(inplace=True)]

    def head(self, features: int, classes: int) -> nn.Module:
        """The classifier: whitened where all convolutions are, plain otherwise."""
        if self.method not in ("nd", "kronecker"):
            return nn.Linear(features, classes)
        return DeconvLinear(features, classes, **{k: v for k, v in self.recommended.items() if k != "block_size"})


class Classifier(nn.Module):
    """Features, their mean over what is left of the picture, and a linear layer.

    >>> Classifier([nn.Conv2d(3, 8, 3)], nn.Linear(8, 10))(torch.zeros(2, 3, 9, 9)).shape
    torch.Size([2, 10])
    """

    def __init__(self, features: list[nn.Module], classifier: nn.Module) -> None:
        super().__init__()
        self.features = nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x))
        return logits


class SqueezeExcitation(nn.Sequential):
    """Each channel times a factor between 0 and 1, which two layers find from the means of all channels (Hu 2018).

    Deconvolved, the two 1x1 convolutions take every ninth *image* of a batch as a sample: as in the authors' code,
    whose sampling stride counts the pixels of the flattened batch, and here there is one pixel an image.

    >>> SqueezeExcitation(Layers("bn"), 32)(torch.zeros(2, 32, 4, 4)).shape
    torch.Size([2, 32, 4, 4])
    """

    def __init__(self, layers: Layers, channels: int) -> None:
        hidden = max(1, channels // 16)
        super().__init__(
            nn.AdaptiveAvgPool2d(1),
            layers.conv(channels, hidden, 1, bias=True),
            nn.ReLU(inplace=True),
            layers.conv(hidden, channels, 1, bias=True),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * super().forward(x)
