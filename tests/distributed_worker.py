"""One of two processes that share their statistics; started by torchrun from test_distributed.py.

Each takes its part of a batch, unequal parts, and computes a loss that is a sum over samples. Process 0 then
compares outputs, gradients and running averages with a single layer that has the whole batch. Then a network as
``training.fit`` shares it, its loss a mean.
"""

import copy
import sys

import torch
import torch.distributed as dist
from torch import nn

from ndlib import ChannelDeconv, DeconvConv1d, DeconvConv2d, DeconvLinear
from ndlib.experiments import models, training
from ndlib.layers import Deconvolution

SHARE = 7  # of 12 samples in the first process


def networks():
    options = {"process_group": "world"}
    yield nn.Sequential(DeconvConv2d(4, 6, 3, padding=1, **options)), (12, 4, 9, 9)
    yield nn.Sequential(DeconvConv2d(4, 6, 1, **options)), (12, 4, 5, 5)
    yield nn.Sequential(DeconvConv2d(4, 6, 1, stride=2, centering="per-block", block_size=2, **options)), (12, 4, 7, 5)
    yield nn.Sequential(DeconvConv1d(4, 6, 3, groups=2, running="covariance", **options)), (12, 4, 30)
    yield nn.Sequential(DeconvLinear(10, 3, block_size=5, **options)), (12, 10)
    yield nn.Sequential(ChannelDeconv(7, 3, **options), nn.Conv2d(7, 2, 1)), (12, 7, 5, 5)
    yield nn.Sequential(ChannelDeconv(7, 3, centering="per-block", **options), nn.Conv2d(7, 2, 1)), (12, 7, 5, 5)
    deep = [DeconvConv2d(3, 5, 3, **options), nn.ReLU(), DeconvConv2d(5, 4, 1, **options), nn.Flatten()]
    yield nn.Sequential(*deep, DeconvLinear(4 * 36, 2, block_size=36, **options)), (12, 3, 8, 8)


def run(net, batches):
    outputs = []
    for x in batches:
        x.requires_grad_()
        y = net(x)
        outputs.append(y)
        (y.square() * torch.linspace(0.5, 1.5, y[0].numel()).reshape(y[0].shape)).sum().backward()
    return outputs


def shared_training(rank):
    """Largest relative difference of a gradient between processes that share a batch and one that has it."""
    torch.manual_seed(0)
    shape = {"classes": 3, "width": 0.1, "options": {"block_size": 3}}
    alone = models.build("vgg-small", method="nd", **shape).double()
    model = copy.deepcopy(alone)
    x, y = torch.randn(24, 3, 16, 16, dtype=torch.float64).cumsum(-1), torch.arange(24) % 3
    shared = training._shared(model, x.device)
    nn.functional.cross_entropy(shared(x[rank::2]), y[rank::2]).backward()
    nn.functional.cross_entropy(alone(x), y).backward()
    pairs = zip(model.parameters(), alone.parameters(), strict=True)
    return max(((a.grad - b.grad).norm() / b.grad.norm()).item() for a, b in pairs)


def main():
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    mine = slice(0, SHARE) if rank == 0 else slice(SHARE, None)
    worst = 0.0
    for net, shape in networks():
        torch.manual_seed(0)
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.3)
        alone = copy.deepcopy(net)
        for module in alone.modules():
            if isinstance(module, Deconvolution):
                module.process_group = None
        whole = [torch.randn(*shape).cumsum(-1) / 2 + 1 for _ in range(2)]
        parts = [x[mine].clone() for x in whole]
        together, wanted = run(net, parts), run(alone, whole)
        pairs = [(a, b[mine]) for a, b in zip(together, wanted, strict=True)]
        pairs += [(a.grad, b.grad[mine]) for a, b in zip(parts, whole, strict=True)]
        for a, b in zip(net.parameters(), alone.parameters(), strict=True):
            dist.all_reduce(a.grad)
            pairs.append((a.grad, b.grad))
        pairs += list(zip(net.buffers(), alone.buffers(), strict=True))
        for a, b in pairs:
            error = ((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-12)).item()
            worst = max(worst, error)
            if not error < 1e-5:
                sys.exit(f"process {rank}: {net} differs by {error:.1e} in a tensor of shape {tuple(a.shape)}")
    print(f"process {rank}: largest relative difference {worst:.1e}")
    error = shared_training(rank)
    if not error < 1e-8:
        sys.exit(f"process {rank}: a gradient in shared training differs by {error:.1e}")
    print(f"process {rank}: largest relative difference in shared training {error:.1e}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
