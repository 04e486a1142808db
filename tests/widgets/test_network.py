"""The small networks of the widgets compute what torch and ndlib compute, in JavaScript and in WebAssembly."""

import copy
import json
import shutil
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from playwright._impl._driver import compute_driver_executable
from torch import nn

from ndlib import DeconvConv2d, DeconvLinear
from ndlib.layers import Deconvolution

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MODULES = ROOT / "ndlib" / "bookwork" / "widgets"
NODE = compute_driver_executable()[0]  # Playwright brings one
ENGINES = ("plain", "vector")


@pytest.fixture
def run(tmp_path):
    """Sends requests to network-numbers.mjs."""

    def call(requests):
        file = tmp_path / "requests.json"
        file.write_text(json.dumps(requests, default=lambda t: t.detach().flatten().tolist()))
        command = [NODE, str(HERE / "network-numbers.mjs"), str(MODULES), str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return call


def error(found, wanted):
    """The largest difference, relative to the largest number."""
    found, wanted = np.asarray(found), wanted.detach().double().flatten().numpy()
    assert found.shape == wanted.shape
    return np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-30)


def close(found, wanted, tolerance=1e-4):
    assert error(found, wanted) < tolerance


def whitening(layer):
    """The options of a deconvolution layer, as the module takes them."""
    if not isinstance(layer, Deconvolution):
        return {}
    options = {"eps": layer.options.eps, "steps": layer.options.n_iter, "running": layer.options.running}
    channels = layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features
    stride = layer.sampling_stride if isinstance(layer, nn.Conv2d) else 1
    return {"whitening": options | {"blockSize": channels // layer.n_blocks, "samplingStride": stride}}


def described(layer, shape):
    """A layer of torch or ndlib on an input of this shape, as the module takes it."""
    height, width = shape[2:] if len(shape) == 4 else (1, 1)
    match layer:
        case nn.Conv2d():
            sizes = {"inputs": layer.in_channels, "outputs": layer.out_channels, "size": layer.kernel_size[0]}
            what = {"kind": "convolution", "height": height, "width": width, **sizes, **whitening(layer)}
        case nn.Linear():
            sizes = {"inputs": layer.in_features, "outputs": layer.out_features}
            what = {"kind": "linear", **sizes, **whitening(layer)}
        case nn.BatchNorm2d():
            what = {"kind": "normalisation", "channels": layer.num_features, "pixels": height * width}
        case nn.MaxPool2d():
            what = {"kind": "maxPooling", "height": height, "width": width}
        case nn.AvgPool2d():
            what = {"kind": "averagePooling", "height": height, "width": width}
        case _:
            what = {"kind": "relu"}
    return what | {"values": list(layer.parameters())}


def averages(layer):
    if isinstance(layer, nn.BatchNorm2d):
        return [layer.running_mean, layer.running_var]
    if isinstance(layer, Deconvolution):
        second = "running_deconv" if layer.options.running == "root" else "running_cov"
        return [layer.running_mean, layer.get_buffer(second)]
    return []


def two_batches(layer, shape, generator):
    """Two batches forward, the second backward, then in evaluation: the request, and what should come of it."""
    batches = [torch.randn(shape, generator=generator) for _ in range(2)]
    # Neighbours are alike, as in pictures, so that there is something to whiten.
    batches = [x + x.roll(1, -1) + 0.5 * x.roll(1, 1) + 0.3 for x in batches]
    layer.train()
    layer(batches[0])
    x = batches[1].clone().requires_grad_()
    y = layer(x)
    gradient = torch.randn(y.shape, generator=generator)
    y.backward(gradient)
    request = {"layers": [described(layer, shape)], "batches": batches, "gradient": gradient}
    wanted = [y, x.grad, *(p.grad for p in layer.parameters()), *averages(layer)]
    return request, [t.clone() for t in wanted] + [layer.eval()(batches[1])]


def drawn_cases(seed):
    """One layer of each kind, of random shapes and options."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)

    def draw(*choices):
        return choices[int(torch.randint(len(choices), (), generator=generator))]

    pictures, channels, outputs = draw(2, 5, 8), draw(1, 3, 4, 6, 8), draw(1, 3, 5, 10)
    height, width, size = draw(5, 6, 9, 14), draw(5, 7, 10, 13), draw(3, 3, 5)
    features = draw(6, 12, 30, 35)
    options = {"eps": draw(1e-5, 1e-2, 0.1), "n_iter": draw(1, 2, 5, 7), "running": draw("root", "covariance")}
    options["block_size"] = draw(2, 3, 4, 64)  # which divide the channels or do not
    convolution = (channels, outputs, size)
    normalisation = nn.BatchNorm2d(channels)
    nn.init.normal_(normalisation.weight)
    nn.init.normal_(normalisation.bias)
    maps = (pictures, channels, height, width)
    for layer in (
        nn.Conv2d(*convolution, padding=size // 2),
        DeconvConv2d(*convolution, padding=size // 2, sampling_stride=draw(1, 2, 3), **options),
        *(normalisation, nn.MaxPool2d(2), nn.AvgPool2d(2), nn.ReLU()),
    ):
        yield two_batches(layer, maps, generator)
    for linear in (nn.Linear(features, outputs), DeconvLinear(features, outputs, **options)):
        yield two_batches(linear, (pictures + 20, features), generator)


@pytest.mark.parametrize("seed", range(14))
@pytest.mark.filterwarnings("ignore:.*rows for a covariance:UserWarning")
@pytest.mark.filterwarnings("ignore:block_size=:UserWarning")
def test_layers_of_random_shapes(run, seed):
    requests, wanted = zip(*drawn_cases(seed), strict=True)
    for engine in ENGINES:
        for found, expected in zip(run([r | {"engine": engine} for r in requests]), wanted, strict=True):
            for mine, theirs in zip(found, expected, strict=True):
                close(mine, theirs)


def network(method):
    match method:
        case "nd":
            convolution, linear = DeconvConv2d, DeconvLinear
        case "nd-recommended":
            options = {"block_size": 4, "eps": 0.1, "running": "covariance"}
            convolution, linear = partial(DeconvConv2d, **options), partial(DeconvLinear, **options)
        case _:
            convolution, linear = nn.Conv2d, nn.Linear
    first, second = ([nn.BatchNorm2d(n)] if method == "bn" else [] for n in (6, 8))
    return nn.Sequential(
        *(convolution(1, 6, 3, padding=1), *first, nn.MaxPool2d(2), nn.ReLU()),
        *(convolution(6, 8, 3, padding=1), *second, nn.AvgPool2d(2), nn.ReLU()),
        *(nn.Flatten(), linear(72, 10)),
    )


def described_all(model, x):
    """The layers of a network as the module takes them, with their weights as they are now."""
    layers = []
    for layer in copy.deepcopy(model).eval():
        if not isinstance(layer, nn.Flatten):
            layers.append(described(layer, x.shape))
        x = layer(x)
    return layers


@pytest.mark.parametrize("method", ["plain", "bn", "nd", "nd-recommended"])
@pytest.mark.filterwarnings("ignore:.*rows for a covariance:UserWarning")
@pytest.mark.filterwarnings("ignore:block_size=:UserWarning")
def test_ten_steps_are_those_of_torch(run, method):
    torch.manual_seed(0)
    model = network(method)
    batches = [F.avg_pool2d(torch.rand(16, 1, 14, 14), 3, stride=1) for _ in range(10)]
    labels = [torch.randint(10, (16,)) for _ in range(10)]
    settings = {"rate": 0.05, "momentum": 0.9, "decay": 1e-2}
    request = {"layers": described_all(model, batches[0]), "batches": batches, "labels": labels, "settings": settings}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-2)
    losses = []
    for x, label in zip(batches, labels, strict=True):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), label)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    wanted = [torch.tensor(losses), *model.parameters(), model.eval()(batches[0])]
    for found in run([request | {"engine": engine} for engine in ENGINES]):
        for mine, theirs in zip(found, wanted, strict=True):
            close(mine, theirs, 1e-3)


def test_the_products_are_made_from_their_source(tmp_path):
    if shutil.which("npm") is None:
        pytest.skip("there is no npm, which would fetch the compiler")
    made = tmp_path / "made.mjs"
    done = subprocess.run([ROOT / ".ci" / "products", made], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip(f"npm cannot fetch the compiler: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    assert made.read_text() == (MODULES / "products-wasm.mjs").read_text(), "products.ts has changed: run .ci/products"
