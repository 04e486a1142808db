"""The patches of a batch as the rows of a matrix, its columns in blocks, and the way back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .options import Grouping

__all__ = [
    "Patches",
    "count_rows",
    "cut",
    "into_blocks",
    "join_columns",
    "out_of_blocks",
    "paste",
    "patch_samples",
    "patches_of",
    "split_columns",
]


class Patches(NamedTuple):
    """Which patches are cut out of a batch, and how the columns of their matrix are cut into blocks.

    One number for each spatial dimension; of ``pads``, zeros around the picture, two for each, the last dimension
    first, as ``F.pad`` takes them. Without any dimension the batch itself is the matrix. The columns fall into
    ``groups`` runs of channels, and each of these into ``blocks`` as :func:`split_columns` cuts them.
    """

    kernel_size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    blocks: int = 1
    grouping: Grouping = "interleaved"


def patches_of(
    dimensions: int,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
) -> Patches:
    """The arguments of a convolution, each one number or one for each of its spatial dimensions."""
    kernel, strides, pads, dilations = (
        (v,) * dimensions if isinstance(v, int) else tuple(v) for v in (kernel_size, stride, padding, dilation)
    )
    return Patches(kernel, strides, tuple(p for q in reversed(pads) for p in (q, q)), dilations)


def count_rows(x: Tensor, patches: Patches) -> int:
    """How many patches a batch has.

    Raises:
        ValueError: the padded picture is smaller than the kernel.
    """
    rows, last = len(x), len(patches.pads) - 1
    for axis, (k, s, d) in enumerate(zip(patches.kernel_size, patches.stride, patches.dilation, strict=True)):
        side = x.shape[axis + 2] + patches.pads[last - 2 * axis] + patches.pads[last - 2 * axis - 1]
        span = (k - 1) * d + 1  # pixels from the first to the last of a patch, both included
        if side < span:
            raise ValueError(
                f"a kernel that spans {span} pixels does not fit into {side} (padding included): "
                "use a larger picture, more padding or a smaller kernel_size"
            )
        rows *= (side - span) // s + 1
    return rows


def patch_samples(x: Tensor, patches: Patches) -> Tensor:
    """The patch matrix with its columns in groups and blocks, shape (groups, blocks, N * positions, n)."""
    count_rows(x, patches)  # which refuses what does not fit
    return _into_blocks(_windows(_padded(x, patches), patches), patches).permute(1, 2, 0, 3)


def _padded(x: Tensor, patches: Patches) -> Tensor:
    return F.pad(x, patches.pads) if any(patches.pads) else x


def _windows(padded: Tensor, patches: Patches) -> Tensor:
    """All patches as a view, shape (N, *positions, *taps, C)."""
    view = padded
    for axis, (k, s, d) in enumerate(zip(patches.kernel_size, patches.stride, patches.dilation, strict=True), start=2):
        view = view.unfold(axis, (k - 1) * d + 1, s)[..., ::d]
    return view.movedim(1, -1)


def _into_blocks(rows: Tensor, patches: Patches) -> Tensor:
    """The columns of rows of shape (..., *taps, C) in groups and blocks, shape (rows, groups, blocks, n)."""
    first = rows.dim() - len(patches.kernel_size) - 1
    columns = rows.movedim(-1, first).reshape(rows.shape[:first].numel(), patches.groups, -1)
    return split_columns(columns.transpose(0, 1), patches.blocks, patches.grouping).permute(2, 0, 1, 3)


def _out_of_blocks(samples: Tensor, one: Sequence[int], patches: Patches) -> Tensor:
    """Undo :func:`_into_blocks`, shape (rows, *taps, C), of which ``one`` is (*taps, C)."""
    columns = join_columns(samples.permute(1, 2, 0, 3), patches.grouping).transpose(0, 1)
    return columns.reshape(-1, one[-1], *one[:-1]).movedim(1, -1)


def split_columns(matrix: Tensor, n_blocks: int, grouping: Grouping = "interleaved") -> Tensor:
    """Cut the columns of a matrix into blocks, a view of shape (..., n_blocks, rows, columns / n_blocks).

    ``"interleaved"`` (the published convolution) puts column c into block c mod n_blocks; ``"contiguous"`` (the
    published linear layer) cuts the columns into consecutive runs.

    Args:
        matrix: shape (..., rows, columns), columns divisible by ``n_blocks``.

    >>> split_columns(torch.arange(6).view(1, 6), 2).tolist()
    [[[0, 2, 4]], [[1, 3, 5]]]
    >>> split_columns(torch.arange(6).view(1, 6), 2, "contiguous").tolist()
    [[[0, 1, 2]], [[3, 4, 5]]]
    """
    width = matrix.shape[-1] // n_blocks
    if grouping == "interleaved":
        return matrix.unflatten(-1, (width, n_blocks)).movedim(-1, -3)
    return matrix.unflatten(-1, (n_blocks, width)).movedim(-2, -3)


def join_columns(blocks: Tensor, grouping: Grouping = "interleaved") -> Tensor:
    """Undo :func:`split_columns`: shape (..., n_blocks, rows, width) to (..., rows, n_blocks * width).

    >>> join_columns(split_columns(torch.arange(6).view(1, 6), 2)).tolist()
    [[0, 1, 2, 3, 4, 5]]
    """
    return blocks.movedim(-3, -1 if grouping == "interleaved" else -2).flatten(-2)


# The same without autograd, for the layers. ----------------------------------------------------------------


def cut(x: Tensor, patches: Patches) -> Tensor:
    """The patches of a batch with their columns in groups and blocks, shape (N * positions, groups, blocks, n)."""
    return into_blocks(_windows(_padded(x, patches), patches), patches)


@lru_cache(maxsize=256)
def _order(one: tuple[int, ...], patches: Patches, device: str, kind: type) -> Tensor | None:
    """The index by which a CPU puts columns, (*taps, C) of them, into blocks, shape (1, groups, blocks, n).

    A CPU then copies first what lies together; by strides, the other way, it takes several times as long. None, so that
    strides it is, on other devices, for columns that are in order as they are, and for torch's fake tensors.
    """
    in_order = 1 in (math.prod(one[:-1]), one[-1]) and (patches.blocks == 1 or patches.grouping == "contiguous")
    if in_order or device != "cpu" or kind not in (Tensor, nn.Parameter):
        return None
    with torch.inference_mode(False):  # the index outlives this call
        return _into_blocks(torch.arange(math.prod(one)).view(one), patches).contiguous()


@lru_cache(maxsize=256)
def _order_back(one: tuple[int, ...], patches: Patches, device: str, kind: type) -> Tensor | None:
    """The index that undoes :func:`_order`, shape (1, columns)."""
    order = _order(one, patches, device, kind)
    return None if order is None else order.view(1, -1).argsort()


def into_blocks(rows: Tensor, patches: Patches) -> Tensor:
    """The columns of rows of shape (..., *taps, C) in groups and blocks, shape (rows, groups, blocks, n)."""
    one = tuple(rows.shape[rows.dim() - len(patches.kernel_size) - 1 :])
    order = None if torch.compiler.is_compiling() else _order(one, patches, rows.device.type, type(rows))
    if order is None:
        return _into_blocks(rows, patches)
    rows = rows.reshape(-1, order.numel())
    return rows.gather(1, order.view(1, -1).expand(len(rows), -1)).view(-1, *order.shape[1:])


def out_of_blocks(samples: Tensor, one: Sequence[int], patches: Patches) -> Tensor:
    """Undo :func:`into_blocks`, shape (rows, *taps, C), of which ``one`` is (*taps, C)."""
    compiling = torch.compiler.is_compiling()
    order = None if compiling else _order_back(tuple(one), patches, samples.device.type, type(samples))
    if order is None:
        return _out_of_blocks(samples, one, patches)
    rows = samples.reshape(len(samples), -1)
    return rows.gather(1, order.expand(len(rows), -1)).view(-1, *one)


def paste(samples: Tensor, onto: Tensor, patches: Patches) -> None:
    """The adjoint of :func:`cut`: every number is added to the pixel that it would be a copy of, all others are 0."""
    margins = list(zip(patches.pads[-2::-2], patches.pads[::-2], strict=True))  # zeros before and after each side
    sides = [before + side + after for side, (before, after) in zip(onto.shape[2:], margins, strict=True)]
    padded = samples.new_zeros(len(onto), *sides, onto.shape[1]).movedim(-1, 1)
    windows = _windows(padded, patches)
    rows = out_of_blocks(samples, windows.shape[onto.dim() - 1 :], patches).view(windows.shape)
    spans = [(k - 1) * d + 1 for k, d in zip(patches.kernel_size, patches.dilation, strict=True)]
    if all(s >= span for s, span in zip(patches.stride, spans, strict=True)):
        windows.copy_(rows)  # no pixel is in two patches
    else:
        for tap in itertools.product(*map(range, patches.kernel_size)):
            at: tuple[Any, ...] = (..., *tap, slice(None))
            windows[at] += rows[at]
    inside = [slice(before, side - after) for side, (before, after) in zip(sides, margins, strict=True)]
    onto.copy_(padded[:, :, *inside])
