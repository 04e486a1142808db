"""How thin the method is: calls of a step, rooms, and no private name of torch outside one file."""

import ast
import collections
import copy
import os
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import ndlib
from ndlib import DeconvConv2d, convert
from ndlib._core import private_torch
from ndlib._core.hooks import before_forward
from ndlib._core.products import full_precision
from ndlib.functional import inverse_sqrt

PACKAGE = Path(ndlib.__file__).parent
LAYER = [*PACKAGE.glob("_core/*.py"), *(PACKAGE / f"{n}.py" for n in ("diagnostics", "functional", "layers"))]
CONVERSION = [*PACKAGE.glob("_conversion/*.py"), PACKAGE / "conversion.py"]
METHOD = LAYER + CONVERSION


def test_a_training_step_of_a_layer_is_a_short_story():
    """Frames of this package in a forward pass, and none of them is entered twice but a product and the blocks."""
    layer, x = DeconvConv2d(8, 8, 3), torch.randn(16, 8, 16, 16)
    layer(x)
    called: collections.Counter[str] = collections.Counter()

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(str(PACKAGE) + os.sep):
            called[f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"] += 1

    sys.setprofile(note)
    try:
        layer(x)
    finally:
        sys.setprofile(None)
    assert sum(called.values()) <= 45, called
    assert {name for name, count in called.items() if count > 1} <= {"products.product", "patches.into_blocks"}


def test_the_method_is_thin():
    """The layer, and what reads networks that nobody here wrote."""
    for files, limit in ((LAYER, 3100), (CONVERSION, 1800)):
        assert sum(len(file.read_text().splitlines()) for file in files) <= limit


def test_private_names_of_torch_stand_in_one_file():
    """An attribute that begins with one underscore, of anything that is not an object of ours."""
    ours = {"_core", "_fields"}
    for file in METHOD:
        if file.name == "private_torch.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                of_ours = isinstance(node.value, ast.Name) and node.value.id in ("self", "layer", "sys")
                of_ours |= isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "super"
                assert of_ours or node.attr in ours, f"{file.name}:{node.lineno}: {node.attr}"


@pytest.fixture(params=["with private names", "without"])
def torch_either_way(request, monkeypatch):
    if request.param == "without":
        monkeypatch.setattr(private_torch, "linear_pointwise", None)
        monkeypatch.setattr(private_torch, "current_graph_task_id", lambda: -1)
    return request.param


def test_the_same_step_with_and_without_private_names(torch_either_way):
    x = torch.randn(16, 8, 12, 12, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    layer = DeconvConv2d(8, 8, 3)
    y = layer(x)
    y.square().sum().backward()
    reference = copy.deepcopy(layer).double()
    reference.load_state_dict(layer.state_dict())
    double = DeconvConv2d(8, 8, 3).double()
    double.weight.data, double.bias.data = layer.weight.data.double(), layer.bias.data.double()
    wanted = double(x.double())
    wanted.square().sum().backward()
    torch.testing.assert_close(y.double(), wanted, rtol=2e-4, atol=2e-4)
    torch.testing.assert_close(layer.weight.grad.double(), double.weight.grad, rtol=2e-3, atol=2e-3)


def test_a_replayed_step_is_counted_once_where_torch_tells(torch_either_way):
    layer = DeconvConv2d(4, 4, 3)
    checkpoint(layer, torch.randn(8, 4, 9, 9, requires_grad=True), use_reentrant=False).sum().backward()
    assert layer.num_batches_tracked == (1 if torch_either_way == "with private names" else 2)


def test_hooks_come_off_after_an_error():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(4, 4))
    with pytest.raises(RuntimeError), before_forward(dict(net.named_children()), lambda *_: None):
        net(torch.zeros(2, 3))
    assert not any(len(m._forward_pre_hooks) for m in net.modules())


def test_a_failing_pretrained_conversion_leaves_no_hook_on_the_network():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)).eval()
    with pytest.raises(RuntimeError):
        ndlib.convert_pretrained(net, torch.zeros(4, 5, 9, 9))
    assert not any(len(m._forward_pre_hooks) for m in net.modules())


def test_handles_of_a_replaced_layer_still_remove_their_hooks():
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    calls = []
    handle = net[0].register_forward_hook(lambda *_: calls.append(1))
    new, _ = convert(net, inplace=True)
    new(torch.randn(4, 3, 9, 9))
    handle.remove()
    new(torch.randn(4, 3, 9, 9))
    assert len(calls) == 1


def test_threads_leave_the_precision_that_the_user_has_set():
    inside, go = threading.Barrier(4), threading.Event()
    seen = []

    def work():
        with full_precision():
            inside.wait()
            seen.append(torch.get_float32_matmul_precision())
            go.wait(5)

    torch.set_float32_matmul_precision("high")
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        go.set()
        for thread in threads:
            thread.join()
        assert seen == ["highest"] * 4
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def seconds_of(call, rounds=25):
    """The fastest of several calls, which other processes disturb least."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.parametrize("n", [96, 256])
def test_an_expanded_gradient_takes_no_longer_than_a_dense_one(n):
    """``out.sum()`` gives a gradient of stride 0, and oneDNN took 175 times as long for it."""
    cov = torch.cov(torch.randn(n, 2 * n, generator=torch.Generator().manual_seed(0))).requires_grad_()
    root = inverse_sqrt(cov)
    dense = torch.ones(n, n)
    gradients = {"dense": dense, "expanded": torch.ones(()).expand(n, n), "transposed": dense.clone().mT}
    times = {
        name: seconds_of(lambda g=g: torch.autograd.grad(root, cov, g, retain_graph=True))
        for name, g in gradients.items()
    }
    assert max(times.values()) < 1.2 * times["dense"] + 1e-4, times  # a tenth of a millisecond is noise
    grads = [torch.autograd.grad(root, cov, g, retain_graph=True)[0] for g in gradients.values()]
    assert all(torch.allclose(grad, grads[0], rtol=1e-4, atol=1e-6) for grad in grads)
