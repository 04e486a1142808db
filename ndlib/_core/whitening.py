"""The layer behind the layers: when to measure a batch, what to whiten with, how to fold it into the weights."""

from __future__ import annotations

import copy
import inspect
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn

from . import averages, guards
from .counting import StepCount, is_measured
from .distributed import synchronise
from .folding import fold
from .moments import sample_moments
from .options import ABOUT, Centering, Grouping, Options, Running, Solver, describe
from .patches import Patches, count_rows, patch_samples
from .private_torch import in_backward, note_in_state
from .products import full_precision
from .roots import inverse_root
from .samples import SampleNormKind
from .warn import warn

__all__ = ["Deconvolution", "block_size_for", "without_autocast"]

SMALLEST_BLOCK = 8
# Options that decide what buffers and weights mean.
SHAPING = ("block_size", "grouping", "centering", "running", "sample_norm")


def block_size_for(features: int, block_size: int) -> int:
    """The published rule: all features if they fit into a block, else gcd(block_size, features).

    Warns when the common divisor is below 8: with 65 features and the default of 64 it is 1, and such a
    layer removes no correlation between channels at all.
    """
    if block_size >= features:
        return features
    block = math.gcd(block_size, features)
    if block < min(block_size, SMALLEST_BLOCK):
        fitting = [d for d in range(block + 1, features + 1) if features % d == 0]
        warn(
            f"block_size={block_size} does not divide {features} features, so blocks of {block}, their greatest "
            f"common divisor, are whitened instead; block_size={fitting} would divide"
        )
    return block


def without_autocast(x: Tensor) -> AbstractContextManager[None]:
    """Nothing in half precision; the meta device, on which shapes are found out, has no autocast."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


class Deconvolution(nn.Module):
    """What the layers share. Not a layer by itself: a subclass says which patches its input has (``sampled``)."""

    defaults: ClassVar[Options] = Options()
    without: ClassVar[tuple[str, ...]] = ()  # options that the layer does not have
    first_batch_starts: ClassVar[bool] = False  # whether the first batch replaces the start of the running averages

    # The options as attributes, see _option.
    block_size: int
    sampling_stride: int
    eps: float
    n_iter: int
    solver: Solver
    grouping: Grouping
    centering: Centering
    running: Running
    momentum: float
    update_every: int
    freeze_after: int | None
    detach_root: bool
    sample_norm: SampleNormKind | None
    process_group: dist.ProcessGroup | Literal["world"] | None

    running_mean: Tensor
    running_deconv: Tensor
    num_batches_tracked: Tensor
    nonfinite: Tensor

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__doc__ and "{options}" in cls.__doc__:
            cls.__doc__ = cls.__doc__.replace("    {options}", describe(cls.defaults, cls.without))
            _show_options(cls)

    def _chosen(self, options: dict[str, Any]) -> Options:
        """The options of a new layer; refused with their name, what was given and what is possible."""
        if foreign := [name for name in options if name in self.without]:
            raise TypeError(f"no such option: {', '.join(foreign)}; {type(self).__name__} has none of this name")
        return self.defaults.changed(**options)

    def _begin(
        self,
        options: Options,
        columns: int,
        n_groups: int,
        n_blocks: int,
        *,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        """``columns`` of one block; ``n_groups`` roots, each shared by the ``n_blocks`` blocks of its group."""
        self.options, self.columns, self.n_groups, self.n_blocks = options, columns, n_groups, n_blocks
        self.count = StepCount()
        self.root_of: averages.RootOf | None = None  # the covariance that running_deconv is the root of
        self.warned_of_few_rows = False
        means = n_groups * (n_blocks if options.centering == "per-block" else 1)
        square = (columns, columns) if n_groups == 1 else (n_groups, columns, columns)
        averages.add_buffers(self, means * columns, square, {"device": device, "dtype": dtype})
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long, device=device))
        self._reset_nonfinite(device)

    def _reset_nonfinite(self, device: torch.device | str | None) -> None:
        # Whole numbers can be averaged with all other buffers, as torch.optim.swa_utils does; truth values cannot.
        self.register_buffer("nonfinite", torch.zeros((), dtype=torch.uint8, device=device), persistent=False)

    def prepared(self, input: Tensor) -> Tensor:
        """The batch that is whitened: the input, if its shape is right, with a batch dimension, samples normalised."""
        raise NotImplementedError

    def sampled(self, x: Tensor, stride: int) -> tuple[Tensor, Patches]:
        """A batch, and which of its patches the moments are estimated from: every ``stride``-th."""
        raise NotImplementedError

    def samples(self, x: Tensor) -> Tensor:
        """These patches, the rows that the moments are estimated from, shape (groups, blocks, rows, columns)."""
        return patch_samples(*self.sampled(x, self.options.sampling_stride))

    # One step. -------------------------------------------------------------------------------------------------

    def whitening(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (groups, 1 or blocks, n) and root (groups, n, n) with which this input is whitened.

        The running averages in evaluation, while frozen and between updates; else the batch's own, in float32
        at least, which also enter the averages.
        """
        return self.batch_whitening(x) if self.begins_measured_step(x) else self.running_whitening()

    def begins_measured_step(self, x: Tensor) -> bool:
        """Check the input of a training step and count it, and tell whether this batch is to be measured."""
        if not self.training:
            return False
        if self.nonfinite.is_meta:
            self.settle()
        # Inside a backward pass torch.utils.checkpoint computes a step again that was taken before. A layer that is
        # never called elsewhere, as in a network that runs inside somebody's backward pass, takes its steps there.
        inside = in_backward()
        self.count.replayed = inside and self.count.outside
        if self.count.replayed:
            return self.count.measures
        if not (inside or torch.compiler.is_compiling()):
            self.count.outside = True
        self.num_batches_tracked += 1
        measures = self.count.advance(self.options)
        if measures:
            guards.check_input(self, x, self.nonfinite)
        return measures

    def batch_whitening(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and root of this batch, shapes as :meth:`whitening`, which enter the running averages."""
        mean, cov = self.measure(x)
        root = self.root(cov)
        if self.options.running == "root":
            self.remember(running_mean=mean, running_deconv=root)
            return mean, root
        one = torch.ones_like(self.get_buffer("running_weight"))
        self.remember(running_mean=mean, running_cov=cov, running_weight=one)
        if not is_measured(self.count.taken, self.options):
            averages.take_root(self)  # now, for the next step, since a compiled one does not ask for it
        return mean, root

    def measure(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (groups, 1 or blocks, n) and the matrix (groups, n, n) whose inverse root whitens this batch."""
        centering = self.options.centering
        group = None if self.options.process_group is None else self.group
        stride, pooled = self.options.sampling_stride, centering != "per-block"
        batch, patches = self.sampled(x, stride)
        rows = count_rows(batch, patches)
        while rows < 2 and stride > 1 and group is None:  # a small map and a small batch: measure more of their pixels
            stride -= 1
            batch, patches = self.sampled(x, stride)
            rows = count_rows(batch, patches)
        samples = rows * patches.blocks
        if samples < self.columns and not self.warned_of_few_rows and not torch.compiler.is_compiling():
            self.warned_of_few_rows = True
            guards.warn_of_few_rows(self, samples, self.columns)
        if samples < 2:
            raise ValueError(
                f"{self}: a covariance needs at least 2 rows, and an input of shape {tuple(x.shape)} has {samples}: "
                "use a larger batch or picture, or leave this layer plain"
            )
        mean, cov = sample_moments(batch, patches, rows, pooled=pooled)
        if group is not None:
            mean, cov = synchronise(mean, cov, samples if pooled else rows, group)
        if centering == "uncentred":
            cov = cov + mean.unsqueeze(-1) * mean.unsqueeze(-2)
        return mean, cov.mean(1)

    def root(self, cov: Tensor) -> Tensor:
        """The inverse root of a covariance, shape (groups, n, n), by the layer's solver; checked."""
        options = self.options
        cov = cov.detach() if options.detach_root else cov
        cov = cov.to(torch.promote_types(cov.dtype, torch.float32))
        try:
            root = inverse_root(cov, options.solver, options.n_iter, options.eps)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # where the covariance overflows
            raise FloatingPointError(guards.NOT_FINITE.format(layer=self)) from error
        guards.check_root(self, cov, root, options.eps, self.nonfinite)
        return root

    def remember(self, **values: Tensor) -> None:
        """Let values of the batch just measured enter the running averages, buffers of these names."""
        if not (self.count.replayed or self.count.kept):
            averages.enter(self, self.count.momentum(self.options), values)

    def running_whitening(self) -> tuple[Tensor, Tensor]:
        """Mean and root of the running averages, shapes as :meth:`whitening`; (0, I) before any training step."""
        return averages.running_whitening(self)

    def folded(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weight and bias of the plain layer that does the same to this input; autocast is left to that layer."""
        with without_autocast(x), full_precision():
            found = self.whitening(x)
            kind = torch.promote_types(found[0].dtype, torch.float32)
            if kind != found[0].dtype:  # the averages of a layer in half precision
                found = tuple(t.to(kind) for t in found)  # type: ignore[assignment]
            new_weight, new_bias = self.fold(weight.to(kind), bias, *found)
        new_weight = new_weight.to(weight.dtype)
        # In the plain weight's order of memory, by which a convolution chooses that of its output.
        last = not weight.is_contiguous()
        new_weight = new_weight.movedim(1, -1).contiguous().movedim(-1, 1) if last else new_weight.contiguous()
        return new_weight, new_bias.to(weight.dtype)

    def fold(self, weight: Tensor, bias: Tensor | None, mean: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
        """What :meth:`whitening` returned, and the weights, as one linear map."""
        blocks = Patches(tuple(weight.shape[2:]), blocks=self.n_blocks, grouping=self.options.grouping)
        return fold(weight, bias, mean, root, blocks)

    @property
    def group(self) -> dist.ProcessGroup | None:
        """The processes that share mean and covariance in this step."""
        group = self.options.process_group
        if group != "world":
            return group
        if not dist.is_initialized():
            raise RuntimeError(f'{self}: process_group="world" needs torch.distributed.init_process_group first')
        return dist.group.WORLD

    # A layer in a larger program. ------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        # Now rather than in the first evaluation, which may be compiled.
        if not mode and self.options.running == "covariance" and not self.running_mean.is_meta:
            averages.refresh_root(self)
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self.settle()
        # To another device or type go the covariance and its root alike; of halved numbers none would be taken well.
        fresh = self.options.running == "covariance" and averages.is_fresh(self)
        unset = self.running_mean.is_meta
        super()._apply(fn, recurse)
        if unset and not self.running_mean.is_meta:  # by to_empty: into memory that nobody filled
            self.reset_statistics()
        elif fresh:
            averages.mark_fresh(self)
        return self

    def _replicate_for_data_parallel(self) -> Self:
        replica = super()._replicate_for_data_parallel()
        replica.count = self.count.of_replica()
        return replica

    def reset_parameters(self) -> None:
        """New weights, and averages that have seen nothing; also after ``to_empty``, which leaves unset memory."""
        super().reset_parameters()  # type: ignore[misc]  # of the plain layer
        if hasattr(self, "running_mean"):  # not yet when the plain layer is made
            self.reset_statistics()

    @torch.no_grad()
    def reset_statistics(self) -> None:
        """Let the running averages be those of a new layer."""
        self.running_mean.zero_()
        self.running_deconv.copy_(torch.eye(self.columns).expand_as(self.running_deconv))
        for name in ("running_cov", "running_weight"):
            if hasattr(self, name):
                self.get_buffer(name).zero_()
        self.nonfinite.zero_()
        self.root_of, self.warned_of_few_rows = None, False
        self.restart(0)

    def restart(self, steps: int) -> None:
        """Go on as after so many training steps."""
        self.num_batches_tracked.fill_(steps)
        self.count = replace(self.count, taken=steps)

    def settle(self) -> None:
        """Make what no checkpoint holds, where a loader that is not torch's has filled the buffers on a meta device."""
        if self.nonfinite.is_meta and not self.running_mean.is_meta:
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Go on from buffers that somebody else filled."""
        self._reset_nonfinite(self.running_mean.device)
        self.count = replace(self.count, taken=int(self.num_batches_tracked))
        if self.options.running == "covariance":
            self.running_deconv = torch.empty_like(self.get_buffer("running_cov"))
            self.root_of = None

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        # The options that the averages and weights belong to.
        note_in_state(destination, prefix, "options", {name: getattr(self.options, name) for name in RECORDED})

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        errors: list[str] = rest[-1]
        self._compare_with_state(state_dict, prefix, local_metadata.get("options", {}), errors)
        # The authors' checkpoints, and plain ones, have no such count.
        state_dict.setdefault(f"{prefix}num_batches_tracked", self.num_batches_tracked)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)
        if not self.running_mean.is_meta:
            # What a checkpoint does not hold may still lie on the meta device, or in memory that nobody filled.
            self._begin_anew()
            self.train(self.training)

    def _compare_with_state(
        self, state_dict: dict[str, Any], prefix: str, saved: dict[str, Any], errors: list[str]
    ) -> None:
        """Refuse a state whose averages are of another kind, and warn of one that was made with other options."""
        if self.options.running == "covariance" and f"{prefix}running_deconv" in state_dict:
            errors.append(
                f"{prefix}running_deconv is an averaged root, and this layer averages covariances, which cannot be had "
                'from it; make the layer with running="root"'
            )
        elif self.options.running == "root" and f"{prefix}running_cov" in state_dict:
            errors.append(
                f"{prefix}running_cov is an averaged covariance, and this layer averages roots; make the layer with "
                'running="covariance"'
            )
        changed = {name: value for name, value in saved.items() if value != getattr(self.options, name)}
        if fixed := [f"{name}={value!r}" for name, value in changed.items() if name in SHAPING and name != "running"]:
            errors.append(f"{prefix[:-1] or type(self).__name__} was saved with {', '.join(fixed)}; make the layer so")
        elif changed := {name: value for name, value in changed.items() if name != "running"}:
            listed = ", ".join(f"{k}={v!r}, not {getattr(self.options, k)!r}" for k, v in changed.items())
            warn(f"{prefix[:-1] or type(self).__name__} was saved with {listed}; training goes on with the latter")

    def __getstate__(self) -> dict[str, Any]:
        # What is remembered of a tensor means nothing in another process.
        return {**super().__getstate__(), "root_of": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> Deconvolution:
        group = self.options.process_group
        memo[id(group)] = group  # shared by the copies: it cannot be copied, and need not be
        copied = memo[id(self)] = self.__new__(type(self))
        copied.__dict__.update(copy.deepcopy({**self.__dict__, "root_of": None}, memo))
        return copied

    def extra_repr(self) -> str:
        changed = [f"{k}={v!r}" for k, v in self.options.differing(Options()).items() if k not in HIDDEN]
        return ", ".join([super().extra_repr(), f"columns={self.columns}, blocks={self.n_blocks}", *changed])


RECORDED = (*SHAPING, "eps", "n_iter", "solver")  # beside a state
HIDDEN = ("block_size", "sampling_stride")  # of a layer's description, which says columns and blocks instead


def _option(name: str) -> property:
    """An option as an attribute of the layer, ``layer.eps``; it can be set where no buffer's meaning depends on it."""

    def read(layer: Deconvolution) -> Any:
        if name in layer.without:
            raise AttributeError(f"{type(layer).__name__} has no option {name}")
        return getattr(layer.options, name)

    def write(layer: Deconvolution, value: Any) -> None:
        if name in SHAPING:
            raise AttributeError(
                f"{name} cannot change in a layer that is there: its weights and running averages belong to "
                f"{name}={getattr(layer.options, name)!r}; make a new layer with the other value"
            )
        layer.options = layer.options.changed(**{name: value})
        layer.root_of = None  # the running root was that of the old options

    return property(read, write, doc=ABOUT[name].meaning)


for _name in ABOUT:
    setattr(Deconvolution, _name, _option(_name))


def _show_options(cls: type[Deconvolution]) -> None:
    """Let ``help`` and notebooks show the options of a layer in its signature, where ``**options`` stands."""
    plain = [p for p in inspect.signature(cls.__init__).parameters.values() if p.kind is not p.VAR_KEYWORD][1:]
    there = {p.name for p in plain}
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=getattr(cls.defaults, name))
        for name in ABOUT
        if name not in cls.without and name not in there
    ]
    cls.__signature__ = inspect.Signature([*plain, *options])  # type: ignore[attr-defined]
