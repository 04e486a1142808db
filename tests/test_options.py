"""The options of the layers: found, read, set, refused, and warned about at the user's own line."""

import inspect
import pydoc
import re
import subprocess
import sys
import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn

import ndlib
from ndlib import ChannelDeconv, DeconvConv1d, DeconvConv2d, DeconvConv3d, DeconvLinear, cli, convert
from ndlib._core.options import ABOUT, Options, check_options, parse_option
from ndlib._core.whitening import SHAPING, Deconvolution

CONVOLUTIONS = [DeconvConv1d, DeconvConv2d, DeconvConv3d]
BAD = [
    ("block_size", 0, ValueError),
    ("block_size", True, ValueError),
    ("sampling_stride", 1.5, ValueError),
    ("eps", -1e-5, ValueError),
    ("eps", float("nan"), ValueError),
    ("eps", float("inf"), ValueError),
    ("eps", "small", ValueError),
    ("eps", None, TypeError),
    ("n_iter", True, ValueError),
    ("n_iter", 5.0, ValueError),
    ("n_iter", 0, ValueError),
    ("solver", "svd", ValueError),
    ("grouping", "random", ValueError),
    ("centering", None, TypeError),
    ("running", "mean", ValueError),
    ("momentum", 0, ValueError),
    ("momentum", 1.1, ValueError),
    ("momentum", True, ValueError),
    ("update_every", 0, ValueError),
    ("freeze_after", 0, ValueError),
    ("freeze_after", "never", ValueError),
    ("detach_root", "no", ValueError),
    ("detach_root", 1, ValueError),
    ("process_group", "word", ValueError),
    ("process_group", [], TypeError),
]


def layers():
    return [*(kind(4, 4, 1) for kind in CONVOLUTIONS), DeconvLinear(4, 4), ChannelDeconv(4, 2)]


def test_a_type_a_meaning_and_a_default_for_every_option():
    assert list(inspect.signature(Options).parameters) == list(ABOUT)
    assert ABOUT.keys() <= Deconvolution.__annotations__.keys()
    assert all(about.meaning.endswith(".") and about.is_possible(getattr(Options(), n)) for n, about in ABOUT.items())


@pytest.mark.parametrize("layer", layers(), ids=lambda layer: type(layer).__name__)
def test_every_option_is_an_attribute_and_in_the_help(layer):
    text = pydoc.plain(pydoc.render_doc(type(layer)))
    for name, about in ABOUT.items():
        if name in layer.without:
            assert not hasattr(layer, name)
            continue
        assert getattr(layer, name) == getattr(layer.options, name)
        assert f"{name}: {about.meaning[:30]}" in text
        assert name in inspect.signature(type(layer)).parameters
    defaults = type(layer).defaults
    assert f"{ABOUT['eps'].wanted.capitalize()}; {defaults.eps!r}" in text


@pytest.mark.parametrize(("name", "value", "error"), BAD)
def test_a_bad_value_is_refused_by_name_everywhere(name, value, error):
    wanted = re.escape(f"{name} must be {ABOUT[name].wanted}, got {value!r}")
    with pytest.raises(error, match=wanted):
        DeconvConv2d(4, 4, 3, **{name: value})
    with pytest.raises(error, match=wanted):
        convert(nn.Sequential(nn.Conv2d(4, 4, 3)), **{name: value})
    with pytest.raises(ValueError, match=wanted):
        check_options({name: value})
    if name not in SHAPING:
        with pytest.raises(error, match=wanted):
            setattr(DeconvConv2d(4, 4, 3), name, value)


@pytest.mark.parametrize(
    "text", ["n_iter=5.0", "detach_root=no", "eps=-1", "blocksize=4", "process_group=world", "eps="]
)
def test_a_bad_option_on_the_command_line_is_refused(text, capsys):
    with pytest.raises(ValueError, match=text.split("=")[0]):
        parse_option(text)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["train", "--dataset", "photo-patches", "--method", "nd", "--option", text])
    assert exit_.value.code == 2
    assert text.split("=")[0] in capsys.readouterr().err


def test_a_process_group_and_no_option_of_another_name():
    assert DeconvConv2d(4, 4, 3, process_group="world").process_group == "world"
    assert Options().changed(process_group=dist.ProcessGroup(0, 1)).process_group is not None
    with pytest.raises(TypeError, match=r"no such option: blocksize; there are block_size, .* process_group"):
        DeconvConv2d(4, 4, 3, blocksize=4)
    with pytest.raises(TypeError, match="sampling_stride; DeconvLinear has none"):
        DeconvLinear(4, 4, sampling_stride=1)


def test_an_option_set_on_a_layer_takes_effect():
    x = torch.randn(16, 4, 9, 9, generator=torch.Generator().manual_seed(0))
    layer = DeconvConv2d(4, 4, 3)
    other = DeconvConv2d(4, 4, 3, eps=1e-1, n_iter=2)
    other.weight, other.bias = layer.weight, layer.bias
    layer.eps, layer.n_iter = 1e-1, 2
    torch.testing.assert_close(layer(x), other(x), rtol=0, atol=0)
    assert "eps=0.1, n_iter=2" in repr(layer)


def test_the_running_root_follows_an_option_that_is_set():
    x = torch.randn(16, 4, 9, 9, generator=torch.Generator().manual_seed(0))
    layer = DeconvConv2d(4, 4, 3, running="covariance")
    layer(x)
    before = layer.eval()(x)
    layer.eps = 1.0
    assert (layer(x) - before).abs().max() > 1e-2


@pytest.mark.parametrize("name", SHAPING)
def test_what_buffers_depend_on_cannot_be_set(name):
    with pytest.raises(AttributeError, match=f"{name} cannot change .* make a new layer"):
        setattr(DeconvConv2d(4, 4, 3), name, getattr(Options(), name))


def place_of_warning(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    (place,) = {(w.filename, w.lineno) for w in caught}
    return place


def test_warnings_point_at_the_line_that_caused_them():
    """Of the lambda, which stands in this file: not of convert, of a container's forward, or of a module of torch."""
    net = nn.Sequential(nn.Conv2d(65, 4, 3), nn.Conv2d(4, 4, 3))
    few = nn.Sequential(nn.Sequential(DeconvConv2d(8, 4, 3)))
    for call in (
        lambda: DeconvConv2d(65, 4, 3),
        lambda: DeconvLinear(515, 4),
        lambda: convert(net),
        lambda: few(torch.randn(1, 8, 9, 9)),
    ):
        assert place_of_warning(call) == (__file__, call.__code__.co_firstlineno)


def test_no_option_is_stated_twice_in_a_message_of_help():
    done = subprocess.run(
        [sys.executable, "-c", "import ndlib; help(ndlib.DeconvConv2d)"], capture_output=True, text=True, check=True
    )
    for name in ABOUT:
        assert (
            len(re.findall(rf"^ *\|? *{name}: {re.escape(ABOUT[name].meaning[:20])}", done.stdout, re.MULTILINE)) == 1
        ), name


def test_the_facade_shows_all_that_can_be_imported():
    for name in dir(ndlib):
        assert getattr(ndlib, name) is not None
    assert {"DeconvConv2d", "convert", "to_plain", "functional", "experiments", "bookwork"} <= set(dir(ndlib))
    assert set(ndlib.__all__) <= set(dir(ndlib))
