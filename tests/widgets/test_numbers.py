"""What the widgets compute in JavaScript is what ndlib computes, under Node; tests/book repeats it in a browser."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from playwright._impl._driver import compute_driver_executable

from ndlib import data
from ndlib.functional import newton_schulz_response
from ndlib.image_statistics import LAG, autocovariance, picture_statistics
from ndlib.kernels import block_toeplitz, decompose, deconvolution_kernel

HERE = Path(__file__).parent
MODULES = HERE.parents[1] / "ndlib" / "widgets"
NODE = compute_driver_executable()[0]  # Playwright brings one
PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


@pytest.fixture
def run(tmp_path):
    """Calls one of the functions of numbers.mjs."""

    def call(name, **values):
        plain = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in values.items()}
        file = tmp_path / "requests.json"
        file.write_text(json.dumps([[name, plain]]))
        done = subprocess.run(
            [NODE, str(HERE / "numbers.mjs"), str(MODULES), str(file)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)[0]

    return call


@pytest.fixture(scope="module")
def picture():
    """A part of a photograph, not square and not symmetric: (3, 60, 75)."""
    return data.photograph("coffee").double()[:, 100:160, 200:275]


def close(found, wanted):
    found, wanted = np.asarray(found, float), np.asarray(wanted, float)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("steps", [0, 1, 5, 20])
def test_newton_schulz_response(run, steps):
    eigenvalues = torch.logspace(-6, 0.3, 50, dtype=torch.float64)
    found = run("response", eigenvalues=eigenvalues, steps=steps)
    np.testing.assert_allclose(found, newton_schulz_response(eigenvalues, steps), rtol=1e-10)


@pytest.mark.parametrize("kind", ["random", "repeated", "diagonal", "graded", "one"])
def test_symmetric_eigen(run, kind):
    generator = torch.Generator().manual_seed(0)
    n = 1 if kind == "one" else 40
    a = torch.randn(n, n, generator=generator, dtype=torch.float64)
    if kind == "repeated":
        a = torch.eye(n, dtype=torch.float64) + torch.ones(n, n, dtype=torch.float64)
    elif kind == "diagonal":
        a = torch.diag(a[0])
    elif kind == "graded":
        q = torch.linalg.qr(a).Q
        a = q @ torch.diag(torch.logspace(-7, 2, n, dtype=torch.float64)) @ q.T
    a = (a + a.T) / 2
    found = run("eigen", matrix=a.flatten(), n=n)
    values = torch.tensor(found["values"], dtype=torch.float64)
    vectors = torch.tensor(found["vectors"], dtype=torch.float64).view(n, n)
    scale = float(torch.linalg.eigvalsh(a).abs().max())
    torch.testing.assert_close(values, torch.linalg.eigvalsh(a), rtol=0, atol=1e-13 * n * scale)
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(vectors.T @ (values[:, None] * vectors), a, rtol=0, atol=1e-13 * n * scale)


@pytest.mark.parametrize("channels", [1, 3])
def test_autocovariance(run, picture, channels):
    x = picture if channels == 3 else data.luminance(picture)[None]
    wanted = autocovariance(picture_statistics(x))
    found = run("autocovariance", planes=x.flatten(1), width=75, height=60, reach=LAG)
    pairs = PAIRS if channels == 3 else PAIRS[:1]
    close(found, torch.stack([wanted[a, b].flatten() for a, b in pairs]))


@pytest.mark.parametrize("steps", [None, 1, 5, 15])
@pytest.mark.parametrize("k", [3, 9, 15])
def test_grey_kernel(run, picture, k, steps):
    tables = autocovariance(picture_statistics(data.luminance(picture)))
    wanted = deconvolution_kernel(decompose(block_toeplitz(tables, k)), eps=1e-4, n_iter=steps)
    found = run("kernels", tables=tables[0].flatten(1), reach=LAG, k=k, steps=steps, eps=1e-4, output=0)
    close(found, wanted.flatten(1))


@pytest.mark.parametrize("steps", [None, 5])
@pytest.mark.parametrize("output", [0, 1, 2])
def test_colour_kernels(run, picture, output, steps):
    tables = autocovariance(picture_statistics(picture))
    wanted = deconvolution_kernel(decompose(block_toeplitz(tables, 5), 3), eps=1e-4, n_iter=steps, channel=output)
    near = torch.stack([tables[a, b, 6:23, 6:23].flatten() for a, b in PAIRS])
    found = run("kernels", tables=near, reach=8, k=5, steps=steps, eps=1e-4, output=output)
    close(found, wanted.flatten(1))


@pytest.mark.parametrize("k", [3, 5, 9, 15])
def test_filtered_picture(run, picture, k):
    weights = torch.randn(3, k, k, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    centred = picture - picture.mean((1, 2), keepdim=True)
    padded = F.pad(centred[None], [k // 2] * 4, mode="reflect")
    wanted = F.conv2d(padded, weights[None]).flatten()
    found = run("filter", planes=picture.flatten(1), width=75, height=60, weights=weights.flatten(1), k=k)
    close(found, wanted)
