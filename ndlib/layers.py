"""Deconvolution layers: drop-in replacements for convolutions and linear layers that whiten their input.

    y = ((x - mu) D) w + b,   D = (Cov + eps I)^(-1/2), approximately

Mean mu and covariance Cov are those of the patches (im2col rows) of the current batch while training; in
evaluation running averages take their place. Both are folded into the weights, so that the layer runs one
ordinary convolution. The defaults compute what the authors' published layers compute.

Weight and bias have the plain layer's names and shapes, and the buffers those of the authors' layer: a plain
checkpoint loads with ``strict=False``, one of the authors' ``FastDeconv`` or ``Delinear`` as it is.

Source: Ye et al., Network Deconvolution, ICLR 2020 (arXiv 1905.11926).
"""

from __future__ import annotations

import ast
import copy
import math
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Self, TypedDict, Unpack, get_args

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ._core.distributed import rows_before, synchronise
from ._core.patches import Grouping, Patches, join_columns, on_cpu, patch_samples
from .functional import Solver, fold_weights, inverse_sqrt, moments, sample_moments

Centering = Literal["shared", "per-block", "uncentred"]
Running = Literal["root", "covariance"]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
Device = torch.device | str | None

SMALLEST_BLOCK = 8
WARM_UP = 100  # training steps in which every batch is measured, whatever update_every says


class Options(TypedDict, total=False):
    """Keyword options of all deconvolution layers; the values given first are the published ones.

    Args:
        eps: added to the diagonal of the covariance, in squared units of the input: 1e-5; 1e-2 in ``ChannelDeconv``.
        solver: how the inverse root is computed: ``"newton_schulz"``, or ``"polar"`` or ``"eigh"``, see
            ``functional.inverse_sqrt``.
        n_iter: steps of the first two solvers: 5.
        grouping: which columns form a block of the G there are: ``"interleaved"`` (column c in block c mod G;
            convolutions) or ``"contiguous"`` (consecutive columns; linear layers).
        centering: ``"shared"``: one mean for all blocks, mu = mean over rows and blocks. ``"per-block"``: a mean
            mu_g for each block, Cov = mean over g of the block's own covariance; then no mean is left in any
            column. ``"uncentred"`` (``ChannelDeconv``): mu is subtracted from the data, but the root is that of
            the second moment about zero, Cov + mu mu'.
        running: what is averaged for evaluation with weight ``momentum`` for the newest batch. ``"root"``: mu and D,
            from mu = 0 and D = I. ``"covariance"``: mu and Cov, without a start value (divided by 1 - (1 -
            momentum)^t after t batches); the root is taken of the average when evaluation begins.
        momentum: 0.1.
        update_every: measure the batch and take its root on every k-th training step only: 1. On the others the
            running averages serve, as constants; their momentum becomes 1 - (1 - momentum)^k, so that they reach
            back as many steps as before. The first 100 steps are all measured, for an average that still holds
            its start value makes training diverge.
        freeze_after: training step after which the running averages are used and left alone: None, never.
        detach_root: True lets no gradient through D (through mu it still flows): False.
        process_group: a group of ``torch.distributed`` whose processes share mean and covariance: None, each its
            own. ``"world"`` for all there are when a step is taken.
    """

    eps: float
    solver: Solver
    n_iter: int
    grouping: Grouping
    centering: Centering
    running: Running
    momentum: float
    update_every: int
    freeze_after: int | None
    detach_root: bool
    process_group: dist.ProcessGroup | Literal["world"] | None


PUBLISHED: Options = {
    "eps": 1e-5,
    "solver": "newton_schulz",
    "n_iter": 5,
    "grouping": "interleaved",
    "centering": "shared",
    "running": "root",
    "momentum": 0.1,
    "update_every": 1,
    "freeze_after": None,
    "detach_root": False,
    "process_group": None,
}


def parse_option(text: str) -> tuple[str, Any]:
    """``"block_size=16"`` as a pair of the option's name and its value, a Python literal or else a word.

    Raises:
        ValueError: no option that can be written so, or a value of another type than the option's.
    """
    name, _, word = text.partition("=")
    known = sorted([*PUBLISHED.keys() - {"process_group"}, "block_size", "sampling_stride"])
    if name not in known or not word:
        raise ValueError(f"{text!r} is not NAME=VALUE with NAME one of {', '.join(known)}")
    try:
        value = ast.literal_eval(word)
    except (ValueError, SyntaxError, TypeError):
        value = word
    types: dict[type, tuple[str, tuple[type, ...]]] = {
        int: ("an integer", (int,)),
        float: ("a number", (int, float)),
        bool: ("True or False", (bool,)),
        str: ("a word", (str,)),
        type(None): ("None or an integer", (type(None), int)),
    }
    wanted, allowed = types[type(PUBLISHED.get(name, 1))]  # what is not there is a size, an integer
    if type(value) not in allowed:
        raise ValueError(f"{name} must be {wanted}, got {word!r}")
    return name, value


def _without_autocast(x: Tensor) -> AbstractContextManager[None]:
    """Nothing in half precision; the meta device, on which shapes are found out, has no autocast."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


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
        fitting = [d for d in range(block + 1, features + 1) if features % d == 0]
        warnings.warn(
            f"block_size={block_size} does not divide {features} features, so blocks of {block}, their greatest "
            f"common divisor, are whitened instead; block_size={fitting} would divide",
            stacklevel=4,
        )
    return block


def _check_options(options: Options) -> None:
    unknown = sorted(options.keys() - PUBLISHED.keys())
    if unknown:
        raise TypeError(f"no such option: {', '.join(unknown)}; there are {', '.join(sorted(PUBLISHED))}")
    for name, choices in (("grouping", Grouping), ("centering", Centering), ("running", Running)):
        if options[name] not in get_args(choices):  # type: ignore[literal-required]
            raise ValueError(f"{name} must be one of {get_args(choices)}, got {options[name]!r}")  # type: ignore[literal-required]
    if not 0 < options["momentum"] <= 1:
        raise ValueError(f"momentum must be positive and at most 1, got {options['momentum']}")
    every, last = options["update_every"], options["freeze_after"]
    if not (isinstance(every, int) and every >= 1):
        raise ValueError(f"update_every must be a whole number and at least 1, got {every}")
    if not (last is None or (isinstance(last, int) and last >= 1)):
        raise ValueError(f"freeze_after must be None or a whole number and at least 1, got {last}")
    inverse_sqrt(torch.eye(1, device="cpu"), solver=options["solver"], n_iter=options["n_iter"], eps=options["eps"])


def _version(tensor: Tensor) -> int | None:
    """How often a tensor was written to."""
    return None if tensor.is_inference() else tensor._version


def _in_backward() -> bool:
    """Whether autograd is at work: then ``torch.utils.checkpoint`` computes a forward pass that has been already."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


class Deconvolution(nn.Module):
    """What the layers share: when to measure, what to remember, what to check. Not a layer by itself."""

    running_mean: Tensor
    running_deconv: Tensor
    num_batches_tracked: Tensor
    nonfinite: Tensor
    options: Options
    first_batch_starts = False  # whether the first batch replaces the start of the running averages

    def _init_deconvolution(
        self, columns: int, n_groups: int, n_blocks: int, options: Options, *, device: Device, dtype: torch.dtype | None
    ) -> None:
        """``columns`` of one block; ``n_groups`` roots, each shared by the ``n_blocks`` blocks of its group."""
        _check_options(options)
        self.columns, self.n_groups, self.n_blocks, self.options = columns, n_groups, n_blocks, options
        self._steps = 0  # num_batches_tracked on the host, which must not wait for the device; see _begin_step
        self._measures = True  # whether the present step measures its batch
        self._root_of: tuple[Tensor, int | None] | None = None  # the covariance that running_deconv is the root of
        self._warned_of_few_rows = False
        means = n_groups * (n_blocks if options["centering"] == "per-block" else 1)
        square = (columns, columns) if n_groups == 1 else (n_groups, columns, columns)
        kind: dict[str, Any] = {"device": device, "dtype": dtype}
        self.register_buffer("running_mean", torch.zeros(means * columns, **kind))
        averages_root = options["running"] == "root"
        identity = torch.eye(columns, **kind).expand(square).clone()
        self.register_buffer("running_deconv", identity, persistent=averages_root)
        if not averages_root:
            self.register_buffer("running_cov", torch.zeros(square, **kind))
            self.register_buffer("running_weight", torch.zeros((), **kind))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long, device=device))
        self._reset_nonfinite(device)

    def _reset_nonfinite(self, device: Device) -> None:
        # Whole numbers can be averaged with all other buffers, as torch.optim.swa_utils does; truth values cannot.
        self.register_buffer("nonfinite", torch.zeros((), dtype=torch.uint8, device=device), persistent=False)

    def sampled(self, x: Tensor) -> tuple[Tensor, Patches]:
        """A batch, and which of its patches the moments are estimated from."""
        raise NotImplementedError

    def samples(self, x: Tensor) -> Tensor:
        """These patches, the rows that the moments are estimated from, shape (groups, blocks, rows, columns)."""
        return patch_samples(*self.sampled(x))

    def whitening(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (groups, 1 or blocks, n) and root (groups, n, n) with which this input is whitened.

        The running averages in evaluation, while frozen and between updates; else the batch's own, in float32
        at least, which also enter the averages.
        """
        return self.batch_whitening(x) if self._begin_step(x) else self.running_whitening()

    def _begin_step(self, x: Tensor) -> bool:
        """Check the input of a training step and count it, and tell whether this batch is to be measured."""
        if not self.training:
            return False
        if _in_backward():  # a step is computed once more, for torch.utils.checkpoint
            return self._measures
        self._check_input(x)
        self.num_batches_tracked += 1
        measures = self._count_step()
        if not torch.compiler.is_compiling():  # for which a value to remember is a value to compile for
            self._measures = measures
        return measures

    def _count_step(self) -> bool:
        every, last = self.options["update_every"], self.options["freeze_after"]
        # torch.compile makes a step anew for every value of a number that it depends on. So steps are counted only as
        # long as something depends on their number, and round in a circle when only its remainder matters.
        if every == 1 and last is None:
            return True
        step = self._steps
        if last is not None and step >= last:
            return False
        if last is None and step >= WARM_UP + every:
            step = WARM_UP + (step - WARM_UP) % every
        self._steps = step + 1
        return self._is_measured(step)

    def _is_measured(self, step: int) -> bool:
        every, last = self.options["update_every"], self.options["freeze_after"]
        return (last is None or step < last) and (step < WARM_UP or step % every == 0)

    def batch_whitening(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and root of this batch, shapes as :meth:`whitening`, which enter the running averages."""
        mean, cov = self.measure(x)
        root = self.root(cov)
        averaged = {"running_mean": mean}
        if self.options["running"] == "root":
            averaged["running_deconv"] = root
        else:
            averaged |= {"running_cov": cov, "running_weight": torch.ones_like(self.get_buffer("running_weight"))}
        self._remember(averaged)
        if self.options["running"] == "covariance" and not self._is_measured(self._steps):
            self._take_root()  # now, for the next step, since a compiled one does not ask for it
        return mean, root

    def _remember(self, averaged: dict[str, Tensor]) -> None:
        """Let the values of the batch just measured enter the running averages."""
        if _in_backward():
            return
        every = 1 if self._steps <= WARM_UP else self.options["update_every"]
        momentum = 1 - (1 - self.options["momentum"]) ** every
        with torch.no_grad():
            for name, value in averaged.items():
                buffer = self.get_buffer(name)
                value = value.to(buffer.dtype).view_as(buffer)
                average = buffer.lerp(value, momentum)
                if self.first_batch_starts:
                    average = torch.where(self.num_batches_tracked == 1, value, average)
                buffer.copy_(average)

    def measure(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (groups, 1 or blocks, n) and the matrix (groups, n, n) whose inverse root whitens this batch."""
        centering, group = self.options["centering"], self.group
        batch, patches = self.sampled(x)
        rows, pooled = patches.rows(batch), centering != "per-block"
        self._check_rows(rows * patches.blocks)
        mean, cov = sample_moments(batch, patches, pooled=pooled)
        if group is not None:
            mean, cov = synchronise(mean, cov, rows * patches.blocks if pooled else rows, group)
        if centering == "uncentred":
            cov = cov + mean.unsqueeze(-1) * mean.unsqueeze(-2)
        return mean, cov.mean(1)

    def running_whitening(self) -> tuple[Tensor, Tensor]:
        """Mean and root of the running averages, shapes as :meth:`whitening`; (0, I) before any training step."""
        mean = self.running_mean.view(self.n_groups, -1, self.columns)
        if self.options["running"] == "covariance":
            self._refresh_root()
            weight = self.get_buffer("running_weight")
            mean = mean / weight.clamp(min=torch.finfo(weight.dtype).tiny)  # 0 / 0 before the first batch
        return mean, self.running_deconv.view(self.n_groups, self.columns, self.columns)

    def _refresh_root(self) -> None:
        """Take the root of the averaged covariance if this is another than that of the root at hand.

        Another tensor, or one that was written to since: a moving average of models, ``functional_call`` and others
        change buffers without asking the layer.
        """
        if torch.compiler.is_compiling() or self._root_is_fresh():
            return
        self._take_root()

    def _take_root(self) -> None:
        cov, weight = self.get_buffer("running_cov"), self.get_buffer("running_weight")
        started, eye = weight > 0, torch.eye(self.columns, dtype=cov.dtype, device=cov.device)
        with torch.no_grad():
            average = torch.where(started, cov / weight, eye)
            root = self.root(average.view(self.n_groups, self.columns, self.columns))
            self.running_deconv.copy_(torch.where(started, root.view_as(cov), eye))
        if not torch.compiler.is_compiling():
            self._root_of = cov, _version(cov)

    def _root_is_fresh(self) -> bool:
        cov = self.get_buffer("running_cov")
        return self._root_of is not None and self._root_of[0] is cov and self._root_of[1] == _version(cov)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        # Now rather than in the first evaluation, which may be compiled.
        if not mode and self.options["running"] == "covariance" and not self.running_mean.is_meta:
            self._refresh_root()
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        # To another device or type go the covariance and its root alike; of halved numbers none would be taken well.
        fresh = self.options["running"] == "covariance" and self._root_is_fresh()
        super()._apply(fn, recurse)
        if fresh:
            cov = self.get_buffer("running_cov")
            self._root_of = cov, _version(cov)
        return self

    @property
    def group(self) -> dist.ProcessGroup | None:
        """The processes that share mean and covariance in this step."""
        group = self.options["process_group"]
        if group != "world":
            return group
        if not dist.is_initialized():
            raise RuntimeError(f'{self}: process_group="world" needs torch.distributed.init_process_group first')
        return dist.group.WORLD

    def root(self, cov: Tensor) -> Tensor:
        """The inverse root of a covariance, shape (groups, n, n), by the layer's solver; checked."""
        options = self.options
        cov = cov.detach() if options["detach_root"] else cov
        cov = cov.to(torch.promote_types(cov.dtype, torch.float32))
        try:
            root = inverse_sqrt(cov, solver=options["solver"], n_iter=options["n_iter"], eps=options["eps"])
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # where the covariance overflows
            raise FloatingPointError(NOT_FINITE.format(layer=self)) from error
        self._check_root(cov, root)
        return root

    # On a CPU a bad value raises at once. On other devices, and in a compiled step, it only leaves a flag, for
    # check_finite to read: asking at every step would make the host wait for the device, or break the graph.

    def _check_rows(self, rows: int) -> None:
        if rows < self.columns and not self._warned_of_few_rows and not torch.compiler.is_compiling():
            self._warned_of_few_rows = True
            warnings.warn(
                f"{self}: {rows} rows for a covariance of {self.columns} columns, which is therefore singular and "
                "rests on eps; a larger batch, a smaller block_size or a smaller sampling_stride helps",
                stacklevel=2,
            )

    def _check_input(self, x: Tensor) -> None:
        x = x.detach()
        if x.numel() == 0:
            return  # measuring it fails, and says why
        low, high = torch.aminmax(x if x.is_contiguous() else x.movedim(1, -1))  # it would copy channels last
        finite = (low - low) == (high - high)  # 0 if finite, else NaN, which equals nothing
        if not on_cpu(x):
            self.nonfinite.logical_or_(~finite)
        elif not finite:
            raise FloatingPointError(NOT_FINITE.format(layer=self))

    def _check_root(self, cov: Tensor, root: Tensor) -> None:
        """The root is finite and no larger than any of the solvers can make it: a gain of 2 / sqrt(eps)."""
        size = torch.linalg.matrix_norm(root.detach()).amax()
        limit = 2 * math.sqrt(self.columns / self.options["eps"]) if self.options["eps"] > 0 else math.inf
        broken = ~(size < limit)  # NaN is not
        if not on_cpu(cov):
            self.nonfinite.logical_or_(broken)
        elif broken:
            if not torch.isfinite(cov).all():  # finite input whose covariance overflows
                raise FloatingPointError(NOT_FINITE.format(layer=self))
            spectrum = torch.linalg.eigvalsh(cov.detach().double()).flatten()
            raise FloatingPointError(
                f"{self}: the inverse root diverged. The covariance has eigenvalues from {spectrum.min():.3g} to "
                f"{spectrum.max():.3g}, eps is {self.options['eps']:g}; a larger eps, fewer n_iter or "
                'solver="eigh" helps'
            )

    def _precise_whitening(self, x: Tensor) -> list[Tensor]:
        """What :meth:`whitening` returns, in float32 at least: in a layer of half precision the averages are not."""
        return [t.to(torch.promote_types(t.dtype, torch.float32)) for t in self.whitening(x)]

    def folded(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weight and bias of the plain layer that does the same to this input; autocast is left to that layer."""
        with _without_autocast(x):
            mean, *root = self._precise_whitening(x)
            new_weight, new_bias = self._fold(weight.to(mean.dtype), bias, mean, *root)
        return new_weight.to(weight.dtype), new_bias.to(weight.dtype)

    def _fold(self, weight: Tensor, bias: Tensor | None, mean: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
        """What :meth:`whitening` returned, and the weights, as one linear map."""
        return fold_weights(weight, bias, mean, root, n_blocks=self.n_blocks, grouping=self.options["grouping"])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # The authors' checkpoints, and plain ones, have no such count.
        state_dict.setdefault(f"{prefix}num_batches_tracked", self.num_batches_tracked)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        device = self.running_mean.device
        if device.type == "meta":
            return
        # What a checkpoint does not hold may still lie on the meta device, or in memory that nobody filled.
        self._reset_nonfinite(device)
        self._steps = int(self.num_batches_tracked)
        if self.options["running"] == "covariance":
            self.running_deconv = torch.empty_like(self.get_buffer("running_cov"))
            self._root_of = None
        self.train(self.training)

    def __deepcopy__(self, memo: dict[int, Any]) -> Deconvolution:
        group = self.options["process_group"]
        memo[id(group)] = group  # shared by the copies: it cannot be copied, and need not be
        copied = memo[id(self)] = self.__new__(type(self))
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def extra_repr(self) -> str:
        changed = [f"{k}={v!r}" for k, v in self.options.items() if v != PUBLISHED[k]]  # type: ignore[literal-required]
        return ", ".join([super().extra_repr(), f"columns={self.columns}, blocks={self.n_blocks}", *changed])


NOT_FINITE = (
    "{layer}: the input holds NaN or infinite values, or the inverse root diverged; look for a diverging loss "
    "(a lower learning rate helps), bad values in the data, or a larger eps"
)


def check_finite(model: nn.Module) -> None:
    """Raise if any deconvolution layer of a model met NaN or infinite input, or a diverging root, since the last call.

    On a CPU the layers raise by themselves; on other devices, and compiled, they only note it, since asking at every
    step would make the host wait for the device. Call this once in a while, at the end of an epoch for instance.

    Raises:
        FloatingPointError: names every such layer.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, Deconvolution)}
    hit = [name or type(model).__name__ for name, m in layers.items() if bool(m.nonfinite)]
    for module in layers.values():
        module.nonfinite.zero_()
    if hit:
        raise FloatingPointError(NOT_FINITE.format(layer=", ".join(hit)))


class _DeconvConv(Deconvolution, nn.modules.conv._ConvNd):
    """A convolution in any number of dimensions, before a class below says which."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: str | int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        block_size: int = 64,
        sampling_stride: int = 3,
        **options: Unpack[Options],
    ) -> None:
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups must divide in_channels and out_channels, got groups={groups}, in_channels={in_channels}, "
                f"out_channels={out_channels}; {math.gcd(in_channels, out_channels)} and its divisors would"
            )
        if sampling_stride < 1:
            raise ValueError(f"sampling_stride must be at least 1, got {sampling_stride}")
        plain: tuple[Any, ...] = (in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        super().__init__(*plain, padding_mode, device, dtype)  # type: ignore[call-arg]  # of nn.Conv1d, 2d or 3d
        self.sampling_stride = sampling_stride
        block = block_size_for(in_channels, block_size) if groups == 1 else in_channels // groups
        columns, blocks = block * math.prod(self.kernel_size), in_channels // (groups * block)
        self._init_deconvolution(columns, groups, blocks, PUBLISHED | options, device=device, dtype=dtype)

    def sampled(self, x: Tensor) -> tuple[Tensor, Patches]:
        strides = tuple(self.sampling_stride * s for s in self.stride)
        columns: dict[str, Any] = {"groups": self.groups, "blocks": self.n_blocks, "grouping": self.options["grouping"]}
        if math.prod(self.kernel_size) == 1:  # every so many pixels of the whole batch, on whichever process they are
            pixels = x.movedim(1, -1).reshape(-1, x.shape[1])
            step = math.prod(strides)
            if step > 1:
                before, _ = rows_before(len(pixels), self.group, x.device)
                pixels = pixels[-before % step :: step]
            return pixels, Patches(**columns)
        pads = tuple(self._reversed_padding_repeated_twice)
        if self.padding_mode != "zeros":
            x, pads = F.pad(x, pads, mode=self.padding_mode), (0,) * len(pads)
        return x, Patches(self.kernel_size, strides, pads, self.dilation, **columns)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != len(self.kernel_size) + 2 or x.shape[1] != self.in_channels:
            sides = ("L", "H, W", "D, H, W")[len(self.kernel_size) - 1]
            raise ValueError(f"input must have shape (N, {self.in_channels}, {sides}), got {tuple(x.shape)}")
        return self._conv_forward(x, *self.folded(x, self.weight, self.bias))


class DeconvConv1d(_DeconvConv, nn.Conv1d):
    """Convolution of whitened patches of a sequence, shape (N, in_channels, L): see :class:`.DeconvConv2d`."""


class DeconvConv2d(_DeconvConv, nn.Conv2d):
    """Two-dimensional convolution of whitened patches.

    With X the matrix of all patches (``functional.patch_matrix``), y = (X - mu) D w + b. The channels are
    whitened in blocks that share one mean and one root: with G = in_channels / block_size blocks, column c of
    a patch row goes to block c mod G (the published, interleaved order), and a row counts as G samples. With
    ``groups`` > 1 every group has a mean and a root of its own and ``block_size`` is not used.

    The arguments up to ``dtype`` are those of ``nn.Conv2d``. Padding is part of the patches from which the moments
    come.

    Args:
        block_size: channels whitened together; where it does not divide ``in_channels`` their greatest common
            divisor is taken, with a warning below 8.
        sampling_stride: the moments are estimated from every ``sampling_stride``-th of the positions at which
            the convolution is evaluated, in every direction; for 1x1 kernels, from every
            (sampling_stride * stride)^2-th pixel of the whole batch.
        options: see :class:`.Options`.

    Shape:
        Input (N, in_channels, H, W), output (N, out_channels, H', W') as in ``nn.Conv2d``. Before any training
        step the layer is the plain convolution in evaluation.

    Raises:
        ValueError: channels not divisible by groups, a number out of its range, input of another shape, fewer
            than two patches, or a constant input with eps = 0.
        FloatingPointError: NaN or infinite input while training, or a diverging root (on a CPU; elsewhere and in a
            compiled step see :func:`.check_finite`).

    Under autocast only the convolution runs in half precision; moments and root stay in float32. On CUDA no step
    waits for the device. ``torch.compile`` takes a training step as one graph, and takes it once; with ``update_every``
    or ``freeze_after`` compile after the steps that these begin with, or every one of those is compiled anew. Tested on
    CPUs; the tests for CUDA have not been run on a GPU yet; MPS is untested.

    Source: Ye et al. 2020, algorithm 1; the defaults and details are those of the authors' code.
    """


class DeconvConv3d(_DeconvConv, nn.Conv3d):
    """Convolution of whitened patches of a volume, shape (N, in_channels, D, H, W): see :class:`.DeconvConv2d`."""


class DeconvLinear(Deconvolution, nn.Linear):
    """Linear layer on whitened features: y = (x - mu) D w + b.

    The features are cut into consecutive blocks that share one mean and one root, every block of every row
    being one sample. D multiplies the weights or, where there are fewer rows than outputs, the rows.

    The arguments up to ``dtype`` are those of ``nn.Linear``.

    Args:
        block_size: features whitened together; where it does not divide ``in_features`` their greatest common
            divisor is taken, with a warning below 8.
        options: see :class:`.Options`.

    Shape:
        Input (N, ..., in_features), output (N, ..., out_features).

    Raises:
        ValueError, FloatingPointError: as :class:`.DeconvConv2d`.

    Source: Ye et al. 2020; the authors' ``Delinear``.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        block_size: int = 512,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        block = block_size_for(in_features, block_size)
        chosen: Options = PUBLISHED | {"grouping": "contiguous"} | options
        self._init_deconvolution(block, 1, in_features // block, chosen, device=device, dtype=dtype)

    def sampled(self, x: Tensor) -> tuple[Tensor, Patches]:
        return x.reshape(-1, self.in_features), Patches(blocks=self.n_blocks, grouping=self.options["grouping"])

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 2 or x.shape[-1] != self.in_features:
            raise ValueError(f"input must have shape (N, ..., {self.in_features}), got {tuple(x.shape)}")
        if 0 < x.numel() < self.weight.numel():  # (x - mu) D has fewer rows than D w has columns: multiply that
            return F.linear(self.whitened(x), self.weight, self.bias)
        return F.linear(x, *self.folded(x, self.weight, self.bias))

    def whitened(self, x: Tensor) -> Tensor:
        """(x - mu) D, shape and type of the input."""
        with _without_autocast(x):
            mean, root = self._precise_whitening(x)
            rows = self.samples(x).to(root.dtype)
            white = join_columns((rows - mean.unsqueeze(2)) @ root.unsqueeze(1), self.options["grouping"])
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
        block_size: channels whitened together.
        sampling_stride: s; where all sides of the map are at least s, every s^2-th of its pixels is used (in the
            order block, image, position for the first part, channel, position for the rest).
        device, dtype: of the buffers.
        options: see :class:`.Options`; eps is 1e-2 and centering ``"uncentred"`` by default.

    Shape:
        Input and output ``(N, C, *spatial)`` with any number of spatial dimensions, none included.

    The running averages start from the first batch. Before it the layer leaves its input as it is, but for the
    factor 1 / sqrt(1 + eps) of the remaining channels.

    Raises:
        ValueError, FloatingPointError: as :class:`.DeconvConv2d`; also a block_size above num_features.

    Source: the authors' ``ChannelDeconv``.
    """

    first_batch_starts = True
    rest_mean: Tensor
    rest_var: Tensor

    def __init__(
        self,
        num_features: int,
        block_size: int,
        *,
        sampling_stride: int = 3,
        device: Device = None,
        dtype: torch.dtype | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__()
        if not 1 <= block_size <= num_features:
            raise ValueError(f"block_size must lie between 1 and num_features, {num_features}, got {block_size}")
        if sampling_stride < 1:
            raise ValueError(f"sampling_stride must be at least 1, got {sampling_stride}")
        self.num_features, self.sampling_stride = num_features, sampling_stride
        self.rest = num_features % block_size
        chosen: Options = PUBLISHED | {"eps": 1e-2, "centering": "uncentred"} | options
        self._init_deconvolution(block_size, 1, num_features // block_size, chosen, device=device, dtype=dtype)
        if self.rest:
            self.register_buffer("rest_mean", torch.zeros((), device=device, dtype=dtype))
            self.register_buffer("rest_var", torch.ones((), device=device, dtype=dtype))

    def _step(self, x: Tensor) -> int:
        return self.sampling_stride**2 if x.dim() > 2 and min(x.shape[2:]) >= self.sampling_stride else 1

    def _blocks(self, channels: Tensor) -> Tensor:
        """View of the whitened channels, which come first, shape (C', ...), as (block_size, blocks, ...)."""
        if self.options["grouping"] == "interleaved":
            return channels.unflatten(0, (self.columns, self.n_blocks))
        return channels.unflatten(0, (self.n_blocks, self.columns)).transpose(0, 1)

    def sampled(self, x: Tensor) -> tuple[Tensor, Patches]:
        pixels = x[:, : x.shape[1] - self.rest].movedim(1, 0).flatten(1)  # channels, then images and positions
        step = self._step(x)
        before, total = rows_before(pixels.shape[1], self.group, x.device)
        if self.options["centering"] == "per-block":
            return pixels[:, -before % step :: step].T, Patches(blocks=self.n_blocks, grouping=self.options["grouping"])
        blocks = self._blocks(pixels)
        chosen = [blocks[:, g, -(g * total + before) % step :: step] for g in range(self.n_blocks)]
        return torch.cat(chosen, 1).T, Patches()

    def _measure_rest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values = x[:, x.shape[1] - self.rest :].flatten(1)[:, :: self._step(x)].reshape(-1, 1)
        mean, var = moments(values.to(torch.promote_types(values.dtype, torch.float32)))
        group, n = self.group, len(values)
        if group is not None:
            mean, var = synchronise(mean, var, n, group)
            n = rows_before(n, group, x.device)[1]
        mean, var = mean.squeeze(), var.squeeze() * n / (n - 1)
        self._remember({"rest_mean": mean, "rest_var": var})
        return mean, var

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 2 or x.shape[1] != self.num_features:
            raise ValueError(f"input must have shape (N, {self.num_features}, ...), got {tuple(x.shape)}")
        measured = self._begin_step(x)
        with _without_autocast(x):
            mean, root = self.batch_whitening(x) if measured else self.running_whitening()
            channels = x.movedim(1, 0).to(torch.promote_types(x.dtype, root.dtype))
            first, rest = channels.split([len(channels) - self.rest, self.rest])
            blocks = self._blocks(first)
            shape = (self.columns, -1, *[1] * (blocks.dim() - 2))
            white = torch.tensordot(root[0], blocks - mean[0].T.reshape(shape), 1)
            white = (white if self.options["grouping"] == "interleaved" else white.transpose(0, 1)).flatten(0, 1)
            if self.rest:
                m, v = self._measure_rest(x) if measured else (self.rest_mean, self.rest_var)
                white = torch.cat([white, (rest - m) / (v + self.options["eps"]).sqrt()])
        return white.movedim(0, 1).to(x.dtype)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Matrix M (C, C) and vector b (C,) of y = M x + b, which the layer is in evaluation."""
        if self.training:
            raise RuntimeError("ChannelDeconv.affine: the layer is in training mode; call .eval() first")
        layer = copy.deepcopy(self).double()  # in single precision a large offset would leave M few digits
        offset = layer(layer.running_mean.new_zeros(1, self.num_features))
        matrix = layer(torch.eye(self.num_features).to(offset)) - offset
        return matrix.T.to(self.running_mean.dtype), offset[0].to(self.running_mean.dtype)

    def extra_repr(self) -> str:
        return f"{self.num_features}, {super().extra_repr()}"
