"""The layers against a reference written from the definition, and their behaviour on bad input."""

import importlib.util
import os
import re
import warnings
from pathlib import Path

import pytest
import reference
import torch
import torch.nn.functional as F
from torch import nn

from ndlib import DeconvConv2d, DeconvLinear, check_finite

TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-4}

# in, out, kernel, stride, padding, dilation, groups: channels below, equal to, above and not divisible by 64.
CONVOLUTIONS = [
    (3, 8, 3, 1, 1, 1, 1),
    (64, 8, 3, 1, 1, 1, 1),
    (128, 6, 3, 1, 1, 1, 1),
    (96, 6, 3, 1, 1, 1, 1),
    (128, 6, 3, 2, 1, 1, 1),
    (6, 8, 5, 1, 2, 1, 1),
    (3, 8, 7, 2, 3, 1, 1),
    (16, 8, 1, 1, 0, 1, 1),
    (128, 8, 1, 2, 0, 1, 1),
    (6, 8, 3, 1, 2, 2, 1),
    (12, 8, 3, 1, 1, 1, 4),
    (12, 12, 3, 2, 0, 1, 12),
]


def relative(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm())


def correlated(*shape, seed, dtype):
    """Feature maps with correlated pixels and channels, and a mean of their own for each channel."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1) + 0.3 * x if x.dim() == 4 else x
    mix = torch.randn(shape[1], shape[1], generator=generator, dtype=torch.float64) / shape[1] ** 0.5
    x = torch.einsum("nc...,cd->nd...", x, mix) + torch.randn(1, shape[1], *[1] * (len(shape) - 2), generator=generator)
    return x.to(dtype)


def compare(layer, computed, wanted, x, x_reference, parameters, running, tolerance):
    """Outputs, gradients of one random functional, and running averages, in training."""
    target = torch.randn(computed.shape, generator=torch.Generator().manual_seed(7)).to(computed.dtype)
    (computed * target).sum().backward()
    (wanted * target.double()).sum().backward()
    assert relative(computed.detach(), wanted.detach()) < tolerance
    assert relative(x.grad, x_reference.grad) < tolerance
    for name, parameter in parameters.items():
        assert relative(getattr(layer, name).grad, parameter.grad) < tolerance, name
    assert relative(layer.running_mean.flatten(), torch.cat([r.mean for r in running])) < tolerance
    roots = torch.stack([r.root for r in running])
    assert relative(layer.running_deconv.reshape(roots.shape), roots) < tolerance


@pytest.mark.filterwarnings("ignore:.*rows for a covariance")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
def test_convolution_is_the_published_one(shape, dtype):
    c_in, c_out, kernel, stride, padding, dilation, groups = shape
    torch.manual_seed(1)
    layer = DeconvConv2d(c_in, c_out, kernel, stride, padding, dilation, groups).to(dtype)
    parameters = {name: p.detach().double().requires_grad_() for name, p in layer.named_parameters()}
    running = [reference.Running() for _ in range(groups)]
    settings = {"stride": (stride,) * 2, "padding": (padding,) * 2, "dilation": (dilation,) * 2, "groups": groups}
    settings |= {"block": 64, "sampling": 3, "eps": 1e-5, "steps": 5, "running": running}
    for step in range(3):
        x = correlated(3, c_in, 13, 11, seed=step, dtype=dtype).requires_grad_()
        x_reference = x.detach().double().requires_grad_()
        layer.zero_grad()
        for parameter in parameters.values():
            parameter.grad = None
        wanted = reference.convolution(x_reference, **parameters, **settings, training=True)
        compare(layer, layer(x), wanted, x, x_reference, parameters, running, TOLERANCE[dtype])
    layer.eval()
    wanted = reference.convolution(x_reference, **parameters, **settings, training=False)
    assert relative(layer(x).detach(), wanted.detach()) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("features", "block"), [(24, 512), (96, 32), (40, 16)])
def test_linear_is_the_published_one(features, block, dtype):
    torch.manual_seed(1)
    layer = DeconvLinear(features, 7, block_size=block).to(dtype)
    parameters = {name: p.detach().double().requires_grad_() for name, p in layer.named_parameters()}
    running = reference.Running()
    settings = {"block": block, "eps": 1e-5, "steps": 5, "running": running}
    for step in range(3):
        x = correlated(120, features, seed=step, dtype=dtype).requires_grad_()
        x_reference = x.detach().double().requires_grad_()
        layer.zero_grad()
        for parameter in parameters.values():
            parameter.grad = None
        wanted = reference.linear(x_reference, **parameters, **settings, training=True)
        compare(layer, layer(x), wanted, x, x_reference, parameters, [running], TOLERANCE[dtype])
    layer.eval()
    wanted = reference.linear(x_reference, **parameters, **settings, training=False)
    assert relative(layer(x).detach(), wanted.detach()) < TOLERANCE[dtype]


OFFICIAL = os.environ.get("NDLIB_OFFICIAL")


@pytest.mark.skipif(not OFFICIAL, reason="set NDLIB_OFFICIAL to a checkout of yechengxi/deconvolution to run")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
def test_convolution_is_that_of_the_authors(shape):
    spec = importlib.util.spec_from_file_location("official", Path(OFFICIAL) / "models" / "deconv.py")
    official = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(official)
    torch.manual_seed(1)
    theirs = official.FastDeconv(*shape).double()
    ours = DeconvConv2d(*shape).double()
    ours.load_state_dict(theirs.state_dict())  # a checkpoint of theirs loads as it is
    for step in range(2):
        x = correlated(3, shape[0], 13, 11, seed=step, dtype=torch.float64)
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        wanted, computed = theirs(a), ours(b)
        wanted.square().sum().backward()
        computed.square().sum().backward()
        assert relative(computed.detach(), wanted.detach()) < 1e-10
        assert relative(b.grad, a.grad) < 1e-10
    for name, buffer in theirs.named_buffers():
        assert relative(ours.get_buffer(name), buffer) < 1e-10
    assert relative(ours.eval()(x).detach(), theirs.eval()(x).detach()) < 1e-10


@pytest.mark.parametrize("solver", ["newton_schulz", "eigh"])
@pytest.mark.filterwarnings("ignore:.*rows for a covariance")
def test_gradients_of_the_layer(solver):
    torch.manual_seed(0)
    layer = DeconvConv2d(2, 3, 3, padding=1, eps=1e-2, solver=solver, sampling_stride=2).double()
    x = correlated(2, 2, 5, 5, seed=0, dtype=torch.float64).requires_grad_()

    def function(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(function, (x, layer.weight, layer.bias))


def test_output_is_that_of_whitened_patches():
    """With the exact root, the patches that the weights meet have mean zero and covariance I."""
    layer = DeconvConv2d(3, 27, 3, eps=1e-12, solver="eigh", sampling_stride=1).double()
    layer.weight.data = torch.eye(27, dtype=torch.float64).reshape(27, 3, 3, 3)
    layer.bias.data.zero_()
    x = correlated(4, 3, 20, 20, seed=0, dtype=torch.float64)
    rows = layer(x).permute(0, 2, 3, 1).reshape(-1, 27)
    assert rows.mean(0).abs().max() < 1e-10
    torch.testing.assert_close(rows.T @ rows / len(rows), torch.eye(27, dtype=torch.float64), atol=1e-6, rtol=0)


def test_before_any_training_evaluation_is_the_plain_convolution():
    layer = DeconvConv2d(4, 6, 3, padding=1).eval()
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, layer.bias, padding=1))


def test_evaluation_leaves_the_running_averages_alone():
    layer = DeconvConv2d(3, 4, 3).eval()
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    layer(torch.randn(2, 3, 8, 8))
    assert all(torch.equal(before[name], buffer) for name, buffer in layer.named_buffers())


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes_pad_the_patches_alike(mode):
    torch.manual_seed(0)
    padded = DeconvConv2d(3, 4, 3, padding=1, padding_mode=mode, sampling_stride=1).double()
    bare = DeconvConv2d(3, 4, 3, sampling_stride=1).double()
    bare.load_state_dict(padded.state_dict())
    x = correlated(4, 3, 9, 9, seed=0, dtype=torch.float64)
    torch.testing.assert_close(padded(x), bare(F.pad(x, (1, 1, 1, 1), mode=mode)))


def test_same_padding_string_and_rectangular_kernels():
    torch.manual_seed(0)
    same = DeconvConv2d(3, 4, (3, 5), padding="same", sampling_stride=1).double()
    explicit = DeconvConv2d(3, 4, (3, 5), padding=(1, 2), sampling_stride=1).double()
    explicit.load_state_dict(same.state_dict())
    x = correlated(4, 3, 9, 9, seed=0, dtype=torch.float64)
    torch.testing.assert_close(same(x), explicit(x))
    assert same(x).shape == (4, 4, 9, 9)


def test_without_bias():
    torch.manual_seed(0)
    with_bias = DeconvConv2d(3, 4, 3)
    without = DeconvConv2d(3, 4, 3, bias=False)
    without.load_state_dict(with_bias.state_dict(), strict=False)
    with_bias.bias.data.zero_()
    x = torch.randn(8, 3, 9, 9)
    torch.testing.assert_close(without(x), with_bias(x))


def test_plain_checkpoints_load():
    plain, layer = nn.Conv2d(5, 7, 3), DeconvConv2d(5, 7, 3)
    missing, unexpected = layer.load_state_dict(plain.state_dict(), strict=False)
    assert set(missing) == {"running_mean", "running_deconv"}
    assert not unexpected
    torch.testing.assert_close(layer.weight, plain.weight)


# Bad input. -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DeconvConv2d(6, 8, 3, groups=4), r"groups must divide .* got groups=4, in_channels=6.*2 and its"),
        (lambda: DeconvConv2d(6, 8, 3, block_size=0), "block_size must be at least 1, got 0"),
        (lambda: DeconvLinear(6, 8, block_size=-1), "block_size must be at least 1, got -1"),
        (lambda: DeconvConv2d(6, 8, 3, n_iter=0), "n_iter must be at least 1, got 0"),
        (lambda: DeconvConv2d(6, 8, 3, eps=-1.0), "eps must not be negative, got -1.0"),
        (lambda: DeconvConv2d(6, 8, 3, momentum=2), "momentum must lie between 0 and 1, got 2"),
        (lambda: DeconvConv2d(6, 8, 3, sampling_stride=0), "sampling_stride must be at least 1, got 0"),
        (lambda: DeconvConv2d(6, 8, 3, solver="svd"), "solver must be one of .*newton_schulz.* got 'svd'"),
        (lambda: DeconvConv2d(3, 4, 3)(torch.zeros(3, 8, 8)), r"shape \(N, 3, H, W\), got \(3, 8, 8\)"),
        (lambda: DeconvConv2d(3, 4, 3)(torch.zeros(2, 4, 8, 8)), r"shape \(N, 3, H, W\), got \(2, 4, 8, 8\)"),
        (lambda: DeconvLinear(3, 4)(torch.zeros(3)), r"shape \(N, ..., 3\), got \(3,\)"),
        (lambda: DeconvConv2d(3, 4, 3)(torch.zeros(1, 3, 3, 3)), "at least 2 rows"),
        (lambda: DeconvConv2d(3, 4, 5)(torch.zeros(4, 3, 4, 4)), "does not fit into 4"),
        (lambda: DeconvConv2d(3, 4, 3, eps=0)(torch.ones(9, 3, 9, 9)), "zero .*constant input.* eps is 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore:.*rows for a covariance")
def test_what_is_wrong_is_said(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.filterwarnings("ignore:.*rows for a covariance")
def test_a_constant_input_is_legal_with_eps():
    assert DeconvConv2d(3, 4, 3)(torch.ones(9, 3, 9, 9)).isfinite().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_stop_training_at_once(bad):
    layer = DeconvConv2d(3, 4, 3)
    before = layer.running_deconv.clone()
    x = torch.randn(8, 3, 9, 9)
    x[3, 1, 4, 4] = bad  # a position that the sampling leaves out
    with pytest.raises(FloatingPointError, match=r"DeconvConv2d\(3, 4.*NaN or infinite"):
        layer(x)
    assert torch.equal(layer.running_deconv, before)


def test_the_flag_of_other_devices_names_the_layer_once():
    model = nn.Sequential(nn.Conv2d(3, 3, 3), DeconvConv2d(3, 4, 3), DeconvConv2d(4, 4, 3))
    check_finite(model)
    model[2].nonfinite.fill_(True)
    with pytest.raises(FloatingPointError, match=r"^2: the input holds NaN"):
        check_finite(model)
    check_finite(model)


def test_a_block_that_does_not_divide():
    with pytest.warns(UserWarning, match=r"block_size=64 does not divide 65 features.*blocks of 1.*\[13, 65\]"):
        layer = DeconvConv2d(65, 4, 3)
    assert layer.running_deconv.shape == (9, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DeconvConv2d(96, 4, 3)  # 32 is common
        DeconvConv2d(12, 4, 3, block_size=4)  # as asked for
        DeconvConv2d(3, 4, 3)


def test_few_rows_are_warned_about_once():
    layer = DeconvConv2d(3, 4, 3)
    with pytest.warns(UserWarning, match=r"18 rows for a covariance of 27 columns"):
        layer(torch.randn(2, 3, 9, 9))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(torch.randn(2, 3, 9, 9))


def test_repr_tells_the_settings():
    assert re.search(r"3, 4, kernel_size.*columns=27, blocks=1, eps=1e-05, n_iter=5", repr(DeconvConv2d(3, 4, 3)))
