"""Deconvolution layers: drop-in replacements for ``nn.Conv2d`` and ``nn.Linear`` that whiten their input.

    y = ((x - mu) D) w + b,   D = (Cov + eps I)^(-1/2), approximately

Mean mu and covariance Cov are those of the patches (im2col rows) of the current batch while training; in
evaluation running averages of mu and of D take their place. Both are folded into the weights, so that the
layer runs one ordinary convolution. The defaults compute what the authors' published layer computes.

Weight and bias have the plain layer's names and shapes, and the buffers those of the authors' layer: a plain
checkpoint loads with ``strict=False``, one of the authors' ``FastDeconv`` or ``Delinear`` as it is.

Source: Ye et al., Network Deconvolution, ICLR 2020 (arXiv 1905.11926).
"""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.common_types import _size_2_t

from .functional import Grouping, Solver, fold, inverse_sqrt, moments, patch_matrix, split_columns

SMALLEST_BLOCK = 8


def block_size_for(features: int, block_size: int) -> int:
    """The published rule: all features if they fit into a block, else gcd(block_size, features).

    Warns when the common divisor is below 8: with 65 features and the default of 64 it is 1, and such a
    layer removes no correlation between channels at all.

    Raises:
        ValueError: block_size < 1.
    """
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")
    if block_size >= features:
        return features
    block = math.gcd(block_size, features)
    if block < min(block_size, SMALLEST_BLOCK):
        fitting = [d for d in range(SMALLEST_BLOCK, features + 1) if features % d == 0]
        warnings.warn(
            f"block_size={block_size} does not divide {features} features, so blocks of {block}, their greatest "
            f"common divisor, are whitened instead; block_size={fitting} would divide",
            stacklevel=4,
        )
    return block


class _Deconvolution(nn.Module):
    """What the layers share: running averages, the choice between them and the batch's own, and the checks."""

    weight: Tensor
    bias: Any  # a parameter or None, as the plain layer has it
    running_mean: Tensor
    running_deconv: Tensor
    nonfinite: Tensor

    def _init_deconvolution(
        self,
        columns: int,
        n_groups: int,
        n_blocks: int,
        *,
        grouping: Grouping,
        eps: float,
        n_iter: int,
        momentum: float,
        solver: Solver,
    ) -> None:
        """``columns`` of one block; ``n_groups`` roots, each shared by the ``n_blocks`` blocks of its group."""
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie between 0 and 1, got {momentum}")
        inverse_sqrt(torch.eye(1), solver=solver, n_iter=n_iter, eps=eps)  # let it judge its arguments now
        self.n_blocks, self.grouping = n_blocks, grouping
        self.eps, self.n_iter, self.momentum, self.solver = eps, n_iter, momentum, solver
        self._warned_of_few_rows = False
        mean = torch.zeros(n_groups * columns, dtype=self.weight.dtype, device=self.weight.device)
        root = torch.eye(columns, dtype=mean.dtype, device=mean.device)
        self.register_buffer("running_mean", mean)
        self.register_buffer("running_deconv", root.repeat(n_groups, 1, 1) if n_groups > 1 else root)
        self.register_buffer("nonfinite", torch.zeros_like(mean[0], dtype=torch.bool), persistent=False)

    def _samples(self, x: Tensor) -> Tensor:
        """The rows that the moments are estimated from, shape (groups, rows, columns of a block)."""
        raise NotImplementedError

    def _whitening(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (groups, n) and root (groups, n, n): the running ones, or while training the batch's own."""
        n = self.running_deconv.shape[-1]
        if not self.training:
            return self.running_mean.view(-1, n), self.running_deconv.view(-1, n, n)
        self._check_finite(x)
        samples = self._samples(x)
        if samples.shape[-2] < n and not self._warned_of_few_rows:
            self._warned_of_few_rows = True
            warnings.warn(
                f"{self}: {samples.shape[-2]} rows for a covariance of {n} columns, which is therefore singular and "
                "rests on eps; a larger batch, a smaller block_size or a smaller sampling_stride helps",
                stacklevel=3,
            )
        mean, cov = moments(samples)
        root = inverse_sqrt(cov, solver=self.solver, n_iter=self.n_iter, eps=self.eps)
        with torch.no_grad():
            self.running_mean.lerp_(mean.view_as(self.running_mean), self.momentum)
            self.running_deconv.lerp_(root.view_as(self.running_deconv), self.momentum)
        return mean, root

    def _check_finite(self, x: Tensor) -> None:
        """At once on a CPU; elsewhere leave a flag on the device for :func:`check_finite`, so that nothing waits."""
        low, high = torch.aminmax(x.detach())
        finite = torch.isfinite(low) & torch.isfinite(high)
        if x.device.type != "cpu":
            self.nonfinite.logical_or_(~finite)
        elif not finite:
            raise FloatingPointError(_NOT_FINITE.format(layer=self))

    def _fold(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, root = self._whitening(x)
        return fold(self.weight, self.bias, mean, root, n_blocks=self.n_blocks, grouping=self.grouping)

    def extra_repr(self) -> str:
        columns = self.running_deconv.shape[-1]
        plain = super().extra_repr()
        return f"{plain}, columns={columns}, blocks={self.n_blocks}, eps={self.eps:g}, n_iter={self.n_iter}"


_NOT_FINITE = (
    "{layer}: the input holds NaN or infinite values; look for a diverging loss (a lower learning rate helps) "
    "or bad values in the data"
)


def check_finite(model: nn.Module) -> None:
    """Raise if any deconvolution layer of a model met NaN or infinite input since the last call.

    On a CPU the layers raise by themselves; on other devices they only note it, since asking at every step
    would make the host wait for the device. Call this once in a while, at the end of an epoch for instance.

    Raises:
        FloatingPointError: names every such layer.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, _Deconvolution)}
    hit = [name or type(model).__name__ for name, m in layers.items() if bool(m.nonfinite)]
    for module in layers.values():
        module.nonfinite.zero_()
    if hit:
        raise FloatingPointError(_NOT_FINITE.format(layer=", ".join(hit)))


class DeconvConv2d(_Deconvolution, nn.Conv2d):
    """Two-dimensional convolution of whitened patches.

    With X the matrix of all patches (``functional.patch_matrix``), y = (X - mu) D w + b. The channels are
    whitened in blocks that share one mean and one root: with G = in_channels / block_size blocks, column c of
    a patch row goes to block c mod G (the published, interleaved order), and a row counts as G samples. With
    ``groups`` > 1 every group has a mean and a root of its own and ``block_size`` is not used.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device,
            dtype: as in ``nn.Conv2d``. Padding is part of the patches from which the moments come.
        block_size: channels whitened together; where it does not divide ``in_channels`` their greatest common
            divisor is taken, with a warning below 8.
        eps: added to the diagonal of the covariance, in squared units of the input.
        n_iter: Newton-Schulz steps.
        momentum: weight of the newest batch in the running averages, which start at mean 0 and D = I.
        sampling_stride: the moments are estimated from every ``sampling_stride``-th of the positions at which
            the convolution is evaluated, in both directions; for 1x1 kernels, from every
            (sampling_stride * stride)^2-th pixel of the whole batch.
        solver: ``"newton_schulz"`` or ``"eigh"``, see ``functional.inverse_sqrt``.

    Shape:
        Input (N, in_channels, H, W), output (N, out_channels, H', W') as in ``nn.Conv2d``. Before any training
        step the layer is the plain convolution in evaluation.

    Raises:
        ValueError: channels not divisible by groups, a number out of its range, input of another shape, fewer
            than two patches, or a constant input with eps = 0.
        FloatingPointError: NaN or infinite input while training (on a CPU; elsewhere see :func:`check_finite`).

    Source: Ye et al. 2020, algorithm 1; the defaults and details are those of the authors' code.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_2_t,
        stride: _size_2_t = 1,
        padding: str | _size_2_t = 0,
        dilation: _size_2_t = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        block_size: int = 64,
        eps: float = 1e-5,
        n_iter: int = 5,
        momentum: float = 0.1,
        sampling_stride: int = 3,
        solver: Solver = "newton_schulz",
    ) -> None:
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups must divide in_channels and out_channels, got groups={groups}, in_channels={in_channels}, "
                f"out_channels={out_channels}; {math.gcd(in_channels, out_channels)} and its divisors would"
            )
        if sampling_stride < 1:
            raise ValueError(f"sampling_stride must be at least 1, got {sampling_stride}")
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        self.sampling_stride = sampling_stride
        block = block_size_for(in_channels, block_size) if groups == 1 else in_channels // groups
        self._init_deconvolution(
            block * math.prod(self.kernel_size),
            groups,
            in_channels // (groups * block),
            grouping="interleaved",
            eps=eps,
            n_iter=n_iter,
            momentum=momentum,
            solver=solver,
        )

    def _samples(self, x: Tensor) -> Tensor:
        strides = [self.sampling_stride * s for s in self.stride]
        if math.prod(self.kernel_size) == 1:
            rows = x.movedim(1, -1).reshape(-1, x.shape[1])[:: math.prod(strides)]
        else:
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x = F.pad(x, self._reversed_padding_repeated_twice, mode=mode)
            rows = patch_matrix(x, self.kernel_size, stride=strides, dilation=self.dilation)
        rows = rows.unflatten(1, (self.groups, -1)).transpose(0, 1)
        return split_columns(rows, self.n_blocks, self.grouping)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"input must have shape (N, {self.in_channels}, H, W), got {tuple(x.shape)}")
        return self._conv_forward(x, *self._fold(x))


class DeconvLinear(_Deconvolution, nn.Linear):
    """Linear layer on whitened features: y = (x - mu) D w + b.

    The features are cut into consecutive blocks that share one mean and one root, every block of every row
    being one sample.

    Args:
        in_features, out_features, bias, device, dtype: as in ``nn.Linear``.
        block_size: features whitened together; where it does not divide ``in_features`` their greatest common
            divisor is taken, with a warning below 8.
        eps, n_iter, momentum, solver: as in :class:`DeconvConv2d`.

    Shape:
        Input (..., in_features), output (..., out_features).

    Raises:
        ValueError, FloatingPointError: as :class:`DeconvConv2d`.

    Source: Ye et al. 2020; the authors' ``Delinear``.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        block_size: int = 512,
        eps: float = 1e-5,
        n_iter: int = 5,
        momentum: float = 0.1,
        solver: Solver = "newton_schulz",
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        block = block_size_for(in_features, block_size)
        self._init_deconvolution(
            block,
            1,
            in_features // block,
            grouping="contiguous",
            eps=eps,
            n_iter=n_iter,
            momentum=momentum,
            solver=solver,
        )

    def _samples(self, x: Tensor) -> Tensor:
        return split_columns(x.reshape(1, -1, self.in_features), self.n_blocks, self.grouping)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 2 or x.shape[-1] != self.in_features:
            raise ValueError(f"input must have shape (N, ..., {self.in_features}), got {tuple(x.shape)}")
        return F.linear(x, *self._fold(x))
