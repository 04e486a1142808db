"""What the widgets compute in JavaScript is what ndlib computes, under Node; tests/book repeats it in a browser."""

import json
import subprocess
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from playwright._impl._driver import compute_driver_executable

from ndlib.bookwork.widgets import BlurLab, Descent, EvidenceExplorer, Pipeline, PixelPairs
from ndlib.bookwork.widgets.blur_lab import SIDE, noise_field
from ndlib.evidence import published
from ndlib.functional import inverse_sqrt, moments, newton_schulz_response, patch_matrix
from ndlib.pictures import photographs, restore
from ndlib.pictures.image_statistics import LAG, autocovariance, picture_statistics
from ndlib.pictures.kernels import block_toeplitz, decompose, deconvolution_kernel

HERE = Path(__file__).parent
MODULES = HERE.parents[1] / "ndlib" / "bookwork" / "widgets"
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
    return photographs.photograph("coffee").double()[:, 100:160, 200:275]


def close(found, wanted):
    found, wanted = np.asarray(found, float), np.asarray(wanted, float)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("steps", [0, 1, 5, 20])
def test_javascript_newton_schulz_response(run, steps):
    eigenvalues = torch.logspace(-6, 0.3, 50, dtype=torch.float64)
    found = run("response", eigenvalues=eigenvalues, steps=steps)
    np.testing.assert_allclose(found, newton_schulz_response(eigenvalues, steps), rtol=1e-10)


@pytest.mark.parametrize("kind", ["random", "repeated", "diagonal", "graded", "one"])
def test_javascript_symmetric_eigenvalues_and_vectors(run, kind):
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
def test_javascript_autocovariance(run, picture, channels):
    x = picture if channels == 3 else photographs.luminance(picture)[None]
    wanted = autocovariance(picture_statistics(x))
    found = run("autocovariance", planes=x.flatten(1), width=75, height=60, reach=LAG)
    pairs = PAIRS if channels == 3 else PAIRS[:1]
    close(found, torch.stack([wanted[a, b].flatten() for a, b in pairs]))


@pytest.mark.parametrize("steps", [None, 1, 5, 15])
@pytest.mark.parametrize("k", [3, 9, 15])
def test_javascript_grey_kernels(run, picture, k, steps):
    tables = autocovariance(picture_statistics(photographs.luminance(picture)))
    wanted = deconvolution_kernel(decompose(block_toeplitz(tables, k)), eps=1e-4, n_iter=steps)
    found = run("kernels", tables=tables[0].flatten(1), reach=LAG, k=k, steps=steps, eps=1e-4, output=0)
    close(found, wanted.flatten(1))


@pytest.mark.parametrize("steps", [None, 5])
@pytest.mark.parametrize("output", [0, 1, 2])
def test_javascript_colour_kernels(run, picture, output, steps):
    tables = autocovariance(picture_statistics(picture))
    wanted = deconvolution_kernel(decompose(block_toeplitz(tables, 5), 3), eps=1e-4, n_iter=steps, channel=output)
    near = torch.stack([tables[a, b, 6:23, 6:23].flatten() for a, b in PAIRS])
    found = run("kernels", tables=near, reach=8, k=5, steps=steps, eps=1e-4, output=output)
    close(found, wanted.flatten(1))


@pytest.mark.parametrize("k", [3, 5, 9, 15])
def test_javascript_filtered_picture(run, picture, k):
    weights = torch.randn(3, k, k, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    centred = picture - picture.mean((1, 2), keepdim=True)
    padded = F.pad(centred[None], [k // 2] * 4, mode="reflect")
    wanted = F.conv2d(padded, weights[None]).flatten()
    found = run("filter", planes=picture.flatten(1), width=75, height=60, weights=weights.flatten(1), k=k)
    close(found, wanted)


@pytest.mark.parametrize("method", ["raw", "pca", "zca", "cholesky"])
@pytest.mark.parametrize(("distance", "direction"), [(0, "right"), (1, "right"), (5, "down"), (16, "diagonal")])
def test_javascript_pairs_of_pixels(run, distance, direction, method):
    w = PixelPairs(distance=distance, direction=direction, method=method)
    pixels = np.frombuffer(w.photo, np.uint8) / 255
    found = run("pairs", pixels=pixels, width=w.width, distance=distance, direction=direction, method=method)
    (a, b), (_, c) = w.covariance
    close(found["covariance"], [a, b, c])
    close(found["matrix"], w.matrix.flatten())
    close(found["points"], w.points)
    assert found["correlation"] == pytest.approx(w.correlation, rel=1e-5)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_javascript_patch_matrix_moments_and_root(run, picture, k):
    x = picture[:1, :12, :15]
    matrix = patch_matrix(x[None], k)
    mean, covariance = moments(matrix)
    found = run("patches", pixels=x.flatten(), width=15, k=k, eps=1e-4)
    close(found["matrix"], matrix.flatten())
    close(found["mean"], mean)
    close(found["covariance"], covariance.flatten())
    root = inverse_sqrt(covariance, solver="eigh", eps=1e-4)
    close(found["root"], root.flatten())
    # y = Xw is a convolution with w: the middle pixel, the mean, the step from left to right, a column of D.
    steps = torch.arange(k, dtype=torch.float64).expand(k, k) - (k - 1) / 2
    middle = torch.zeros(k * k, dtype=torch.float64)
    middle[k * k // 2] = 1
    filters = {"middle": middle, "mean": torch.full((k, k), 1 / k**2), "edge": steps / steps.abs().sum()}
    for name, w in {**filters, "D": root[:, k * k // 2]}.items():
        close(found["y"][name], F.conv2d(x[None], w.to(x).reshape(1, 1, k, k)).flatten())


FLOWS = [
    {},
    {"k": 3, "w": "edge", "steps": 5},
    {"k": 7, "w": "mean", "eps": 1e-3, "photograph": "page"},
    {"blur": 0.8, "eps": 1e-8, "photograph": "pagoda"},
    {"blur": 1.5, "noise": 0.05, "steps": 12},
    {"noise": 0.1},
]


@pytest.mark.parametrize("traits", FLOWS)
def test_javascript_pipeline(run, traits):
    w = Pipeline(**traits)
    sharp = Pipeline(photograph=w.photograph).image
    settings = {name: getattr(w, name) for name in ("blur", "noise", "k", "w", "eps", "steps")}
    found = run("flow", pixels=sharp.flatten(), **settings)
    stages = {"shown": w.image, "matrix": w.matrix, "covariance": w.covariance, "variances": w.variances}
    for name, wanted in {**stages, "root": w.whitening, "folded": w.folded, "y": w.result}.items():
        close(found[name], wanted.flatten())
    assert run("likeness", a=w.result, b=w.image.flatten()[: w.result.size]) == pytest.approx(
        np.corrcoef(w.result, w.image.flatten()[: w.result.size])[0, 1], abs=1e-6
    )


BLURS = [
    (1.0, 0.0, 0.0),
    (1.0, 1 / 255, 0.0),
    (1.5, 1 / 255, 0.0),
    (1.0, 1 / 255, 0.008),
    (4.0, 0.1, 1e-8),
    (0.3, 0.0, 1.0),
]


@pytest.mark.parametrize(("sigma", "noise", "k"), BLURS)
@pytest.mark.parametrize("photograph", ["cat", "page"])
def test_javascript_blurred_and_restored_pictures(run, photograph, sigma, noise, k):
    w = BlurLab(photograph=photograph, sigma=sigma, noise=noise, k=k)
    ks = [10 ** (i / 4) for i in range(-32, 1)]
    found = run("blur", pixels=w.picture.flatten(), n=SIDE, sigma=sigma, noise=noise, k=k, candidates=ks)
    np.testing.assert_allclose(found["field"], noise_field().flatten(), rtol=1e-12, atol=1e-12)
    close(found["blurred"], w.blurred.flatten())
    close(found["restored"], w.restored.flatten())
    # What the plots show: transfer function along an axis, middle row of the restoring kernel, mean amplitudes.
    kernel = restore.gaussian_kernel(sigma)
    transfer = restore.transfer_function(kernel, (SIDE, SIDE))
    close(found["line"], transfer[0].real)
    close(found["row"], torch.fft.ifft2(restore.wiener_response(transfer, k))[0].real)
    power = restore.power_spectrum(torch.from_numpy(w.picture)).numpy()
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE)))
    close(found["radial"], [[(b + 0.5) / 64, power[(64 * f).astype(int) == b].mean() ** 0.5] for b in range(1, 32)])
    blurred = torch.from_numpy(w.blurred)
    errors = [np.square(restore.wiener(blurred, kernel, each).numpy() - w.picture).sum() for each in ks]
    assert found["best"] == ks[int(np.argmin(errors))]
    assert found["lost"] == 0 or k > 0


def test_javascript_blur_without_inverse(run):
    w = BlurLab(sigma=2.0, k=0.0)
    with pytest.raises(ValueError, match="has no inverse"):
        _ = w.restored
    found = run("blur", pixels=w.picture.flatten(), n=SIDE, sigma=2.0, noise=0.0, k=0.0, candidates=[1.0])
    assert found["restored"] is None and found["lost"] > 0


@pytest.mark.parametrize(("width", "height", "n"), [(75, 60, 32), (60, 75, 32), (40, 50, 64), (33, 33, 33)])
def test_javascript_middle_square_averages_areas(run, picture, width, height, n):
    x = picture[0, :height, :width].new_zeros(height, width)
    part = picture[0, : min(60, height), : min(75, width)]
    x[: part.shape[0], : part.shape[1]] = part
    # Each pixel becomes a block of n x n, of which the middle square is cut into blocks to be averaged.
    side = min(width, height)
    fine = x.repeat_interleave(2 * n, 0).repeat_interleave(2 * n, 1)
    top, left = (height - side) * n, (width - side) * n
    square = fine[top : top + 2 * n * side, left : left + 2 * n * side]
    wanted = F.avg_pool2d(square[None], 2 * side)[0]
    close(run("square", pixels=x.flatten(), width=width, height=height, n=n), wanted.flatten())


@pytest.mark.parametrize("start", [(-0.4, 3.6), (2.0, -1.0)])
@pytest.mark.parametrize(
    ("correlation", "scale", "rate"), [(0.95, 1.0, 0.3), (-0.7, 0.3, 1.0), (0.0, 1.0, 0.02), (0.99, 0.2, 2.2)]
)
def test_javascript_gradient_descent(run, correlation, scale, rate, start):
    w = Descent(correlation=correlation, scale=scale, rate=rate, w1=start[0], w2=start[1])
    found = run("descent", correlation=correlation, scale=scale, rate=rate, start=start)
    close(found["inputs"], w.inputs)
    (a, b), (_, c) = w.covariance
    close(found["covariance"], [a, b, c])
    for path, losses, wanted in zip(
        found["paths"], found["losses"], (w.path, w.deconvolved_path), strict=True
    ):  # Each number for itself, the tiny ones too, where it is not rounding.
        np.testing.assert_allclose(path, wanted, rtol=1e-5, atol=1e-12)
        np.testing.assert_allclose(losses, w.loss(wanted), rtol=1e-5, atol=1e-20)
    assert found["waiting"] == [_as_in_javascript(w.steps_to_hundredth(d)) for d in (False, True)]
    wanted = (w.condition, w.best_rate, w.largest_rate)
    assert (found["condition"], found["best"], found["largest"]) == pytest.approx(wanted, rel=1e-9)


def _as_in_javascript(steps):
    return "Infinity" if steps == np.inf else str(steps)


@pytest.mark.parametrize("sources", [published.SOURCES[:4], published.SOURCES[3:4], published.SOURCES[2::-1], ()])
@pytest.mark.parametrize(("only_test", "recovered"), [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("dataset", published.DATASETS)
def test_javascript_evidence_table(run, dataset, only_test, recovered, sources):
    w = EvidenceExplorer(dataset=dataset, only_test=only_test, recovered=recovered, sources=list(sources))
    records = published.all_results()
    for w.epochs in published.EPOCHS:
        settings = {"dataset": dataset, "epochs": w.epochs, "sources": w.sources}
        found = run("evidence", table=w.table, settings={**settings, "onlyTest": only_test, "recovered": recovered})
        assert [records[i] for i in found["shown"]] == w.shown
        assert all(records[i].kind != "test" for i in found["hidden"]) and (only_test or found["hidden"] == [])
        pairs = [(records[p["bn"]], records[p["nd"]]) for p in found["pairs"]]
        assert pairs == published.bn_nd_pairs(w.shown)
        gains = [nd.accuracy - bn.accuracy for bn, nd in pairs]
        assert [p["gain"] for p in found["pairs"]] == pytest.approx(gains, abs=1e-12)
        assert [published.SOURCES[each["source"]] for each in found["summary"]] == [each.source for each in w.leads]
        for each, wanted in zip(found["summary"], w.leads, strict=True):
            assert (each["count"], each["ahead"]) == (wanted.total, wanted.ahead)
            assert each["gain"] == pytest.approx(wanted.gain, abs=1e-12)
        w.view = "difference"
        assert [records[each["index"]] for each in found["differences"]] == w.shown
        wanted = {d.result: (d.value, d.half) for d in published.differences(w.shown)}
        tests = [each for each in found["differences"] if each["half"] is not None]
        assert [records[each["index"]] for each in tests] == list(wanted)
        for each, (value, half) in zip(tests, wanted.values(), strict=True):
            assert (each["value"], each["half"]) == pytest.approx((value, half), abs=1e-12)
        agreement = {published.SOURCES[a["source"]]: (a["agree"], a["count"]) for a in found["agreement"]}
        assert agreement == w.agreement
        if not only_test and not recovered:  # the times are those of the study's printed values
            w.view = "time"
            timed = {w.table["architectures"][each["architecture"]]: each["ratio"] for each in found["times"]}
            assert timed == pytest.approx(w.times if w.shown else {}, rel=1e-12)
        w.view = "accuracy"


def test_javascript_colours_of_kernels(run):
    """On light paper those of the figures; on dark paper the strong is light and the weak dark, in the same hues."""
    values = np.linspace(-1, 1, 81)
    light, dark = (np.array(run("diverging", values=values, dark=paper)) for paper in (False, True))
    wanted = 255 * matplotlib.colormaps["RdBu_r"]((values + 1) / 2)[:, :3]
    assert np.abs(light - wanted).max() < 3
    for colours, towards in ((light, -1), (dark, 1)):
        brightness = colours @ [0.2126, 0.7152, 0.0722]
        for half in (brightness[:41][::-1], brightness[40:]):  # from 0 outwards
            assert (towards * np.diff(half) >= -0.5).all()
        assert (colours[:40, 2] >= colours[:40, 0]).all() and (colours[41:, 0] >= colours[41:, 2] - 7).all()
    assert dark[40].max() < 40 < 240 < light[40].min()
