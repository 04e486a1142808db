"""From plain networks to deconvolved ones and back."""

import copy
import io

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.utils import prune

from ndlib import (
    ChannelDeconv,
    DeconvConv1d,
    DeconvConv2d,
    DeconvConv3d,
    DeconvLinear,
    convert,
    convert_pretrained,
    to_plain,
)
from ndlib.conversion import Copy
from ndlib.experiments import models
from ndlib.layers import Deconvolution

pytestmark = pytest.mark.filterwarnings("ignore:.*rows for a covariance", "ignore:block_size=")


def small():
    torch.manual_seed(0)
    features = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, stride=2)]
    return nn.Sequential(*features, nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5))


def trained(net, *shape, steps=3):
    torch.manual_seed(1)
    for _ in range(steps):
        net.train()(torch.randn(*shape).cumsum(-1) / 3)
    return net.eval()


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


# convert ----------------------------------------------------------------------------------------------------


def test_convert_reports_each_layer_and_leaves_the_network_alone():
    net = small()
    before = copy.deepcopy(net.state_dict())
    new, report = convert(net)
    assert [(r.name, r.action) for r in report.rows] == [
        ("0", "converted"),
        ("1", "dropped"),
        ("3", "converted"),
        ("4", "dropped"),
        ("7", "converted"),
    ]
    assert [type(m).__name__ for m in new] == [
        *("DeconvConv2d", "Identity", "ReLU", "DeconvConv2d", "Identity"),
        *("AdaptiveAvgPool2d", "Flatten", "DeconvLinear"),
    ]
    assert "bias added" in report.rows[0].why
    assert not new[0].bias.any()  # so that it starts as the plain layer does
    assert "bias added" not in report.rows[2].why
    for name in ("0.weight", "3.weight", "3.bias", "7.weight", "7.bias"):
        assert torch.equal(new.state_dict()[name], before[name])
    # The caller's network is what it was, and shares nothing with the new one.
    assert type(net[0]) is nn.Conv2d
    new[3].weight.data.zero_()
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())


def test_convert_in_place_passes_options_to_every_layer():
    net = small().eval()
    weight = net[0].weight
    new, _ = convert(net, inplace=True, block_size=4, sampling_stride=2, n_iter=9, running="covariance")
    assert new is net
    assert new[0].weight is weight
    assert new[3].columns == 4 * 9
    assert new[3].sampling_stride == 2
    assert all(m.options.n_iter == 9 and not m.training for m in new.modules() if isinstance(m, Deconvolution))


def test_printed_report_is_a_table_with_a_summary():
    text = str(convert(small())[1])
    assert text.splitlines()[0].split() == ["layer", "kind", "action", "why"]
    assert text.splitlines()[-1] == "3 converted, 2 dropped, 0 kept"


FAMILIES = {  # batch normalisations, convolutions, linear layers converted, linear layers kept
    "resnet18": (20, 20, 1, 0),
    "vgg11_bn": (8, 8, 3, 0),
    "densenet121": (121, 120, 1, 0),
    "mobilenet_v2": (52, 52, 1, 0),
    "mobilenet_v3_small": (34, 52, 2, 0),
    "efficientnet_b0": (49, 81, 1, 0),
    "regnet_y_400mf": (53, 85, 1, 0),
    "convnext_tiny": (0, 22, 1, 36),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_convert_counts_layers_of_torchvision_networks(name):
    norms, convolutions, linear, kept = FAMILIES[name]
    torch.manual_seed(0)
    net = getattr(torchvision.models, name)(num_classes=7)
    new, report = convert(net)
    assert report.count("dropped") == norms
    assert report.count("converted", "Conv") == convolutions
    assert report.count("converted", "Linear") == linear
    assert report.count("kept", "Linear") == kept
    assert not any(type(m) in (nn.BatchNorm2d, nn.Conv2d) for m in new.modules())
    assert ("has no batch normalisation" in str(report)) == (norms == 0)

    x = torch.randn(4, 3, 64, 64)
    output = new.train()(x)
    output.square().mean().backward()
    assert output.shape == (4, 7)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in new.parameters())
    new.eval()
    plain = to_plain(new)
    assert relative(plain(x), new(x)) <= 1e-5
    # Module by module the plain network: same kinds, same weight shapes.
    for module_name, module in net.named_modules():
        folded = plain.get_submodule(module_name)
        if isinstance(module, nn.BatchNorm2d):
            assert type(folded) in (nn.Identity, Copy)
        else:
            assert type(folded) is type(module)
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                assert folded.weight.shape == module.weight.shape


def test_convert_measures_one_pixel_inputs_at_every_image():
    new, report = convert(torchvision.models.mobilenet_v3_small(num_classes=3))
    single = {r.name for r in report.rows if "one pixel" in r.why}
    assert single == {n for n, _ in new.named_modules() if n.endswith((".fc1", ".fc2"))}
    assert {new.get_submodule(n).sampling_stride for n in single} == {1}
    assert new.features[0][0].sampling_stride == 3


class Branches(nn.Module):
    """Layers that tracing has to tell apart."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Conv2d(3, 3, 3, padding=1)
        self.up = nn.ConvTranspose2d(3, 3, 2)
        self.unused = nn.Conv2d(3, 3, 1)
        self.unused_norm = nn.BatchNorm2d(3)
        self.gate = nn.Linear(3, 3)
        self.first_norm = nn.BatchNorm2d(3)
        self.ready = DeconvConv2d(3, 3, 1)
        self.head = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))

    def forward(self, x):
        x = self.shared(self.first_norm(x))
        x = self.ready(self.up(self.shared(x)))
        pooled = x.mean((2, 3))
        return self.head(pooled * self.gate(pooled)).log_softmax(-1)


def test_report_gives_reasons_for_kept_layers():
    _, report = convert(Branches())
    rows = {r.name: (r.action, r.why) for r in report.rows}
    assert rows["shared"] == ("converted", "called 2 times, each call measured and averaged")
    assert rows["up"] == ("converted", "")
    assert rows["unused"][0] == rows["unused_norm"][0] == "kept"
    assert rows["unused"][1].startswith("not on the path: never called")
    assert rows["unused_norm"][1] == "not on the path"
    assert rows["gate"] == ("kept", "not the classifier")
    assert rows["ready"] == ("kept", "whitens already")
    assert rows["first_norm"][0] == rows["head.1"][0] == "dropped"
    assert rows["head.0"][0] == rows["head.3"][0] == "converted"


def test_convert_of_an_untraceable_network_converts_every_layer():
    class Decides(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

        def forward(self, x):
            x = self.norm(self.conv(x))
            return self.fc(x.mean((2, 3)) if x.sum() > 0 else -x.mean((2, 3)))

    new, report = convert(Decides())
    assert [r.action for r in report.rows] == ["converted", "dropped", "converted", "kept"]
    why = report.rows[-1].why
    assert why.startswith(
        "not traced, all layers count, the last linear one as the classifier; give example_input: Trace"
    )
    place = f"at {__file__}, line {Decides.forward.__code__.co_firstlineno + 2}"
    assert why.endswith(place)
    assert new(torch.randn(9, 3, 8, 8)).shape == (9, 2)


def test_convert_keeps_modes_and_frozen_weights():
    net = small()
    net[3].eval()
    net[3].weight.requires_grad_(False)
    new, _ = convert(net)
    assert new[0].training
    assert not new[3].training
    assert not new[3].weight.requires_grad


def actions(net, **arguments):
    return {r.name: r.action for r in convert(net, **arguments)[1].rows}


class Residual(nn.Module):
    """Linear layers in a residual block, which are not the classifier."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.BatchNorm1d(4), nn.BatchNorm1d(4), nn.BatchNorm1d(4)
        self.one, self.two, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        x = x + self.one(self.a(x).relu())
        x = x + self.two(self.b(x).relu()) * x.shape[0]
        return self.head(self.c(x))


class SubclassUp(nn.ConvTranspose2d):
    """A transposed convolution that computes something else."""

    def forward(self, x, output_size=None):
        return 2 * super().forward(x, output_size)


class Subclass(nn.Conv2d):
    """A convolution that computes something else."""

    def forward(self, x):
        return 2 * super().forward(x)


def followed_by(*layers):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(), nn.MaxPool2d(2), nn.Dropout(), *layers)


def functional(net):
    """A convolution written as a function behind the network, and a classifier that knows the size of its input."""

    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.weight, self.head = net, nn.Parameter(torch.randn(2, 4, 1, 1)), nn.Linear(18, 2)

        def forward(self, x):
            x = self.net(x)
            return self.head(nn.functional.conv2d(x, self.weight).reshape(x.shape[0], -1))

    return Functional()


def test_convert_keeps_a_normalisation_that_no_converted_layer_follows():
    up = [SubclassUp(4, 4, 2), nn.BatchNorm2d(4), nn.ReLU(), SubclassUp(4, 4, 2), nn.BatchNorm2d(4)]
    generator, report = convert(nn.Sequential(*up, nn.Tanh()))
    assert [report.count(action) for action in ("converted", "dropped", "kept")] == [0, 0, 4]
    assert report.rows[1].why == "3 takes its output and stays plain"
    assert report.rows[3].why == "no layer takes its output"
    assert "has no batch normalisation" not in str(report)
    assert type(generator[1]) is nn.BatchNorm2d
    assert {n: a for n, a in actions(Residual()).items() if n in "abc"} == {"a": "kept", "b": "kept", "c": "dropped"}
    simclr = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4), nn.BatchNorm1d(4))
    assert [actions(simclr)[name] for name in "014"] == ["converted", "dropped", "kept"]
    behind = actions(functional(followed_by()))
    assert (behind["net.1"], behind["head"]) == ("kept", "converted")
    for layer in (Subclass(4, 2, 3), SubclassUp(4, 2, 3)):
        assert actions(followed_by(layer))["1"] == "kept"
        assert actions(followed_by(layer, nn.Conv2d(2, 2, 1)))["1"] == "kept"  # that one whitens another input
    for layer in (nn.Conv2d(4, 2, 3), DeconvConv2d(4, 2, 3)):
        assert actions(followed_by(layer))["1"] == "dropped"
        assert actions(followed_by(nn.BatchNorm2d(4), layer))["1"] == "dropped"


class Forks(nn.Module):
    def __init__(self, other):
        super().__init__()
        self.first, self.norm, self.shortcut = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(3)
        self.other, self.last = other, nn.Conv2d(7, 2, 1)

    def forward(self, x):
        x = torch.cat([self.norm(self.first(x)), self.shortcut(x) + x], 1)
        return self.other(x), self.last(x)


@pytest.mark.parametrize("example", [None, torch.randn(2, 3, 8, 8)], ids=["traced", "followed"])
def test_convert_keeps_a_normalisation_if_one_taker_stays_plain(example):
    new, report = convert(Forks(SubclassUp(7, 2, 2)), example_input=example)
    why = {r.name: (r.action, r.why) for r in report.rows}
    assert why["norm"] == why["shortcut"] == ("kept", "other takes its output and stays plain")
    assert str(report).startswith("Mind: 2 of 2 batch normalisations stay beside whitening.\n")
    assert isinstance(new.norm, nn.BatchNorm2d) and isinstance(new.last, DeconvConv2d)
    report = convert(Forks(nn.ConvTranspose2d(7, 2, 2)), example_input=example)[1]
    assert [report.count(a) for a in ("converted", "dropped", "kept")] == [3, 2, 0]
    assert str(report).startswith("layer ")


def test_untraced_normalisation_is_dropped_only_if_a_layer_is_converted():
    class Decides(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer, self.norm = layer, nn.BatchNorm2d(3)

        def forward(self, x):
            return self.layer(self.norm(x if x.sum() > 0 else -x))

    assert actions(Decides(nn.Conv2d(3, 3, 1)))["norm"] == "dropped"
    assert actions(Decides(SubclassUp(3, 3, 1)))["norm"] == "kept"


def test_convert_keeps_subclasses_of_plain_layers():
    class Norm(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x).relu()

    _, report = convert(nn.Sequential(Subclass(3, 4, 1), Norm(4), nn.Conv2d(4, 4, 1)))
    assert [r.kind for r in report.rows[:2]] == [f"{kind.__module__}.{kind.__qualname__}" for kind in (Subclass, Norm)]
    assert report.rows[0].why == "its forward computes something else than a product of its input and weight"
    assert report.rows[1].why == "computes something else than batch normalisation and what its children do"
    assert [r.action for r in report.rows] == ["kept", "kept", "converted"]
    # Nor is such a normalisation fused.
    torch.manual_seed(0)
    net = seasoned(nn.Sequential(nn.Conv2d(3, 4, 1), Norm(4), nn.Conv2d(4, 4, 1)))
    x = pictures(9, 3, 8, 8)
    assert relative(convert_pretrained(net, x)[0](x), net(x)) <= 1e-5


def test_convert_replaces_a_shared_layer_in_both_places():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 3, 3, padding=1)
    new, _ = convert(nn.Sequential(conv, nn.ReLU(), conv))
    assert type(new[0]) is DeconvConv2d and new[2] is new[0]
    new = trained(new, 6, 3, 9, 9)
    plain = to_plain(new)
    assert type(plain[0]) is nn.Conv2d and plain[2] is plain[0]
    x = torch.randn(6, 3, 9, 9)
    assert relative(plain(x), new(x)) <= 1e-5


def test_convert_replaces_a_layer_shared_with_a_submodule():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.inner = nn.Sequential(nn.ReLU(), self.conv)

        def forward(self, x):
            return self.inner(self.conv(x))

    new, _ = convert(Shared())
    assert type(new.conv) is DeconvConv2d and new.inner[1] is new.conv


def test_convert_keeps_dilation_and_padding():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=2, dilation=2, padding_mode="reflect")).eval()
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(convert(net)[0].eval()(x), net(x))


@pytest.mark.parametrize("inplace", [False, True])
def test_convert_of_a_network_that_is_one_layer(inplace):
    for layer, kind in ((nn.Conv2d(3, 8, 3), DeconvConv2d), (nn.Linear(4, 2), DeconvLinear)):
        new, report = convert(layer, inplace=inplace)
        assert type(new) is kind
        assert [(r.name, r.kind, r.action) for r in report.rows] == [
            ("(the network)", type(layer).__name__, "converted")
        ]
        assert (new.weight is layer.weight) == inplace
    layer, x = nn.Conv2d(3, 8, 3), torch.randn(9, 3, 6, 6)
    new, report = convert_pretrained(layer, x)
    assert type(new) is DeconvConv2d and report.rows[0].name == "(the network)"
    assert relative(new(x), layer(x)) <= 1e-5


COMPUTED = {
    "weight_norm": nn.utils.weight_norm,
    "spectral_norm": nn.utils.spectral_norm,
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "pruned bias": lambda layer: prune.l1_unstructured(layer, "bias", 0.5),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning", "ignore:.*of its weights w are zero")
@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize("inplace", [False, True])
def test_convert_keeps_layers_whose_weights_a_hook_computes(name, inplace):
    torch.manual_seed(0)
    net = nn.Sequential(COMPUTED[name](nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))
    x = pictures(9, 3, 12, 12)
    net(x).sum().backward()
    unfolded, report = convert_pretrained(net, x)
    assert [r.action for r in report.rows] == ["kept", "kept", "converted"]  # and nothing is fused into them
    assert relative(unfolded(x), net.eval()(x)) <= 1e-5
    new, report = convert(net.train(), inplace=inplace)
    assert [r.action for r in report.rows] == ["kept", "dropped", "converted"]
    assert report.rows[0].why.startswith("a hook makes its weights (weight_norm")
    new(x).sum().backward()
    # A deconvolution layer with such a hook folds to what it computes.
    layer = trained(COMPUTED[name](DeconvConv2d(3, 4, 3)), 9, 3, 12, 12)
    assert relative(to_plain(layer)(x), layer(x)) <= 1e-5


@pytest.mark.parametrize(
    "how", [convert, lambda net: convert(net, inplace=True), lambda net: convert_pretrained(net, None)]
)
def test_convert_refuses_uninitialised_lazy_layers(how):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LazyBatchNorm2d(), nn.LazyConv2d(4, 3))
    with pytest.raises(ValueError, match="1 is not initialised yet; run the network once before converting it"):
        how(net)
    net(torch.randn(2, 3, 8, 8))
    assert list(actions(net).values()) == ["converted", "dropped", "converted"]


def test_tracing_changes_no_stored_attribute_and_calls_no_hook():
    class Remembers(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.all, self.last = nn.Sequential(nn.Conv2d(3, 4, 3)), [], None

        def forward(self, x):
            self.last = self.conv(x)
            self.all.append(self.last)
            self.new = self.last
            return self.last

    seen = []
    net = Remembers()
    net.conv.register_forward_hook(lambda *_: seen.append(_))
    new, report = convert(net)
    assert report.count("converted") == 1
    assert new.last is None and new.all == seen == [] and not hasattr(new, "new")
    assert new.training and new.conv.training
    net.all, x = None, torch.randn(9, 3, 8, 8)
    net.forward = lambda x: setattr(net, "last", net.conv(x))
    net(x)  # now it holds a tensor with a graph, which torch does not copy
    del net.forward
    assert type(convert(net)[0].conv[0]) is DeconvConv2d


def test_convert_and_to_plain_pass_hooks_on():
    net, seen = small(), []
    for name in (0, 1, 7):
        net[name].register_forward_hook(lambda m, *_: seen.append(type(m)))
    net[0].register_forward_pre_hook(lambda m, inputs, kw: seen.append("before"), with_kwargs=True)
    handle = net[3].register_forward_hook(lambda *_: seen.append("removed"))
    net[3].register_full_backward_hook(lambda *_: seen.append("backward"))
    new, _ = convert(net, inplace=True)
    handle.remove()
    new(torch.randn(9, 3, 12, 12)).sum().backward()
    assert seen == ["before", DeconvConv2d, nn.Identity, DeconvLinear, "backward"]
    seen.clear()
    to_plain(new.eval())(torch.randn(9, 3, 12, 12)).sum().backward()
    assert seen == ["before", nn.Conv2d, nn.Identity, nn.Linear, "backward"]
    layer = DeconvLinear(4, 2).eval()
    layer.register_forward_hook(lambda *_: seen.append("alone"))
    to_plain(layer)(torch.randn(2, 4))
    assert seen[-1] == "alone"


# to_plain ---------------------------------------------------------------------------------------------------

LAYERS = [
    (lambda **o: DeconvConv1d(4, 6, 3, padding=1, **o), (5, 4, 12), nn.Conv1d),
    (lambda **o: DeconvConv2d(4, 6, 3, padding=1, **o), (5, 4, 9, 9), nn.Conv2d),
    (lambda **o: DeconvConv2d(4, 6, (3, 5), stride=2, padding=2, dilation=2, **o), (5, 4, 13, 13), nn.Conv2d),
    (lambda **o: DeconvConv2d(4, 6, 3, padding=1, padding_mode="reflect", **o), (5, 4, 9, 9), nn.Conv2d),
    (lambda **o: DeconvConv2d(4, 6, 3, padding="same", bias=False, **o), (5, 4, 9, 9), nn.Conv2d),
    (lambda **o: DeconvConv2d(4, 6, 3, padding=1, groups=2, **o), (5, 4, 9, 9), nn.Conv2d),
    (lambda **o: DeconvConv3d(4, 6, 2, padding=1, **o), (5, 4, 5, 6, 7), nn.Conv3d),
    (lambda **o: DeconvLinear(12, 4, **o), (30, 12), nn.Linear),
    (lambda **o: DeconvLinear(12, 4, bias=False, block_size=4, **o), (30, 12), nn.Linear),
]


@pytest.mark.parametrize("options", [{}, {"centering": "per-block", "running": "covariance", "grouping": "contiguous"}])
@pytest.mark.parametrize(("make", "shape", "kind"), LAYERS)
def test_to_plain_layers_are_plain_and_equal_up_to_the_border(make, shape, kind, options):
    torch.manual_seed(0)
    layer = trained(make(**options), *shape)
    plain = to_plain(layer)
    assert type(plain) is kind
    assert plain.weight.shape == layer.weight.shape
    x = torch.randn(*shape) + 2  # a mean that makes the padded border differ from the inside
    difference = (plain(x) - layer(x)).abs()
    assert relative(plain(x), layer(x)) <= 1e-6
    assert difference.max() <= 1e-5 * layer(x).abs().max()  # at every position, the border included
    assert torch.equal(plain(x), plain.eval()(x))


def test_to_plain_whitens_padded_zeros_like_pixels():
    """At the border the padded zeros are whitened like pixels: ((patch with zeros) - mu) D w + b."""
    layer = trained(DeconvConv2d(2, 1, 3, padding=1), 6, 2, 9, 9).double()
    x = torch.randn(1, 2, 9, 9).double() + 2
    corner = nn.functional.pad(x, (1, 1, 1, 1))[0, :, :3, :3].flatten()
    by_hand = (corner - layer.running_mean) @ layer.running_deconv @ layer.weight.flatten() + layer.bias
    torch.testing.assert_close(to_plain(layer)(x)[0, :, 0, 0], by_hand)


def with_channels():
    torch.manual_seed(0)
    layers = [ChannelDeconv(6, 4), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, ChannelDeconv(8, 8), nn.Linear(8, 3))


def test_to_plain_makes_channel_deconvolution_a_1x1_convolution_or_linear_layer():
    net = trained(with_channels(), 9, 6, 7, 7)
    x = torch.randn(9, 6, 7, 7) + 3
    plain = to_plain(net, x)
    assert [type(m).__name__ for m in plain] == [
        *("Conv2d", "Conv2d", "ReLU", "AdaptiveAvgPool2d", "Flatten", "Linear", "Linear")
    ]
    assert plain[0].kernel_size == (1, 1)
    assert relative(plain(x), net(x)) <= 1e-5
    # Position by position behind the padded convolution, so that the border counts as much as the inside.
    assert (plain[:2](x) - net[:2](x)).abs().max() <= 1e-5 * net[:2](x).abs().max()
    with pytest.raises(ValueError, match=r"0, 5 meets vectors or feature maps.*pass example_input"):
        to_plain(net)


def test_to_plain_and_convert_pretrained_leave_no_hooks():
    net = trained(with_channels(), 9, 6, 7, 7)
    assert not any(m._forward_pre_hooks for m in to_plain(net, torch.randn(9, 6, 7, 7)).modules())
    new, _ = convert_pretrained(seasoned(small()), pictures(20, 3, 12, 12))
    assert not any(m._forward_pre_hooks for m in new.modules())


def test_to_plain_refuses_training_mode_and_values_not_finite():
    net = convert(small())[0]
    with pytest.raises(RuntimeError, match=r"to_plain: 0 is in training mode.*model.eval\(\) first"):
        to_plain(net)
    net.eval()
    net[3].nonfinite.fill_(True)
    for _ in range(2):  # the flag of the network, which to_plain does not change, stays
        with pytest.raises(FloatingPointError, match="3: the input holds NaN"):
            to_plain(net)


def test_to_plain_leaves_the_network_alone():
    net = trained(convert(small())[0], 6, 3, 12, 12)
    before = copy.deepcopy(net.state_dict())
    plain = to_plain(net)
    assert not any(m.training for m in plain.modules())
    assert not any(isinstance(m, Deconvolution) for m in plain.modules())
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    assert isinstance(net[0], DeconvConv2d)


@pytest.mark.parametrize("make", [lambda: convert(small())[0], with_channels], ids=["convert", "channels"])
def test_exported_and_onnx_networks_compute_the_same(make):
    import onnxruntime

    net = make()
    x = torch.randn(6, 6 if isinstance(net[0], ChannelDeconv) else 3, 12, 12)
    plain = to_plain(trained(net, *x.shape), x)
    wanted = net(x).detach()
    exported = torch.export.export(plain, (x,)).module()
    assert relative(exported(x).detach(), wanted) <= 1e-5
    assert relative(torch.export.export(net, (x,)).module()(x).detach(), wanted) <= 1e-5  # without to_plain too

    stream = io.BytesIO()
    torch.onnx.export(plain, (x,), dynamo=True, verbose=False).save(stream)
    session = onnxruntime.InferenceSession(stream.getvalue(), providers=["CPUExecutionProvider"])
    (computed,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert relative(torch.from_numpy(computed), wanted) <= 1e-5


# convert_pretrained -----------------------------------------------------------------------------------------


def seasoned(net):
    """A network as training leaves it: nothing about its normalisation is trivial."""
    torch.manual_seed(2)
    for m in net.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats:
            nn.init.normal_(m.running_mean)
            nn.init.uniform_(m.running_var, 0.3, 3)
            if m.affine:
                nn.init.normal_(m.weight)
                nn.init.normal_(m.bias)
    return net.eval()


def pictures(*shape):
    return torch.randn(*shape).cumsum(-1) / 3 + 1


class PreActivation(nn.Module):
    """Normalisation that no layer can take up, and some that one can."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.twice = (nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(3))
        self.a, self.b, self.c, self.d, self.own = (nn.BatchNorm2d(4) for _ in range(5))
        self.own.track_running_stats, self.own.running_mean, self.own.running_var = False, None, None
        self.up = nn.ConvTranspose2d(4, 4, 2)
        self.head = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3, bias=False))

    def forward(self, x):
        x = self.first(self.a(x))  # a: before the convolution
        x = x + self.b(x)  # b: the sum needs the convolution's own output too
        x = self.c(self.second(x).relu())  # c: behind the activation
        x = self.d(self.twice(self.twice(x)))  # d: the convolution's first call has no normalisation
        return self.head(self.own(self.up(x)).mean((2, 3)))


NETWORKS = {
    "vgg-small": (lambda: models.build("vgg-small", method="bn", classes=10, width=0.5), (24, 3, 32, 32)),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=7), (8, 3, 32, 32)),
    "mobilenet": (lambda: torchvision.models.mobilenet_v2(num_classes=7), (8, 3, 32, 32)),  # grouped convolutions
    "perceptron": (lambda: models.build("mlp-sigmoid", method="bn", classes=10, channels=1), (40, 1, 28, 28)),
    "plain": (lambda: models.build("vgg-small", method="none", classes=10, width=0.25), (12, 3, 32, 32)),
    "pre-activation": (PreActivation, (30, 4, 8, 8)),
}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-11)])
@pytest.mark.parametrize("name", NETWORKS)
def test_convert_pretrained_keeps_the_outputs(name, dtype, tolerance):
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    net = seasoned(make()).to(dtype)
    before = copy.deepcopy(net.state_dict())
    new, report = convert_pretrained(net, pictures(*shape).to(dtype))
    x = pictures(*shape).to(dtype) - 2  # other pictures, of another mean
    assert report.count("converted") == sum(isinstance(m, Deconvolution) for m in new.modules()) > 0
    kept = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in new.modules())
    assert kept == (name == "pre-activation")
    assert not any(m.training for m in new.modules())
    assert relative(new(x), net(x)) <= tolerance
    assert relative(to_plain(new)(x), net(x)) <= tolerance
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in before.items())


OPTIONS = [
    {"block_size": 2},
    {"block_size": 2, "grouping": "contiguous", "centering": "per-block"},
    {"linear_block_size": 8, "running": "covariance", "momentum": 0.3},
    {"solver": "eigh", "eps": 1e-2},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convert_pretrained_undoes_every_way_to_form_blocks(options, groups):
    torch.manual_seed(0)
    layers = [nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=groups, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    net = seasoned(nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 9, 5))).double()
    new, report = convert_pretrained(net, pictures(200, 4, 6, 6).double(), **options)
    x = pictures(20, 4, 6, 6).double()
    assert [r.action for r in report.rows] == ["converted", "dropped", "converted"]
    assert (new[0].n_blocks, new[4].n_blocks) == (
        2 if groups == 1 and "block_size" in options else 1,
        9 if "linear_block_size" in options else 1,
    )
    assert relative(new(x), net(x)) <= 1e-11
    plain = to_plain(new)
    weight, bias = nn.utils.fusion.fuse_conv_bn_weights(
        *(net[0].weight, net[0].bias, net[1].running_mean, net[1].running_var),
        *(net[1].eps, net[1].weight, net[1].bias),
    )
    torch.testing.assert_close(plain[0].weight, weight)
    torch.testing.assert_close(plain[0].bias, bias)


@pytest.mark.parametrize("running", ["root", "covariance"])
def test_convert_pretrained_whitens_the_images_with_its_running_averages(running):
    """Whitened with what it remembers, the batch it was measured on is white, in evaluation and in training alike."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)).double()
    x = pictures(60, 3, 12, 12).double()
    new, _ = convert_pretrained(seasoned(net), x, solver="eigh", eps=1e-9, sampling_stride=1, running=running)
    _, cov = new[0].measure(x)
    root = new[0].running_deconv[None]
    torch.testing.assert_close(root @ cov @ root, torch.eye(27).double()[None], atol=1e-5, rtol=0)
    assert relative(new.train()(x), net(x)) <= 1e-10
    assert new[0].num_batches_tracked == 2
    assert relative(new.eval()(x), net(x)) <= 1e-10  # averaging the same again changes nothing


def test_convert_pretrained_keeps_the_given_momentum():
    new, _ = convert_pretrained(seasoned(small()), pictures(20, 3, 12, 12), momentum=0.3)
    assert new[0].options.momentum == 0.3


def test_convert_pretrained_counts_as_a_step_for_freeze_after():
    new, _ = convert_pretrained(seasoned(small()), pictures(20, 3, 12, 12), freeze_after=1)
    before = new[0].running_deconv.clone()
    new.train()(pictures(20, 3, 12, 12))
    assert torch.equal(new[0].running_deconv, before)


def test_convert_pretrained_keeps_a_normalisation_called_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

        def forward(self, x):
            return self.norm(self.norm(self.conv(x)))

    torch.manual_seed(0)
    net = seasoned(Twice())
    new, _ = convert_pretrained(net, pictures(20, 3, 9, 9))
    assert isinstance(new.norm, nn.BatchNorm2d)
    x = pictures(4, 3, 9, 9)
    assert relative(new(x), net(x)) <= 1e-4


def test_convert_pretrained_reports_fused_and_kept_normalisations():
    _, report = convert_pretrained(seasoned(PreActivation()), pictures(30, 4, 8, 8))
    rows = {r.name: (r.action, r.why) for r in report.rows}
    for name in ("a", "b", "c", "d", "own"):
        assert rows[name] == ("kept", "does not directly follow a layer that it can be fused into, and stays as it is")
    assert rows["head.1"] == ("dropped", "fused into head.0")
    assert rows["up"] == ("converted", "")
    assert rows["twice"][1].startswith("called 2 times")


def test_convert_pretrained_keeps_normalisation_without_running_averages():
    """In evaluation it measures the batch, which no constant weights can do."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
    new, report = convert_pretrained(net, pictures(30, 3, 8, 8))
    assert [r.action for r in report.rows] == ["converted", "kept", "converted"]
    x = pictures(9, 3, 8, 8)
    assert relative(new(x), net(x)) <= 1e-5


def test_convert_pretrained_keeps_normalisation_of_sequences():
    """BatchNorm1d behind a linear layer normalises positions, not features, where its input has three dimensions."""
    torch.manual_seed(0)
    net = seasoned(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Flatten(), nn.Linear(25, 2)))
    new, report = convert_pretrained(net, torch.randn(40, 5, 6))
    assert [r.action for r in report.rows] == ["converted", "kept", "converted"]
    x = torch.randn(9, 5, 6)
    assert relative(new(x), net(x)) <= 1e-5


def test_convert_pretrained_leaves_layers_that_the_images_do_not_reach():
    net = seasoned(torchvision.models.googlenet(num_classes=3, aux_logits=True, init_weights=False))
    new, report = convert_pretrained(net, pictures(6, 3, 64, 64))
    names = [r.name for r in report.rows if r.action == "converted"]
    idle = {n for n in names if new.get_submodule(n).num_batches_tracked == 0}
    assert idle == {n for n in names if n.startswith("aux")}
    x = pictures(3, 3, 64, 64)
    assert relative(new(x), net(x)) <= 1e-4


def test_convert_pretrained_keeps_frozen_weights_and_takes_untraceable_networks():
    net = small()
    net[3].weight.requires_grad_(False)
    new, _ = convert_pretrained(seasoned(net), pictures(20, 3, 12, 12))
    assert not new[3].weight.requires_grad
    assert new[0].weight.requires_grad
    assert all(p.is_leaf and p.grad is None for p in new.parameters())

    class Decides(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x):
            return self.norm(self.conv(x if x.sum() > 0 else -x))

    net = seasoned(Decides())
    new, report = convert_pretrained(net, pictures(20, 3, 12, 12))
    assert [r.action for r in report.rows] == ["converted", "dropped"]  # the images are followed
    x = pictures(9, 3, 12, 12)
    assert relative(new(x), net(x)) <= 1e-5


def test_convert_pretrained_refuses_a_single_image():
    with pytest.raises(ValueError, match="a covariance needs at least 2 rows"):
        convert_pretrained(seasoned(small()), pictures(1, 3, 12, 12))
