"""The layers written from their definition: loops and lists of indices, slow and plain, in double precision.

This shares no code with ndlib. What a convolution computes (published choices first):

1. patches as rows, zero padding included, at every ``sampling * stride``-th position (1x1 kernels: every
   (sampling * stride)^2-th pixel of the batch);
2. with C channels and blocks of B, G = C / B groups of columns: block g has the columns c with c mod G = g
   (or consecutive ones); grouped convolution: one block for each channel group, on its own;
3. one mean for all blocks, and the covariance of the rows of all blocks together (or a mean for each block and
   the average of their covariances; or the second moment about zero);
4. D by coupled Newton-Schulz steps on (Cov + eps I) / ||Cov + eps I||_F (or exactly);
5. running averages of the mean and of D, from 0 and from I (or of the covariance, corrected for its start);
6. the convolution with D w, bias b - mu' D w.
"""

import math

import torch
import torch.nn.functional as F


def patch_rows(x, kernel, stride, padding, dilation):
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    rows = []
    for i in range(0, x.shape[2] - span[0] + 1, stride[0]):
        for j in range(0, x.shape[3] - span[1] + 1, stride[1]):
            window = x[:, :, i : i + span[0] : dilation[0], j : j + span[1] : dilation[1]]
            rows.append(window.reshape(len(x), -1))
    return torch.stack(rows, 1).flatten(0, 1)


def newton_schulz(a, steps):
    norm = (a**2).sum().sqrt()
    eye = torch.eye(len(a), dtype=a.dtype)
    y, z = a / norm, eye
    for _ in range(steps):
        t = (3 * eye - z @ y) / 2
        y, z = y @ t, t @ z
    return z / norm.sqrt()


class Whitening:
    """Mean and root of batches, and their running averages. ``means`` has an entry for each block."""

    def __init__(self, *, eps, steps=5, exact=False, centering="shared", running="root", momentum=0.1, first=False):
        self.eps, self.steps, self.exact, self.centering = eps, steps, exact, centering
        self.running, self.momentum, self.first = running, momentum, first
        self.means = self.root = self.cov = None
        self.weight = 0.0

    def inverse_root(self, cov):
        # So many steps converge: the exact root, differentiable by plain autograd at any spectrum.
        return newton_schulz(cov + self.eps * torch.eye(len(cov), dtype=cov.dtype), 60 if self.exact else self.steps)

    def of_batch(self, blocks):
        """``blocks``: one matrix of rows for each block."""
        if self.centering == "per-block":
            means = [b.sum(0) / len(b) for b in blocks]
            cov = sum((b - m).T @ (b - m) / len(b) for b, m in zip(blocks, means, strict=True)) / len(blocks)
        else:
            rows = torch.cat(blocks)
            mean = rows.sum(0) / len(rows)
            about = torch.zeros_like(mean) if self.centering == "uncentred" else mean
            cov = (rows - about).T @ (rows - about) / len(rows)
            means = [mean] * len(blocks)
        root = self.inverse_root(cov)
        self.remember(means, cov, root)
        return means, root

    def remember(self, means, cov, root):
        new = [m.detach() for m in means], cov.detach(), root.detach()
        if self.means is None:
            zero = self.running == "covariance"
            start = torch.zeros_like(new[1]) if zero else torch.eye(len(root), dtype=root.dtype)
            self.means, self.cov, self.root = [torch.zeros_like(m) for m in new[0]], start, start
            if self.first:
                self.means, self.cov, self.root = new
        m = self.momentum
        self.means = [(1 - m) * a + m * b for a, b in zip(self.means, new[0], strict=True)]
        self.cov = (1 - m) * self.cov + m * new[1]
        self.root = (1 - m) * self.root + m * new[2]
        self.weight = (1 - m) * self.weight + m

    def averaged(self):
        if self.running == "root":
            return self.means, self.root
        return [m / self.weight for m in self.means], self.inverse_root(self.cov / self.weight)


def blocks_of_columns(columns, n_blocks, grouping):
    width = columns // n_blocks
    return [
        [c for c in range(columns) if (c % n_blocks == g if grouping == "interleaved" else c // width == g)]
        for g in range(n_blocks)
    ]


def block_of(features, wanted):
    return features if wanted > features else math.gcd(wanted, features)


def convolution(
    x, weight, bias, *, stride, padding, dilation, groups, block, sampling, whitenings, training, grouping="interleaved"
):
    """Output of the layer; ``whitenings`` is a list of one :class:`Whitening` for each channel group."""
    kernel = weight.shape[2:]
    taps = kernel[0] * kernel[1]
    channels = x.shape[1] // groups
    outputs = weight.shape[0] // groups
    results = []
    for g in range(groups):
        part = x[:, g * channels : (g + 1) * channels]
        w = weight[g * outputs : (g + 1) * outputs].flatten(1)
        n_blocks = channels // block_of(channels, block)
        columns = blocks_of_columns(channels * taps, n_blocks, grouping)
        if training:
            if taps == 1:
                pixels = [part[n, :, i, j] for n in range(len(x)) for i in range(x.shape[2]) for j in range(x.shape[3])]
                rows = torch.stack(pixels[:: (sampling * stride[0]) * (sampling * stride[1])])
            else:
                rows = patch_rows(part, kernel, [sampling * s for s in stride], padding, dilation)
            means, root = whitenings[g].of_batch([rows[:, c] for c in columns])
        else:
            means, root = whitenings[g].averaged()
        folded, shift = torch.zeros_like(w), 0
        for c, mean in zip(columns, means, strict=True):
            folded[:, c] = w[:, c] @ root
            shift = shift + folded[:, c] @ mean
        every = patch_rows(part, kernel, stride, padding, dilation) @ folded.T - shift
        if bias is not None:
            every = every + bias[g * outputs : (g + 1) * outputs]
        size = [
            (x.shape[2 + a] + 2 * padding[a] - (kernel[a] - 1) * dilation[a] - 1) // stride[a] + 1 for a in range(2)
        ]
        results.append(every.reshape(len(x), *size, outputs).permute(0, 3, 1, 2))
    return torch.cat(results, 1)


def linear(x, weight, bias, *, block, whitening, training, grouping="contiguous"):
    n_blocks = x.shape[1] // block_of(x.shape[1], block)
    columns = blocks_of_columns(x.shape[1], n_blocks, grouping)
    means, root = whitening.of_batch([x[:, c] for c in columns]) if training else whitening.averaged()
    terms = [(x[:, c] - m) @ root @ weight[:, c].T for c, m in zip(columns, means, strict=True)]
    return sum(terms) if bias is None else sum(terms) + bias


class Channels:
    """ChannelDeconv: the first channels in interleaved blocks, the rest with one mean and one variance."""

    def __init__(self, block, whitening, sampling=3):
        self.block, self.whitening, self.sampling = block, whitening, sampling
        self.rest = None

    def __call__(self, x, training):
        shape, x = x.shape, x.flatten(2) if x.dim() > 2 else x.unsqueeze(2)
        step = self.sampling**2 if len(shape) > 2 and min(shape[2:]) >= self.sampling else 1
        n_blocks = shape[1] // self.block
        first = n_blocks * self.block
        members = [[c for c in range(first) if c % n_blocks == g] for g in range(n_blocks)]
        if training:
            # All samples of block 0, then of block 1, ...; in each, image by image, position by position.
            rows = torch.cat([x[:, m].permute(0, 2, 1).flatten(0, 1) for m in members])[::step]
            means, root = self.whitening.of_batch([rows])
        else:
            means, root = self.whitening.averaged()
        out = torch.zeros_like(x)
        for m in members:
            out[:, m] = torch.einsum("ij,njp->nip", root, x[:, m] - means[0][None, :, None])
        if first < shape[1]:
            if training:
                values = x[:, first:].flatten(1)[:, ::step]
                new = values.mean(), values.var()
                old = self.rest or tuple(v.detach() for v in new)
                self.rest = tuple(0.9 * a + 0.1 * b.detach() for a, b in zip(old, new, strict=True))
            mean, var = new if training else self.rest
            out[:, first:] = (x[:, first:] - mean) / (var + self.whitening.eps).sqrt()
        return out.reshape(shape)
