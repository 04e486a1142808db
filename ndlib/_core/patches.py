"""The patches of a batch as the rows of a matrix, its columns in blocks, and the way back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Grouping = Literal["interleaved", "contiguous"]


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

    @property
    def spans(self) -> list[int]:
        """Pixels from the first to the last of a patch, both included, along each side."""
        return [(k - 1) * d + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True)]

    @property
    def margins(self) -> list[tuple[int, int]]:
        """The zeros before and after each side."""
        return list(zip(self.pads[-2::-2], self.pads[::-2], strict=True))

    def rows(self, x: Tensor) -> int:
        """How many patches a batch has.

        Raises:
            ValueError: the padded picture is smaller than the kernel.
        """
        rows = len(x)
        for side, margins, span, s in zip(x.shape[2:], self.margins, self.spans, self.stride, strict=True):
            side += sum(margins)
            if side < span:
                raise ValueError(
                    f"a kernel that spans {span} pixels does not fit into {side} (padding included): "
                    "use a larger picture, more padding or a smaller kernel_size"
                )
            rows *= (side - span) // s + 1
        return rows


def plain_patches(
    x: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
) -> Patches:
    """The arguments of :func:`patch_matrix`, for the dimensions that x has."""
    n = x.dim() - 2
    if n < 1:
        raise ValueError(f"x must have shape (N, C, *spatial), got shape {tuple(x.shape)}")
    kernel, strides, pads, dilations = (
        (v,) * n if isinstance(v, int) else tuple(v) for v in (kernel_size, stride, padding, dilation)
    )
    return Patches(kernel, strides, tuple(p for q in reversed(pads) for p in (q, q)), dilations)


def patch_matrix(
    x: Tensor,
    kernel_size: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """Patches of a batch as the rows of a matrix (im2col).

    Row (n, i, j) holds ``x[n, :, i*s : i*s + k, j*s : j*s + k]`` flattened, channel first, then the
    pixels of the patch from left to right and top to bottom: the order in which ``weight.flatten(1)``
    lists a convolution's weights, so that ``patch_matrix(x, k) @ weight.flatten(1).T`` *is* the convolution.

    Args:
        x: batch of shape ``(N, C, *spatial)``, with one, two or three spatial dimensions.
        kernel_size, stride, dilation: pixels, one number or one per spatial dimension.
        padding: zeros added on each side, pixels; the padded zeros are part of the patches.

    Returns:
        Matrix of shape (N * positions, C * taps).

    Raises:
        ValueError: the padded picture is smaller than the kernel.
    """
    return patch_samples(x, plain_patches(x, kernel_size, stride, padding, dilation))[0, 0]


def patch_samples(x: Tensor, patches: Patches) -> Tensor:
    """The patch matrix with its columns in groups and blocks, shape (groups, blocks, N * positions, n)."""
    return _into_blocks(_windows(_padded(x, patches), patches), patches).permute(1, 2, 0, 3)


def _padded(x: Tensor, patches: Patches) -> Tensor:
    patches.rows(x)  # which refuses what does not fit
    return F.pad(x, patches.pads) if any(patches.pads) else x


def _windows(padded: Tensor, patches: Patches) -> Tensor:
    """All patches as a view, shape (N, *positions, *taps, C)."""
    view = padded
    for axis, (span, s, d) in enumerate(zip(patches.spans, patches.stride, patches.dilation, strict=True), start=2):
        view = view.unfold(axis, span, s)[..., ::d]
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
    """
    width = matrix.shape[-1] // n_blocks
    if grouping == "interleaved":
        return matrix.unflatten(-1, (width, n_blocks)).movedim(-1, -3)
    return matrix.unflatten(-1, (n_blocks, width)).movedim(-2, -3)


def join_columns(blocks: Tensor, grouping: Grouping = "interleaved") -> Tensor:
    """Undo :func:`split_columns`: shape (..., n_blocks, rows, width) to (..., rows, n_blocks * width)."""
    return blocks.movedim(-3, -1 if grouping == "interleaved" else -2).flatten(-2)


# The same without autograd, for the layers. ----------------------------------------------------------------


def cut(x: Tensor, patches: Patches) -> Tensor:
    """The patches of a batch with their columns in groups and blocks, shape (N * positions, groups, blocks, n)."""
    return into_blocks(_windows(_padded(x, patches), patches), patches)


def on_cpu(x: Tensor) -> bool:
    """Whether this is a CPU that computes what it is told to, and nothing compiled."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _by_index(one: Sequence[int], patches: Patches, x: Tensor) -> bool:
    """Whether columns, (*taps, C) of them, are put in order by an index: a CPU then copies first what lies together.

    By strides, the other way, it takes several times as long. Columns that are in order as they are need neither.
    """
    single = 1 in (math.prod(one[:-1]), one[-1])
    in_order = single and (patches.blocks == 1 or patches.grouping == "contiguous")
    return on_cpu(x) and not in_order


def into_blocks(rows: Tensor, patches: Patches) -> Tensor:
    """:func:`_into_blocks`, by an index where that is faster."""
    one = rows.shape[rows.dim() - len(patches.kernel_size) - 1 :]
    if not _by_index(one, patches, rows):
        return _into_blocks(rows, patches)
    order = _into_blocks(torch.arange(one.numel(), device=rows.device).view(one), patches)
    rows = rows.reshape(-1, one.numel())
    return rows.gather(1, order.reshape(1, -1).expand(len(rows), -1)).view(-1, *order.shape[1:])


def out_of_blocks(samples: Tensor, one: Sequence[int], patches: Patches) -> Tensor:
    """:func:`_out_of_blocks`, by an index where that is faster."""
    if not _by_index(one, patches, samples):
        return _out_of_blocks(samples, one, patches)
    order = torch.arange(math.prod(one), device=samples.device).view(1, *samples.shape[1:])
    order = _out_of_blocks(order, one, patches).reshape(1, -1)
    rows = samples.reshape(len(samples), -1)
    return rows.gather(1, order.expand(len(rows), -1)).view(-1, *one)


def paste(samples: Tensor, onto: Tensor, patches: Patches) -> None:
    """The adjoint of :func:`cut`: every number is added to the pixel that it would be a copy of, all others are 0."""
    sides = [before + side + after for side, (before, after) in zip(onto.shape[2:], patches.margins, strict=True)]
    padded = samples.new_zeros(len(onto), *sides, onto.shape[1]).movedim(-1, 1)
    windows = _windows(padded, patches)
    one = windows.shape[onto.dim() - 1 :]
    rows = out_of_blocks(samples, one, patches).view(windows.shape)
    if all(s >= span for s, span in zip(patches.stride, patches.spans, strict=True)):
        windows.copy_(rows)  # no pixel is in two patches
    else:
        for tap in itertools.product(*map(range, patches.kernel_size)):
            at: tuple[Any, ...] = (..., *tap, slice(None))
            windows[at] += rows[at]
    inside = [slice(before, side - after) for side, (before, after) in zip(sides, patches.margins, strict=True)]
    onto.copy_(padded[:, :, *inside])
