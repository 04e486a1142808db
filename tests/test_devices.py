"""Devices other than the CPU. Where there is none, the meta device at least shows that nothing waits for one."""

import pytest
import torch
from torch import nn

import ndlib
from ndlib import ChannelDeconv, DeconvConv1d, DeconvConv2d, DeconvConv3d, DeconvLinear
from ndlib.pictures.image_statistics import picture_statistics

pytestmark = pytest.mark.filterwarnings("ignore:.*rows for a covariance")

LAYERS = {
    "conv1d": (lambda **kw: DeconvConv1d(8, 6, 3, padding=1, **kw), (8, 8, 30)),
    "conv2d": (lambda **kw: DeconvConv2d(8, 6, 3, padding=1, **kw), (8, 8, 12, 12)),
    "blocks": (lambda **kw: DeconvConv2d(16, 6, 3, padding=1, block_size=8, **kw), (8, 16, 12, 12)),
    "1x1": (lambda **kw: DeconvConv2d(8, 6, 1, stride=2, **kw), (8, 8, 12, 12)),
    "conv3d": (lambda **kw: DeconvConv3d(4, 6, 3, padding=1, **kw), (4, 4, 7, 7, 7)),
    "linear": (lambda **kw: DeconvLinear(16, 6, **kw), (64, 16)),
    "channels": (lambda **kw: ChannelDeconv(9, 4, **kw), (8, 9, 12, 12)),
}
OPTIONS = [{}, {"running": "covariance", "update_every": 2}, {"solver": "eigh"}, {"solver": "polar", "freeze_after": 2}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_a_training_step_never_waits_for_the_device(name, options):
    """Tensors on the meta device hold no values: whatever asked for one, as ``if`` and ``item`` do, would raise."""
    make, shape = LAYERS[name]
    layer = make(device="meta", **options)
    for _ in range(3):
        layer(torch.randn(shape, device="meta", requires_grad=True)).sum().backward()
    layer.eval()(torch.randn(shape, device="meta"))
    with pytest.raises(RuntimeError, match="meta"):
        ndlib.check_finite(layer)  # this does wait, and is where a bad value is reported


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: not run on one")


@needs_cuda
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_cuda_computes_what_the_cpu_does(name, options):
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    host = make(**options)
    device = make(**options).cuda()
    device.load_state_dict(host.state_dict())
    for _ in range(3):
        x = torch.randn(shape) @ torch.randn(shape[-1], shape[-1])
        a, b = x.clone().requires_grad_(), x.cuda().requires_grad_()
        ya = host(a)
        torch.cuda.synchronize()
        # "eigh" is the exception: cuSOLVER's info is read back by PyTorch itself.
        torch.cuda.set_sync_debug_mode("default" if options.get("solver") == "eigh" else "error")
        try:
            yb = device(b)
            yb.square().sum().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        ya.square().sum().backward()
        torch.testing.assert_close(yb.cpu(), ya, rtol=2e-4, atol=2e-4)
        torch.testing.assert_close(b.grad.cpu(), a.grad, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(device.eval()(x.cuda()).cpu(), host.eval()(x), rtol=2e-4, atol=2e-4)


@needs_cuda
def test_bad_values_on_cuda_are_reported_by_check_finite():
    layer = DeconvConv2d(3, 4, 3).cuda()
    layer(torch.full((4, 3, 8, 8), float("nan"), device="cuda"))
    with pytest.raises(FloatingPointError, match="DeconvConv2d"):
        ndlib.check_finite(nn.Sequential(layer)[0])


@needs_cuda
def test_autocast_on_cuda_keeps_statistics_in_single_precision():
    layer = DeconvConv2d(8, 8, 3, padding=1).cuda()
    x = torch.randn(8, 8, 16, 16, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        y = layer(x)
    assert y.dtype is torch.bfloat16
    assert layer.running_deconv.dtype is torch.float32


@needs_cuda
def test_picture_statistics_on_cuda_are_those_of_the_cpu():
    picture = torch.rand(3, 60, 75, dtype=torch.float64)
    here, there = (picture_statistics(picture.to(device)) for device in ("cpu", "cuda"))
    assert there.products.device.type == "cpu"
    torch.testing.assert_close(there.products, here.products)
    torch.testing.assert_close(there.sums, here.sums)


def compiled_and_not(device, mode):
    """Three training steps of a layer, compiled by inductor and uncompiled: outputs, gradients, running averages."""
    torch.manual_seed(0)
    plain = nn.Sequential(DeconvConv2d(8, 8, 3, padding=1), nn.ReLU(), DeconvConv2d(8, 6, 3)).to(device)
    net = nn.Sequential(DeconvConv2d(8, 8, 3, padding=1), nn.ReLU(), DeconvConv2d(8, 6, 3)).to(device)
    net.load_state_dict(plain.state_dict())
    step = torch.compile(net, fullgraph=True, mode=mode)
    for _ in range(3):
        x = torch.randn(8, 8, 12, 12, device=device)
        one, other = plain(x), step(x)
        for model, y in ((plain, one), (net, other)):
            model.zero_grad()
            y.square().mean().backward()
        torch.testing.assert_close(other, one, rtol=2e-4, atol=2e-4)
        for a, b in zip(net.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=2e-3, atol=2e-3)
    for a, b in zip(net.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-4)


@needs_cuda
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])  # the latter with CUDA graphs
def test_compiled_training_on_cuda(mode):
    compiled_and_not("cuda", mode)
