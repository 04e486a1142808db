"""Deconvolution layers: drop-in replacements for convolutions and linear layers that whiten their input.

    y = ((x - mu) D) w + b,   D = (Cov + eps I)^(-1/2), approximately

Mean mu and covariance Cov are those of the patches (im2col rows) of the current batch while training; in
evaluation running averages take their place. Both are folded into the weights, so that the layer runs one
ordinary convolution. The defaults compute what the authors' published layers compute.

Weight and bias have the plain layer's names and shapes, and the buffers those of the authors' layer: a plain
checkpoint loads with ``strict=False``, one of the authors' ``FastDeconv`` or ``Delinear`` as it is.

Every option is an attribute: ``layer.eps`` reads it, ``layer.eps = 1e-2`` sets it, checked. Those that decide what
weights and buffers mean (block_size, grouping, centering, running) cannot be set in a layer that is there.

Source: Ye et al., Network Deconvolution, ICLR 2020 (arXiv 1905.11926).
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._core.convolution import Convolution, Device, TransposedConvolution
from ._core.distributed import rows_before, synchronise
from ._core.moments import sample_moments
from ._core.options import Options
from ._core.patches import Patches
from ._core.products import full_precision
from ._core.samples import normalise_samples
from ._core.whitening import Deconvolution, block_size_for, without_autocast
from .functional import join_columns

__all__ = [
    "ChannelDeconv",
    "DeconvConv1d",
    "DeconvConv2d",
    "DeconvConv3d",
    "DeconvConvTranspose1d",
    "DeconvConvTranspose2d",
    "DeconvConvTranspose3d",
    "DeconvLinear",
    "Deconvolution",
    "Options",
]


class DeconvConv1d(Convolution, nn.Conv1d):
    """Convolution of whitened patches of a sequence, shape (N, in_channels, L): see :class:`.DeconvConv2d`.

    Args:
    {options}

    >>> DeconvConv1d(4, 8, 3, padding=1)(torch.randn(16, 4, 50)).shape
    torch.Size([16, 8, 50])
    """


class DeconvConv2d(Convolution, nn.Conv2d):
    """Two-dimensional convolution of whitened patches.

    With X the matrix of all patches (``functional.patch_matrix``), y = (X - mu) D w + b. The channels are
    whitened in blocks that share one mean and one root: with G = in_channels / block_size blocks, column c of
    a patch row goes to block c mod G (the published, interleaved order), and a row counts as G samples. With
    ``groups`` > 1 every group has a mean and a root of its own, and its channels are one block unless ``block_size`` is
    given.

    The arguments up to ``dtype`` are those of ``nn.Conv2d``. Padding is part of the patches from which the moments
    come. The other arguments are keywords:

    Args:
    {options}

    Shape:
        Input (N, in_channels, H, W), output (N, out_channels, H', W'), or both without N, as in ``nn.Conv2d``. Before
        any training step the layer is the plain convolution in evaluation. Where a small map in a small batch has fewer
        than two positions to measure, the sampling stride of that step is lowered.

    Raises:
        ValueError: channels not divisible by groups, a value that an option cannot have, input of another shape, fewer
            than two patches, or a constant input with eps = 0.
        TypeError: an unknown option, or a value of a type that an option cannot have.
        FloatingPointError: NaN or infinite input while training, or a diverging root (on a CPU; elsewhere and in a
            compiled step see :func:`.check_finite`).

    Under autocast only the convolution runs in half precision; moments and root stay in float32. On CUDA no step
    waits for the device. ``torch.compile``, from torch 2.9 on as the rest, takes a training step as one graph, and
    takes it once; with ``update_every`` or ``freeze_after`` compile after the steps that these begin with, or every one
    of those is compiled anew. Tested on CPUs; the tests for CUDA have not been run on a GPU yet; MPS is untested.

    >>> layer = DeconvConv2d(3, 16, 3, padding=1, n_iter=15)
    >>> layer(torch.randn(8, 3, 32, 32)).shape, layer.n_iter, layer.eps
    (torch.Size([8, 16, 32, 32]), 15, 1e-05)

    Source: Ye et al. 2020, algorithm 1; the defaults and details are those of the authors' code.
    """


class DeconvConv3d(Convolution, nn.Conv3d):
    """Convolution of whitened patches of a volume, shape (N, in_channels, D, H, W): see :class:`.DeconvConv2d`.

    Args:
    {options}

    >>> DeconvConv3d(2, 4, 3, padding=1)(torch.randn(16, 2, 6, 6, 6)).shape
    torch.Size([16, 4, 6, 6, 6])
    """


class DeconvConvTranspose1d(TransposedConvolution, nn.ConvTranspose1d):
    """Transposed convolution of whitened patches of a sequence: see :class:`.DeconvConvTranspose2d`.

    Args:
    {options}

    >>> DeconvConvTranspose1d(4, 8, 4, stride=2, padding=1)(torch.randn(16, 4, 25)).shape
    torch.Size([16, 8, 50])
    """


class DeconvConvTranspose2d(TransposedConvolution, nn.ConvTranspose2d):
    """Two-dimensional transposed convolution ("up-convolution") of whitened patches.

    A transposed convolution is an ordinary one with stride 1, of the input z with ``stride - 1`` zeros between its
    pixels and ``dilation * (kernel_size - 1) - padding`` around them, and with the kernel flipped:

        conv_transpose(x, w) = conv(z, w flipped),   so that   y = (Z - mu) D w + b

    with Z the patches of z at all positions of the output. These zeros belong to the patches: at each position the
    kernel meets the pixels with about one in stride^2 of its taps, and D couples taps that never meet pixels at once
    through their means alone. With stride 1 the layer is :class:`.DeconvConv2d`. Folded it is
    an ordinary ``nn.ConvTranspose2d``; to centre each phase of the stride by itself, which no single bias can do, would
    not fold.

    Measuring costs as much as that of an ordinary convolution with the output's size, in which z stands.

    The arguments up to ``dtype`` are those of ``nn.ConvTranspose2d``. The other arguments are keywords:

    Args:
    {options}

    ``sampling_stride`` gives way to the next smaller number where it has a common divisor with the stride, and where
    the map is so small that some taps would not be measured.

    Shape:
        Input (N, in_channels, H, W), output (N, out_channels, H', W'), or both without N. ``forward`` takes an
        ``output_size`` as ``nn.ConvTranspose2d`` does; the moments are those of the default size.

    Raises:
        ValueError, TypeError, FloatingPointError: as :class:`.DeconvConv2d`; also an impossible ``output_size``.

    >>> layer = DeconvConvTranspose2d(4, 3, 4, stride=2, padding=1)
    >>> layer(torch.randn(8, 4, 16, 16)).shape
    torch.Size([8, 3, 32, 32])

    Source: Ye et al. 2020 for the layer. The authors' ``DeconvTransposed`` (Ye et al. 2021, arXiv 2103.16634) measures
    the patches of x itself, without zeros, which its kernel never meets when the stride is above 1.
    """


class DeconvConvTranspose3d(TransposedConvolution, nn.ConvTranspose3d):
    """Transposed convolution of whitened patches of a volume: see :class:`.DeconvConvTranspose2d`.

    Args:
    {options}

    >>> DeconvConvTranspose3d(2, 4, 2, stride=2)(torch.randn(16, 2, 6, 6, 6)).shape
    torch.Size([16, 4, 12, 12, 12])
    """


class DeconvLinear(Deconvolution, nn.Linear):
    """Linear layer on whitened features: y = (x - mu) D w + b.

    The features are cut into consecutive blocks that share one mean and one root, every block of every row
    being one sample. D multiplies the weights or, where there are fewer rows than outputs, the rows.

    The arguments up to ``dtype`` are those of ``nn.Linear``. The other arguments are keywords:

    Args:
    {options}

    Shape:
        Input (..., in_features), output (..., out_features).

    Raises:
        ValueError, TypeError, FloatingPointError: as :class:`.DeconvConv2d`.

    >>> DeconvLinear(10, 3)(torch.randn(64, 10)).shape
    torch.Size([64, 3])

    Source: Ye et al. 2020; the authors' ``Delinear``.
    """

    defaults: ClassVar[Options] = Options(block_size=512, grouping="contiguous")
    without: ClassVar[tuple[str, ...]] = ("sampling_stride",)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        chosen = self._chosen(options)
        super().__init__(in_features, out_features, bias, device, dtype)
        block = block_size_for(in_features, chosen.block_size)
        self._begin(chosen, block, 1, in_features // block, device=device, dtype=dtype)

    def sampled(self, x: Tensor, stride: int) -> tuple[Tensor, Patches]:
        return x.reshape(-1, self.in_features), Patches(blocks=self.n_blocks, grouping=self.options.grouping)

    def prepared(self, input: Tensor) -> Tensor:
        if input.dim() < 1 or input.shape[-1] != self.in_features:
            raise ValueError(f"input must have shape (..., {self.in_features}), got {tuple(input.shape)}")
        kind = self.options.sample_norm
        return input if kind is None else normalise_samples(input, kind, 1)

    def forward(self, input: Tensor) -> Tensor:
        x = self.prepared(input)
        if 0 < x.numel() < self.weight.numel():  # (x - mu) D has fewer rows than D w has columns: multiply that
            return F.linear(self.whitened(x), self.weight, self.bias)
        return F.linear(x, *self.folded(x, self.weight, self.bias))

    def whitened(self, x: Tensor) -> Tensor:
        """(x - mu) D, shape and type of the input."""
        with without_autocast(x), full_precision():
            mean, root = self.whitening(x)
            kind = torch.promote_types(mean.dtype, torch.float32)
            rows = self.samples(x).to(kind) - mean.to(kind).unsqueeze(2)
            white = join_columns(rows @ root.to(kind).unsqueeze(1), self.options.grouping)
        return white.view(x.shape).to(x.dtype)


class ChannelDeconv(Deconvolution):
    """Whiten the channels of a feature map, or the features of a vector, without a convolution: y = D (x - mu).

    Of the C channels the first G * block_size, G = floor(C / block_size), are whitened in G blocks, channel c
    in block c mod G; the blocks share one mean vector and one root. By default (published) the root is that of the
    *uncentred* second moment, x x' averaged, though the mean is subtracted from the data. The remaining
    C mod block_size channels are normalised together, with one mean and one variance:
    y = (x - m) / sqrt(v + eps).

    Args:
        num_features: C.
        block_size: channels whitened together, at most C.
        device, dtype: of the buffers.
    {options}

    Where a side of the map is shorter than sampling_stride, every pixel is used; else every sampling_stride^2-th, in
    the order block, image, position for the first part, channel, position for the rest.

    Shape:
        Input and output ``(N, C, *spatial)`` with any number of spatial dimensions, none included.

    The running averages start from the first batch. Before it the layer leaves its input as it is, but for the
    factor 1 / sqrt(1 + eps) of the remaining channels.

    Raises:
        ValueError, TypeError, FloatingPointError: as :class:`.DeconvConv2d`; also a block_size above num_features.

    >>> layer = ChannelDeconv(6, block_size=4)
    >>> layer(torch.randn(32, 6, 5, 5)).shape, layer.n_blocks, layer.rest
    (torch.Size([32, 6, 5, 5]), 1, 2)

    Source: the authors' ``ChannelDeconv``.
    """

    defaults: ClassVar[Options] = Options(eps=1e-2, centering="uncentred")
    without: ClassVar[tuple[str, ...]] = ("sample_norm",)
    first_batch_starts: ClassVar[bool] = True
    rest_mean: Tensor
    rest_var: Tensor

    def __init__(
        self,
        num_features: int,
        block_size: int,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        chosen = self._chosen({"block_size": block_size, **options})
        if block_size > num_features:
            raise ValueError(f"block_size must lie between 1 and num_features, {num_features}, got {block_size}")
        self.num_features, self.rest = num_features, num_features % block_size
        self._begin(chosen, block_size, 1, num_features // block_size, device=device, dtype=dtype)
        if self.rest:
            self.register_buffer("rest_mean", torch.zeros((), device=device, dtype=dtype))
            self.register_buffer("rest_var", torch.ones((), device=device, dtype=dtype))

    @staticmethod
    def _step(x: Tensor, stride: int) -> int:
        return stride**2 if x.dim() > 2 and min(x.shape[2:]) >= stride else 1

    def _blocks(self, channels: Tensor) -> Tensor:
        """View of the whitened channels, which come first, shape (C', ...), as (block_size, blocks, ...)."""
        if self.options.grouping == "interleaved":
            return channels.unflatten(0, (self.columns, self.n_blocks))
        return channels.unflatten(0, (self.n_blocks, self.columns)).transpose(0, 1)

    def sampled(self, x: Tensor, stride: int) -> tuple[Tensor, Patches]:
        pixels = x[:, : x.shape[1] - self.rest].movedim(1, 0).flatten(1)  # channels, then images and positions
        step = self._step(x, stride)
        before, total = rows_before(pixels.shape[1], self.group, x.device)
        if self.options.centering == "per-block":
            return pixels[:, -before % step :: step].T, Patches(blocks=self.n_blocks, grouping=self.options.grouping)
        blocks = self._blocks(pixels)
        chosen = [blocks[:, g, -(g * total + before) % step :: step] for g in range(self.n_blocks)]
        return torch.cat(chosen, 1).T, Patches()

    def _measure_rest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values = (
            x[:, x.shape[1] - self.rest :].flatten(1)[:, :: self._step(x, self.options.sampling_stride)].reshape(-1, 1)
        )
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        n = len(values)
        mean, var = (moment.squeeze(0) for moment in sample_moments(values, Patches(), n))
        group = self.group
        if group is not None:
            mean, var = synchronise(mean, var, n, group)
            n = rows_before(n, group, x.device)[1]
        mean, var = mean.squeeze(), var.squeeze() * n / (n - 1)
        self.remember(rest_mean=mean, rest_var=var)
        return mean, var

    def prepared(self, input: Tensor) -> Tensor:
        if input.dim() < 2 or input.shape[1] != self.num_features:
            raise ValueError(f"input must have shape (N, {self.num_features}, ...), got {tuple(input.shape)}")
        return input

    def forward(self, input: Tensor) -> Tensor:
        x = self.prepared(input)
        with without_autocast(x), full_precision():
            measured = self.begins_measured_step(x)
            mean, root = self.batch_whitening(x) if measured else self.running_whitening()
            channels = x.movedim(1, 0).to(torch.promote_types(x.dtype, root.dtype))
            first, rest = channels.split([len(channels) - self.rest, self.rest])
            blocks = self._blocks(first)
            shape = (self.columns, -1, *[1] * (blocks.dim() - 2))
            white = torch.tensordot(root[0], blocks - mean[0].T.reshape(shape), 1)
            white = (white if self.options.grouping == "interleaved" else white.transpose(0, 1)).flatten(0, 1)
            if self.rest:
                m, v = self._measure_rest(x) if measured else (self.rest_mean, self.rest_var)
                white = torch.cat([white, (rest - m) / (v + self.options.eps).sqrt()])
        return white.movedim(0, 1).to(x.dtype)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Matrix M (C, C) and vector b (C,) of y = M x + b, which the layer is in evaluation.

        Raises:
            RuntimeError: the layer is in training mode.
        """
        if self.training:
            raise RuntimeError("ChannelDeconv.affine: the layer is in training mode; call .eval() first")
        layer = copy.deepcopy(self).double()  # in single precision a large offset would leave M few digits
        offset = layer(layer.running_mean.new_zeros(1, self.num_features))
        matrix = layer(torch.eye(self.num_features).to(offset)) - offset
        return matrix.T.to(self.running_mean.dtype), offset[0].to(self.running_mean.dtype)

    def extra_repr(self) -> str:
        return f"{self.num_features}, {super().extra_repr()}"
