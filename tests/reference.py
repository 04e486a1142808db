"""The published layer written from its definition: loops and lists of indices, slow and plain, in any precision.

It shares no code with ndlib. What it computes:

1. patches as rows, zero padding included, at every ``sampling_stride * stride``-th position
   (1x1 kernels: every (sampling_stride * stride)^2-th pixel of the batch);
2. with C channels and blocks of B, G = C / B groups of columns: group g has the columns c with c mod G = g,
   and all groups' rows together give one mean and one covariance (the linear layer: consecutive columns;
   grouped convolution: one mean and covariance for each channel group);
3. D by coupled Newton-Schulz steps on (Cov + eps I) / ||Cov + eps I||_F;
4. running averages of the mean and of D, from 0 and from I;
5. the convolution with D w, bias b - mu' D w.
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


def whiten(samples, eps, steps):
    mean = samples.sum(0) / len(samples)
    centred = samples - mean
    cov = centred.T @ centred / len(samples)
    return mean, newton_schulz(cov + eps * torch.eye(len(cov), dtype=cov.dtype), steps)


def block_of(features, wanted):
    return features if wanted > features else math.gcd(wanted, features)


class Running:
    """Running averages with their published start and momentum."""

    def __init__(self, momentum=0.1):
        self.momentum, self.mean, self.root = momentum, None, None

    def update(self, mean, root):
        if self.mean is None:
            self.mean, self.root = torch.zeros_like(mean), torch.eye(len(root), dtype=root.dtype)
        m = self.momentum
        self.mean = (1 - m) * self.mean + m * mean.detach()
        self.root = (1 - m) * self.root + m * root.detach()


def convolution(x, weight, bias, *, stride, padding, dilation, groups, block, sampling, eps, steps, running, training):
    """Output of the layer; ``running`` is a list of one :class:`Running` for each channel group."""
    kernel = weight.shape[2:]
    taps = kernel[0] * kernel[1]
    channels = x.shape[1] // groups
    outputs = weight.shape[0] // groups
    results = []
    for g in range(groups):
        part = x[:, g * channels : (g + 1) * channels]
        w = weight[g * outputs : (g + 1) * outputs].flatten(1)
        b = bias[g * outputs : (g + 1) * outputs]
        n_blocks = 1 if groups > 1 else channels // block_of(channels, block)
        columns = [[c for c in range(channels * taps) if c % n_blocks == i] for i in range(n_blocks)]
        if training:
            if taps == 1:
                pixels = [part[n, :, i, j] for n in range(len(x)) for i in range(x.shape[2]) for j in range(x.shape[3])]
                rows = torch.stack(pixels[:: (sampling * stride[0]) * (sampling * stride[1])])
            else:
                rows = patch_rows(part, kernel, [sampling * s for s in stride], padding, dilation)
            mean, root = whiten(torch.cat([rows[:, c] for c in columns]), eps, steps)
            running[g].update(mean, root)
        else:
            mean, root = running[g].mean, running[g].root
        folded, shift = torch.zeros_like(w), 0
        for c in columns:
            folded[:, c] = w[:, c] @ root
            shift = shift + folded[:, c] @ mean
        every = patch_rows(part, kernel, stride, padding, dilation) @ folded.T + (b - shift)
        size = [
            (x.shape[2 + a] + 2 * padding[a] - (kernel[a] - 1) * dilation[a] - 1) // stride[a] + 1 for a in range(2)
        ]
        results.append(every.reshape(len(x), *size, outputs).permute(0, 3, 1, 2))
    return torch.cat(results, 1)


def linear(x, weight, bias, *, block, eps, steps, running, training):
    block = block_of(x.shape[1], block)
    starts = range(0, x.shape[1], block)
    if training:
        mean, root = whiten(torch.cat([x[:, s : s + block] for s in starts]), eps, steps)
        running.update(mean, root)
    else:
        mean, root = running.mean, running.root
    return sum((x[:, s : s + block] - mean) @ root @ weight[:, s : s + block].T for s in starts) + bias
