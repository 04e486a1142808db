"""From a plain network to a deconvolved one, to train it (:func:`convert`) or to train it on
(:func:`convert_pretrained`), and back (:func:`to_plain`)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import nn
from torch.nn.utils import parametrize

from ._conversion.counterparts import DECONV_OF, own_product, plain_channels, plain_layer, refuse_merged, shape_of
from ._conversion.fast_path import choose_paths
from ._conversion.following import copied
from ._conversion.norms import Copy, instead_of
from ._conversion.optimisers import watch_optimisers
from ._conversion.planning import Linear, Path, Plan, decide_norms, full_name, plans_of, rows_of_functions
from ._conversion.pretrained import batches_of, fuse, input_dimensions, measure_and_undo, tied
from ._conversion.replacing import put_in_place, unwrapped
from ._conversion.report import LayerReport, Report
from ._conversion.subclasses import OwnInput, OwnWeight, Product
from ._core.options import Options
from ._core.private_torch import pass_hooks
from ._core.whitening import Deconvolution
from .averages import warn_of_stale_averages
from .diagnostics import check_finite
from .layers import ChannelDeconv, DeconvLinear

__all__ = ["Copy", "LayerReport", "Report", "convert", "convert_pretrained", "to_plain"]

NOT_FUSED = "does not directly follow a layer that it can be fused into, and stays as it is"
UNKNOWN = "what it follows cannot be told without a trace; stays as it is"


def convert(
    net: nn.Module,
    *,
    inplace: bool = False,
    example_input: Any = None,
    linear_block_size: int = 512,
    linear: Linear = "classifier",
    **options: Any,
) -> tuple[nn.Module, Report]:
    """Deconvolve a network: drop its batch normalisation, whiten the input of every convolution and of the classifier.

    What lies on the network's path is followed by running a copy of it on ``example_input``, or without one by a trace
    with ``torch.fx``. Convolutions there become deconvolution layers with the same weights, and get a bias where they
    have none, as the shift of the normalisation is gone. The classifier, that is the last linear layer and those that
    lead to it through activations and dropout only, becomes ``DeconvLinear``. Convolutions that see a single pixel
    (squeeze-and-excitation) are measured at every image, not at every ninth. Subclasses that differ from the plain
    layers only in what they do to their input (such as padding) or weight (such as standardising) go on doing that.

    Batch normalisation, also a frozen one or one with an activation of its own, becomes ``nn.Identity`` (a
    :class:`.Copy` before an operation in place) if all layers that take its output whiten it: at once or through
    activations, pooling, sums, concatenations and whatever else has no weights. Where one of them stays plain, or where
    there is none, it stays. So do all other layers. Where tracing fails and there is no example, every layer counts as
    lying on the path, and the report says what stopped the trace.

    ``DataParallel`` and ``torch.compile`` are taken off and put on again, ``DistributedDataParallel`` is taken off.
    Forward and backward hooks of a layer pass to the one in its place.

    Args:
        net: any module. Untouched, unless ``inplace``.
        inplace: convert ``net`` itself instead of a copy. (A network that is a single layer cannot become another one:
            the layer that is returned then shares its weights.)
        example_input: what the network takes: a tensor, a tuple or list of positional arguments, or a mapping of
            keyword arguments.
        linear_block_size: features of a linear layer that are whitened together.
        linear: "all" converts the other linear layers too, those of transformers for instance, where a row is a token;
            attention's own projections, which are no layers, stay.
        options: of all layers, see :class:`.DeconvConv2d`; ``block_size`` and ``sampling_stride`` are those of the
            convolutions. ``**ndlib.RECOMMENDED`` is the setting to begin with; without options the layers are the
            published ones.

    Returns:
        The network and a :class:`.Report` of what was converted, dropped or kept, and why.

    Raises:
        ValueError, TypeError: a lazy layer that is not initialised yet, a layer of complex numbers, an example that the
            network does not run on, or what the layers raise for their options.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
    >>> new, report = convert(net, block_size=4)
    >>> print(report)
    layer  kind         action     why
    0      Conv2d       converted  -
    1      BatchNorm2d  dropped    what takes its output whitens it
    3      Conv2d       converted  -
    2 converted, 1 dropped, 0 kept

    Source of the placement: Ye et al. 2020, section 4, and the authors' networks.
    """
    _check_layers(net)
    inside, put_back, off = unwrapped(net)
    before = dict(inside.named_parameters())
    inside = inside if inplace else copied(inside)
    whole = _with_a_place(inside)
    path = Path(whole, example_input)
    rows = _converted(whole, path, None, linear_block_size, linear, options)
    watch_optimisers(before, inside)
    return _taken_out(inside, whole, rows, put_back, off)


def _check_layers(net: nn.Module) -> None:
    lazy = nn.modules.lazy.LazyModuleMixin
    for name, module in net.named_modules():
        layer = name or type(module).__name__
        if isinstance(module, lazy) and module.has_uninitialized_params():  # type: ignore[misc]
            raise ValueError(f"{layer} is not initialised yet; run the network once before converting it")
        if any(p.is_complex() for p in module.parameters(recurse=False)) and isinstance(module, tuple(DECONV_OF)):
            raise ValueError(f"{layer} has complex weights, and whitening is for real numbers")


def _with_a_place(net: nn.Module) -> nn.Module:
    """The network, a single layer inside another one: only there can it be replaced."""
    return nn.Sequential(net) if isinstance(net, tuple(DECONV_OF)) else net


def _taken_out(
    net: nn.Module,
    whole: nn.Module,
    rows: list[LayerReport],
    put_back: Callable[[nn.Module], nn.Module],
    off: list[str],
) -> tuple[nn.Module, Report]:
    """The network and its report, a single layer taken out of :func:`_with_a_place` again, in its wrappers."""
    if whole is not net:
        net, rows = whole.get_submodule("0"), [replace(row, name="(the network)") for row in rows if row.name == "0"]
    rows += [LayerReport("(the network)", kind, "dropped", "taken off; wrap the network again") for kind in off]
    return put_back(net), Report(rows)


def _converted(
    net: nn.Module,
    path: Path,
    fused: dict[str, str] | None,
    linear_block_size: int,
    linear: Linear,
    options: dict[str, Any],
) -> list[LayerReport]:
    """Convert a network in place. ``fused``: the normalisations to drop and why; None: those that a layer replaces."""
    Options().changed(**options | {"block_size": options.get("block_size", linear_block_size)})  # before any work
    if linear not in get_args(Linear):
        raise ValueError(f"linear must be 'classifier' or 'all', got {linear!r}")
    plans = plans_of(net, path, linear, fused is not None)
    if fused is None:
        decide_norms(plans, path)
    rows = []
    for plan in plans:
        if fused is not None and plan.norm == "batch" and plan.action == "dropped":
            other = UNKNOWN if path.failure else NOT_FUSED
            plan.action, plan.why = ("dropped", fused[plan.name]) if plan.name in fused else ("kept", other)
        if plan.action == "converted":
            _convert_layer(net, plan, path, linear_block_size, options)
        elif plan.action == "dropped":
            copies = path.failure != "" or path.needs_copy(plan.name)
            plan.why += "; a copy, since an operation in place follows" * copies
            put_in_place(net, plan.name, instead_of(plan.module, copies).train(plan.module.training))
        if plan.action:
            rows.append(LayerReport(plan.name, full_name(type(plan.module)), plan.action, plan.why, plan.norm))
    choose_paths(net)
    rows += rows_of_functions(path)
    if path.failure:
        why = f"not traced, all layers count, the last linear one as the classifier; give example_input: {path.failure}"
        rows.append(LayerReport("(the network)", full_name(type(net)), "kept", why))
    return rows


def _convert_layer(net: nn.Module, plan: Plan, path: Path, linear_block_size: int, options: dict[str, Any]) -> None:
    """Put a deconvolution layer in the place of a plain one, and say of it what there is to say."""
    module, notes = plan.module, [plan.why]
    if isinstance(module, nn.Linear):
        options = {k: v for k, v in options.items() if k != "sampling_stride"} | {"block_size": linear_block_size}
    elif path.sees_one_pixel(plan.name):
        options = options | {"sampling_stride": 1}
        notes.append("measured at every image: its input is one pixel")
    own = own_product(module)
    layer = deconvolved(module, options, own)
    if module.bias is None and layer.bias is not None:
        notes.append("bias added")
    put_in_place(net, plan.name, layer.train(module.training))
    if own is not None and own.pads:  # behind the hooks of the layer before, which have passed to it
        layer.register_forward_pre_hook(OwnInput(module), with_kwargs=True)
        notes.append("pads by itself")
    plan.why = "; ".join(filter(None, notes))


def deconvolved(module: Any, options: Mapping[str, Any], own: Product | None) -> Any:
    """A deconvolution layer with the very parameters of a plain convolution or linear layer, or of a subclass that does
    something of its own to its input or weight first, which the new layer then does too.
    """
    one = next(module.parameters())  # not the weight: asking a parametrised layer for it may change the layer
    kind: dict[str, Any] = {"device": one.device, "dtype": one.dtype}
    if isinstance(module, nn.Linear):
        has_bias = module.bias is not None
        layer: Any = DeconvLinear(module.in_features, module.out_features, has_bias, **kind, **options)
    else:
        deconv = next(deconv for plain, deconv in DECONV_OF.items() if isinstance(module, plain))
        shape = shape_of(module)
        if own is not None and own.pads:
            shape |= {"padding": own.arguments.get("padding", 0), "padding_mode": "zeros"}
        layer = deconv(**shape, **kind, **options)
        nn.init.zeros_(layer.bias)
        layer.bias.requires_grad_(any(p.requires_grad for p in module.parameters()))
    _take_parameters(layer, module)
    if own is not None and own.computes_weight:
        parametrize.register_parametrization(layer, "weight", OwnWeight(module))
    return layer


def _take_parameters(layer: Any, module: Any) -> None:
    computed = getattr(module, "parametrizations", {})
    for name in ("weight", "bias"):
        if name in computed:
            state = copy.deepcopy(computed[name].state_dict())  # registering runs it on the new layer's random weights
            parametrize.transfer_parametrizations_and_params(module, layer, name)
            layer.parametrizations[name].load_state_dict(state)
        elif getattr(module, name) is not None:
            setattr(layer, name, getattr(module, name))


def convert_pretrained(
    net: nn.Module,
    images: Any,
    *,
    example_input: Any = None,
    linear_block_size: int = 512,
    linear: Linear = "classifier",
    **options: Any,
) -> tuple[nn.Module, Report]:
    """Deconvolve a trained network without changing what it computes in evaluation: the inverse of :func:`to_plain`.

    Batch normalisation that directly follows a convolution or linear layer is fused into it; other normalisation
    stays, and the report says so. Then each layer that :func:`convert` would convert measures mean mu and root D of its
    input on ``images``, which become its running averages, and gets the weights that undo them:

        w = D^-1 W,   b = B + mu' W,   so that   (x - mu) D w + b = x W + B   for every x

    with W and B of the plain layer, whatever mu and D are. In training mode the function is the same up to the
    difference between the moments of a batch and those of ``images``.

    Args:
        net: a trained network, plain or with batch normalisation; it is not changed.
        images: inputs as the network is trained on, better with more rows than columns in every layer, see ``layers``:
            a batch, shape (N, ...), a tuple of positional arguments or a mapping of keyword arguments; or a data loader
            or other iterable of batches, over which mean and root are averaged. Of a batch (x, y) of a loader the first
            part is the input, of a mapping the keywords that the network takes. A layer that is called several times
            measures the first.
        example_input: as in :func:`convert`. Without one the network is traced, and where that fails the first batch is
            followed.
        linear_block_size, linear, options: as in :func:`convert`, but for ``sample_norm``, which no weights can undo.

    Returns:
        A copy in evaluation mode, and a :class:`.Report`. Layers that ``images`` do not reach keep mu = 0 and D = I.

    Raises:
        ValueError, TypeError: a lazy layer that is not initialised yet, no images, fewer than two rows of input in a
            layer, or what the layers raise for their options.
        FloatingPointError: an input that is not finite, or a root that diverges.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()
    >>> images = torch.randn(16, 3, 16, 16)
    >>> new, report = convert_pretrained(net, images)
    >>> torch.allclose(new(images), net(images), atol=1e-4)
    True
    """
    _check_layers(net)
    inside, put_back, off = unwrapped(net)
    if options.get("sample_norm"):
        raise ValueError("sample_norm changes what a trained network computes; convert(net, ...) trains one with it")
    bare = copied(inside).eval()
    net = _with_a_place(bare)
    batches = batches_of(bare, images)
    first = next(batches, None)
    if first is None:
        raise ValueError("there are no images to measure")
    path = Path(net, example_input)
    if path.failure:
        path = Path(net, first)
    with torch.no_grad():
        ties = tied(net)
        fused = fuse(net, path, first)
        rows = _converted(net, path, fused, linear_block_size, linear, options)
        layers = {row.name: net.get_submodule(row.name) for row in rows if row.action == "converted"}
        measure_and_undo(net, layers, first, batches)
        rows = [replace(r, why="; ".join(filter(None, [r.why, ties.get(r.name, "")]))) for r in rows]
    return _taken_out(bare, net, rows, put_back, off)


def to_plain(model: nn.Module, example_input: Any = None) -> nn.Module:
    """The plain network with the same outputs in evaluation: whitening costs nothing any more.

    Deconvolution layers become ``nn.Conv1d``, ``2d``, ``3d``, their transposed kin and ``nn.Linear`` with weights D w
    and bias b - mu' D w, of the same shapes. A ``ChannelDeconv`` becomes a 1x1 convolution (``nn.Linear`` where it sees
    vectors): behind it a convolution may pad with zeros, which do not pass through it.

    Args:
        model: in evaluation mode; it is not changed.
        example_input: an input of the network, needed only if there is a ``ChannelDeconv``, to see whether it meets
            vectors or feature maps, and with how many dimensions.

    A layer with ``sample_norm`` becomes that normalisation and a plain layer, in an ``nn.Sequential``: it depends on
    each sample, and no weights can do it.

    Returns:
        A copy without deconvolution layers, in evaluation mode, ready for ``torch.export`` and ONNX. Forward and
        backward hooks of a layer pass to the one in its place.

    Raises:
        RuntimeError: the model is in training mode.
        ValueError: a ``ChannelDeconv`` and no example input, or adapters (LoRA) that are merged into the weights.
        FloatingPointError: a layer met values that are not finite, see ``check_finite``.

    Warns where many weights of a layer are zero, as after pruning: those of the plain layer will not be. Warns of an
    ``AveragedModel`` whose statistics were not updated.

    >>> from ndlib import DeconvConv2d
    >>> model = nn.Sequential(DeconvConv2d(3, 8, 3), nn.ReLU()).eval()
    >>> to_plain(model)
    Sequential(
      (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
      (1): ReLU()
    )
    """
    training = [name for name, m in model.named_modules() if isinstance(m, Deconvolution) and m.training]
    if training:
        raise RuntimeError(
            f"to_plain: {training[0] or 'the model'} is in training mode, where it whitens with the batch and has no "
            "fixed weights; call model.eval() first"
        )
    refuse_merged(model)
    warn_of_stale_averages(model)
    model, put_back, _ = unwrapped(model)
    model = copied(model)
    check_finite(model)  # the copy, as it clears the flags that it reads
    dimensions = _dimensions(model, example_input)
    with torch.no_grad():
        for name, module in list(model.named_modules()):
            if not isinstance(module, Deconvolution):
                continue
            plain = (
                plain_channels(module, dimensions[name]) if isinstance(module, ChannelDeconv) else plain_layer(module)
            )
            if name:
                put_in_place(model, name, plain.eval())
            else:
                pass_hooks(module, plain)
                return put_back(plain.eval())
    choose_paths(model)
    return put_back(model)


def _dimensions(model: nn.Module, example_input: Any) -> dict[str, int]:
    """Number of dimensions of the input of each ChannelDeconv."""
    layers = {name: m for name, m in model.named_modules() if isinstance(m, ChannelDeconv)}
    if not layers:
        return {}
    if example_input is None:
        raise ValueError(
            f"to_plain: {', '.join(layers) or 'a ChannelDeconv'} meets vectors or feature maps, which only an input "
            "can tell; pass example_input"
        )
    return input_dimensions(model, layers, example_input)
