"""What the diagnostics say about layers whose spectrum is known, and when a root goes wrong."""

import copy

import pytest
import torch
from torch import nn

from ndlib import DeconvConv2d, DeconvLinear, layer_whiteness
from ndlib._core import roots, whitening
from ndlib.experiments.baselines import KroneckerConv2d
from ndlib.functional import newton_schulz_response

pytestmark = pytest.mark.filterwarnings("ignore:.*rows for a covariance")


def spectrum_of(values, rows=4000, seed=0):
    """Rows whose covariance is exactly diagonal with these values."""
    x = torch.randn(rows, len(values), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q = torch.linalg.qr(x - x.mean(0)).Q * rows**0.5
    return (q - q.mean(0)) * torch.tensor(values, dtype=torch.float64).sqrt()


def test_a_known_spectrum():
    values = [4.0, 1.0, 0.25, 1e-4]
    layer = DeconvLinear(4, 2, n_iter=5).double()
    report = layer_whiteness(layer, spectrum_of(values))[""]
    torch.testing.assert_close(report.before[0], torch.tensor(values).double())
    gains = newton_schulz_response(torch.tensor(values).double() + 1e-5, 5)
    torch.testing.assert_close(report.after[0], gains**2 * torch.tensor(values).double())
    assert report.condition_before == pytest.approx(4e4)
    assert report.condition_after == pytest.approx((report.after.max() / report.after.min()).item())
    assert report.cutoff == pytest.approx(0.25)  # 1e-4 is far below what five steps reach
    assert report.whiteness_before == pytest.approx(5.2501**2 / (4 * (16 + 1 + 0.0625 + 1e-8)))
    assert report.whiteness_before < report.whiteness_after < 1
    assert "whiteness 0.4" in str(report)


def test_evaluation_shows_the_running_root_and_training_that_of_the_batch():
    layer = DeconvLinear(3, 2, solver="eigh", eps=1e-9).double()
    x = spectrum_of([9.0, 4.0, 1.0])
    assert layer_whiteness(layer, x)[""].whiteness_after == pytest.approx(1)
    layer.eval()  # nothing was learnt yet: the root is the identity
    torch.testing.assert_close(layer_whiteness(layer, x)[""].after[0], torch.tensor([9.0, 4.0, 1.0]).double())


def test_a_network_is_left_alone_and_all_its_layers_are_named():
    torch.manual_seed(0)
    net = nn.Sequential(DeconvConv2d(3, 8, 3), nn.ReLU(), DeconvConv2d(8, 4, 3), nn.Flatten(), DeconvLinear(64, 2))
    before = copy.deepcopy(net.state_dict())
    report = layer_whiteness(net, torch.randn(20, 3, 8, 8))
    assert list(report) == ["0", "2", "4"]
    assert report["2"].before.shape == (1, 72)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    assert not any(m._forward_pre_hooks for m in net.modules())


def test_a_diverging_root_stops_training_and_says_why(monkeypatch):
    """Were the iteration to blow up, training would go on with nonsense."""
    layer = DeconvConv2d(3, 4, 3)
    before = copy.deepcopy(layer.state_dict())
    right = roots.inverse_root
    monkeypatch.setattr(whitening, "inverse_root", lambda *a, **k: right(*a, **k) * 1e6)
    message = r"DeconvConv2d\(3, 4.*diverged.*eigenvalues from .* to .*, eps is 1e-05; a larger eps.*eigh"
    with pytest.raises(FloatingPointError, match=message):
        layer(torch.randn(8, 3, 9, 9))
    monkeypatch.setattr(whitening, "inverse_root", lambda *a, **k: right(*a, **k) * float("nan"))
    with pytest.raises(FloatingPointError, match="diverged"):
        layer(torch.randn(8, 3, 9, 9))
    after = layer.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items() if k != "num_batches_tracked")


def test_single_precision_with_too_many_steps_diverges_and_is_caught():
    """Rounding makes an eigenvalue of a singular covariance slightly negative; Newton-Schulz drives it to infinity."""
    torch.manual_seed(0)
    x = torch.randn(64, 1).repeat(1, 200) * 1000 + torch.randn(64, 200) * 1e-3
    assert DeconvLinear(200, 4, n_iter=60, eps=1e-8)(x).isfinite().all()  # by eigenvalues, which are never below eps
    layer = DeconvLinear(50, 4, n_iter=60, eps=1e-8)
    x = x[:, :50]
    with pytest.raises(FloatingPointError, match="diverged"):
        layer(x)


def test_a_layer_with_two_roots_is_refused():
    with pytest.raises(TypeError, match=r"KroneckerConv2d.*more than one root"):
        layer_whiteness(KroneckerConv2d(3, 4, 3), torch.randn(9, 3, 8, 8))


@pytest.mark.parametrize(("times", "raises"), [(0.9, False), (1.1, True), (50, True)])
def test_the_limit_of_a_root_is_twice_the_largest_gain(monkeypatch, times, raises):
    """No solver has a gain above 2 / sqrt(eps), so the norm of a root of n columns is at most 2 sqrt(n / eps)."""
    layer = DeconvConv2d(3, 4, 3, eps=1e-2)
    limit = 2 * (27 / 1e-2) ** 0.5
    monkeypatch.setattr(whitening, "inverse_root", lambda cov, *_: torch.eye(27)[None] / 27**0.5 * limit * times)
    if raises:
        with pytest.raises(FloatingPointError, match="diverged"):
            layer(torch.randn(8, 3, 9, 9))
    else:
        layer(torch.randn(8, 3, 9, 9))


def test_the_cutoff_is_where_half_of_the_variance_comes_out():
    """Two eigenvalues whose directions come out with variances just below and just above 1/2."""
    spectrum = torch.logspace(0, -3, 24, dtype=torch.float64)
    layer = DeconvLinear(24, 2, n_iter=4).double()
    report = layer_whiteness(layer, spectrum_of(spectrum.tolist()))[""]
    passed = report.before[0][report.after[0] >= 0.5]
    below = report.after[0][report.after[0] < 0.5].max()
    assert report.cutoff == pytest.approx(float(passed.min()))
    assert 0.4 < below < 0.5  # so that a limit of 0.4 would give another cutoff
