"""A deconvolution layer does what the plain layer in its place does: shapes, memory, samples of torch's own tests."""

import copy
import operator
import threading

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.testing._internal.common_modules import module_db
from torch.utils.flop_counter import FlopCounterMode

from ndlib import (
    DeconvConv1d,
    DeconvConv2d,
    DeconvConv3d,
    DeconvConvTranspose1d,
    DeconvConvTranspose2d,
    DeconvConvTranspose3d,
    DeconvLinear,
    convert,
    convert_pretrained,
    to_plain,
)

PAIRS = {nn.Conv1d: DeconvConv1d, nn.Conv2d: DeconvConv2d, nn.Conv3d: DeconvConv3d, nn.Linear: DeconvLinear}
PAIRS |= {nn.ConvTranspose1d: DeconvConvTranspose1d, nn.ConvTranspose2d: DeconvConvTranspose2d}
PAIRS |= {nn.ConvTranspose3d: DeconvConvTranspose3d}
pytestmark = pytest.mark.filterwarnings("ignore:.*rows for a covariance")


@pytest.mark.parametrize("plain", PAIRS, ids=lambda kind: kind.__name__)
def test_all_samples_of_the_plain_layer_are_taken_with_equal_values_and_strides(plain):
    (info,) = (info for info in module_db if info.module_cls is plain)
    samples = info.module_inputs_func(info, device="cpu", dtype=torch.float64, requires_grad=False, training=False)
    taken = 0
    for sample in samples:
        made, given = sample.constructor_input, sample.forward_input
        arguments = dict(made.kwargs)
        theirs = plain(*made.args, **arguments).double().eval()
        ours = PAIRS[plain](*made.args, **arguments).double().eval()
        missing = ours.load_state_dict(theirs.state_dict(), strict=False).missing_keys
        assert set(missing) <= {"running_mean", "running_deconv"}
        wanted, found = theirs(*given.args, **given.kwargs), ours(*given.args, **given.kwargs)
        torch.testing.assert_close(found, wanted)
        assert found.stride() == wanted.stride()
        taken += 1
    assert taken >= 2


@pytest.mark.parametrize("bias", [True, False])
def test_a_single_input_is_taken_by_name(bias):
    layer = DeconvConv2d(3, 4, 3, bias=bias).eval()
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(layer(input=x)[0], layer(x[0]))
    torch.testing.assert_close(DeconvLinear(4, 2).eval()(input=x[0, 0, 0, :4]).shape, torch.Size([2]))


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("training", [True, False])
def test_the_output_has_the_order_of_memory_that_a_plain_one_has(order, training):
    plain = nn.Conv2d(3, 8, 3, padding=1)
    net, _ = convert(plain)
    x = torch.randn(4, 3, 8, 8).contiguous(memory_format=order)
    wanted, found = plain(x), net.train(training)(x)
    assert found.stride() == wanted.stride()
    net(x).flatten(1)
    if order is torch.contiguous_format:
        assert found.view(4, -1).shape == (4, 512)


@pytest.mark.parametrize("batch", [1, 2, 3, 9])
def test_small_maps_in_small_batches_are_measured_more_densely(batch):
    layer = DeconvConv2d(8, 8, 1, stride=2, block_size=8).double()
    x = torch.randn(batch, 8, 4, 4, dtype=torch.float64)
    layer(x)
    assert layer.running_mean.abs().sum() > 0
    if batch == 9:  # 144 pixels, every 36th of them: nothing has to give way
        rows = x.movedim(1, -1).reshape(-1, 8)[::36]
        torch.testing.assert_close(layer.running_mean, 0.1 * rows.mean(0))


def test_the_layer_is_named_where_nothing_helps():
    with pytest.raises(ValueError, match=r"DeconvConv2d\(8, 8.*at least 2 rows.* shape \(1, 8, 1, 1\) has 1"):
        DeconvConv2d(8, 8, 1)(torch.zeros(1, 8, 1, 1))


def test_groups_are_whitened_in_blocks_where_a_block_size_is_given():
    x = torch.randn(8, 64, 9, 9, dtype=torch.float64)
    whole = DeconvConv2d(64, 64, 3, groups=2).double()
    parts = DeconvConv2d(64, 64, 3, groups=2, block_size=8).double()
    assert (whole.columns, whole.n_blocks) == (32 * 9, 1)
    assert (parts.columns, parts.n_blocks) == (8 * 9, 4)
    halves = [DeconvConv2d(32, 32, 3, block_size=8).double() for _ in range(2)]
    for half, weight, bias in zip(halves, parts.weight.chunk(2), parts.bias.chunk(2), strict=True):
        half.weight.data, half.bias.data = weight.data, bias.data
    wanted = torch.cat([half(part) for half, part in zip(halves, x.chunk(2, 1), strict=True)], 1)
    torch.testing.assert_close(parts(x), wanted)
    torch.testing.assert_close(to_plain(nn.Sequential(parts).eval())(x), nn.Sequential(parts)(x))
    with pytest.warns(UserWarning, match=r"2 groups has 256 channels.*10\.6 million numbers.*block_size=64"):
        DeconvConv2d(512, 512, 3, groups=2)


def test_training_runs_on_fake_tensors_and_finds_no_synchronisation():
    for device in ("cpu", "cuda"):
        with FakeTensorMode():
            net = nn.Sequential(DeconvConv2d(8, 80, 3, device=device), nn.ReLU(), DeconvConv2d(80, 8, 1, device=device))
            y = net(torch.randn(16, 8, 16, 16, device=device))
            assert y.device.type == device
            if device == "cpu":
                y.square().sum().backward()
                assert net[0].weight.grad.shape == (80, 8, 3, 3)


def test_operations_of_a_step_are_counted():
    layer, x = DeconvConv2d(8, 8, 3), torch.randn(16, 8, 16, 16)
    with FlopCounterMode(display=False) as counter:
        layer(x)
    convolution = 2 * 16 * 14 * 14 * 8 * 8 * 9
    rows, n = 16 * 25, 72
    assert counter.get_total_flops() >= convolution + 2 * rows * n**2 + 2 * 8 * n**2


EXPORTED = {
    "as published": lambda: DeconvConv2d(8, 8, 3),
    "groups": lambda: DeconvConv2d(8, 8, 3, groups=2),
    "averaged covariances": lambda: DeconvConv2d(8, 8, 3, running="covariance", update_every=2),
    "exact root": lambda: DeconvConv2d(8, 8, 3, solver="eigh"),
    "blocks": lambda: DeconvConv2d(8, 8, 3, block_size=4, centering="per-block"),
    "transposed": lambda: DeconvConvTranspose2d(8, 8, 4, 2),
    "linear": lambda: DeconvLinear(12, 8),
    "few rows": lambda: DeconvLinear(12, 2000),
    "normalised samples": lambda: DeconvConv2d(8, 8, 3, sample_norm="layernorm"),
}


@pytest.mark.parametrize("make", EXPORTED.values(), ids=EXPORTED)
def test_an_exported_training_step_has_the_gradients(make):
    net = nn.Sequential(make()).double()
    x = torch.randn(16, 8, 12, 12, dtype=torch.float64)
    program = torch.export.export(net, (x,)).module()
    program(x).square().sum().backward()
    net(x).square().sum().backward()
    found = dict(program.named_parameters())
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(found[name].grad, parameter.grad)


def test_a_second_derivative_says_what_to_do_instead():
    layer, x = DeconvConv2d(4, 4, 3), torch.randn(8, 4, 9, 9, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"no second derivative.*ndlib.to_plain\(model.eval\(\)\)"):
        gradient.square().sum().backward()


def test_a_forward_pass_inside_a_backward_pass_is_a_step():
    class Inside(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, net):
            ctx.net = net
            ctx.save_for_backward(x)
            return x * 1

        @staticmethod
        def backward(ctx, grad):
            ctx.net(*ctx.saved_tensors)
            return grad, None

    layer = DeconvConv2d(4, 4, 3)
    Inside.apply(torch.randn(8, 4, 9, 9, requires_grad=True) + 1, layer).sum().backward()
    assert layer.num_batches_tracked == 1 and layer.running_mean.any()


class Skip(nn.Module):
    """x + conv(relu(bn(x))), the activation in place in one of its spellings."""

    def __init__(self, activate):
        super().__init__()
        self.bn, self.conv, self.activate = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1), activate

    def forward(self, x):
        return x + self.conv(self.activate(self.bn(x)))


ACTIVATIONS = {
    "module": nn.ReLU(inplace=True),
    "method": lambda x: x.relu_(),
    "function": lambda x: nn.functional.relu(x, inplace=True),
    "torch function": torch.relu_,
    "operator": lambda x: operator.imul(x, 2),
    "through a dropout": nn.Sequential(nn.Dropout(0.0), nn.ReLU(inplace=True)),
    "through a view": lambda x: x.flatten(1).relu_().view_as(x),
}


@pytest.mark.parametrize("activate", ACTIVATIONS.values(), ids=ACTIVATIONS)
@pytest.mark.parametrize("training", [True, False])
def test_an_operation_in_place_does_not_reach_the_skip_path_or_the_input(activate, training):
    net, report = convert(Skip(activate))
    assert report.count("dropped") == 1 and "a copy" in str(report)
    x = torch.randn(16, 4, 8, 8)
    before = x.clone()
    net.train(training)(x)
    assert torch.equal(x, before)


def test_no_copy_is_made_where_nothing_overwrites():
    net, _ = convert(Skip(nn.ReLU()))
    assert type(net.bn) is nn.Identity


# Norms of other people, and what leads to a classifier. ----------------------------------------------------


class NormAct(nn.BatchNorm2d):
    """As timm's: normalisation, dropout and activation in one module."""

    def __init__(self, features, act):
        super().__init__(features)
        self.drop, self.act = nn.Identity(), act

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


class OtherNorm(NormAct):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize("act", [nn.SiLU(), nn.ReLU(inplace=True), nn.Identity()])
def test_a_norm_with_an_activation_leaves_the_activation(act):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), NormAct(4, act), nn.Conv2d(4, 4, 3))
    new, report = convert(net)
    assert (report.count("converted"), report.count("dropped"), report.count("kept")) == (2, 1, 0)
    bare = nn.Sequential(new[0], act, new[2]).eval()
    x = torch.randn(8, 3, 9, 9)
    torch.testing.assert_close(new.eval()(x), bare(x))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in new.modules())


def test_a_norm_that_computes_something_else_stays_and_is_named_in_full():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), OtherNorm(4, nn.ReLU()), nn.Conv2d(4, 4, 3))
    _, report = convert(net)
    assert report.count("kept") == 1
    assert f"{OtherNorm.__module__}.OtherNorm  kept" in str(report)


def between(act):
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.first, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.last(act(self.first(self.conv(x).mean((2, 3)))))

    return Head()


SPELLED = {
    "log_sigmoid": nn.functional.logsigmoid,
    "threshold": lambda x: nn.functional.threshold(x, 0.1, 0.0),
    "prelu": lambda x: nn.functional.prelu(x, torch.tensor(0.1)),
    "flatten": lambda x: torch.flatten(x, 1),
    "clamp": lambda x: x.clamp(0, 1),
    "clamp_min": lambda x: x.clamp_min(0),
    "contiguous": lambda x: x.contiguous(),
    "float": lambda x: x.float(),
    "method": lambda x: x.relu(),
    "method in place": lambda x: x.tanh_(),
    "torch": torch.sigmoid,
    "scaled": lambda x: 2 * x - 1,
    "rrelu in training": lambda x: nn.functional.rrelu(x, training=True),
}
NAMED = (
    *("relu", "relu6", "leaky_relu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "sigmoid", "hardsigmoid"),
    *("tanh", "hardtanh", "tanhshrink", "softsign", "softplus", "softshrink", "hardswish", "hardshrink", "abs", "erf"),
    *("square", "exp", "log1p", "neg", "dropout", "dropout1d", "dropout2d", "alpha_dropout", "feature_alpha_dropout"),
)
CALLS = {name: getattr(nn.functional, name, None) or getattr(torch, name) for name in NAMED} | SPELLED


@pytest.mark.parametrize("name", sorted(CALLS))
def test_an_activation_in_any_spelling_leads_to_the_classifier(name):
    new, _ = convert(between(CALLS[name]))
    assert isinstance(new.first, DeconvLinear) and isinstance(new.last, DeconvLinear), name


@pytest.mark.parametrize(
    "act", [nn.PReLU(), nn.LeakyReLU(), nn.Hardtanh(), nn.Flatten(), nn.Dropout(0.1), nn.Softsign()]
)
def test_an_activation_module_leads_to_the_classifier(act):
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), act, nn.Linear(6, 2))
    assert convert(net)[1].count("converted") == 2


def test_softmax_does_not_lead_to_the_classifier():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Softmax(1), nn.Linear(6, 2))
    assert convert(net)[1].count("converted") == 1


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_pretrained_network_trains_what_it_trained_before(affine, bias):
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4, affine=affine), nn.ReLU(), nn.Flatten())
    net.append(nn.Linear(4 * 36, 5, bias=bias))
    net.append(nn.BatchNorm1d(5, affine=affine))
    net(torch.randn(16, 3, 8, 8))
    net[4].weight.requires_grad_(False)
    x = torch.randn(64, 3, 8, 8)
    new, report = convert_pretrained(net.eval(), x)
    assert report.count("dropped") == 2
    torch.testing.assert_close(new(x), net(x), rtol=1e-3, atol=1e-3)
    assert new[0].weight.requires_grad and new[0].bias.requires_grad
    assert not new[4].weight.requires_grad


def test_a_network_channels_last_answers_channels_last():
    """Weights in that order too, as torch advises for convolutions."""
    net = convert(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)))[0].to(memory_format=torch.channels_last)
    x = torch.randn(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    assert net(x).is_contiguous(memory_format=torch.channels_last)
    assert net.eval()(x).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(to_plain(net)(x), net(x))


def test_converting_somebody_elses_norm_draws_no_random_number():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), NormAct(4, nn.SiLU()), nn.Flatten())
    torch.manual_seed(0)
    before = torch.get_rng_state()
    convert(net[1:2])  # without a layer, whose new weights are drawn
    assert torch.equal(torch.get_rng_state(), before)


# Other devices, other memory. ------------------------------------------------------------------------------


def replicas(net, count):
    """What nn.DataParallel makes before every step, its first replica with the network's own tensors."""
    copies = [{} for _ in range(count)]
    for module in net.modules():
        for i in range(count):
            replica = copies[i][module] = module._replicate_for_data_parallel()
            for name, parameter in module.named_parameters(recurse=False):
                setattr(replica, name, parameter if i == 0 else parameter * 1)
            for name, buffer in module.named_buffers(recurse=False):
                setattr(replica, name, buffer if i == 0 else buffer.clone())
            replica._modules = dict(module._modules)
    for each in copies:
        for replica in each.values():
            for name, child in replica._modules.items():
                setattr(replica, name, each[child])
    return [each[net] for each in copies]


@pytest.mark.parametrize("running", ["root", "covariance"])
@pytest.mark.parametrize("options", [{"freeze_after": 5}, {"update_every": 2}])
def test_data_parallel_counts_each_step_once_and_keeps_the_averages_of_the_first_device(running, options, monkeypatch):
    monkeypatch.setattr("ndlib._core.counting.WARM_UP", 2)
    torch.manual_seed(0)
    net = nn.Sequential(DeconvConv2d(3, 4, 3, running=running, **options), DeconvConv2d(4, 4, 3, running=running))
    alone = copy.deepcopy(net)
    for _ in range(9):
        x = torch.randn(32, 3, 9, 9)
        parts = x.chunk(2)
        made = replicas(net, 2)
        outputs = [None, None]

        def step(i, made=made, parts=parts, outputs=outputs):
            outputs[i] = made[i](parts[i])

        threads = [threading.Thread(target=step, args=(i,)) for i in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        torch.testing.assert_close(outputs[0], alone(parts[0]))
        assert net[0].count.taken == alone[0].count.taken
    assert alone[0].count.taken > 4
    x = torch.randn(8, 3, 9, 9)
    torch.testing.assert_close(net.eval()(x), alone.eval()(x))


@pytest.mark.parametrize("running", ["root", "covariance"])
def test_a_network_whose_tensors_somebody_else_sets_one_by_one_is_complete(running):
    """As accelerate's load_checkpoint_in_model does, which knows nothing of buffers that no checkpoint holds."""
    net = nn.Sequential(DeconvConv2d(3, 4, 3, running=running, freeze_after=4))
    for _ in range(5):
        net(torch.randn(16, 3, 9, 9))
    x = torch.randn(8, 3, 9, 9)
    wanted = net.eval()(x)
    with torch.device("meta"):
        empty = nn.Sequential(DeconvConv2d(3, 4, 3, running=running, freeze_after=4)).eval()
    for name, value in net.state_dict().items():
        layer, name = empty[0], name.removeprefix("0.")
        if name in layer._parameters:
            layer._parameters[name] = nn.Parameter(value.clone())
        else:
            layer._buffers[name] = value.clone()
    empty.to("cpu")
    torch.testing.assert_close(empty(x), wanted)
    torch.testing.assert_close(to_plain(empty)(x), wanted)
    assert empty[0].count.taken == 5
    empty.train()(x)
    torch.testing.assert_close(empty.eval()(x), wanted)  # its averages are frozen


@pytest.mark.parametrize("running", ["root", "covariance"])
def test_averages_in_unset_memory_are_those_of_a_new_layer(running):
    """Weights are the caller's to fill, as a plain layer's; a plain checkpoint holds no averages."""
    with torch.device("meta"):
        empty = DeconvConv2d(3, 4, 3, running=running)
    empty.to_empty(device="cpu")
    plain = nn.Conv2d(3, 4, 3)
    empty.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(8, 3, 9, 9)
    torch.testing.assert_close(empty.eval()(x), plain(x))
    assert empty.num_batches_tracked == 0
    skipped = torch.nn.utils.skip_init(DeconvConv2d, 3, 4, 3, running=running)
    assert not skipped.running_mean.any() and skipped.num_batches_tracked == 0
