"""Networks that nobody here wrote: norms and layers by what they compute, and the path that an example really takes."""

import copy
import pickle
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.utils import parametrizations
from torchvision.ops import FrozenBatchNorm2d

from ndlib import DeconvConv2d, DeconvLinear, convert, convert_pretrained, to_plain
from ndlib._conversion.calls import acts_on_each_number_alone
from ndlib.conversion import Copy
from ndlib.layers import Deconvolution

pytestmark = pytest.mark.filterwarnings("ignore:.*rows for a covariance", "ignore:block_size=")


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


def trained(net, x, steps=3):
    for _ in range(steps):
        net.train()(x)
    return net.eval()


def seasoned(net):
    torch.manual_seed(2)
    for m in net.modules():
        if hasattr(m, "running_var"):
            m.running_mean.normal_()
            m.running_var.uniform_(0.3, 3)
    return net.eval()


# Norms. ----------------------------------------------------------------------------------------------------


class DetectorNorm(nn.Module):
    """As detectors copy it from one another: four buffers, and eps in the forward."""

    def __init__(self, n):
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((n,), value))

    def forward(self, x):
        shape = (1, -1, 1, 1)
        scale = self.weight.reshape(shape) * (self.running_var.reshape(shape) + 1e-5).rsqrt()
        return x * scale + (self.bias.reshape(shape) - self.running_mean.reshape(shape) * scale)


class OtherEps(DetectorNorm):
    def forward(self, x):
        scale = (self.weight * (self.running_var + 2e-5).rsqrt()).reshape(1, -1, 1, 1)
        return (x - self.running_mean.reshape(1, -1, 1, 1)) * scale + self.bias.reshape(1, -1, 1, 1)


@pytest.mark.parametrize("norm", [FrozenBatchNorm2d, DetectorNorm])
def test_frozen_normalisation_goes_and_is_fused(norm):
    net = seasoned(nn.Sequential(nn.Conv2d(3, 4, 3), norm(4), nn.ReLU(), nn.Conv2d(4, 4, 3))).double()
    net[1].weight.uniform_(0.5, 2)
    net[1].bias.normal_()
    new, report = convert(net)
    assert [r.action for r in report.rows] == ["converted", "dropped", "converted"]
    assert type(new[1]) is nn.Identity
    x = torch.randn(32, 3, 9, 9).double()
    new, report = convert_pretrained(net, x)
    assert report.rows[1].why == "fused into 0" and report.rows[1].norm == "batch"
    assert relative(new(x), net(x)) <= 1e-6  # torchvision and its copies have a weight of float32


def test_frozen_normalisation_with_another_eps_stays():
    _, report = convert(nn.Sequential(nn.Conv2d(3, 4, 3), OtherEps(4), nn.Conv2d(4, 4, 3)))
    assert report.rows[1].action == "kept" and "computes something else" in report.rows[1].why


class Inside(nn.Module):
    """Normalises by a function, and scales with weights of its own."""

    def __init__(self, function):
        super().__init__()
        self.function, self.conv, self.last = function, nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x):
        return self.last(self.function(self.conv(x)))


FUNCTIONS = {
    "batch": lambda x: F.batch_norm(x, None, None, training=True),
    "group": lambda x: F.group_norm(x, 2),
    "layer": lambda x: F.layer_norm(x, x.shape[1:]),
}


@pytest.mark.parametrize("example", [None, torch.randn(2, 3, 9, 9)], ids=["traced", "followed"])
@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_function_that_normalises_has_a_row_and_stays(kind, example):
    _, report = convert(nn.Sequential(Inside(FUNCTIONS[kind])), example_input=example)
    (row,) = (r for r in report.rows if r.norm)
    assert (row.name, row.action, row.norm) == ("0", "kept", "batch" if kind == "batch" else "other")
    assert row.kind.endswith("Inside") and f"calls {kind}_norm as a function" in row.why
    assert "stay beside whitening." in str(report).splitlines()[0]


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.LayerNorm([4, 7, 7]), nn.RMSNorm(7)])
def test_other_norms_have_a_row_and_the_first_line_says_so(norm):
    _, report = convert(nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.Conv2d(4, 4, 3)))
    assert report.rows[1].why == "normalises each example by itself, so it stays, beside whitening"
    assert str(report).startswith("Mind: 1 other normalisations stay beside whitening.\n")


# Layers of other classes. ----------------------------------------------------------------------------------


class Same(nn.Conv2d):
    """Pads to the size of the input over the stride, more behind than before."""

    def forward(self, x):
        pads = []
        for n, k, s, d in zip(
            x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], self.dilation[::-1], strict=True
        ):
            total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Mirrors(nn.Conv2d):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.pad = nn.ReflectionPad2d(2)

    def forward(self, x):
        return super().forward(self.pad(x))


class Standardised(nn.Conv2d):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(torch.full((self.out_channels, 1, 1, 1), 0.7))

    def forward(self, x):
        w = self.weight
        w = self.gain * (w - w.mean((1, 2, 3), keepdim=True)) / w.std((1, 2, 3), keepdim=True)
        return F.conv2d(x, w, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Rectifies(nn.Conv2d):
    """Writes to its input."""

    def forward(self, x):
        return super().forward(x.relu_())


class Parent(nn.Conv2d):
    """As torchvision's Conv3DSimple: another constructor, the same forward."""

    @staticmethod
    def extra():
        return 1


WITH_OWN_FORWARD = {
    "pads": lambda: Same(3, 8, 3, stride=2),
    "pads with stride 3 and dilation": lambda: Same(3, 8, 3, stride=3, dilation=2),
    "mirrors": lambda: Mirrors(3, 8, 3),
    "standardises": lambda: Standardised(3, 8, 3),
    "rectifies": lambda: Rectifies(3, 8, 3),
    "parent": lambda: Parent(3, 8, 3, padding=1),
    "weight_norm": lambda: parametrizations.weight_norm(nn.Conv2d(3, 8, 3)),
    "spectral_norm": lambda: parametrizations.spectral_norm(nn.Conv2d(3, 8, 3)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Conv2d(3, 8, 3)),
}


@pytest.mark.parametrize("name", WITH_OWN_FORWARD)
def test_a_layer_of_another_class_goes_on_with_what_it_does_first(name):
    torch.manual_seed(0)
    layer = WITH_OWN_FORWARD[name]()
    net = nn.Sequential(layer, nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 2))
    new, report = convert(net)
    assert [r.action for r in report.rows] == ["converted", "dropped", "converted"], str(report)
    assert isinstance(new[0], DeconvConv2d)
    x = torch.randn(16, 3, 13, 14)
    torch.testing.assert_close(new.eval()[0](x.clone()), layer.eval()(x.clone()))
    torch.testing.assert_close(new[0](input=x[:, :, :11].clone()), layer(x[:, :, :11].clone()))
    assert {id(p) for p in layer.parameters()}.isdisjoint(map(id, new.parameters()))
    new.train()(x).square().sum().backward()
    assert all(p.grad is not None for p in new.parameters())
    trained(new, x)
    plain = to_plain(copy.deepcopy(new))
    assert not any(isinstance(m, Deconvolution) for m in plain.modules()) and type(plain[0]) is nn.Conv2d
    assert relative(plain(x), new(x)) <= 1e-5
    if "norm" not in name and name != "orthogonal":  # torch does not pickle its parametrised modules
        assert relative(pickle.loads(pickle.dumps(to_plain(new)))(x), new(x)) <= 1e-5
    before = convert(net)[0].state_dict()
    assert {n for n in net.state_dict() if n.startswith("0.") and "own" not in n and "gain" not in n} >= {
        n for n in before if n.startswith("0.weight")
    }


@pytest.mark.parametrize("name", WITH_OWN_FORWARD)
def test_a_trained_network_of_other_classes_keeps_its_function(name):
    torch.manual_seed(0)
    net = nn.Sequential(WITH_OWN_FORWARD[name](), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 2))
    net = trained(net, torch.randn(16, 3, 13, 14))
    x = torch.randn(64, 3, 13, 14)
    new, report = convert_pretrained(net, x)
    wanted = "kept" if name in ("standardises", "weight_norm", "spectral_norm", "orthogonal") else "converted"
    assert report.rows[0].action == wanted
    assert relative(new(x), net(x)) <= 1e-4


class Adapted(nn.Linear):
    """A low-rank adapter, which begins with zero."""

    def __init__(self, *args):
        super().__init__(*args)
        self.a, self.b = nn.Parameter(torch.randn(2, self.in_features)), nn.Parameter(torch.zeros(self.out_features, 2))

    def forward(self, x):
        return super().forward(x) + x @ self.a.T @ self.b.T


class Rounds(nn.Conv2d):
    """Rounds its weight while training only."""

    def forward(self, x):
        return self._conv_forward(x, self.weight.round() if self.training else self.weight, self.bias)


class Limited(nn.Conv2d):
    """Limits the norm of its weight, as networks for brain waves do."""

    def forward(self, x):
        self.weight.data = torch.renorm(self.weight.data, 2, 0, 1.0)
        return super().forward(x)


class Twice(nn.Conv2d):
    def forward(self, x):
        return super().forward(super().forward(x))


@pytest.mark.parametrize("layer", [Adapted(4, 4), Rounds(4, 4, 1), Limited(4, 4, 1), Twice(4, 4, 1)])
def test_a_layer_that_computes_something_else_stays(layer):
    start = nn.Flatten() if isinstance(layer, nn.Linear) else nn.Identity()
    _, report = convert(nn.Sequential(start, layer))
    (row,) = report.rows
    assert row.action == "kept" and row.why.startswith("its forward computes something else")
    assert row.kind == f"{type(layer).__module__}.{type(layer).__qualname__}"
    assert str(report).startswith("Mind: no layer was converted.")


@pytest.mark.parametrize("example", [None, torch.randn(5, 2, 8)], ids=["traced", "followed"])
@pytest.mark.parametrize("linear", ["classifier", "all"])
def test_weights_that_another_module_uses_stay(example, linear):
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(8, 2), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.attention(x, x, x)[0])

    new, report = convert(Attends(), example_input=example, linear=linear)
    assert not isinstance(new.attention.out_proj, DeconvLinear) and isinstance(new.head, DeconvLinear)
    assert {r.name: r.action for r in report.rows}["attention"] == "kept"
    new(torch.randn(40, 2, 8)).sum().backward()


@pytest.mark.parametrize("dtype", [torch.complex64])
def test_complex_layers_are_refused(dtype):
    with pytest.raises(ValueError, match="0 has complex weights"):
        convert(nn.Sequential(nn.Conv2d(3, 4, 3, dtype=dtype)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_scripted_and_quantised_layers_stay_with_their_reason():
    scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    new, report = convert(nn.Sequential(scripted, nn.Conv2d(4, 4, 3)), example_input=torch.randn(2, 3, 9, 9))
    assert [(r.name, r.action) for r in report.rows] == [("0", "kept"), ("1", "converted")]
    assert "scripted" in report.rows[0].why
    new(torch.randn(8, 3, 9, 9))
    odd = nn.Linear(4, 4)
    odd.weight = nn.Parameter(torch.ones(4, 4, dtype=torch.int8), requires_grad=False)
    _, report = convert(nn.Sequential(nn.Flatten(), odd))
    assert report.rows[0].why == "its weights are quantised, or of a class of their own"


# The real path. --------------------------------------------------------------------------------------------


class Decides(nn.Module):
    """No trace goes through it: it looks at its input, takes keywords alone and returns a dictionary."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.idle = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 8)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.last, self.after = nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
        self.fc1, self.fc2, self.other = nn.Linear(8, 6), nn.Linear(6, 2), nn.Linear(5, 5)
        self.seen = []

    def forward(self, *, x, skip=None):
        if x.mean() > 1e9 + random.random() + np.random.random():  # noqa: NPY002
            return self.idle(x)
        x = self.norm(input=self.conv(x)).relu_()
        gate = self.excite(self.squeeze(x.mean((2, 3))[:, :, None, None]).relu())
        x = self.after(self.last(x * gate.sigmoid()))
        self.seen.append(x)
        return {"logits": self.fc2(F.dropout(self.fc1(x.mean(3).mean(2)), 0.1, self.training).tanh())}


def test_an_example_shows_the_path_that_no_trace_can():
    net = Decides()
    blind = convert(net)[1]
    assert blind.rows[-1].name == "(the network)" and "give example_input" in blind.rows[-1].why
    assert f"{__file__}, line {Decides.forward.__code__.co_firstlineno + 1}" in blind.rows[-1].why
    new, report = convert(net, example_input={"x": torch.randn(2, 3, 12, 12)})
    actions = {r.name: r.action for r in report.rows}
    assert actions == {
        **dict.fromkeys(("conv", "squeeze", "excite", "last", "fc1", "fc2"), "converted"),
        **dict.fromkeys(("norm", "after"), "dropped"),
        **dict.fromkeys(("idle", "other"), "kept"),
    }
    assert {r.name for r in report.rows if "one pixel" in r.why} == {"squeeze", "excite"}
    assert {n for n in ("norm", "after") if isinstance(getattr(new, n), Copy)} == set()
    x = torch.randn(64, 3, 12, 12)
    new(x=x)["logits"].sum().backward()
    net = seasoned(net)
    new, report = convert_pretrained(net, {"x": x})
    assert report.count("dropped") == 2
    assert relative(new(x=x)["logits"], net(x=x)["logits"]) <= 1e-4


def test_following_an_example_changes_nothing():
    net, called = Decides(), []
    net.conv.register_forward_hook(lambda *_: called.append(1))
    x = torch.randn(4, 3, 12, 12)
    before, state = x.clone(), copy.deepcopy(net.state_dict())
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    convert(net, example_input={"x": x})
    drawn = random.random(), np.random.random()  # noqa: NPY002
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    assert drawn == (random.random(), np.random.random())  # noqa: NPY002
    assert torch.equal(x, before) and called == [] and net.seen == []
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in state.items())
    dropouts = nn.Sequential(nn.Flatten(), nn.Dropout(0.5))
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    convert(dropouts, example_input=torch.randn(4, 3, generator=torch.Generator().manual_seed(1)), inplace=True)
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.parametrize(
    "name", ["resnet18", "densenet121", "mobilenet_v3_small", "googlenet", "convnext_tiny", "vgg11_bn"]
)
def test_traced_and_followed_networks_convert_alike(name):
    arguments = {"init_weights": False} if name == "googlenet" else {}
    net = getattr(torchvision.models, name)(num_classes=3, **arguments)
    traced = convert(net)[1].rows
    followed = convert(net, example_input=torch.randn(2, 3, 96, 96))[1].rows
    assert [(r.name, r.action, r.norm) for r in traced] == [(r.name, r.action, r.norm) for r in followed]
    assert [r.why for r in traced if "one pixel" in r.why] == [r.why for r in followed if "one pixel" in r.why]


def test_a_network_that_does_not_run_on_the_example_says_so():
    with pytest.raises(ValueError, match=r"Sequential does not run on the example: .*4 channels"):
        convert(nn.Sequential(nn.Conv2d(3, 4, 3)), example_input=torch.randn(1, 4, 9, 9))


class Turns(nn.Module):
    """Between the layer and the norm stands a view that a graph of memory does not show."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4 * 16, 2)

    def forward(self, x):
        x = self.conv(x if x.sum() != 7 else -x).transpose(1, 2)
        return self.fc(self.norm(x).flatten(1))


def test_nothing_is_fused_through_a_view():
    net = trained(Turns(), torch.randn(8, 3, 4, 4) + 1)
    x = torch.randn(64, 3, 4, 4)
    new, report = convert_pretrained(net, x)
    assert {r.name: r.action for r in report.rows}["norm"] == "kept"
    assert relative(new(x), net(x)) <= 1e-4


class SkipIfAsked(nn.Module):
    def __init__(self, write):
        super().__init__()
        self.bn, self.conv, self.write = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1), write

    def forward(self, x):
        x = x if x.mean() < 1e9 else -x
        return x + self.conv(self.write(self.bn(x)))


def add(x):
    x += 1
    return x


def first(x):
    x[:, 0] = 0
    return x


WRITES = {
    "method": lambda x: x.relu_(),
    "module": nn.ReLU(inplace=True),
    "operator": add,
    "a part": first,
    "a view": lambda x: x.flatten(1).relu_().view_as(x),
    "a chunk": lambda x: [x.chunk(2, 1)[0].zero_(), x][1],
    "out": lambda x: torch.mul(x, 2, out=x),
    "foreach": lambda x: [torch._foreach_add_([x], 1.0), x][1],
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("training", [True, False])
def test_an_operation_in_place_on_the_followed_path_reaches_neither_skip_nor_input(write, training):
    x = torch.randn(16, 4, 8, 8)
    net, report = convert(SkipIfAsked(write), example_input=x)
    assert report.count("dropped") == 1 and "a copy" in str(report)
    before = x.clone()
    with torch.no_grad():
        net.train(training)(x)
    assert torch.equal(x, before)


def test_a_layer_that_writes_to_its_input_does_not_reach_the_skip_path():
    class Skips(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn, self.conv = nn.BatchNorm2d(4), Rectifies(4, 4, 3, padding=1)

        def forward(self, x):
            return x + self.conv(self.bn(x))

    x = torch.randn(16, 4, 8, 8)
    for example in (None, x):
        net, _ = convert(Skips(), example_input=example)
        assert isinstance(net.bn, Copy)


def test_an_input_that_is_written_to_later_is_copied_before():
    class Later(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn, self.conv = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            x = x * 1
            y = self.bn(x)
            x += 5
            return self.conv(y) + x

    x = torch.randn(16, 4, 3, 3)
    for example in (None, x):
        net, _ = convert(Later(), example_input=example)
        assert isinstance(net.bn, Copy)
        torch.testing.assert_close(net.eval()(x), net.conv(x) + x + 5)


def test_no_copy_is_made_where_only_one_layer_made_what_is_overwritten():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3))
    for example in (None, torch.randn(2, 3, 9, 9)):
        assert type(convert(net, example_input=example)[0][1]) is nn.Identity


def test_detectors_follow_their_targets():
    detection = torchvision.models.detection
    net = detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=3)
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    example = [torch.rand(3, 64, 64), torch.rand(3, 64, 64)], [target, dict(target)]
    _, report = convert(net, example_input=example)
    norms = [r for r in report.rows if r.norm]
    assert norms and {r.action for r in norms} == {"dropped"}
    assert {r.name for r in report.rows if r.action == "converted" and r.kind == "Linear"} >= {
        "roi_heads.box_predictor.cls_score",
        "roi_heads.box_predictor.bbox_pred",
        "roi_heads.box_head.fc7",
    }
    assert convert(net, example_input=(example[0],))[1].count("dropped") == len(norms)  # evaluation needs no targets


@pytest.mark.parametrize("inplace", [True, False])
def test_data_parallel_is_taken_off_and_put_on_again(inplace):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))
    new, report = convert(nn.DataParallel(net), inplace=inplace)
    assert isinstance(new, nn.DataParallel) and (new.module is net) == inplace
    assert [r.name for r in report.rows] == ["0", "1", "2"]
    x = torch.randn(16, 3, 9, 9)
    new(x)
    plain = to_plain(new.eval())
    assert isinstance(plain, nn.DataParallel) and type(plain.module[0]) is nn.Conv2d
    torch.testing.assert_close(plain(x), new(x))
    kept, _ = convert_pretrained(nn.DataParallel(seasoned(copy.deepcopy(net))), x) if not inplace else (new, 0)
    assert isinstance(kept, nn.DataParallel)


def test_a_compiled_network_is_compiled_anew():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))
    compiled = torch.compile(net, backend="eager")
    new, report = convert(compiled)
    assert type(new) is type(compiled) and report.count("converted") == 2
    x = torch.randn(16, 3, 9, 9)
    torch.testing.assert_close(new.eval()(x), convert(net)[0].eval()(x))


# Nothing of the caller's changes. --------------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.up, self.down = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight, self.down.weight = self.first.weight, self.up.weight

    def forward(self, x):
        return self.down(self.up(self.second(self.first(x)).mean((2, 3))))


def test_ties_stay_or_a_row_says_otherwise():
    net = Tied()
    new, _ = convert(net)
    assert new.first.weight is new.second.weight and new.up.weight is new.down.weight
    x = torch.randn(32, 4, 9, 9)
    new, report = convert_pretrained(net.eval(), x)
    why = {r.name: r.why for r in report.rows}
    assert why["first"] == "its weights are no longer tied to those of second"
    assert why["down"] == "its weights are no longer tied to those of up"
    assert relative(new(x), net(x)) <= 1e-4


@pytest.mark.parametrize("bias", [True, False])
def test_nothing_new_is_trained_unasked(bias):
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, bias=bias))
    net[0].requires_grad_(False)
    new, _ = convert(net)
    assert {n: p.requires_grad for n, p in new.named_parameters()} == {
        **{"0.weight": False, "0.bias": False, "2.weight": True, "2.bias": True}
    }


# Several inputs. -------------------------------------------------------------------------------------------


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(8, 2)

    def forward(self, left, right):
        return self.fc(torch.cat([self.a(left), self.b(right)], 1).mean((2, 3)))


BATCHES = [torch.randn(48, 3, 9, 9).cumsum(-1), torch.randn(48, 3, 9, 9).cumsum(-1) + 1]
LOADERS = {
    "positional": lambda: tuple(BATCHES),
    "keywords": lambda: {"left": BATCHES[0], "right": BATCHES[1]},
    "loader of pairs": lambda: [((BATCHES[0], BATCHES[1]), torch.zeros(48)), ((BATCHES[1], BATCHES[0]), None)],
    "loader of mappings": lambda: [{"left": BATCHES[0], "right": BATCHES[1], "label": None}],
    "generator": lambda: ({"right": b, "left": b} for b in BATCHES),
}


@pytest.mark.parametrize("images", LOADERS.values(), ids=LOADERS)
def test_a_trained_network_of_two_inputs_keeps_its_function(images):
    torch.manual_seed(0)
    net = Two().double().eval()
    double = [b.double() for b in BATCHES]
    given = torch.utils._pytree.tree_map(lambda t: t.double() if torch.is_tensor(t) else t, images())
    given = (torch.utils._pytree.tree_map(torch.Tensor.double, b) for b in given) if hasattr(given, "send") else given
    new, report = convert_pretrained(net, given)
    assert report.count("converted") == 3
    torch.testing.assert_close(new(*double), net(*double))
    assert new.a.running_mean.any() and new.b.running_mean.any()


def test_a_loader_is_averaged_over_its_batches():
    net = nn.Sequential(nn.Conv2d(3, 4, 3)).double().eval()
    x = torch.randn(60, 3, 8, 8, dtype=torch.float64)
    data = torch.utils.data.TensorDataset(x, torch.zeros(60))
    loader = torch.utils.data.DataLoader(data, batch_size=20)
    new, _ = convert_pretrained(net, loader, sampling_stride=1, running="covariance")
    whole, _ = convert_pretrained(net, x, sampling_stride=1, running="covariance")
    torch.testing.assert_close(new[0].running_mean, whole[0].running_mean)
    torch.testing.assert_close(new(x), net(x))


def test_batches_that_do_not_fit_say_so():
    with pytest.raises(ValueError, match="a batch holds none of the arguments of Two: left, right"):
        convert_pretrained(Two().eval(), [{"image": BATCHES[0]}])
    with pytest.raises(ValueError, match="there are no images to measure"):
        convert_pretrained(Two().eval(), [])


# Optimisers. -----------------------------------------------------------------------------------------------


def steps(net, *optimisers, count=3):
    for _ in range(count):
        net(torch.randn(16, 3, 9, 9)).square().mean().backward()
        for optimiser in optimisers:
            optimiser.step()


def unbiased():
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, bias=False))


def test_an_optimiser_made_before_conversion_is_warned_of():
    net = unbiased()
    early = torch.optim.SGD(net.parameters(), 0.01)
    new, _ = convert(net, inplace=True)
    with pytest.warns(UserWarning, match="does not hold 2 parameters that conversion added.*after ndlib.convert"):
        steps(new, early)
    net = unbiased()
    early = torch.optim.SGD(net.parameters(), 0.01)
    new, _ = convert(net)
    with pytest.warns(UserWarning, match="holds the parameters of the network before conversion.*and moves nothing"):
        steps(new, early)


def test_no_optimiser_is_warned_of_without_need():
    net = unbiased()
    theirs = torch.optim.SGD(net.parameters(), 0.01)
    new, _ = convert(net)
    named = dict(new.named_parameters())
    weights = torch.optim.SGD([p for n, p in named.items() if "weight" in n], 0.01)
    biases = torch.optim.SGD([p for n, p in named.items() if "bias" in n], 0.01)
    steps(new, weights, biases, count=12)
    steps(net, theirs, count=4)  # the plain network trains beside it
    steps(convert(unbiased(), inplace=True)[0], torch.optim.SGD(new.parameters(), 0.01))


@pytest.mark.parametrize("function", [torch.relu, lambda x: x.relu_(), lambda x: 2 * x, lambda x: x.flatten(1)])
def test_what_acts_on_each_number_alone_is_found_out(function):
    assert acts_on_each_number_alone(function)


@pytest.mark.parametrize("function", [lambda x: x.softmax(1), F.normalize, lambda x: x.flip(1), lambda x: x.mean(1)])
def test_what_mixes_numbers_is_found_out(function):
    assert not acts_on_each_number_alone(function)
