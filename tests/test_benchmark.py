"""The benchmark: that it counts and compares what it says. How fast anything is, is not tested but for one ratio."""

import json
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ndlib import DeconvConv2d, __main__
from ndlib.experiments import benchmark, models
from ndlib.experiments.benchmark import Straightforward, interleaved, predicted, ratio, saved_bytes, spread

pytestmark = pytest.mark.filterwarnings("ignore:.*rows for a covariance")


def test_actions_take_turns_and_the_warm_up_does_not_count():
    order = []
    seconds = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3, warm_up=2)
    assert "".join(order) == "ab" * 5
    assert [len(times) for times in seconds.values()] == [3, 3]


def test_ratios_are_taken_round_by_round():
    # The machine was ten times slower in the second round: of the ratio nothing is seen.
    seconds = {"new": [2.0, 20.0, 2.2, 1.8, 2.0], "old": [1.0, 10.0, 1.0, 1.0, 1.0]}
    assert ratio(seconds, "new", "old") == pytest.approx((2.0, 2.0, 2.0))
    assert spread([1.0, 2.0, 3.0, 4.0, 10.0]) == (3.0, 2.0, 4.0)
    assert spread([7.0]) == (7.0, 7.0, 7.0)


def test_a_price_has_one_time_of_bn_and_its_bounds_from_both():
    record = {"seconds": {"BN": [2.0, 1.0, 4.0], "ND": [6.0, 5.0, 8.0]}}  # median, quartiles
    assert benchmark.price(record, "ND") == (3.0, 5 / 4, 8.0)


def test_kept_bytes_by_hand():
    linear = nn.Linear(100, 50)
    x = torch.randn(8, 100, requires_grad=True)
    assert saved_bytes(linear, lambda: linear(x)) == 8 * 100 * 4  # x; the weight is a parameter
    assert saved_bytes(linear, lambda: F.relu(linear(x))) == 8 * 100 * 4 + 8 * 50 * 4
    assert saved_bytes(linear, lambda: (x * x[:4].sum()) * x) == 2 * 8 * 100 * 4 + 4  # x once, x times the sum, the sum


def test_operations_by_hand():
    # 8 images of 10 x 10: all positions for the convolution, those 0, 3, 6, 9 of both sides for the statistics.
    layer = DeconvConv2d(128, 32, 3, padding=1)
    counts = predicted(layer, (8, 128, 10, 10))
    assert counts["convolution"] == 6 * 800 * 32 * 128 * 9
    assert counts["statistics"] == 6 * (8 * 16 * 2) * 576**2  # two blocks of 64 channels
    assert counts["root"] == 6 * 15 * 576**3
    assert counts["folding"] == 6 * 32 * 2 * 576**2
    strided = predicted(DeconvConv2d(3, 4, 3, stride=2), (1, 3, 9, 9))
    assert strided["convolution"] == 6 * 16 * 4 * 27
    assert strided["statistics"] == 6 * 4 * 27**2


def test_calls_by_hand():
    with benchmark._Calls() as calls:
        x = torch.ones(4, 3)  # one
        (x.T @ x).view(9).add_(1)  # a product and a sum; no views
        torch.empty(5)
        torch.promote_types(x.dtype, torch.float64)
    assert calls.number == 3


def test_a_step_is_launched_in_fewer_pieces_than_as_published():
    calls = {kind: benchmark.launches("vgg-small", kind, batch_size=8) for kind in ("BN", "ND", "as published")}
    # Five times convolution, batch normalisation, its count, relu, and back; poolings, classifier and loss.
    assert 5 * 7 + 4 * 2 + 8 <= calls["BN"] <= 60
    # The products of the root and of its gradient, 36 for five steps, carry their sums along.
    assert calls["ND"] < 0.85 * calls["as published"]
    assert calls["ND"] < 6 * 120


LAYERS = {
    "one block": ((12, 6, 3), {"padding": 1}, (6, 12, 20, 20)),
    "two blocks": ((16, 6, 3), {"padding": 1, "block_size": 8}, (6, 16, 20, 20)),
    "1x1, stride": ((12, 6, 1), {"stride": 2}, (6, 12, 20, 20)),
    "dilated, without bias": ((12, 6, 3), {"dilation": 2, "bias": False, "n_iter": 15}, (6, 12, 24, 24)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_baseline_computes_the_same(name):
    sizes, options, shape = LAYERS[name]
    torch.manual_seed(0)
    ours = DeconvConv2d(*sizes, **options).double()
    baseline = DeconvConv2d(*sizes, **options).double()
    baseline.load_state_dict(ours.state_dict())
    assert type(benchmark.straightforward(baseline)) is Straightforward
    x = torch.randn(shape, dtype=torch.float64).cumsum(-1)
    grad = None
    results = []
    for layer in (ours, baseline):
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        grad = torch.randn_like(y) if grad is None else grad
        y.backward(grad)
        results.append([y, leaf.grad, layer.weight.grad, layer.running_mean, layer.running_deconv])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10 * one.abs().max().item())


@pytest.mark.filterwarnings("ignore:.*addmm is deprecated")
def test_the_authors_layer_computes_the_same():
    checkout = os.environ.get("NDLIB_OFFICIAL")
    if not checkout:
        pytest.skip("set NDLIB_OFFICIAL to a checkout of yechengxi/deconvolution to run")
    torch.manual_seed(0)
    ours = models.build("vgg-small", method="nd", classes=10, width=0.5)
    torch.manual_seed(0)
    theirs = benchmark.official(models.build("vgg-small", method="nd", classes=10, width=0.5), Path(checkout))
    assert not any(isinstance(m, DeconvConv2d) for m in theirs.modules())
    x = torch.rand(64, 3, 32, 32)
    torch.testing.assert_close(theirs(x), ours(x), rtol=1e-3, atol=1e-3)


def test_a_folder_that_is_no_checkout(tmp_path):
    with pytest.raises(ValueError, match=r"it has no models/deconv\.py"):
        benchmark.official(nn.Sequential(), tmp_path)


@pytest.mark.parametrize("arch", ["vgg-small", "vgg16", "resnet18"])
def test_deconvolution_keeps_less_than_batch_normalisation(arch):
    x, labels = torch.randn(128, 3, 32, 32), torch.randint(10, (128,))
    nd, bn = (models.build(arch, method=method, classes=10) for method in ("nd", "bn"))
    kept = [saved_bytes(model, lambda model=model: F.cross_entropy(model(x), labels)) for model in (nd, bn)]
    assert kept[0] < 0.9 * kept[1]  # the patches are cut out anew in the backward pass


def test_a_layer_is_faster_than_its_baseline():
    """The guard against a step back: a ratio in one process, with room for a busy machine."""
    x = torch.randn(32, 64, 12, 12)
    actions = {}
    for name, prepare in (("ours", lambda m: m), ("baseline", benchmark.straightforward)):
        layer = prepare(DeconvConv2d(64, 16, 3, padding=1))
        actions[name] = lambda layer=layer: layer(x).sum().backward()
    assert ratio(interleaved(actions, 5), "ours", "baseline").low < 0.8


def test_a_benchmark_is_written_down_and_printed(tmp_path):
    settings = {"archs": ["vgg-small"], "width": 0.5, "batch_size": 8, "rounds": 1, "device": "cpu", "checkout": None}
    file = tmp_path / "new" / "b.jsonl"
    printed = list(benchmark.run(**settings, file=file, command="c"))
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [r["what"] for r in records] == ["step", "stages", "folded inference"]
    step, stages, inference = records
    assert benchmark.price(step, "BN").median == 1
    assert step["bytes"]["as published"] > step["bytes"]["ND"]
    net = models.build("vgg-small", method="nd", classes=10, width=0.5)
    layers = benchmark.inputs_of(net, torch.randn(8, 3, 32, 32)).values()
    counted = sum(predicted(layer, tuple(seen.shape))["root"] for layer, seen in layers)
    assert stages["flops_as_published"]["root"] == counted
    assert set(stages["seconds"]["ours"]) == set(benchmark.STAGES)
    assert inference["ratio_to_plain"][0] > 0
    for record, text in zip(records, printed, strict=True):
        assert record["command"] == "c" and record["device"].startswith("cpu")
        assert text.startswith(record["what"])
    assert "times BN" in printed[0]
    assert benchmark.latest(file, "stages", "vgg-small", width=0.5) == records[1]
    with pytest.raises(LookupError, match="python -m ndlib bench vgg-small makes one"):
        benchmark.latest(file, "stages", "vgg-small")
    with pytest.raises(LookupError, match="python -m ndlib bench vgg16 makes one"):
        benchmark.latest(file, "step", "vgg16")


def test_compiled_beside_uncompiled_and_no_place_on_a_disk_in_the_record(tmp_path, capsys):
    file = tmp_path / "b.jsonl"
    words = ["bench", "vgg-small", "--compile", "--batch-size", "8", "--rounds", "1", "--out", str(file)]
    torch.compiler.set_stance("force_eager")  # to compile takes a minute; that it can be done, test_layers.py shows
    try:
        assert __main__.main([*words, "--official", str(tmp_path)]) == 0
    finally:
        torch.compiler.set_stance("default")
    record = benchmark.latest(file, "compiled", "vgg-small")
    assert list(record["seconds"]) == list(record["bytes"]) == ["BN", "ND", "BN, compiled", "ND, compiled"]
    assert "--official PATH" in record["command"] and str(tmp_path) not in record["command"]
    assert "ND, compiled  " in capsys.readouterr().out


def test_a_folded_network_is_the_plain_one():
    from ndlib import to_plain

    folded = to_plain(models.build("resnet18", method="nd", classes=10, width=0.25).eval())
    plain = models.build("resnet18", method="none", classes=10, width=0.25)
    assert benchmark.form_of(folded) == benchmark.form_of(plain)
    assert benchmark.form_of(plain) != benchmark.form_of(models.build("resnet18", method="bn", classes=10, width=0.25))
