"""Convolutions of whitened patches in any number of dimensions, ordinary and transposed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .distributed import rows_before
from .folding import turned
from .options import Options
from .patches import Patches
from .samples import normalise_samples
from .warn import warn
from .whitening import Deconvolution, block_size_for

__all__ = ["Convolution", "TransposedConvolution"]

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
Device = torch.device | str | None
Sides = int | Sequence[int]
CONVOLUTIONS: tuple[Any, ...] = (F.conv1d, F.conv2d, F.conv3d)
TRANSPOSED: tuple[Any, ...] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


class _AnyConvolution(Deconvolution):
    """What the two have in common; a class of ``layers`` joins each with the plain one of 1, 2 or 3 dimensions."""

    # What the plain convolution holds.
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int
    padding_mode: PaddingMode
    weight: Any
    bias: Any

    def _begin_convolution(self, chosen: Options, explicit_block: bool, device: Device, dtype: Any) -> None:
        """Buffers for the patches; a block size that was left out is the published one: groups are blocks."""
        groups, width = self.groups, self.in_channels // self.groups
        if groups == 1 or explicit_block:
            block = block_size_for(width, chosen.block_size)
        else:
            block = width
            if width > chosen.block_size:
                warn(
                    f"each of the {groups} groups has {width} channels, all of which are whitened together: "
                    f"{groups * (width * math.prod(self.kernel_size)) ** 2 / 1e6:.1f} million numbers in the roots; "
                    "block_size=64, given explicitly, whitens parts of a group apart"
                )
        columns, blocks = block * math.prod(self.kernel_size), self.in_channels // (groups * block)
        self._begin(chosen, columns, groups, blocks, device=device, dtype=dtype)

    def prepared(self, input: Tensor) -> Tensor:
        dimensions = len(self.kernel_size)
        x = input.unsqueeze(0) if input.dim() == dimensions + 1 else input
        if x.dim() != dimensions + 2 or x.shape[1] != self.in_channels:
            sides = ("L", "H, W", "D, H, W")[dimensions - 1]
            wanted = f"(N, {self.in_channels}, {sides}) or ({self.in_channels}, {sides})"
            raise ValueError(f"input must have shape {wanted}, got {tuple(input.shape)}")
        kind = self.options.sample_norm
        return x if kind is None else normalise_samples(x, kind, dimensions + 1)


def _check_groups(in_channels: int, out_channels: int, groups: int) -> None:
    if groups < 1 or in_channels % groups or out_channels % groups:
        raise ValueError(
            f"groups must divide in_channels and out_channels, got groups={groups}, in_channels={in_channels}, "
            f"out_channels={out_channels}; {math.gcd(in_channels, out_channels)} and its divisors would"
        )


class Convolution(_AnyConvolution):
    """A convolution of whitened patches."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sides,
        stride: Sides = 1,
        padding: str | Sides = 0,
        dilation: Sides = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: Device = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        _check_groups(in_channels, out_channels, groups)
        chosen = self._chosen(options)
        plain: tuple[Any, ...] = (in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        super().__init__(*plain, padding_mode, device, dtype)  # of nn.Conv1d, 2d or 3d
        self._begin_convolution(chosen, "block_size" in options, device, dtype)

    @property
    def pads(self) -> tuple[int, ...]:
        """Pixels added before and after each side, the last side first, as ``F.pad`` takes them."""
        if self.padding == "valid":
            return (0,) * (2 * len(self.kernel_size))
        pads: list[int] = []
        for axis in reversed(range(len(self.kernel_size))):
            if self.padding == "same":
                total = self.dilation[axis] * (self.kernel_size[axis] - 1)
                pads += [total // 2, total - total // 2]
            else:
                pads += [int(self.padding[axis])] * 2
        return tuple(pads)

    def sampled(self, x: Tensor, stride: int) -> tuple[Tensor, Patches]:
        groups, blocks, grouping = self.groups, self.n_blocks, self.options.grouping
        strides = tuple(map(stride.__mul__, self.stride))
        if math.prod(self.kernel_size) == 1:  # every so many pixels of the whole batch, on whichever process they are
            pixels = x.movedim(1, -1).reshape(-1, x.shape[1])
            step = math.prod(strides)
            if step > 1:
                before, _ = rows_before(len(pixels), self.group, x.device)
                pixels = pixels[-before % step :: step]
            return pixels, Patches(groups=groups, blocks=blocks, grouping=grouping)
        pads = self.pads
        if self.padding_mode != "zeros":
            x, pads = F.pad(x, pads, mode=self.padding_mode), (0,) * len(pads)
        return x, Patches(self.kernel_size, strides, pads, self.dilation, groups, blocks, grouping)

    def forward(self, input: Tensor) -> Tensor:
        x = self.prepared(input)
        weight, bias = self.folded(x, self.weight, self.bias)
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, self.pads, mode=self.padding_mode), 0
        convolve = CONVOLUTIONS[len(self.kernel_size) - 1]
        y = convolve(x, weight, bias, self.stride, padding, self.dilation, self.groups)
        return y.squeeze(0) if y.dim() > input.dim() else y


class TransposedConvolution(_AnyConvolution):
    """A transposed convolution, seen as an ordinary one: of the input with zeros between and around its pixels."""

    output_padding: tuple[int, ...]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sides,
        stride: Sides = 1,
        padding: Sides = 0,
        output_padding: Sides = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sides = 1,
        padding_mode: PaddingMode = "zeros",
        device: Device = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        _check_groups(in_channels, out_channels, groups)
        chosen = self._chosen(options)
        plain: tuple[Any, ...] = (in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias)
        super().__init__(*plain, dilation, padding_mode, device, dtype)  # of nn.ConvTranspose1d, 2d or 3d
        self._begin_convolution(chosen, "block_size" in options, device, dtype)

    def sampled(self, x: Tensor, stride: int) -> tuple[Tensor, Patches]:
        """The spread input, every ``stride``-th position of the output, or more where taps would go unmeasured."""
        sides, steps, source, target = [], [], [], []
        for axis, side in enumerate(x.shape[2:]):
            s, margin = self.stride[axis], self._margin(axis)
            sides.append((side - 1) * s + 1 + 2 * margin + self.output_padding[axis])
            # Padding cuts the pixels before the first and from the last on.
            first, last = max(0, -(margin // s)), min(side, (sides[-1] - 1 - margin) // s + 1)
            source.append(slice(first, last))
            target.append(slice(margin + first * s, margin + (last - 1) * s + 1, s))
            steps.append(self._step(axis, side, sides[-1], stride))
        spread = x.new_zeros(*x.shape[:2], *sides)
        spread[:, :, *target] = x[:, :, *source]
        none = (0,) * (2 * len(sides))
        blocks, grouping = self.n_blocks, self.options.grouping
        return spread, Patches(self.kernel_size, tuple(steps), none, self.dilation, self.groups, blocks, grouping)

    def _margin(self, axis: int) -> int:
        """Zeros around the input; below zero, where pixels are cut off."""
        return self.dilation[axis] * (self.kernel_size[axis] - 1) - int(self.padding[axis])

    def _step(self, axis: int, side: int, spread: int, wanted: int) -> int:
        """The largest step of at most ``wanted`` that meets all phases of the stride equally, and every tap.

        Where the step and the stride have no common divisor, any run of ``step`` pixels that a tap meets one after
        another holds one that is measured.
        """
        s, d, k, margin = self.stride[axis], self.dilation[axis], self.kernel_size[axis], self._margin(axis)
        last = spread - d * (k - 1) - 1  # position of the output
        met = [min(side - 1, (last - a) // s) - max(0, -(a // s)) + 1 for a in (margin - t * d for t in range(k))]
        largest = min([wanted, *(pixels for pixels in met if pixels > 0)])
        return max(step for step in range(1, largest + 1) if math.gcd(step, s) == 1)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        x = self.prepared(input)
        weight, bias = self.folded(x, self.weight, self.bias)
        convolve, extra = TRANSPOSED[len(self.kernel_size) - 1], self._extra(x, input.dim(), output_size)
        y = convolve(x, weight, bias, self.stride, self.padding, extra, self.groups, self.dilation)
        return y.squeeze(0) if y.dim() > input.dim() else y

    def _extra(self, x: Tensor, dimensions: int, output_size: Sequence[int] | None) -> tuple[int, ...]:
        """The output padding that gives an output of this size."""
        if output_size is None:
            return self.output_padding
        axes = range(len(self.kernel_size))
        span = [self.dilation[a] * (self.kernel_size[a] - 1) for a in axes]
        smallest = [(x.shape[a + 2] - 1) * self.stride[a] + 1 + 2 * self._margin(a) - span[a] for a in axes]
        largest = [smallest[a] + self.stride[a] - 1 for a in axes]
        wanted = tuple(output_size)[-len(axes) :]
        known = len(output_size) in (len(axes), dimensions)  # with or without the dimensions before these
        if not (known and all(smallest[a] <= wanted[a] <= largest[a] for a in axes)):
            raise ValueError(f"output_size must lie between {smallest} and {largest}, got {tuple(output_size)}")
        return tuple(wanted[a] - smallest[a] for a in axes)

    def fold(self, weight: Tensor, bias: Tensor | None, mean: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
        folded, shifted = super().fold(turned(weight, self.groups), bias, mean, root)
        return turned(folded, self.groups), shifted
