"""The benchmark: that it counts and compares what it says. How fast anything is, is not tested but for one ratio."""

import copy
import json
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ndlib
from ndlib import DeconvConv2d, cli
from ndlib.experiments import baselines, benchmark, models, operations, step_times
from ndlib.experiments.baselines import KroneckerConv2d, Straightforward, rebuilt
from ndlib.experiments.operations import predicted_operations
from ndlib.experiments.timing import interleaved, ratio, saved_bytes, spread
from ndlib.layers import Deconvolution

pytestmark = pytest.mark.filterwarnings("ignore:.*rows for a covariance")


def test_interleaved_takes_turns_and_leaves_out_the_warm_up():
    order = []
    seconds = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3, warm_up=2)
    assert "".join(order) == "ab" * 5
    assert [len(times) for times in seconds.values()] == [3, 3]


def test_ratio_is_taken_round_by_round():
    # The machine was ten times slower in the second round: of the ratio nothing is seen.
    seconds = {"new": [2.0, 20.0, 2.2, 1.8, 2.0], "old": [1.0, 10.0, 1.0, 1.0, 1.0]}
    assert ratio(seconds, "new", "old") == pytest.approx((2.0, 2.0, 2.0))
    assert spread([1.0, 2.0, 3.0, 4.0, 10.0]) == (3.0, 2.0, 4.0)
    assert spread([7.0]) == (7.0, 7.0, 7.0)


def test_price_divides_by_one_time_of_bn_and_bounds_by_both_quartiles():
    record = {"seconds": {"BN": [2.0, 1.0, 4.0], "ND": [6.0, 5.0, 8.0]}}  # median, quartiles
    assert benchmark.price(record, "ND") == (3.0, 5 / 4, 8.0)


def test_the_price_is_that_of_a_whole_cycle(monkeypatch):
    """Of 16 steps one measures: 31 and 15 times 2 make 61 sixteenths, beside 4 of BN and 3 of no normalisation."""
    seconds = {"BN": [4.0], "BN again": [4.2], "no normalisation": [3.0], "measured": [31.0], "between": [2.0]}
    monkeypatch.setattr(step_times, "interleaved", lambda actions, rounds: {name: seconds[name] for name in actions})
    found = step_times.time_price("vgg-small", width=0.1, batch_size=2, rounds=1)["ratios"]
    medians = {name: ratio.median for name, ratio in found.items()}
    cycle = (31 + 15 * 2) / 16
    assert medians == pytest.approx(
        {
            "recommended of BN": cycle / 4,
            "added to no normalisation": (cycle - 3) / 3,
            "BN again of BN": 1.05,
            "BN of no normalisation": 4 / 3,
        }
    )


def test_the_priced_layer_measures_every_second_step_that_is_timed(monkeypatch):
    measured = []
    begins = Deconvolution.begins_measured_step
    monkeypatch.setattr(Deconvolution, "begins_measured_step", lambda *a: measured.append(begins(*a)) or measured[-1])
    step_times.time_price("vgg-small", width=0.1, batch_size=2, rounds=2)
    layers = len(measured) // 6  # 3 rounds with the warm-up, of two steps
    assert measured == 3 * (layers * [True] + layers * [False])


def test_saved_bytes_equal_a_count_by_hand():
    linear = nn.Linear(100, 50)
    x = torch.randn(8, 100, requires_grad=True)
    assert saved_bytes(linear, lambda: linear(x)) == 8 * 100 * 4  # x; the weight is a parameter
    assert saved_bytes(linear, lambda: F.relu(linear(x))) == 8 * 100 * 4 + 8 * 50 * 4
    assert saved_bytes(linear, lambda: (x * x[:4].sum()) * x) == 2 * 8 * 100 * 4 + 4  # x once, x times the sum, the sum


def test_predicted_operations_equal_a_count_by_hand():
    # 8 images of 10 x 10: all positions for the convolution, those 0, 3, 6, 9 of both sides for the statistics.
    layer = DeconvConv2d(128, 32, 3, padding=1)
    counts = predicted_operations(layer, (8, 128, 10, 10))
    assert counts["convolution"] == 6 * 800 * 32 * 128 * 9
    assert counts["statistics"] == 6 * (8 * 16 * 2) * 576**2  # two blocks of 64 channels
    assert counts["root"] == 6 * 15 * 576**3
    assert counts["folding"] == 6 * 32 * 2 * 576**2
    strided = predicted_operations(DeconvConv2d(3, 4, 3, stride=2), (1, 3, 9, 9))
    assert strided["convolution"] == 6 * 16 * 4 * 27
    assert strided["statistics"] == 6 * 4 * 27**2


def test_counted_calls_equal_a_count_by_hand():
    with operations._Calls() as calls:
        x = torch.ones(4, 3)  # one
        (x.T @ x).view(9).add_(1)  # a product and a sum; no views
        torch.empty(5)
        torch.promote_types(x.dtype, torch.float64)
    assert calls.number == 3


def test_nd_step_has_fewer_launches_than_as_published():
    calls = {
        kind: operations.launches(lambda kind=kind: step_times.network("vgg-small", kind), batch_size=8)
        for kind in ("BN", "ND", "as published")
    }
    # Five times convolution, batch normalisation, its count, relu, and back; poolings, classifier and loss.
    assert 5 * 7 + 4 * 2 + 8 <= calls["BN"] <= 60
    # The products of the root and of its gradient, 36 for five steps, carry their sums along.
    assert calls["ND"] < 0.85 * calls["as published"]
    assert calls["ND"] < 6 * 120


def test_launches_are_the_mean_of_a_cycle_and_few_for_the_recommended_layer():
    measured, between, mean = (
        operations.launches(lambda every=every, last=last: _recommended(every, last), batch_size=8)
        for every, last in ((1, None), (1, 1), (4, None))
    )
    # A step that measures and is followed by one that does not also takes the root of its averages.
    assert between < measured < 4 * mean - 3 * between < 2 * measured
    assert operations.launches(lambda: step_times.network("resnet18", "ND, recommended")) <= 600


def _recommended(every, last):
    options = {**ndlib.RECOMMENDED, "update_every": every, "freeze_after": last}
    return nn.Sequential(DeconvConv2d(3, 16, 3, **options), nn.Flatten(), nn.Linear(16 * 30 * 30, 10))


LAYERS = {
    "one block": ((12, 6, 3), {"padding": 1}, (6, 12, 20, 20)),
    "two blocks": ((16, 6, 3), {"padding": 1, "block_size": 8}, (6, 16, 20, 20)),
    "1x1, stride": ((12, 6, 1), {"stride": 2}, (6, 12, 20, 20)),
    "dilated, without bias": ((12, 6, 3), {"dilation": 2, "bias": False, "n_iter": 15}, (6, 12, 24, 24)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_straightforward_computes_what_deconvconv2d_computes(name):
    sizes, options, shape = LAYERS[name]
    torch.manual_seed(0)
    ours = DeconvConv2d(*sizes, **options).double()
    baseline = baselines.straightforward(copy.deepcopy(ours))
    assert type(baseline) is Straightforward
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
def test_official_layers_compute_what_ours_compute():
    checkout = os.environ.get("NDLIB_OFFICIAL")
    if not checkout:
        pytest.skip("set NDLIB_OFFICIAL to a checkout of yechengxi/deconvolution to run")
    torch.manual_seed(0)
    ours = models.build("vgg-small", method="nd", classes=10, width=0.5)
    torch.manual_seed(0)
    theirs = baselines.official(models.build("vgg-small", method="nd", classes=10, width=0.5), Path(checkout))
    assert not any(isinstance(m, DeconvConv2d) for m in theirs.modules())
    x = torch.rand(64, 3, 32, 32)
    torch.testing.assert_close(theirs(x), ours(x), rtol=1e-3, atol=1e-3)


def test_straightforward_network_keeps_weights_averages_and_mode():
    net = nn.Sequential(DeconvConv2d(3, 4, 3, eps=0.1, n_iter=7), nn.ReLU(), nn.Conv2d(4, 2, 1))
    net(torch.randn(8, 3, 9, 9))
    layer, state = net[0], copy.deepcopy(net.state_dict())
    changed = baselines.straightforward(net.eval())
    assert [type(m) for m in changed] == [Straightforward, nn.ReLU, nn.Conv2d]
    assert changed[0].weight is layer.weight and not changed[0].training
    assert changed[0].options == layer.options
    assert all(torch.equal(value, state[name]) for name, value in changed.state_dict().items())


def test_rebuilt_layer_has_other_options_and_the_same_weights():
    layer = DeconvConv2d(8, 6, (3, 1), 2, (1, 0), groups=2, bias=False, eps=0.1)
    other = rebuilt(layer, DeconvConv2d, n_iter=15)
    assert other.weight is layer.weight and other.bias is None
    assert (other.stride, other.padding, other.groups) == (layer.stride, layer.padding, 2)
    assert other.options == layer.options.changed(n_iter=15)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (KroneckerConv2d, {"running": "covariance"}, "KroneckerConv2d has running='root' only, got 'covariance'"),
        (KroneckerConv2d, {"centering": "per-block"}, "KroneckerConv2d has centering='shared' only, got 'per-block'"),
        (KroneckerConv2d, {"grouping": "contiguous"}, "KroneckerConv2d has grouping='interleaved' only"),
        (KroneckerConv2d, {"block_size": 3}, "all channels of a group together; leave out block_size"),
        (Straightforward, {"solver": "eigh"}, "Straightforward has solver='newton_schulz' only, got 'eigh'"),
        (Straightforward, {"centering": "per-block"}, "Straightforward has centering='shared' only"),
        (Straightforward, {"detach_root": True}, "Straightforward has detach_root=False only, got True"),
        (Straightforward, {"groups": 3}, "Straightforward has no groups and pads with zeros"),
        (Straightforward, {"padding_mode": "reflect"}, "Straightforward has no groups and pads with zeros"),
    ],
)
def test_baseline_layer_refuses_an_option_it_does_not_have(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(3, 6, 3, **arguments)


def test_official_refuses_a_folder_that_is_no_checkout(tmp_path):
    with pytest.raises(ValueError, match=r"it has no models/deconv\.py"):
        baselines.official(nn.Sequential(), tmp_path)


@pytest.mark.parametrize("arch", ["vgg-small", "vgg16", "resnet18"])
def test_nd_saves_fewer_bytes_than_bn(arch):
    x, labels = torch.randn(128, 3, 32, 32), torch.randint(10, (128,))
    nd, bn = (models.build(arch, method=method, classes=10) for method in ("nd", "bn"))
    kept = [saved_bytes(model, lambda model=model: F.cross_entropy(model(x), labels)) for model in (nd, bn)]
    assert kept[0] < 0.9 * kept[1]  # the patches are cut out anew in the backward pass


def test_deconvconv2d_is_faster_than_straightforward():
    """The guard against a step back: a ratio in one process, with room for a busy machine."""
    x = torch.randn(32, 64, 12, 12)
    actions = {}
    for name, prepare in (("ours", lambda m: m), ("baseline", baselines.straightforward)):
        layer = prepare(DeconvConv2d(64, 16, 3, padding=1))
        actions[name] = lambda layer=layer: layer(x).sum().backward()
    assert ratio(interleaved(actions, 5), "ours", "baseline").low < 0.8


def test_measure_records_and_prints_each_measurement(tmp_path):
    settings = {"archs": ["vgg-small"], "width": 0.5, "batch_size": 8, "rounds": 1, "device": "cpu", "checkout": None}
    file = tmp_path / "new" / "b.jsonl"
    printed = list(benchmark.measure(**settings, file=file, command="c"))
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [r["what"] for r in records] == ["price", "step", "stages", "folded inference"]
    price, step, stages, inference = records
    assert "at most 1.00" in printed[0] and price["ratios"]["BN again of BN"][0] > 0
    assert benchmark.price(step, "BN").median == 1
    assert step["bytes"]["as published"] > step["bytes"]["ND"]
    net = models.build("vgg-small", method="nd", classes=10, width=0.5)
    layers = operations.inputs_of(net, torch.randn(8, 3, 32, 32)).values()
    counted = sum(predicted_operations(layer, tuple(seen.shape))["root"] for layer, seen in layers)
    assert stages["flops_as_published"]["root"] == counted
    assert set(stages["seconds"]["ours"]) == set(operations.STAGES)
    assert inference["ratio_to_plain"][0] > 0
    for record, text in zip(records, printed, strict=True):
        assert record["command"] == "c" and record["device"].startswith("cpu")
        assert text.startswith(record["what"])
    assert "times BN" in printed[1] and "BN again" in printed[1] and "no normalisation" in printed[1]
    assert benchmark.latest(file, "stages", "vgg-small", width=0.5) == stages
    with pytest.raises(LookupError, match="python -m ndlib bench vgg-small makes one"):
        benchmark.latest(file, "stages", "vgg-small")
    with pytest.raises(LookupError, match="python -m ndlib bench vgg16 makes one"):
        benchmark.latest(file, "step", "vgg16")


def test_bench_compile_times_both_and_records_no_path(tmp_path, capsys):
    file = tmp_path / "b.jsonl"
    words = ["bench", "vgg-small", "--compile", "--batch-size", "8", "--rounds", "1", "--out", str(file)]
    torch.compiler.set_stance("force_eager")  # to compile takes a minute; that it can be done, test_layers.py shows
    try:
        assert cli.main([*words, "--official", str(tmp_path)]) == 0
    finally:
        torch.compiler.set_stance("default")
    record = benchmark.latest(file, "compiled", "vgg-small")
    assert list(record["seconds"]) == list(record["bytes"]) == ["BN", "ND", "BN, compiled", "ND, compiled"]
    assert "--official PATH" in record["command"] and str(tmp_path) not in record["command"]
    assert "ND, compiled  " in capsys.readouterr().out


def test_folded_network_has_the_form_of_the_plain_one():

    folded = ndlib.to_plain(models.build("resnet18", method="nd", classes=10, width=0.25).eval())
    plain = models.build("resnet18", method="none", classes=10, width=0.25)
    assert benchmark.form_of(folded) == benchmark.form_of(plain)
    assert benchmark.form_of(plain) != benchmark.form_of(models.build("resnet18", method="bn", classes=10, width=0.25))
