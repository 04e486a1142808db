"""Linear layers beyond the classifier, as those of transformers, and samples normalised by themselves."""

import pytest
import torch
from torch import nn

from ndlib import (
    ChannelDeconv,
    DeconvConv1d,
    DeconvConv2d,
    DeconvConvTranspose2d,
    DeconvLinear,
    convert,
    convert_pretrained,
    layer_whiteness,
    to_plain,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*rows for a covariance")


class Transformer(nn.Module):
    """16 tokens of a picture, two layers of attention, one class."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.patches, self.body, self.head = nn.Conv2d(1, 16, 4, 4), nn.TransformerEncoder(layer, 2), nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.body(self.patches(x).flatten(2).mT).mean(1))


def pictures(seed, n=64):
    """Gratings of four directions, in noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (n,), generator=generator)
    axis = torch.arange(16.0)
    angle = labels.view(-1, 1, 1) * torch.pi / 4
    phase = 6 * torch.rand(n, 1, 1, generator=generator)
    waves = torch.sin(1.2 * (axis * angle.cos() + axis.view(-1, 1) * angle.sin()) + phase)
    return (waves + 0.5 * torch.randn(n, 16, 16, generator=generator)).unsqueeze(1), labels


@pytest.mark.parametrize("sample_norm", [None, "l1", "layernorm"])
def test_a_transformer_trains_with_all_linear_layers_whitened_and_folds_back(sample_norm):
    torch.manual_seed(0)
    net, report = convert(Transformer(), linear="all", running="covariance", sample_norm=sample_norm)
    whitened = {row.name for row in report.rows if row.action == "converted"}
    feed_forward = {f"body.layers.{i}.linear{j}" for i in (0, 1) for j in (1, 2)}
    assert whitened == {"patches", "head", *feed_forward}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for step in range(40):
        x, labels = pictures(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), labels).backward()
        optimizer.step()
    x, labels = pictures(1000, 256)
    net.eval()
    wanted = net(x)
    assert (wanted.argmax(1) == labels).float().mean() > 0.6  # by chance 0.25
    with torch.no_grad():  # torch's fast path, which reads weights itself, is closed
        torch.testing.assert_close(net(x), wanted, rtol=1e-4, atol=1e-4)
    plain = to_plain(net)
    torch.testing.assert_close(plain(x), wanted, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(plain(x), wanted, rtol=1e-4, atol=1e-4)
    fast = [layer.activation_relu_or_gelu for layer in plain.body.layers]
    assert fast == ([1, 1] if sample_norm is None else [0, 0])


def test_a_trained_transformer_keeps_its_outputs():
    net, (x, _) = Transformer().double().eval(), pictures(0)
    new, report = convert_pretrained(net, x.double(), linear="all")
    assert report.count("converted") == 6
    torch.testing.assert_close(new(x.double()), net(x.double()), rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(new(x.double()), net(x.double()), rtol=1e-6, atol=1e-6)


def test_linear_layers_on_the_traced_path_are_converted_on_request():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.value, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.out(self.gate(x).softmax(-1) * self.value(x))

    assert convert(Gated())[1].count("converted") == 1
    net, report = convert(Gated(), linear="all", linear_block_size=3)
    assert report.count("converted") == 3 and net.gate.columns == 3
    x = torch.randn(5, 4, 3, 6)
    net(x)
    torch.testing.assert_close(to_plain(net.eval())(x), net(x), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="linear must be 'classifier' or 'all', got 'every'"):
        convert(Gated(), linear="every")


# Samples normalised by themselves. -------------------------------------------------------------------------


def by_hand(x, kind):
    rows = []
    for sample in x:
        if kind == "l1":
            rows.append(sample / sample.abs().mean())
        else:
            rows.append((sample - sample.mean()) / (sample.std() + 1e-4))
    return torch.stack(rows)


@pytest.mark.parametrize("kind", ["l1", "layernorm"])
@pytest.mark.parametrize(
    "make,shape",
    [
        (lambda **o: DeconvConv1d(3, 4, 3, **o), (8, 3, 20)),
        (lambda **o: DeconvConv2d(3, 4, 3, **o), (8, 3, 9, 9)),
        (lambda **o: DeconvConvTranspose2d(3, 4, 2, stride=2, **o), (8, 3, 5, 5)),
        (lambda **o: DeconvLinear(5, 4, **o), (30, 5)),
    ],
)
def test_each_sample_is_normalised_before_it_is_whitened(make, shape, kind):
    torch.manual_seed(0)
    layer, bare = make(sample_norm=kind).double(), make().double()
    x = torch.randn(shape, dtype=torch.float64) * torch.rand(shape[0], *[1] * (len(shape) - 1)) + 2
    bare.load_state_dict(dict(layer.named_parameters()), strict=False)
    torch.testing.assert_close(layer(x), bare(by_hand(x, kind)))
    (seen,) = layer_whiteness(layer, x).values()
    (same,) = layer_whiteness(bare, by_hand(x, kind)).values()
    torch.testing.assert_close(seen.before, same.before)
    plain = to_plain(nn.Sequential(layer).eval())
    torch.testing.assert_close(plain(x), layer(x))
    assert [type(m).__name__ for m in plain[0]] == ["SampleNorm", type(layer).__name__.removeprefix("Deconv")]


def test_a_row_of_any_rank_and_a_single_picture_are_samples():
    x = torch.randn(6, 7, 5)
    layer = DeconvLinear(5, 4, sample_norm="l1").eval()
    torch.testing.assert_close(layer(x)[2, 3], layer(x[2, 3]))
    convolution = DeconvConv2d(3, 4, 3, sample_norm="layernorm").eval()
    pictures = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(convolution(pictures)[1], convolution(pictures[1]))


def test_an_empty_picture_stays_finite_with_its_gradient():
    x = torch.randn(8, 3, 6, 6)
    x[3] = 0
    for kind in ("l1", "layernorm"):
        given = x.clone().requires_grad_()
        DeconvConv2d(3, 4, 3, sample_norm=kind)(given).square().sum().backward()
        assert given.grad.isfinite().all()


def test_sample_norm_is_refused_where_it_cannot_hold():
    with pytest.raises(ValueError, match="sample_norm must be None, 'l1' or 'layernorm', got 'l2'"):
        DeconvConv2d(3, 4, 3, sample_norm="l2")
    with pytest.raises(TypeError, match="no such option: sample_norm"):
        ChannelDeconv(4, 2, sample_norm="l1")
    with pytest.raises(ValueError, match=r"sample_norm changes what a trained network computes; convert\(net"):
        convert_pretrained(nn.Sequential(nn.Conv2d(3, 4, 3)), torch.randn(8, 3, 9, 9), sample_norm="l1")
    layer = DeconvConv2d(3, 4, 3, sample_norm="l1")
    with pytest.raises(AttributeError, match="sample_norm cannot change in a layer that is there"):
        layer.sample_norm = None
    with pytest.raises(RuntimeError, match="saved with sample_norm='l1'; make the layer so"):
        DeconvConv2d(3, 4, 3).load_state_dict(layer.state_dict())
    with pytest.raises(RuntimeError, match="saved with sample_norm=None; make the layer so"):
        layer.load_state_dict(DeconvConv2d(3, 4, 3).state_dict())
