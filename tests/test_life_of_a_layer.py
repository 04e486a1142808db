"""What happens to layers in a larger program: moving averages, checkpointing, other devices, other processes."""

import copy
import io

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from ndlib import ChannelDeconv, DeconvConv2d, DeconvLinear, check_finite, convert, to_plain

RUNNING = pytest.mark.parametrize("running", ["root", "covariance"])


def batch(seed, n=16):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 8, 8, generator=generator).cumsum(-1)


def network(**options):
    torch.manual_seed(0)
    return nn.Sequential(DeconvConv2d(3, 8, 3, **options), nn.ReLU(), DeconvConv2d(8, 4, 3, block_size=4, **options))


def trained(**options):
    net = network(**options)
    for seed in range(4):
        net(batch(seed))
    return net


# Buffers that somebody else writes. -----------------------------------------------------------------------


@RUNNING
@pytest.mark.parametrize("buffers", [False, True])
def test_averaged_model_evaluates_with_its_own_running_averages(running, buffers):
    net, loaded = network(running=running), network(running=running)
    ema = AveragedModel(net, use_buffers=buffers)  # averages the buffers too, or takes the last
    ema.eval()(batch(9))  # a root is at hand, of the start
    for seed in range(4):
        net(batch(seed))
        ema.update_parameters(net)
    loaded.load_state_dict(ema.module.state_dict())
    torch.testing.assert_close(ema(batch(9)), loaded.eval()(batch(9)))
    if not buffers:
        torch.testing.assert_close(ema(batch(9)), net.eval()(batch(9)))


@RUNNING
def test_functional_call_takes_the_root_of_the_given_state(running):
    blank = network(running=running).eval()
    for net in (trained(running=running).eval(), network(running=running).eval()):
        state = {name: value.clone() for name, value in net.state_dict().items()}  # written to as often, never
        torch.testing.assert_close(torch.func.functional_call(blank, state, batch(9)), net(batch(9)))


def test_evaluation_takes_the_root_of_the_average_once(monkeypatch):
    net = trained(running="covariance").eval()
    monkeypatch.setattr(DeconvConv2d, "root", None)  # whoever asks for one more fails
    net(batch(9))
    net.to(torch.bfloat16)(batch(9).bfloat16())  # halved is the root, and not what it would be taken of


# A forward pass that is computed twice. -------------------------------------------------------------------


@RUNNING
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("options", [{}, {"update_every": 3}, {"freeze_after": 2}])
def test_activation_checkpointing_changes_no_gradient_and_no_buffer(running, reentrant, options, monkeypatch):
    monkeypatch.setattr("ndlib._core.counting.WARM_UP", 2)
    plain = network(running=running, **options)
    again = copy.deepcopy(plain)
    for seed in range(7):
        gradients = []
        for net, through in ((plain, None), (again, reentrant)):
            x = batch(seed).requires_grad_()
            y = net(x) if through is None else checkpoint(net, x, use_reentrant=through)
            net.zero_grad()
            y.square().sum().backward()
            gradients.append([x.grad, *(p.grad for p in net.parameters())])
        torch.testing.assert_close(*gradients)
    for a, b in zip(plain.buffers(), again.buffers(), strict=True):
        torch.testing.assert_close(a, b)


# Memory that nobody filled. -------------------------------------------------------------------------------


@RUNNING
@pytest.mark.parametrize("assign", [False, True])
def test_meta_device_network_loads_a_state_dict(running, assign):
    net = trained(running=running).eval()
    with torch.device("meta"):
        empty = network(running=running).eval()
    if not assign:
        empty.to_empty(device="cpu")
        for layer in (empty[0], empty[2]):
            layer.nonfinite.fill_(1)  # as memory may be
    empty.load_state_dict(net.state_dict(), assign=assign)
    torch.testing.assert_close(empty(batch(9)), net(batch(9)))
    check_finite(empty)
    torch.testing.assert_close(to_plain(empty)(batch(9)), net(batch(9)), rtol=1e-4, atol=1e-4)


def test_empty_batch_evaluates_and_is_refused_in_training():
    linear, conv = DeconvLinear(4, 3), DeconvConv2d(3, 4, 3)
    assert linear.eval()(torch.zeros(0, 4)).shape == (0, 3)
    assert conv.eval()(torch.zeros(0, 3, 8, 8)).shape == (0, 4, 6, 6)
    for layer, x in ((linear, torch.zeros(0, 4)), (conv, torch.zeros(0, 3, 8, 8))):
        with (
            pytest.raises(ValueError, match=r"at least 2 rows, and an input of shape \(0, .* has 0"),
            pytest.warns(UserWarning, match="0 rows"),
        ):
            layer.train()(x)


# Other processes, other settings. -------------------------------------------------------------------------


def test_process_group_world_is_looked_up_at_each_step():
    net = network(process_group="world")
    file = io.BytesIO()
    torch.save(net, file)  # no process group is in it
    with pytest.raises(RuntimeError, match="init_process_group first"):
        net(batch(0))
    net.eval()(batch(0))
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        torch.testing.assert_close(net.train()(batch(0)), network()(batch(0)))
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("make", [lambda **o: DeconvConv2d(3, 4, 3, **o), lambda **o: DeconvLinear(3, 4, **o)])
def test_layers_refuse_unknown_and_impossible_options(make):
    with pytest.raises(TypeError, match="no such option: detach_roots, n_iters; there are block_size, sampling"):
        make(n_iters=20, detach_roots=True)
    with pytest.raises(ValueError, match=r"update_every must be a whole number of at least 1, got 1.5"):
        make(update_every=1.5)
    with pytest.raises(ValueError, match="freeze_after must be None or a whole number"):
        make(freeze_after=0)


def test_convert_channel_and_linear_layers_refuse_unknown_options():
    with pytest.raises(TypeError, match="no such option: blocksize"):
        convert(nn.Sequential(nn.Conv2d(3, 4, 3)), blocksize=4)
    with pytest.raises(TypeError, match="no such option: sampling"):
        ChannelDeconv(4, 2, sampling=2)
    with pytest.raises(TypeError, match="no such option: sampling_stride"):
        DeconvLinear(3, 4, sampling_stride=2)


# Channels far from zero. ----------------------------------------------------------------------------------


def test_to_plain_keeps_digits_of_channels_with_a_large_mean():
    x = torch.randn(64, 6, 5, 5, generator=torch.Generator().manual_seed(0)).cumsum(1) + 1000
    layer = ChannelDeconv(6, 4)
    for _ in range(20):
        layer(x)
    wanted = layer.double().eval()(x.double())
    found = to_plain(nn.Sequential(layer.float()).eval(), x)(x)
    assert ((found - wanted).norm() / wanted.norm()).item() < 1e-3
