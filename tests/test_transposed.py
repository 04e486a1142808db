"""Transposed convolutions of whitened patches, against their definition and against ordinary convolutions."""

import itertools
import math

import pytest
import torch
from reference import blocks_of_columns, newton_schulz
from torch import nn

from ndlib import (
    DeconvConv1d,
    DeconvConv2d,
    DeconvConv3d,
    DeconvConvTranspose1d,
    DeconvConvTranspose2d,
    DeconvConvTranspose3d,
    convert,
    convert_pretrained,
    layer_whiteness,
    to_plain,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*rows for a covariance")
LAYERS = {1: DeconvConvTranspose1d, 2: DeconvConvTranspose2d, 3: DeconvConvTranspose3d}
ORDINARY = {1: DeconvConv1d, 2: DeconvConv2d, 3: DeconvConv3d}


def batch(*shape, seed=0):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.cumsum(-1) + 1


def rows_by_definition(x, layer, every):
    """What meets the kernel at positions of the output: tap u brings pixel i to i * stride + u * dilation - padding.

    One row for each image and position, its columns by channel and then by tap, the last tap first.
    """
    sides = layer.sides
    rows = []
    for image in x:
        for o in itertools.product(*(range(0, side, step) for side, step in zip(sides, every, strict=True))):
            row = []
            for channel in image:
                for u in itertools.product(*(range(k - 1, -1, -1) for k in layer.kernel_size)):
                    at = [o[a] + layer.padding[a] - u[a] * layer.dilation[a] for a in range(len(o))]
                    whole = all(p % s == 0 for p, s in zip(at, layer.stride, strict=True))
                    i = [p // s for p, s in zip(at, layer.stride, strict=True)]
                    inside = all(0 <= j < side for j, side in zip(i, channel.shape, strict=True))
                    row.append(channel[tuple(i)] if whole and inside else channel.new_zeros(()))
            rows.append(torch.stack(row))
    return torch.stack(rows)


def by_definition(x, layer, every):
    """Output of a training step, the mean and the root, group by group."""
    groups, steps = layer.groups, [1] * len(layer.kernel_size)
    out, means, roots = [], [], []
    width, columns = layer.in_channels // groups, math.prod(layer.kernel_size)
    for g, part in enumerate(x.split(width, 1)):
        measured, all_rows = rows_by_definition(part, layer, every), rows_by_definition(part, layer, steps)
        order = blocks_of_columns(width * columns, layer.n_blocks, layer.grouping)
        samples = torch.cat([measured[:, block] for block in order])
        mean = samples.mean(0)
        centred = samples - mean
        cov = centred.T @ centred / len(samples)
        root = newton_schulz(cov + layer.eps * torch.eye(len(cov)).double(), layer.n_iter)
        # weight[c, f, *u] of this group as rows for (channel, taps backwards), columns for filters
        weight = layer.weight[g * width : (g + 1) * width].flip(tuple(range(2, layer.weight.dim())))
        weight = weight.movedim(1, -1).reshape(width * columns, -1)
        y = sum((all_rows[:, block] - mean) @ root @ weight[block] for block in order)
        out.append(y)
        means.append(mean)
        roots.append(root)
    y = torch.cat(out, 1) + layer.bias
    return y.view(len(x), *layer.sides, -1).movedim(-1, 1), torch.cat(means), torch.stack(roots)


CASES = {
    "stride 2": ((3, 4, 5, 6), {"kernel_size": 4, "stride": 2, "padding": 1, "sampling_stride": 1}),
    "output padding": ((3, 4, 5, 6), {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": (1, 0)}),
    "no overlap": ((3, 4, 4, 4), {"kernel_size": 2, "stride": 2}),
    "gaps": ((3, 2, 4, 4), {"kernel_size": 2, "stride": 3, "output_padding": 2}),
    "dilation": ((3, 2, 5, 5), {"kernel_size": (3, 2), "stride": (2, 1), "dilation": (2, 3)}),
    "blocks": ((3, 6, 4, 4), {"kernel_size": 3, "stride": 2, "block_size": 3}),
    "blocks in order": ((3, 6, 4, 4), {"kernel_size": 3, "stride": 2, "block_size": 3, "grouping": "contiguous"}),
    "groups": ((3, 4, 4, 4), {"kernel_size": 3, "stride": 2, "groups": 2}),
    "cut off": ((3, 2, 5, 5), {"kernel_size": 2, "stride": 2, "padding": 3, "sampling_stride": 1}),
    "sequence": ((4, 3, 9), {"kernel_size": 5, "stride": 3, "padding": 2}),
    "volume": ((2, 2, 3, 3, 3), {"kernel_size": 2, "stride": 2, "sampling_stride": 1}),
}


def made(shape, options, n_out=4):
    torch.manual_seed(0)
    layer = LAYERS[len(shape) - 2](shape[1], n_out, **options).double()
    layer.sides = layer.eval()(torch.zeros(shape, dtype=torch.float64)).shape[2:]
    return layer.train()


@pytest.mark.parametrize("shape,options", CASES.values(), ids=CASES)
def test_step_gradients_and_averages_are_those_of_the_definition(shape, options):
    layer = made(shape, options)
    x = batch(*shape).requires_grad_()
    every = layer.sampled(x, layer.sampling_stride)[1].stride
    wanted, mean, root = by_definition(x, layer, every)
    found = layer(x)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(layer.running_mean, 0.1 * mean)
    eye = torch.eye(layer.columns).double()
    torch.testing.assert_close(layer.running_deconv.view_as(root), 0.9 * eye + 0.1 * root)
    weight = batch(*found.shape, seed=1)
    for y in (wanted, found):
        gradients = torch.autograd.grad((y * weight).sum(), [x, layer.weight, layer.bias])
        if y is wanted:
            expected = gradients
    torch.testing.assert_close(gradients, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_with_stride_1_it_is_the_ordinary_layer_with_the_kernel_turned(dimensions, groups):
    transposed = LAYERS[dimensions](4, 6, 3, padding=1, groups=groups, block_size=2).double()
    ordinary = ORDINARY[dimensions](4, 6, 3, padding=1, groups=groups, block_size=2).double()
    for group in range(groups):
        inputs, outputs = slice(4 // groups * group, 4 // groups * (group + 1)), slice(6 // groups * group, 6)
        part = transposed.weight.data[inputs].transpose(0, 1).flip(tuple(range(2, 2 + dimensions)))
        ordinary.weight.data[outputs][: 6 // groups] = part
    ordinary.bias.data = transposed.bias.data
    x = batch(8, 4, *[7] * dimensions)
    torch.testing.assert_close(transposed(x), ordinary(x))
    for a, b in zip(transposed.buffers(), ordinary.buffers(), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(transposed.eval()(x), ordinary.eval()(x))


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("kernel,stride,padding", [(4, 1, 0), (4, 2, 1), (3, 3, 0), (5, 3, 2), (6, 6, 0), (2, 4, 0)])
def test_every_tap_that_meets_pixels_is_measured_in_small_maps_too(side, kernel, stride, padding):
    """A direction that is not measured counts as one without variance, and would be amplified without bound."""
    layer = DeconvConvTranspose1d(1, 1, kernel, stride, padding).double()
    x = torch.ones(2, 1, side, dtype=torch.float64)
    every = layer.samples(x)
    layer.sampling_stride = 1
    all_of_them = layer.samples(x)
    assert torch.equal((every != 0).any(2), (all_of_them != 0).any(2))
    phases = min(stride, all_of_them.shape[2] // 2)
    assert every.shape[2] >= phases


@pytest.mark.parametrize("groups", [1, 2])
def test_an_output_size_is_that_of_the_plain_layer(groups):
    layer = DeconvConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=groups).double()
    x = batch(8, 4, 6, 7)
    layer(x)
    plain = to_plain(layer.eval())
    assert type(plain) is nn.ConvTranspose2d
    for size in ((11, 13), (12, 13), (11, 14), (8, 6, 12, 14)):
        torch.testing.assert_close(layer(x, output_size=size), plain(x, output_size=size))
    torch.testing.assert_close(layer(x[0], output_size=(12, 14)), plain(x[0], output_size=(12, 14)))
    for size in ((10, 13), (11, 15), (11,)):
        with pytest.raises(ValueError, match=r"output_size must lie between \[11, 13\] and \[12, 14\], got"):
            layer(x, output_size=size)


@pytest.mark.parametrize("shape,options", CASES.values(), ids=CASES)
def test_folding_and_its_inverse_keep_the_outputs(shape, options):
    layer = made(shape, options)
    layer(batch(*shape))
    x = batch(*shape, seed=1)
    plain = to_plain(layer.eval())
    torch.testing.assert_close(plain(x), layer(x))
    again, report = convert_pretrained(plain, x, **{k: v for k, v in options.items() if k in layer.options.__dict__})
    assert report.count("converted") == 1
    torch.testing.assert_close(again(x), plain(x), rtol=1e-6, atol=1e-6)


def test_whitened_patches_are_white():
    layer = DeconvConvTranspose2d(4, 4, 4, stride=2, padding=1, solver="eigh", eps=0.0, sampling_stride=1).double()
    (seen,) = layer_whiteness(layer, batch(64, 4, 9, 9)).values()
    assert seen.whiteness_before < 0.6 and abs(seen.whiteness_after - 1) < 1e-6


def generator():
    """The shape of a DCGAN, an eighth as wide."""
    net = [nn.ConvTranspose2d(10, 32, 4, bias=False), nn.BatchNorm2d(32), nn.ReLU(True)]
    net += [nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(True)]
    return nn.Sequential(*net, nn.ConvTranspose2d(16, 3, 4, 2, 1, bias=False), nn.Tanh())


def test_a_generator_loses_all_batch_normalisation_trains_and_folds_back():
    net, report = convert(generator())
    assert report.count("converted") == 3 and report.count("dropped") == 2
    z, target = torch.randn(32, 10, 1, 1), torch.rand(32, 3, 16, 16)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        losses.append((net(z) - target).square().mean())
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]
    plain = to_plain(net.eval())
    assert not any(isinstance(m, tuple(LAYERS.values())) for m in plain.modules())
    torch.testing.assert_close(plain(z), net(z), rtol=1e-4, atol=1e-4)


def test_batch_normalisation_behind_groups_is_fused():
    net = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, 2, groups=2), nn.BatchNorm2d(6)).double()
    x = batch(16, 4, 5, 5)
    net(x)
    new, report = convert_pretrained(net.eval(), x)
    assert report.count("dropped") == 1
    torch.testing.assert_close(new(x), net(x))


def test_a_trained_generator_converts_without_a_change():
    net = generator().double()
    z = torch.randn(64, 10, 1, 1, dtype=torch.float64)
    net(z)
    new, report = convert_pretrained(net.eval(), z)
    assert report.count("converted") == 3 and report.count("dropped") == 2
    torch.testing.assert_close(new(z), net(z), rtol=1e-6, atol=1e-6)
