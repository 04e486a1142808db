"""The widgets as Python objects: traits, what is drawn as arrays, and what stands in a page."""

import gzip
import html
import json
import re

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image

from ndlib.bookwork.widgets import (
    BlurLab,
    Descent,
    EvidenceExplorer,
    KernelExplorer,
    LiveRace,
    NewtonSchulz,
    PatchMatrix,
    Pipeline,
    PixelPairs,
)
from ndlib.bookwork.widgets.base import BookWidget
from ndlib.bookwork.widgets.live_race import presets
from ndlib.evidence import published
from ndlib.functional import inverse_sqrt, moments, newton_schulz_response, patch_matrix
from ndlib.pictures import photographs
from ndlib.pictures.folders import collect
from ndlib.pictures.image_statistics import autocovariance, picture_statistics
from ndlib.pictures.kernels import block_toeplitz, decompose, deconvolution_kernel


@pytest.fixture(scope="module")
def pictures():
    """Five small colour pictures, (5, 3, 48, 40)."""
    coffee = photographs.photograph("coffee").double()
    return torch.stack([coffee[:, 50 * i : 50 * i + 48, 200:240] for i in range(5)])


def test_newton_schulz_gains_are_those_of_the_iteration():
    w = NewtonSchulz(spectrum="1/k", steps=5)
    assert w.eigenvalues.shape == (576,)
    torch.testing.assert_close(
        torch.from_numpy(w.gains), newton_schulz_response(torch.from_numpy(w.eigenvalues + w.eps), 5)
    )
    # Medians of whitened variance that five steps leave, as published spectra of this size have them.
    for spectrum, median in (("flat", 0.90), ("1/k", 0.14), ("1/k²", 0.001)):
        w.spectrum = spectrum
        assert np.median(w.gains**2 * w.eigenvalues) == pytest.approx(median, abs=0.005)


def test_newton_schulz_takes_own_eigenvalues():
    w = NewtonSchulz(eigenvalues=[1.0, 4.0, 2.0])
    assert w.spectrum == "own" and w.direction == 3
    assert w.eigenvalues.tolist() == [4.0, 2.0, 1.0]
    w.eigenvalues = torch.tensor([0.5, 0.25])
    assert w.eigenvalues.tolist() == [0.5, 0.25] and w.gains.shape == (2,)
    for wrong in ([1.0], [[1.0, 2.0]], [1.0, -1.0], [0.0, 0.0]):
        with pytest.raises(ValueError, match="eigenvalues must be"):
            w.eigenvalues = wrong
    with pytest.raises(traitlets.TraitError, match="finite"):
        w.eigenvalues = [1.0, float("nan")]


def test_pipeline_is_the_layer_on_one_channel():
    """The output is what a convolution with the folded weights gives of the picture less its mean window."""
    w = Pipeline(k=5, w="edge", steps=5, eps=1e-5)
    x = torch.tensor(w.image)[None, None]
    mean, covariance = moments(patch_matrix(x, 5))
    root = inverse_sqrt(covariance, solver="newton_schulz", n_iter=5, eps=1e-5)
    folded = root @ torch.from_numpy(w.weights)
    wanted = torch.nn.functional.conv2d(x, folded.reshape(1, 1, 5, 5)).flatten() - mean @ folded
    torch.testing.assert_close(torch.from_numpy(w.result), wanted)
    assert len(w.variances) == 25 and w.variances[0] > w.variances[-1]
    assert Pipeline(picture=torch.rand(3, 70, 90)).photograph == "yours"
    with pytest.raises(traitlets.TraitError, match="photograph must be one of"):
        w.photograph = "nobody"
    w.photograph = "own"
    with pytest.raises(ValueError, match="stays in the browser"):
        _ = w.result


@pytest.mark.parametrize("sigma", [0.5, 0.8])
def test_pipeline_undoes_a_blur_and_not_noise(sigma):
    """A symmetric blur that takes no frequency away leaves the whitened picture as it is: F G / |F G| = F / |F|."""
    for photograph in ("cat", "pagoda", "page"):
        sharp = Pipeline(photograph=photograph, k=7, eps=1e-8)
        blurred = Pipeline(photograph=photograph, k=7, eps=1e-8, blur=sigma)
        assert np.corrcoef(blurred.image[8:-8, 8:-8].ravel(), sharp.image[8:-8, 8:-8].ravel())[0, 1] < 0.999
        assert np.corrcoef(sharp.result, blurred.result)[0, 1] > 0.9
        blurred.noise = 0.1
        assert np.corrcoef(sharp.result, blurred.result)[0, 1] < 0.6


@pytest.mark.parametrize("channel", ["luminance", "green"])
def test_kernel_explorer_kernel_is_that_of_the_images(pictures, channel):
    w = KernelExplorer(images=pictures, channel=channel, patch_size=5, eps=1e-3, steps=5)
    assert w.counts == [1, 2, 3, 4, 5] and w.count == 5
    w.count = 3
    total = picture_statistics(pictures[0]) + picture_statistics(pictures[1]) + picture_statistics(pictures[2])
    space, channels, output = (photographs.luminance, 1, 0) if channel == "luminance" else (lambda x: x, 3, 1)
    tables = autocovariance(total)
    if channel == "luminance":
        parts = [picture_statistics(space(p)) for p in pictures[:3]]
        tables = autocovariance(parts[0] + parts[1] + parts[2])
    spectrum = decompose(block_toeplitz(tables, 5), channels)
    wanted = deconvolution_kernel(spectrum, eps=1e-3, n_iter=5, channel=output).numpy()
    # The statistics travel in single precision.
    np.testing.assert_allclose(w.kernel, wanted.squeeze(), atol=1e-4 * wanted.max())


def test_kernel_explorer_reads_folders_and_grey_pictures(pictures, tmp_path):
    for i, picture in enumerate(pictures):
        Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
    as_files = KernelExplorer(images=tmp_path, eps=1e-3)
    rounded = (pictures * 255).round() / 255
    np.testing.assert_allclose(as_files.kernel, KernelExplorer(images=rounded, eps=1e-3).kernel)
    grey = KernelExplorer(images=photographs.luminance(pictures)[:, None])
    assert grey.kernel.shape == (15, 15)
    with pytest.raises(traitlets.TraitError, match="grey"):
        grey.channel = "red"
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"skipped broken\.png: cannot identify"):
        assert KernelExplorer(images=tmp_path).counts == as_files.counts
    (tmp_path / "broken.png").unlink()
    for orders in (0, 1):  # a file of statistics
        collect(tmp_path, tmp_path / "all.npz", orders=orders)
        of_file = KernelExplorer(images=tmp_path / "all.npz", eps=1e-3)
        assert of_file.counts[-1] == as_files.counts[-1]
        np.testing.assert_allclose(of_file.kernel, as_files.kernel, atol=1e-3 * as_files.kernel.max())
    with pytest.raises(ValueError, match="no pictures below"):
        KernelExplorer(images=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="must have shape"):
        KernelExplorer(images=pictures[0])


def test_kernel_explorer_refuses_impossible_traits(pictures):
    w = KernelExplorer(images=pictures)
    for trait, value in (("count", 99), ("patch_size", 4), ("patch_size", 17), ("steps", 0), ("eps", 0.0)):
        with pytest.raises(traitlets.TraitError):
            setattr(w, trait, value)
    assert w.kernel.shape == (15, 15)
    w.channel = "blue"
    assert w.patch_size == 9 and w.kernel.shape == (3, 9, 9)


@pytest.mark.parametrize("method", ["pca", "zca", "cholesky"])
def test_pixel_pairs_are_whitened(method):
    w = PixelPairs(distance=2, direction="down", method=method)
    np.testing.assert_allclose(w.matrix.T @ w.covariance @ w.matrix, np.eye(2), atol=0.01)  # but for eps
    np.testing.assert_allclose(np.cov(w.points.T), np.eye(2), atol=0.1)  # a sample of the pairs
    assert np.linalg.det(w.matrix) > 0
    if method == "zca":
        np.testing.assert_allclose(w.matrix, w.matrix.T)
    if method == "cholesky":
        assert w.matrix[1, 0] == 0


def test_pixel_pairs_correlate_less_at_larger_distances():
    w = PixelPairs()
    assert w.method == "raw" and (w.matrix == np.eye(2)).all()
    correlations = []
    for w.distance in (0, 1, 2, 4, 8, 16):
        correlations.append(w.correlation)
    assert correlations[0] == pytest.approx(1) and correlations[-1] < 0.1
    assert correlations == sorted(correlations, reverse=True)


@pytest.mark.parametrize(("picture", "side", "k"), [("numbers", 5, 3), ("photograph", 16, 5)])
def test_patch_matrix_widget_equals_the_method(picture, side, k):
    w = PatchMatrix(picture=picture, k=k, eps=1e-2)
    pixels = torch.tensor(getattr(w, picture)).view(1, 1, side, side)
    matrix = patch_matrix(pixels, k)
    mean, covariance = moments(matrix)
    assert w.matrix.shape == ((side - k + 1) ** 2, k * k)
    np.testing.assert_allclose(w.matrix, matrix)
    np.testing.assert_allclose(w.mean, mean)
    np.testing.assert_allclose(w.covariance, covariance)
    np.testing.assert_allclose(w.whitening, inverse_sqrt(covariance, solver="eigh", eps=1e-2))


def test_patch_matrix_marks_stay_within_the_matrix():
    w = PatchMatrix(picture="photograph", k=5, row=143, column=24, other=20)
    w.k = 2
    assert (w.row, w.column, w.other) == (143, 3, 3)
    w.k = 5
    w.picture = "numbers"
    assert w.k == 4 and w.matrix.shape == (4, 16) and w.row == 3
    w.row = 99
    assert w.row == 3
    assert PatchMatrix(picture="numbers", k=5, row=50).k == 4


def test_blur_lab_blurs_and_restores_a_photograph():
    w = BlurLab(noise=0.0, k=0.0)
    assert w.photograph == "cat" and w.picture.shape == (128, 128)
    np.testing.assert_allclose(w.restored, w.picture, atol=1e-9)  # without noise the inverse is exact
    w.noise = 1 / 255
    spoilt = (w.restored - w.picture).std()
    assert spoilt > 1
    w.k = 0.008
    assert (w.restored - w.picture).std() < (w.blurred - w.picture).std() < spoilt
    assert (w.blurred - BlurLab(noise=0.0).blurred).std() == pytest.approx(1 / 255, rel=0.02)
    w.k, w.sigma = 0.0, 4.0
    assert "Three pictures" in w.describe() and w.still()  # though there is nothing to restore
    for trait, value in (("sigma", 0.1), ("noise", -1.0), ("k", 2.0), ("photograph", "dog")):
        with pytest.raises(traitlets.TraitError):
            setattr(w, trait, value)
    w.photograph = "own"  # as the reader's page says it
    with pytest.raises(ValueError, match="stays in the browser"):
        _ = w.picture


def test_blur_lab_takes_an_own_picture(pictures):
    w = BlurLab(picture=pictures[0])
    assert w.photograph == "yours" and w.names[-1] == "yours"
    assert w.picture.mean() == pytest.approx(float(photographs.luminance(pictures[0])[4:44].mean()), abs=0.01)
    with pytest.raises(ValueError, match="must have shape"):
        BlurLab(picture=pictures)


def test_descent_with_deconvolved_inputs_goes_straight():
    w = Descent()
    np.testing.assert_allclose(w.covariance, [[1, 0.95], [0.95, 1]])
    assert w.condition == pytest.approx(1.95 / 0.05)
    assert (w.best_rate, w.largest_rate) == pytest.approx((1, 2 / 1.95))
    target = w.inputs @ [1, 1]
    assert w.loss(np.array([0.5, -2.0])) == pytest.approx(np.square(w.inputs @ [0.5, -2] - target).mean() / 2)
    np.testing.assert_allclose(w.deconvolved_path[1:] - 1, 0.7 * (w.deconvolved_path[:-1] - 1), atol=1e-12)
    for deconvolved, losses in ((False, w.losses), (True, w.deconvolved_losses)):
        steps = w.steps_to_hundredth(deconvolved)
        if steps <= 60:
            assert losses[steps] <= losses[0] / 100 < losses[steps - 1]
    assert w.steps_to_hundredth() > 60 > w.steps_to_hundredth(deconvolved=True)
    w.rate = 1
    np.testing.assert_allclose(w.deconvolved_path[1], [1, 1], atol=1e-12)  # one step
    w.rate = 1.1
    assert w.losses[-1] > w.losses[0] and w.steps_to_hundredth() == np.inf
    assert w.deconvolved_losses[-1] < 1e-20 and "never reaches" in w.describe()
    w.w1 = w.w2 = 1
    assert w.steps_to_hundredth() == 0 and w.losses[-1] < 1e-20 and w.still()
    for trait, value in (("correlation", 1.0), ("scale", 0.0), ("rate", 0.0), ("w1", 5.0)):
        with pytest.raises(traitlets.TraitError):
            setattr(w, trait, value)


def test_evidence_explorer_selects_and_sums_up_published_numbers():
    w = EvidenceExplorer()
    assert len(w.shown) == 52 and published.all_results()[w.picked] in w.shown
    assert [each[:3] for each in w.leads] == [
        ("paper", 10, 10),
        ("Sbandati 2021", 3, 3),
        ("Jiang 2021", 3, 3),
        ("Obadage 2024", 10, 10),
    ]
    assert w.leads[0].gain == pytest.approx(4.718, abs=5e-4)
    assert "training accuracies" in w.describe()
    w.only_test = True
    assert len(w.shown) == 32 and "training" not in w.describe()
    w.recovered = True
    assert {r.source for r in w.shown} == {"paper", "Sbandati 2021", "Jiang 2021", "Obadage 2024, logs"}
    w.sources = ["paper"]
    assert len(w.shown) == 20
    w.sources, w.only_test, w.recovered, w.epochs = ["Obadage 2024"], False, False, 100
    assert w.leads[0].ahead == 7 and w.still()
    w.only_test = True
    assert w.shown == [] and "Nothing is shown" in w.describe() and w.still()
    w.view = "difference"
    assert "No value shown" in w.describe() and w.still()
    w.sources, w.epochs, w.recovered = list(published.SOURCES[:4]), 20, True
    assert {r.source for r in w.shown} == {"Sbandati 2021", "Jiang 2021", "Obadage 2024, logs"} and len(w.shown) == 32
    found = [d for d in published.differences(w.shown) if d.result.source == "Obadage 2024, logs"]
    assert w.agreement["Obadage 2024, logs"] == (sum(abs(d.value) <= d.half for d in found), 20)
    assert 0 < w.agreement["Obadage 2024, logs"][0] < 20
    assert "of 20 in the logs of the 2024 reproduction" in w.describe() and w.still()
    w.only_test, w.recovered = False, False  # training accuracies are drawn, crossed and without an interval
    assert w.agreement.keys() == {"Sbandati 2021", "Jiang 2021"} and len(w.shown) == 32 and w.still()
    w.dataset, w.epochs, w.view, w.only_test = "CIFAR-10", 100, "time", True  # what the accuracies are does not matter
    assert {r.source for r in w.shown} == {"Obadage 2024"} and len(w.shown) == 20
    runs = {m: [966, 1017, 988] if m == "BN" else [3304, 3405, 3361] for m in ("BN", "ND")}
    assert w.times["VGG-16"] == pytest.approx(sorted(runs["ND"])[1] / sorted(runs["BN"])[1], rel=2e-3)
    assert "1.0 to 4.5 in the 2024 reproduction" in w.describe() and w.still()
    w.sources = ["paper"]
    assert w.shown == [] and "Only the 2024" in w.describe() and w.still()
    for trait, value in (("dataset", "MNIST"), ("epochs", 2), ("sources", ["nobody"]), ("picked", 320), ("view", "")):
        with pytest.raises(traitlets.TraitError):
            setattr(w, trait, value)
    state = json.dumps({name: value for name, value in w.get_state().items() if not name.startswith("_")}, default=str)
    assert len(gzip.compress(state.encode())) < 40_000


def test_a_race_begins_at_the_rates_of_the_study():
    w = LiveRace()
    best = {arm: found.rate for arm, found in w.study.items()}
    assert (w.plain_rate, w.bn_rate, w.nd_rate) == (best["plain"], best["BN"], best["ND as published"])
    assert {found.n for found in w.study.values()} == {20} and w.study["BN"].steps[-1] == 100
    assert "ND is ahead up to step 20, BN from step 30 on" in w.describe() and w.still()
    w = LiveRace(preset="Paper's rate", arms=["BN", "ND"], seed=3)
    assert (w.bn_rate, w.nd_rate, w.arms, w.seed) == (0.1, 0.1, ["BN", "ND"], 3)
    assert LiveRace(preset="ND as recommended").variant == "recommended"
    assert LiveRace(preset="By the clock").by == "seconds" and len(presets()) == 5
    with pytest.raises(ValueError, match="preset must be one of"):
        LiveRace(preset="fastest")
    for trait, value in (("bn_rate", 1.0), ("arms", ["nobody"]), ("block_size", 64), ("seed", 0), ("by", "epochs")):
        with pytest.raises(traitlets.TraitError):
            setattr(w, trait, value)
    with pytest.raises(traitlets.TraitError):
        w.digits = b""


def test_page_html_escapes_the_state():
    class Nasty(BookWidget):
        _name = "newton-schulz"
        _esm = "export default {}"
        text = traitlets.Unicode("</script><script>alert(1)</script><!-- \u2028 'é\"").tag(sync=True)

        def still(self):
            return NewtonSchulz().still()

        def describe(self):
            return 'A "quoted" <b>text</b> & more'

    page = Nasty().page_html()
    assert page.count("<script") == page.count("</script") == 1
    (state,) = re.findall(r'<script type="application/json">(.*)</script>', page)
    assert json.loads(state) == {"text": Nasty().text}
    assert f'aria-label="{html.escape(Nasty().describe())}"' in page
    assert "<!--" not in page[page.index("<script") :]


def test_notebook_output_has_widget_and_still_picture():
    data, _ = NewtonSchulz()._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "text/html"} <= data.keys()
    ids = re.findall(r' id="([^"]+)"', data["text/html"])
    assert ids and len(ids) == len(set(ids))
