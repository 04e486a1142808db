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
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ndlib import ChannelDeconv, DeconvConv1d, DeconvConv2d, DeconvConv3d, DeconvLinear, check_finite
from ndlib._core import counting

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
    return float((a.detach().double() - b.detach().double()).norm() / b.detach().double().norm())


def correlated(*shape, seed, dtype=torch.float64):
    """Feature maps with correlated pixels and channels, and a mean of their own for each channel."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1) + 0.3 * x if x.dim() == 4 else x
    mix = torch.randn(shape[1], shape[1], generator=generator, dtype=torch.float64) / shape[1] ** 0.5
    x = torch.einsum("nc...,cd->nd...", x, mix) + torch.randn(1, shape[1], *[1] * (len(shape) - 2), generator=generator)
    return x.to(dtype)


def compare(layer, wanted_from, inputs, whitenings, tolerance):
    """Three training steps and an evaluation: outputs, gradients, running averages, against the reference.

    ``wanted_from(x, parameters, training)`` computes the output in double precision.
    """
    parameters = {name: p.detach().double().requires_grad_() for name, p in layer.named_parameters()}
    parameters.setdefault("bias", None)
    for x in inputs:
        x = x.clone().requires_grad_()
        x_reference = x.detach().double().requires_grad_()
        layer.zero_grad()
        for parameter in parameters.values():
            if parameter is not None:
                parameter.grad = None
        computed, wanted = layer(x), wanted_from(x_reference, parameters, True)
        target = torch.randn(computed.shape, generator=torch.Generator().manual_seed(7)).to(computed.dtype)
        (computed * target).sum().backward()
        (wanted * target.double()).sum().backward()
        assert relative(computed, wanted) < tolerance
        assert relative(x.grad, x_reference.grad) < tolerance
        for name, parameter in layer.named_parameters():
            assert relative(parameter.grad, parameters[name].grad) < tolerance, name
    distinct = 1 if layer.options.centering != "per-block" else len(whitenings[0].means)
    means = torch.cat([mean for w in whitenings for mean in w.means[:distinct]])
    assert relative(layer.running_mean, means) < tolerance
    if layer.options.running == "root":
        roots = torch.stack([w.root for w in whitenings])
        assert relative(layer.running_deconv.reshape(roots.shape), roots) < tolerance
    else:
        covs = torch.stack([w.cov for w in whitenings])
        assert relative(layer.running_cov.reshape(covs.shape), covs) < tolerance
    layer.eval()
    assert relative(layer(x), wanted_from(x_reference, parameters, False)) < tolerance


@pytest.mark.filterwarnings("ignore:.*rows for a covariance")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
def test_convolution_is_the_published_one(shape, dtype):
    c_in, c_out, kernel, stride, padding, dilation, groups = shape
    torch.manual_seed(1)
    layer = DeconvConv2d(c_in, c_out, kernel, stride, padding, dilation, groups).to(dtype)
    whitenings = [reference.Whitening(eps=1e-5) for _ in range(groups)]
    settings = {"stride": (stride,) * 2, "padding": (padding,) * 2, "dilation": (dilation,) * 2, "groups": groups}

    def wanted(x, parameters, training):
        options = {**settings, "block": 64, "sampling": 3, "whitenings": whitenings, "training": training}
        return reference.convolution(x, **parameters, **options)

    inputs = [correlated(3, c_in, 13, 11, seed=step, dtype=dtype) for step in range(3)]
    compare(layer, wanted, inputs, whitenings, TOLERANCE[dtype])


PAIR = st.tuples(st.integers(1, 2), st.integers(1, 2))
SHAPES = {"kernel": st.tuples(st.integers(1, 3), st.integers(1, 3)), "stride": PAIR, "dilation": PAIR}
SHAPES |= {"padding": st.tuples(st.integers(0, 2), st.integers(0, 2)), "channels": st.sampled_from([2, 3, 4, 6])}
SHAPES |= {"groups": st.sampled_from([1, 1, 2]), "block": st.integers(1, 6), "sampling": st.integers(1, 3)}
OPTIONS = {"grouping": ["interleaved", "contiguous"], "centering": ["shared", "per-block", "uncentred"]}
OPTIONS |= {"running": ["root", "covariance"], "solver": ["newton_schulz", "eigh"], "eps": [1e-2, 1e-1]}


@pytest.mark.filterwarnings("ignore:.*rows for a covariance", "ignore:block_size=")
@settings(max_examples=80, deadline=None)
@given(
    shape=st.fixed_dictionaries(SHAPES),
    options=st.fixed_dictionaries({name: st.sampled_from(values) for name, values in OPTIONS.items()}),
    bias=st.booleans(),
)
def test_convolution_options_and_shapes_match_the_reference(shape, options, bias):
    groups = shape["groups"]
    channels = shape["channels"] // groups * groups
    geometry = {name: shape[name] for name in ("stride", "padding", "dilation", "groups")}
    torch.manual_seed(1)
    layer = DeconvConv2d(
        channels,
        2 * groups,
        shape["kernel"],
        bias=bias,
        block_size=shape["block"],
        sampling_stride=shape["sampling"],
        **geometry,
        **options,
    ).double()
    exact = options["solver"] == "eigh"
    choice = {name: options[name] for name in ("eps", "centering", "running")}
    whitenings = [reference.Whitening(exact=exact, **choice) for _ in range(groups)]
    settings = {"block": shape["block"], "sampling": shape["sampling"], "grouping": options["grouping"], **geometry}

    def wanted(x, parameters, training):
        return reference.convolution(x, **parameters, **settings, whitenings=whitenings, training=training)

    inputs = [correlated(3, channels, 7, 9, seed=step) for step in range(2)]
    compare(layer, wanted, inputs, whitenings, 1e-7 if exact else 1e-9)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("features", "block"), [(24, 512), (96, 32), (40, 16)])
@pytest.mark.parametrize("outputs", [7, 150], ids=["weights multiplied", "input multiplied"])
@pytest.mark.parametrize(
    "options", [{}, {"grouping": "interleaved", "centering": "per-block", "running": "covariance"}]
)
def test_linear_is_the_published_one(features, block, outputs, dtype, options):
    torch.manual_seed(1)
    layer = DeconvLinear(features, outputs, block_size=block, **options).to(dtype)
    choice = {key: options[key] for key in ("centering", "running") if key in options}
    whitening = reference.Whitening(eps=1e-5, **choice)
    grouping = options.get("grouping", "contiguous")

    def wanted(x, parameters, training):
        given = {"block": block, "whitening": whitening, "training": training, "grouping": grouping}
        return reference.linear(x, **parameters, **given)

    inputs = [correlated(120, features, seed=step, dtype=dtype) for step in range(3)]
    compare(layer, wanted, inputs, [whitening], TOLERANCE[dtype])


@pytest.mark.parametrize(("rows", "outputs"), [(200, 10), (10, 200)])
def test_a_linear_layer_multiplies_its_root_by_the_smaller_matrix(rows, outputs):
    layer = DeconvLinear(64, outputs, block_size=32).double().eval()
    with FlopCounterMode(display=False) as counter:  # which does not know the product that single precision takes
        layer(torch.zeros(rows, 64, dtype=torch.float64))
    plain, with_root = 2 * rows * 64 * outputs, 2 * 10 * 64 * 32
    shift = 2 * 64 * outputs if rows > outputs else 0  # the mean goes into the bias
    assert counter.get_total_flops() == plain + with_root + shift


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("sides", [(), (7,), (6, 7), (2, 9), (3, 4, 5)], ids=str)
@pytest.mark.parametrize(("features", "block"), [(12, 4), (14, 4), (6, 6), (7, 5)])
def test_channel_deconvolution_is_the_published_one(features, block, sides, dtype):
    layer = ChannelDeconv(features, block).to(dtype)
    whitening = reference.Whitening(eps=1e-2, centering="uncentred", first=True)
    channels = reference.Channels(block, whitening)
    inputs = [correlated(40, features, *sides, seed=step, dtype=dtype) for step in range(3)]
    compare(layer, lambda x, _, training: channels(x, training), inputs, [whitening], TOLERANCE[dtype])
    if layer.rest:
        assert relative(layer.rest_mean, channels.rest[0]) < TOLERANCE[dtype]
        assert relative(layer.rest_var, channels.rest[1]) < TOLERANCE[dtype]


def test_channel_deconvolution_with_the_centred_covariance():
    x = correlated(50, 6, 5, 5, seed=0) + 10
    layer = ChannelDeconv(6, 6, centering="shared", sampling_stride=1, eps=1e-9, solver="eigh").double()
    rows = layer(x).movedim(1, -1).reshape(-1, 6)
    torch.testing.assert_close(rows.T @ rows / len(rows), torch.eye(6).double(), atol=1e-4, rtol=0)
    uncentred = ChannelDeconv(6, 6, sampling_stride=1, eps=1e-9, solver="eigh").double()
    rows = uncentred(x).movedim(1, -1).reshape(-1, 6)
    assert (rows.T @ rows / len(rows) - torch.eye(6)).abs().max() > 0.1


@pytest.mark.parametrize("centering", ["shared", "per-block", "uncentred"])
@pytest.mark.parametrize("grouping", ["interleaved", "contiguous"])
def test_channel_deconvolution_is_affine_in_evaluation(grouping, centering):
    layer = ChannelDeconv(14, 4, grouping=grouping, centering=centering).double()
    layer(correlated(50, 14, 5, 5, seed=0))
    matrix, offset = layer.eval().affine()
    x = correlated(3, 14, 2, 2, seed=1)
    torch.testing.assert_close(torch.einsum("ij,njhw->nihw", matrix, x) + offset[:, None, None], layer(x))
    fresh = ChannelDeconv(12, 4).eval()
    torch.testing.assert_close(fresh(x[:, :12].float()), x[:, :12].float())  # before any training step


@pytest.mark.filterwarnings("ignore:.*rows for a covariance")
def test_conv1d_and_conv3d_equal_conv2d_with_a_side_of_one():
    torch.manual_seed(0)
    line, flat = DeconvConv1d(4, 5, 3, padding=1), DeconvConv2d(4, 5, (1, 3), padding=(0, 1))
    volume, plane = DeconvConv3d(4, 5, (1, 3, 2)), DeconvConv2d(4, 5, (3, 2))
    flat.load_state_dict({k: v.unsqueeze(2) if k == "weight" else v for k, v in line.state_dict().items()})
    plane.load_state_dict({k: v.squeeze(2) if k == "weight" else v for k, v in volume.state_dict().items()})
    x, z = torch.randn(6, 4, 11), torch.randn(6, 4, 1, 9, 8)
    torch.testing.assert_close(line(x), flat(x.unsqueeze(2)).squeeze(2))
    torch.testing.assert_close(volume(z), plane(z.squeeze(2)).unsqueeze(2))
    torch.testing.assert_close(line.eval()(x), flat.eval()(x.unsqueeze(2)).squeeze(2))


def test_conv3d_whitens_its_patches():
    layer = DeconvConv3d(2, 16, 2, eps=1e-12, solver="eigh", sampling_stride=1).double()
    layer.weight.data = torch.eye(16, dtype=torch.float64).reshape(16, 2, 2, 2, 2)
    layer.bias.data.zero_()
    rows = layer(correlated(4, 2, 5, 6, 7, seed=0)).movedim(1, -1).reshape(-1, 16)
    torch.testing.assert_close(rows.T @ rows / len(rows), torch.eye(16, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_channels_last_and_strided_batches_give_the_same_output(batch):
    torch.manual_seed(0)
    layers = [DeconvConv2d(4, 6, 3, padding=1, sampling_stride=1).double() for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    x = correlated(batch, 4, 9, 9, seed=0)
    last = layers[1](x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(layers[0](x), last)


# Options, one at a time. ------------------------------------------------------------------------------------


def steps_of(layer, n, seed=0):
    return [layer(correlated(4, 3, 9, 9, seed=seed + i, dtype=torch.float32)).detach() for i in range(n)]


def test_freeze_after_keeps_the_averages_and_whitens_with_them():
    torch.manual_seed(0)
    layer = DeconvConv2d(3, 4, 3, freeze_after=3)
    steps_of(layer, 3)
    remembered = layer.running_deconv.clone()
    x = correlated(4, 3, 9, 9, seed=9, dtype=torch.float32)
    in_training = layer(x)
    torch.testing.assert_close(in_training, layer.eval()(x))
    assert torch.equal(layer.running_deconv, remembered)
    assert int(layer.num_batches_tracked) == 4


def test_update_every_measures_every_step_at_first_and_then_every_kth_in_turns(monkeypatch):
    layer = DeconvConv2d(3, 4, 3, update_every=5)
    measured = []
    spy = type(layer).measure

    def counted(self, x):
        measured.append(int(self.num_batches_tracked) - 1)
        return spy(self, x)

    monkeypatch.setattr(type(layer), "measure", counted)
    monkeypatch.setattr("ndlib._core.counting.WARM_UP", 7)
    steps_of(layer, 21)
    assert measured == [*range(7), 7, 13, 19]


def test_update_every_averages_over_as_many_steps_as_before(monkeypatch):
    monkeypatch.setattr("ndlib._core.counting.WARM_UP", 1)
    layer = DeconvConv2d(3, 4, 3, update_every=5, momentum=0.1)
    steps_of(layer, 7)
    before = layer.running_deconv.clone()
    x = correlated(4, 3, 9, 9, seed=77, dtype=torch.float32)
    layer(x)  # the eighth step, number 7, is measured
    _, cov = layer.measure(x)
    keep = 0.9**5
    torch.testing.assert_close(layer.running_deconv, keep * before + (1 - keep) * layer.root(cov)[0])


def test_update_every_counts_a_warm_up_step_once(monkeypatch):
    monkeypatch.setattr("ndlib._core.counting.WARM_UP", 1)
    layer = DeconvConv2d(3, 4, 3, update_every=5, momentum=0.1)
    x = correlated(4, 3, 9, 9, seed=77, dtype=torch.float32)
    _, cov = layer.measure(x)
    layer(x)
    torch.testing.assert_close(layer.running_deconv, 0.9 * torch.eye(27) + 0.1 * layer.root(cov)[0])


def test_freeze_after_overrides_update_every(monkeypatch):
    monkeypatch.setattr("ndlib._core.counting.WARM_UP", 2)
    layer = DeconvConv2d(3, 4, 3, update_every=2, freeze_after=6)
    steps_of(layer, 6)
    before = layer.running_deconv.clone()
    steps_of(layer, 4, seed=50)
    assert torch.equal(layer.running_deconv, before)


def test_update_every_warm_up_is_a_hundred_steps():
    assert counting.WARM_UP == 100


def test_update_every_whitens_with_the_averages_between_updates(monkeypatch):
    monkeypatch.setattr("ndlib._core.counting.WARM_UP", 1)
    layer = DeconvConv2d(3, 4, 3, update_every=5)
    steps_of(layer, 2)
    x = correlated(4, 3, 9, 9, seed=77, dtype=torch.float32)
    in_training = layer(x)
    torch.testing.assert_close(in_training, layer.eval()(x))


def test_detach_root_stops_the_gradient_of_the_root_not_of_the_mean():
    torch.manual_seed(0)
    live, constant = DeconvConv2d(3, 4, 3).double(), DeconvConv2d(3, 4, 3, detach_root=True).double()
    constant.load_state_dict(live.state_dict())
    x = correlated(4, 3, 9, 9, seed=0)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    torch.testing.assert_close(live(a), constant(b))
    live(a).square().sum().backward()
    constant(b).square().sum().backward()
    assert relative(b.grad, a.grad) > 1e-3
    # By hand: a convolution with D fixed, its bias depending on the mean of the sampled patches.
    c = x.clone().requires_grad_()
    mean, cov = constant.measure(c)
    rows = constant.weight.flatten(1) @ constant.root(cov.detach())[0]
    y = F.conv2d(c, rows.view_as(constant.weight), constant.bias - rows @ mean[0, 0])
    y.square().sum().backward()
    torch.testing.assert_close(b.grad, c.grad)


def test_the_polar_solver_whitens_weak_directions_in_fewer_steps():
    x = correlated(40, 3, 12, 12, seed=0) * torch.tensor([1.0, 1.0, 1e-2])[:, None, None]
    spread = {}
    for solver in ("newton_schulz", "polar"):
        layer = DeconvConv2d(3, 27, 3, solver=solver, n_iter=10, sampling_stride=1, eps=1e-9).double()
        layer.weight.data = torch.eye(27, dtype=torch.float64).reshape(27, 3, 3, 3)
        layer.bias.data.zero_()
        rows = layer(x).movedim(1, -1).reshape(-1, 27)
        spread[solver] = torch.linalg.eigvalsh(rows.T @ rows / len(rows))
    assert spread["polar"].min() > 0.9 > 0.5 > spread["newton_schulz"].min()
    assert spread["polar"].max() < 1.1


@pytest.mark.parametrize("options", [{}, {"running": "covariance", "update_every": 3, "centering": "per-block"}])
def test_saving_loading_and_resuming_continue_bit_for_bit(tmp_path, options, monkeypatch):
    monkeypatch.setattr("ndlib._core.counting.WARM_UP", 4)

    def network():
        torch.manual_seed(0)
        layers = [DeconvConv2d(3, 8, 3, **options), nn.ReLU(), ChannelDeconv(8, 3, **options)]
        layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), DeconvLinear(32, 4, block_size=16, **options)]
        net = nn.Sequential(*layers)
        return net, torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)

    def train(net, optimizer, steps):
        for step in steps:
            optimizer.zero_grad()
            net(correlated(16, 3, 9, 9, seed=step, dtype=torch.float32)).square().mean().backward()
            optimizer.step()

    whole, optimizer = network()
    train(whole, optimizer, range(12))
    half, optimizer = network()
    train(half, optimizer, range(7))
    torch.save({"net": half.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "checkpoint.pt")

    resumed, optimizer = network()
    stored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)  # no code is run
    resumed.load_state_dict(stored["net"])
    optimizer.load_state_dict(stored["optimizer"])
    train(resumed, optimizer, range(7, 12))
    for name, value in whole.state_dict().items():
        assert value.isfinite().all()
        assert torch.equal(value, resumed.state_dict()[name]), name


# Precision. -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "shape"),
    [(DeconvConv2d, (3, 8, 3)), (DeconvLinear, (12, 4)), (DeconvLinear, (12, 60)), (ChannelDeconv, (3, 3))],
)
def test_autocast_halves_the_convolution_only(kind, shape):
    torch.manual_seed(0)
    layer, copied = kind(*shape), kind(*shape)
    copied.load_state_dict(layer.state_dict())
    x = correlated(40, 12, seed=0, dtype=torch.float32)
    x = x if isinstance(layer, DeconvLinear) else correlated(8, 3, 12, 12, seed=0, dtype=torch.float32)
    full = copied(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = layer(x)
    assert half.dtype == (torch.float32 if isinstance(layer, ChannelDeconv) else torch.bfloat16)
    assert layer.running_deconv.dtype == torch.float32
    torch.testing.assert_close(layer.running_deconv, copied.running_deconv)  # as if there were no autocast
    torch.testing.assert_close(half.float(), full, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_layers_measure_in_single(dtype):
    torch.manual_seed(0)
    layer = DeconvConv2d(3, 8, 3).to(dtype)
    x = correlated(8, 3, 12, 12, seed=0, dtype=dtype)
    y = layer(x)
    y.float().square().mean().backward()
    assert y.dtype == layer.running_deconv.dtype == layer.weight.grad.dtype == dtype
    exact = DeconvConv2d(3, 8, 3)
    exact.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in layer.state_dict().items()})
    exact.running_mean.zero_()
    exact.running_deconv.copy_(torch.eye(27))
    torch.testing.assert_close(y.float(), exact(x.float()), rtol=0.05, atol=0.05)
    for half, single in zip(layer.measure(x), exact.measure(x.float()), strict=True):
        torch.testing.assert_close(half, single)


@pytest.fixture(params=["for all", "for a backend"])  # PyTorch's two ways, which it lets nobody mix
def precisions(request, monkeypatch):
    """With TF32 allowed: a list, and a function from whose call on it gets the setting that each product meets."""
    seen = []

    def spied(original):
        def spy(*args, **kwargs):
            seen.append(torch.backends.cuda.matmul.fp32_precision)
            return original(*args, **kwargs)

        return spy

    def watch():
        for name in ("__matmul__", "baddbmm_"):
            monkeypatch.setattr(torch.Tensor, name, spied(getattr(torch.Tensor, name)))

    backend = torch.backends.cuda.matmul
    if request.param == "for all":
        torch.set_float32_matmul_precision("high")
    else:
        backend.fp32_precision = "tf32"
    yield seen, watch
    assert backend.fp32_precision == "tf32"
    if request.param == "for all":
        assert torch.get_float32_matmul_precision() == "high"
        torch.set_float32_matmul_precision("highest")
    backend.fp32_precision = "none"


def test_tf32_is_off_for_moments_and_root(precisions):
    from ndlib.functional import inverse_sqrt, moments

    seen, watch = precisions
    watch()
    x = torch.randn(50, 4, requires_grad=True, dtype=torch.float64)  # single precision has a way of its own on CPUs
    for solver in ("newton_schulz", "eigh"):
        inverse_sqrt(moments(x)[1], solver=solver).sum().backward()
    assert len(seen) > 40
    assert set(seen) == {"ieee"}


@pytest.mark.parametrize("running", ["root", "covariance"])
def test_state_dict_of_an_untrained_layer_resets_a_trained_one(running):
    untrained, layer = DeconvConv2d(3, 4, 3, running=running), DeconvConv2d(3, 4, 3, running=running)
    x = correlated(8, 3, 12, 12, seed=0, dtype=torch.float32)
    layer(x)
    layer.eval().load_state_dict(untrained.state_dict())
    torch.testing.assert_close(layer(x), F.conv2d(x, untrained.weight, untrained.bias))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_torch_func_gives_gradients_of_single_images_in_evaluation():
    """``torch.func`` goes through the folding; the moments of a batch belong to no single image."""
    layer = DeconvConv2d(3, 4, 3)
    x = correlated(8, 3, 12, 12, seed=0, dtype=torch.float32)
    layer(x)
    layer.eval()
    weights = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(weights, image):
        return torch.func.functional_call(layer, weights, (image[None],)).square().sum()

    together = torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, x)
    for n, image in enumerate(x):
        layer.zero_grad()
        layer(image[None]).square().sum().backward()
        for name, p in layer.named_parameters():
            torch.testing.assert_close(together[name][n], p.grad, rtol=1e-4, atol=1e-3)


def every_kind(**options):
    """A network with every kind of layer, for inputs of shape (60, 3, 9, 9)."""
    torch.manual_seed(0)
    layers = [DeconvConv2d(3, 8, 3, **options), nn.ReLU(), ChannelDeconv(8, 3, **options), nn.Flatten()]
    return nn.Sequential(*layers, DeconvLinear(8 * 49, 4, block_size=49, **options))


@pytest.mark.parametrize("options", [{}, {"running": "covariance"}])
def test_evaluation_compiles_without_a_graph_break(options):
    net = every_kind(**options)
    x = torch.randn(60, 3, 9, 9)
    net(x)
    compiled = torch.compile(net.eval(), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), net(x))


@pytest.fixture
def forbid_compilation():
    """Called after some steps: from then on it is an error to compile anything."""
    torch.compiler.reset()
    yield lambda: torch.compiler.set_stance("fail_on_recompile")
    torch.compiler.set_stance("default")
    torch.compiler.reset()


def one_convolution(**options):
    torch.manual_seed(0)
    return nn.Sequential(DeconvConv2d(3, 8, 3, **options))


# What is trained, and how many steps it takes uncompiled and in different compiled forms.
COMPILED = {
    "published": (every_kind, {}, 0, 1),
    "exact": (one_convolution, {"solver": "eigh", "centering": "per-block"}, 0, 1),
    "polar": (one_convolution, {"solver": "polar", "running": "covariance", "detach_root": True}, 0, 1),
    "every third": (one_convolution, {"update_every": 3, "running": "covariance"}, 2, 4),
    "frozen": (one_convolution, {"freeze_after": 2}, 2, 1),
}


@pytest.mark.parametrize(("make", "options", "warm_up", "forms"), COMPILED.values(), ids=COMPILED)
def test_training_compiles_without_a_graph_break(make, options, warm_up, forms, forbid_compilation, monkeypatch):
    monkeypatch.setattr("ndlib._core.counting.WARM_UP", 2)
    monkeypatch.setattr("ndlib._core.counting._circle", lambda every: every)  # as compiled, in both networks
    plain, net = make(**options).double(), make(**options).double()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager" if make is every_kind else "eager")
    for step in range(warm_up + 2 * forms):
        x = correlated(60, 3, 9, 9, seed=step)
        if step == warm_up + forms:
            forbid_compilation()
        for model, run in ((plain, plain), (net, net if step < warm_up else compiled)):
            model.zero_grad()
            run(x).square().mean().backward()
        for a, b in zip(net.parameters(), plain.parameters(), strict=True):
            assert relative(a.grad, b.grad) < 1e-8
    for a, b in zip(net.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(a, b)
    x = correlated(60, 3, 9, 9, seed=99)
    torch.compiler.set_stance("default")
    torch.testing.assert_close(net.eval()(x), plain.eval()(x))


def test_a_compiled_step_leaves_bad_values_to_check_finite(forbid_compilation):
    layer = DeconvConv2d(3, 4, 3)
    torch.compile(layer, fullgraph=True, backend="eager")(torch.full((4, 3, 8, 8), float("nan")))
    with pytest.raises(FloatingPointError, match="DeconvConv2d"):
        check_finite(layer)


def test_tf32_is_off_for_moments_and_root_of_a_compiled_step(precisions, forbid_compilation):
    seen, watch = precisions
    compiled = torch.compile(DeconvConv2d(3, 8, 3).double(), fullgraph=True, backend="aot_eager")
    x = correlated(8, 3, 12, 12, seed=0).requires_grad_()
    compiled(x).sum().backward()
    watch()  # only now, since to compile the spy fails; what the graph calls by itself does not come by it
    compiled(x).sum().backward()
    assert len(seen) > 20
    assert set(seen) == {"ieee"}


OFFICIAL = os.environ.get("NDLIB_OFFICIAL")


@pytest.mark.skipif(not OFFICIAL, reason="set NDLIB_OFFICIAL to a checkout of yechengxi/deconvolution to run")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
def test_convolution_equals_the_authors_own_code(shape):
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


@pytest.mark.parametrize("solver", ["newton_schulz", "polar", "eigh"])
@pytest.mark.filterwarnings("ignore:.*rows for a covariance")
def test_convolution_gradients_pass_gradcheck(solver):
    torch.manual_seed(0)
    layer = DeconvConv2d(2, 3, 3, padding=1, eps=1e-2, solver=solver, sampling_stride=2).double()
    x = correlated(2, 2, 5, 5, seed=0, dtype=torch.float64).requires_grad_()

    def function(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(function, (x, layer.weight, layer.bias))


@pytest.mark.parametrize("centering", ["shared", "per-block", "uncentred"])
def test_channel_deconvolution_gradients_pass_gradcheck(centering):
    layer = ChannelDeconv(5, 2, centering=centering, sampling_stride=1).double()
    x = correlated(2, 5, 3, 3, seed=0, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,))


def test_output_is_whitened_patches_times_weights():
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


def test_convolution_without_bias():
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
        (lambda: DeconvConv2d(6, 8, 3, block_size=0), "block_size must be a whole number of at least 1, got 0"),
        (lambda: DeconvLinear(6, 8, block_size=-1), "block_size must be a whole number of at least 1, got -1"),
        (lambda: DeconvConv2d(6, 8, 3, n_iter=0), "n_iter must be a whole number of at least 1, got 0"),
        (lambda: DeconvConv2d(6, 8, 3, eps=-1.0), "eps must be a finite number of at least 0, got -1.0"),
        (lambda: DeconvConv2d(6, 8, 3, momentum=2), "momentum must be a number above 0 and at most 1, got 2"),
        (lambda: DeconvConv2d(6, 8, 3, momentum=0), "momentum must be a number above 0 and at most 1, got 0"),
        (lambda: DeconvConv2d(6, 8, 3, update_every=0), "update_every must be a whole number of at least 1, got 0"),
        (lambda: DeconvConv2d(6, 8, 3, freeze_after=0), "freeze_after must be None or a whole number .* got 0"),
        (lambda: DeconvConv2d(6, 8, 3, running="mean"), "running must be one of .* got 'mean'"),
        (lambda: DeconvConv2d(6, 8, 3, grouping="x"), "grouping must be one of .* got 'x'"),
        (lambda: DeconvConv2d(6, 8, 3, centering="x"), "centering must be one of .* got 'x'"),
        (
            lambda: DeconvConv2d(6, 8, 3, sampling_stride=0),
            "sampling_stride must be a whole number of at least 1, got 0",
        ),
        (lambda: ChannelDeconv(4, 5), "block_size must lie between 1 and num_features, 4, got 5"),
        (lambda: ChannelDeconv(4, 0), "block_size must be a whole number of at least 1, got 0"),
        (lambda: ChannelDeconv(4, 2, sampling_stride=0), "sampling_stride must be a whole number of at least 1, got 0"),
        (lambda: ChannelDeconv(4, 2)(torch.zeros(9, 3)), r"shape \(N, 4, ...\), got \(9, 3\)"),
        (lambda: ChannelDeconv(4, 2)(torch.zeros(9, 5)), r"shape \(N, 4, ...\), got \(9, 5\)"),
        (lambda: DeconvConv2d(6, 8, 3, solver="svd"), "solver must be one of .*newton_schulz.* got 'svd'"),
        (lambda: DeconvConv2d(3, 4, 3)(torch.zeros(2, 8, 8)), r"\(N, 3, H, W\) or \(3, H, W\), got \(2, 8, 8\)"),
        (lambda: DeconvConv2d(3, 4, 3)(torch.zeros(2, 4, 8, 8)), r"\(3, H, W\), got \(2, 4, 8, 8\)"),
        (lambda: DeconvLinear(3, 4)(torch.zeros(2)), r"shape \(..., 3\), got \(2,\)"),
        (
            lambda: DeconvLinear(3, 4)(torch.zeros(3)),
            r"DeconvLinear.*at least 2 rows, and an input of shape \(3,\) has 1",
        ),
        (lambda: DeconvConv2d(3, 4, 3)(torch.zeros(1, 3, 3, 3)), "at least 2 rows"),
        (lambda: DeconvConv2d(3, 4, 5)(torch.zeros(4, 3, 4, 4)), "does not fit into 4"),
        (lambda: DeconvConv2d(3, 4, 3, eps=0)(torch.ones(9, 3, 9, 9)), "zero .*constant input.* eps is 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore:.*rows for a covariance")
def test_layers_refuse_bad_shapes_and_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_channel_deconvolution_affine_refuses_training_mode():
    with pytest.raises(RuntimeError, match="training mode"):
        ChannelDeconv(4, 2).affine()


@pytest.mark.filterwarnings("ignore:.*rows for a covariance")
def test_constant_input_is_whitened_with_eps():
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


@pytest.mark.parametrize("channels", [3, 64])  # covariances of 27 and of 576 columns take different paths
def test_a_covariance_that_overflows_stops_training_at_once(channels):
    layer = DeconvConv2d(channels, 4, 3)
    with pytest.raises(FloatingPointError, match="DeconvConv2d"):
        layer(1e25 * torch.randn(12, channels, 24, 24))


def test_check_finite_names_a_flagged_layer_once():
    model = nn.Sequential(nn.Conv2d(3, 3, 3), DeconvConv2d(3, 4, 3), DeconvConv2d(4, 4, 3))
    check_finite(model)
    model[2].nonfinite.fill_(True)
    with pytest.raises(FloatingPointError, match=r"^2: the input holds NaN"):
        check_finite(model)
    check_finite(model)


def test_block_size_falls_back_to_the_common_divisor_with_a_warning():
    with pytest.warns(UserWarning, match=r"block_size=64 does not divide 65 features.*blocks of 1.*\[5, 13, 65\]"):
        layer = DeconvConv2d(65, 4, 3)
    assert layer.running_deconv.shape == (9, 9)
    with pytest.warns(UserWarning, match="blocks of 4"):
        DeconvConv2d(68, 4, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DeconvConv2d(96, 4, 3)  # 32 is common
        DeconvConv2d(12, 4, 3, block_size=4)  # as asked for
        DeconvConv2d(3, 4, 3)


def test_too_few_rows_warn_once_per_layer():
    layer = DeconvConv2d(3, 4, 3)
    with pytest.warns(UserWarning, match=r"18 rows for a covariance of 27 columns"):
        layer(torch.randn(2, 3, 9, 9))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(torch.randn(2, 3, 9, 9))


def test_too_few_rows_counts_the_rows_of_all_blocks():
    layer = DeconvConv2d(16, 4, 3, block_size=4)  # 18 rows for each of 4 blocks: 72 for a covariance of 36 columns
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(torch.randn(2, 16, 9, 9))


def test_repr_shows_the_changed_options():
    layer = DeconvConv2d(3, 4, 3, n_iter=9, running="covariance")
    assert re.search(r"3, 4, kernel_size.*columns=27, blocks=1, n_iter=9, running='covariance'\)$", repr(layer))
