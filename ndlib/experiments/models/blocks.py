"""What the networks are made of: convolutions, normalisation and classifier, for each method compared."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...functional import inverse_sqrt, moments
from ...layers import DeconvConv2d, DeconvLinear

METHODS = ("none", "bn", "nd", "nd-first", "bn-frozen", "kronecker")
VARIANTS = ("paper", "uniform")
CHUNK = 500  # pictures measured at a time

Options = dict[str, Any]


class FrozenConv2d(DeconvConv2d):
    """A convolution of patches that are whitened with the mean and the exact root of the training images.

    The layer computes y = ((x - mu) D) w + b as :class:`.DeconvConv2d` does, but mu and D come from :meth:`fit`, once
    and for all; only w and b are learnt. The frozen whitening that airbench and hlb-CIFAR10 open with is built from the
    same eigenvectors, lambda^(-1/2) v with both signs, but a nonlinearity follows it before anything is learnt.
    """

    def __init__(self, before: int, after: int, kernel_size: int, **arguments: Any) -> None:
        exact: Options = {"solver": "eigh", "sampling_stride": 1}
        super().__init__(before, after, kernel_size, **exact | arguments)

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Take mu and D = (Cov + eps I)^(-1/2) from all patches of some pictures, as the network will see them."""
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


class KroneckerConv2d(DeconvConv2d):
    """A convolution that whitens channels and pixels of the patches apart: y = ((x - mu) D) w + b.

    The covariance of the patches, C channels of P pixels, is taken for a Kronecker product, with which it shares the
    mean over pixels and the mean over channels,

        Cov = C_c x C_p,   D = (C_c + eps I)^(-1/2) x (C_p + eps I)^(-1/2)

    with C_c of shape (C, C) in squared units of the input, and C_p of shape (P, P) the other mean plus eps I, divided
    by its mean diagonal. All channels of a group make one block; ``block_size`` is not used. An experiment of chapter
    7, for one process.
    """

    def __init__(self, before: int, after: int, kernel_size: int, **arguments: Any) -> None:
        super().__init__(before, after, kernel_size, **arguments | {"block_size": before})
        self.pixels = math.prod(self.kernel_size)
        del self.running_deconv
        for name, n in (("channels", before // self.groups), ("pixels", self.pixels)):
            self.register_buffer(f"running_{name}", torch.eye(n).repeat(self.groups, 1, 1))

    def batch_whitening(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """Mean (groups, 1, n) and roots (groups, C, C) and (groups, P, P) of this batch; they enter the averages."""
        if self.options.process_group is not None:
            raise ValueError("KroneckerConv2d measures the batch of one process only")
        rows = self.samples(x).squeeze(1)
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        mean = rows.mean(1, keepdim=True)
        patches = (rows - mean).unflatten(2, (-1, self.pixels))  # groups, rows, channels, pixels
        across = patches.transpose(2, 3).flatten(1, 2), patches.flatten(1, 2)
        channels, pixels = (moments(t)[1] for t in across)  # whose columns have no mean
        pixels = pixels + self.options.eps * torch.eye(self.pixels).to(pixels)  # of a constant input: I
        pixels = pixels / pixels.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
        found = {"mean": mean, "channels": self.root(channels), "pixels": self.root(pixels)}
        self.remember(**{f"running_{name}": value for name, value in found.items()})
        return mean, found["channels"], found["pixels"]

    def running_whitening(self) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        mean = self.running_mean.view(self.groups, 1, -1)
        return mean, self.get_buffer("running_channels"), self.get_buffer("running_pixels")

    def _fold(  # type: ignore[override]
        self, weight: Tensor, bias: Tensor | None, mean: Tensor, channels: Tensor, pixels: Tensor
    ) -> tuple[Tensor, Tensor]:
        filters = weight.flatten(2).unflatten(0, (self.groups, -1))  # groups, out, channels, pixels
        filters = channels.unsqueeze(1) @ filters @ pixels.unsqueeze(1)
        shift = (filters.flatten(2) @ mean.mT).flatten()
        return filters.reshape(weight.shape), -shift if bias is None else bias - shift


@dataclass(frozen=True)
class Layers:
    """Makes the layers of a network as its method has them.

    Args:
        method: ``"none"``; ``"bn"``, batch normalisation where the architecture has it; ``"nd"``, deconvolution instead
            of it; ``"nd-first"`` and ``"bn-frozen"``, the first convolution on whitened patches (of the batch, or of
            the training images), batch normalisation everywhere else; ``"kronecker"``, as ``"nd"``, but channels and
            pixels whitened apart, the same way in every variant.
        variant: ``"paper"``, with the exceptions of the authors' code, or ``"uniform"``, all convolutions alike.
        options: of every deconvolved convolution; they replace what the variant has.
        width: factor on the number of channels of every hidden layer.
    """

    method: str
    variant: str = "paper"
    options: Options = field(default_factory=dict)
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

    def scaled(self, channels: int) -> int:
        """So many channels at this width: at a width other than 1 a multiple of 8, which blocks divide."""
        return channels if self.width == 1 else max(8, 8 * round(channels * self.width / 8))

    def conv(
        self, before: int, after: int, kernel_size: int, *, exception: Options | None = None, **arguments: Any
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
        self, before: int, after: int, kernel_size: int, *, exception: Options | None = None, **arguments: Any
    ) -> nn.Module:
        """The first convolution of the network alone; arguments as in :meth:`conv`."""
        return self._conv(self.first, before, after, kernel_size, exception, arguments)

    def _conv(
        self, kind: str, before: int, after: int, kernel_size: int, exception: Options | None, arguments: Options
    ) -> nn.Module:
        every: Options = {"bias": kind != "bn"} | arguments
        if kind == "nd":
            every |= (exception or {} if self.paper else {}) | self.options
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
        return DeconvLinear(features, classes) if self.method in ("nd", "kronecker") else nn.Linear(features, classes)


class Classifier(nn.Module):
    """Features, their mean over what is left of the picture, and a linear layer."""

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
