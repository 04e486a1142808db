"""Matrix products in float32 proper: TF32 keeps 10 bits, in which eps = 1e-5 beside a variance of 1 is lost."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from . import private_torch

__all__ = ["add_product", "backward_pass", "full_precision", "in_full_precision", "product"]

P = ParamSpec("P")
R = TypeVar("R")


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b. It has no gradient, so only functions that have a gradient of their own call it, in full precision."""
    # A compiled graph has no memory of a setting that held while it was made, but it calls operators of its own as they
    # are. Elsewhere such a call would cost as much as a small product.
    if torch.compiler.is_compiling():
        return _opaque_product(a, b)
    by_onednn = (
        not torch.jit.is_tracing()  # type: ignore[attr-defined]
        and private_torch.linear_pointwise
        and a.dtype == b.dtype == torch.float32
        and a.device.type == "cpu"
    )
    if not by_onednn or a.shape[:-2].numel() > 1 or b.shape[:-2].numel() > 1:
        return a @ b
    # The operator copies a transposed matrix with one thread, where a stack of one is copied with all.
    rows, columns = a[None].contiguous().view(a.shape[-2:]), b.mT.reshape(b.shape[-1], b.shape[-2])
    if 0 in columns.stride():  # of an expanded matrix, such as the gradient of a sum: a hundred times as slow
        columns = columns.contiguous()
    return private_torch.linear_pointwise(rows, columns, None, "none", [], "").view(*a.shape[:-1], b.shape[-1])


def add_product(onto: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """onto + scale * a @ b, shapes (batch, n, n), in one launch; ``onto`` may be overwritten."""
    if torch.compiler.is_compiling():
        return onto + scale * _opaque_product(a, b)
    return onto.baddbmm_(a, b, alpha=scale)


class _FullPrecision:
    """Sets the precision of float32 products to the full one, and back when the last thread has left."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self.set_back: Callable[[], None] | None = None

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                try:
                    usual = torch.get_float32_matmul_precision() == "highest"
                except RuntimeError:  # somebody has set it for a backend, PyTorch's newer way; the two cannot be mixed
                    self.set_back = _set_full_precision_of_backends()
                else:
                    self.set_back = None if usual else _set_full_precision()
            self.inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0 and self.set_back:
                self.set_back()


_FULL_PRECISION = _FullPrecision()


def full_precision() -> AbstractContextManager[None]:
    """A context in which products of float32 matrices keep all of their bits, whatever the user has set."""
    return nullcontext() if torch.compiler.is_compiling() else _FULL_PRECISION


def in_full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """A function that computes its products in full precision."""

    @wraps(function)
    def precisely(*args: P.args, **kwargs: P.kwargs) -> R:
        with full_precision():
            return function(*args, **kwargs)

    return precisely


class _NoSecondDerivative(torch.autograd.Function):
    """Hands on the first tensor, and says why it has no gradient when one is asked for by way of the others."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, *_: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise RuntimeError(
            "the whitening of a deconvolution layer (DeconvConv1d, 2d, 3d, DeconvLinear) has no second derivative: its "
            "gradients are computed by formulas of their own. Take second derivatives of a plain network, "
            "ndlib.to_plain(model.eval())"
        )


def backward_pass(function: Any) -> Any:
    """A backward pass of ours: in full precision, and not itself differentiable, which it says when asked to be."""

    @wraps(function)
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        with torch.no_grad(), full_precision():
            found = function(ctx, *gradients)
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return found
        several = found if isinstance(found, tuple) else (found,)
        return tuple(_NoSecondDerivative.apply(t, *gradients) if isinstance(t, Tensor) else t for t in several)

    return backward


def _set_full_precision() -> Callable[[], None]:
    """Set it, and return what sets it back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    return lambda: torch.set_float32_matmul_precision(before)


def _set_full_precision_of_backends() -> Callable[[], None]:
    backends: Any = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"

    def set_back() -> None:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision

    return set_back


def _product_in_full_precision(a: Tensor, b: Tensor) -> Tensor:
    with _FULL_PRECISION:
        return product(a, b)


_opaque_product = torch.library.custom_op("ndlib::product", _product_in_full_precision, mutates_args=())
_opaque_product.register_fake(torch.matmul)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Of an exported program, which is made of operators and has none of the functions that call them."""
    a, b = ctx.saved_tensors
    return torch.ops.ndlib.product(grad, b.mT).sum_to_size(a.shape), torch.ops.ndlib.product(a.mT, grad).sum_to_size(
        b.shape
    )


_opaque_product.register_autograd(_gradients, setup_context=_keep)


@register_flop_formula(torch.ops.ndlib.product)
def _operations(a_shape: torch.Size, b_shape: torch.Size, *_: Any, **__: Any) -> int:
    """Of a @ b, for ``torch.utils.flop_counter``: 2 for each product and its sum."""
    return 2 * math.prod(torch.broadcast_shapes(a_shape[:-2], b_shape[:-2])) * math.prod(a_shape[-2:]) * b_shape[-1]


if private_torch.linear_pointwise is not None:

    @register_flop_formula(private_torch.linear_pointwise)
    def _operations_of_onednn(a_shape: torch.Size, b_shape: torch.Size, *_: Any, **__: Any) -> int:
        """Of a @ b'."""
        return 2 * math.prod(a_shape) * b_shape[0]
