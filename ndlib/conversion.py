"""From a plain network to a deconvolved one, to train it (:func:`convert`) or to train it on
(:func:`convert_pretrained`), and back (:func:`to_plain`)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, fx, nn

from ._core.counterparts import DECONV_OF, plain_channels, plain_layer, shape_of
from ._core.fast_path import choose_paths
from ._core.folding import undo_whitening
from ._core.hooks import before_forward
from ._core.norms import BATCH_NORMS, Copy, fuse_into, instead_of, is_followed_by_its_children
from ._core.options import Options
from ._core.private_torch import pass_hooks
from ._core.report import LayerReport, Report
from ._core.tracing import CONVOLUTIONS, Path
from ._core.whitening import Deconvolution
from .diagnostics import check_finite
from .layers import ChannelDeconv, DeconvLinear

__all__ = ["Copy", "LayerReport", "Report", "convert", "convert_pretrained", "to_plain"]

Linear = Literal["classifier", "all"]  # which linear layers are converted
OTHER_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)

WHITENED = "a layer behind it whitens its input"
NOT_WHITENED = "no converted layer takes its output; stays as it is"
UNKNOWN = "what it follows cannot be told without a trace; stays as it is"
NOT_FUSED = "does not directly follow a layer that it can be fused into, and stays as it is"


def convert(
    net: nn.Module,
    *,
    inplace: bool = False,
    linear_block_size: int = 512,
    linear: Linear = "classifier",
    **options: Any,
) -> tuple[nn.Module, Report]:
    """Deconvolve a network: drop its batch normalisation, whiten the input of every convolution and of the classifier.

    The network is traced with ``torch.fx`` to see what lies on its path. Convolutions there become deconvolution layers
    with the same weights, and get a bias where they have none, as the shift of the normalisation is gone. The
    classifier, that is the last linear layer and those that lead to it through activations and dropout only, becomes
    ``DeconvLinear``. Convolutions that see a single pixel (squeeze-and-excitation) are measured at every image, not at
    every ninth. Batch normalisation becomes ``nn.Identity`` (a
    :class:`.Copy` before an operation in place) if at least one deconvolution layer takes its output,
    through activations, pooling, sums, concatenations and whatever else has no weights; of several takers the others
    then go without. All other layers stay, and so do subclasses of these, which may compute something else. Where
    tracing fails, every layer counts as lying on the path, and the report says so.

    Forward and backward hooks of a layer pass to the one in its place.

    Args:
        net: any module. Untouched, unless ``inplace``.
        inplace: convert ``net`` itself instead of a copy. (A network that is a single layer cannot become another one:
            the layer that is returned then shares its weights.)
        linear_block_size: features of a linear layer that are whitened together.
        linear: "all" converts the other linear layers too, those of transformers for instance, where a row is a token;
            attention's own projections, which are no layers, stay.
        options: of all layers, see :class:`.DeconvConv2d`; ``block_size`` and ``sampling_stride`` are those of the
            convolutions. ``**ndlib.RECOMMENDED`` is the setting to begin with; without options the layers are the
            published ones.

    Returns:
        The network and a :class:`.Report` of what was converted, dropped or kept, and why.

    Raises:
        ValueError, TypeError: a lazy layer that is not initialised yet, or what the layers raise for their options.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
    >>> new, report = convert(net, block_size=4)
    >>> print(report)
    layer  kind         action     why
    0      Conv2d       converted  -
    1      BatchNorm2d  dropped    a layer behind it whitens its input
    3      Conv2d       converted  -
    2 converted, 1 dropped, 0 kept

    Source of the placement: Ye et al. 2020, section 4, and the authors' networks.
    """
    _check_initialised(net)
    net = net if inplace else _copied(net)
    whole = _with_a_place(net)
    rows = _converted(whole, Path(whole), None, linear_block_size, linear, options)
    return _taken_out(net, whole, rows)


def _check_initialised(net: nn.Module) -> None:
    lazy = nn.modules.lazy.LazyModuleMixin
    for name, module in net.named_modules():
        if isinstance(module, lazy) and module.has_uninitialized_params():  # type: ignore[misc]
            layer = name or type(module).__name__
            raise ValueError(f"{layer} is not initialised yet; run the network once before converting it")


def _copied(net: nn.Module) -> nn.Module:
    """A copy, whatever its modules keep of their last forward pass: such tensors cannot be copied with their graph."""
    kept = [v for m in net.modules() for v in vars(m).values() if isinstance(v, Tensor) and not v.is_leaf]
    return copy.deepcopy(net, {id(tensor): tensor.detach().clone() for tensor in kept})


def _with_a_place(net: nn.Module) -> nn.Module:
    """The network, a single layer inside another one: only there can it be replaced."""
    return nn.Sequential(net) if type(net) in DECONV_OF else net


def _taken_out(net: nn.Module, whole: nn.Module, rows: list[LayerReport]) -> tuple[nn.Module, Report]:
    """The network and its report, a single layer taken out of :func:`_with_a_place` again."""
    if whole is net:
        return net, Report(rows)
    return whole.get_submodule("0"), Report([replace(row, name="(the network)") for row in rows])


def _converted(
    net: nn.Module,
    path: Path,
    fused: dict[nn.Module, str] | None,
    linear_block_size: int,
    linear: Linear,
    options: dict[str, Any],
) -> list[LayerReport]:
    """Convert a network in place. ``fused``: the normalisations to drop and why; None: those that a layer replaces."""
    Options().changed(**options | {"block_size": options.get("block_size", linear_block_size)})  # before any work
    if linear not in get_args(Linear):
        raise ValueError(f"linear must be 'classifier' or 'all', got {linear!r}")
    plans = [(name, m, *_plan(name, m, path, linear)) for name, m in net.named_modules()]
    if fused is None:
        whitening = {m for _, m, action, _ in plans if action == "converted" or isinstance(m, Deconvolution)}
        droppable, otherwise = dict.fromkeys(path.leading_to(whitening), WHITENED), NOT_WHITENED
    else:
        droppable, otherwise = fused, UNKNOWN if path.failure else NOT_FUSED
    rows = []
    for name, module, action, why in plans:
        if action == "converted":
            why = "; ".join(filter(None, [why, *_convert_layer(net, name, module, path, linear_block_size, options)]))
        elif action == "dropped" and module in droppable:
            why = droppable[module]
            overwritten = path.is_overwritten(name)  # the normalisation's own output was; now it would be its input
            if overwritten:
                why += "; a copy, since an operation in place follows"
            put_in_place(net, name, instead_of(module, overwritten).train(module.training))
        elif action == "dropped":
            action, why = "kept", otherwise
        if action:
            rows.append(LayerReport(name, type(module).__name__, action, why))
    choose_paths(net)
    if path.failure:
        why = f"not traced, all layers count: {path.failure}"
        rows.append(LayerReport("(the network)", type(net).__name__, "kept", why))
    return rows


def _plan(name: str, module: Any, path: Path, linear: Linear) -> tuple[Any, str]:
    """Action and reason for a module; no action for those that a report need not name."""
    nodes, every = path.nodes.get(name), linear == "all" and isinstance(module, nn.Linear)
    if isinstance(module, Deconvolution):
        return "kept", "whitens already"
    norm = isinstance(module, BATCH_NORMS)
    if not (norm or isinstance(module, (*CONVOLUTIONS, nn.Linear))):
        return ("kept", "no batch normalisation") if isinstance(module, OTHER_NORMS) else ("", "")
    if type(module) not in (*DECONV_OF, *BATCH_NORMS) and not (norm and is_followed_by_its_children(module)):
        return "kept", f"{_full_name(module)} is not a plain layer and may compute something else"
    if _is_computed(module):
        return "kept", "a hook makes its weights (weight_norm, spectral_norm, pruning); remove that to convert it"
    if nodes is None and not (path.failure or (every and path.is_within_a_call(name))):
        return "kept", "not on the traced path"
    if norm:
        return "dropped", ""  # if it may go, which the layers behind it decide
    if isinstance(module, nn.Linear) and not (every or path.is_classifier(module)):
        return "kept", "not the classifier"
    calls = len(nodes) if nodes else 1
    return "converted", "" if calls == 1 else f"called {calls} times, each call measured and averaged"


def _full_name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _is_computed(layer: Any) -> bool:
    """Whether a hook sets weight or bias anew at every call, as the older of torch's reparametrisations do."""
    return any(name in vars(layer) for name in ("weight", "bias"))


def _convert_layer(
    net: nn.Module, name: str, module: Any, path: Path, linear_block_size: int, options: dict[str, Any]
) -> list[str]:
    """Put a deconvolution layer in the place of a plain one; what the report should say of it."""
    notes = []
    if isinstance(module, nn.Linear):
        options = {k: v for k, v in options.items() if k != "sampling_stride"} | {"block_size": linear_block_size}
    elif path.sees_one_pixel(name):
        options = options | {"sampling_stride": 1}
        notes.append("measured at every image: its input is one pixel")
    layer = deconvolved(module, options)
    if module.bias is None and layer.bias is not None:
        notes.append("bias added")
    put_in_place(net, name, layer.train(module.training))
    return notes


def deconvolved(module: Any, options: Mapping[str, Any]) -> Any:
    """A deconvolution layer with the very parameters of a plain convolution or linear layer."""
    kind: dict[str, Any] = {"device": module.weight.device, "dtype": module.weight.dtype}
    if isinstance(module, nn.Linear):
        has_bias = module.bias is not None
        layer: Any = DeconvLinear(module.in_features, module.out_features, has_bias, **kind, **options)
    else:
        layer = DECONV_OF[type(module)](**shape_of(module), **kind, **options)
        nn.init.zeros_(layer.bias)
    layer.weight = module.weight
    if module.bias is not None:
        layer.bias = module.bias
    return layer


def put_in_place(net: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of another, wherever in the network that one is registered, with its hooks."""
    old = net.get_submodule(name)
    pass_hooks(old, module)
    places = [place for place, m in net.named_modules(remove_duplicate=False) if m is old]
    for place in places:
        parent, _, key = place.rpartition(".")
        setattr(net.get_submodule(parent), key, module)


def convert_pretrained(
    net: nn.Module,
    images: Tensor,
    *,
    linear_block_size: int = 512,
    linear: Linear = "classifier",
    **options: Any,
) -> tuple[nn.Module, Report]:
    """Deconvolve a trained network without changing what it computes in evaluation: the inverse of :func:`to_plain`.

    Batch normalisation that directly follows a convolution or linear layer is fused into it; other normalisation
    stays, as does all of it where tracing fails, and the report says so. Then each layer that :func:`convert` would
    convert measures mean mu and root D of its input on ``images``, which become its running averages, and gets the
    weights that undo them:

        w = D^-1 W,   b = B + mu' W,   so that   (x - mu) D w + b = x W + B   for every x

    with W and B of the plain layer, whatever mu and D are. In training mode the function is the same up to the
    difference between the moments of a batch and those of ``images``.

    Args:
        net: a trained network, plain or with batch normalisation; it is not changed.
        images: one batch of inputs as the network is trained on, shape (N, ...), better with more rows than columns
            in every layer, see ``layers``. A layer that is called several times measures the first.
        linear_block_size, linear, options: as in :func:`convert`, but for ``sample_norm``, which no weights can undo.

    Returns:
        A copy in evaluation mode, and a :class:`.Report`. Layers that ``images`` do not reach keep mu = 0 and D = I.

    Raises:
        ValueError, TypeError: a lazy layer that is not initialised yet, fewer than two rows of input in a layer, or
            what the layers raise for their options.
        FloatingPointError: an input that is not finite, or a root that diverges.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()
    >>> images = torch.randn(16, 3, 16, 16)
    >>> new, report = convert_pretrained(net, images)
    >>> torch.allclose(new(images), net(images), atol=1e-4)
    True
    """
    _check_initialised(net)
    if options.get("sample_norm"):
        raise ValueError("sample_norm changes what a trained network computes; convert(net, ...) trains one with it")
    bare = _copied(net).eval()
    net = _with_a_place(bare)
    path = Path(net)
    with torch.no_grad():
        fused = _fuse(net, path, images)
        rows = _converted(net, path, fused, linear_block_size, linear, options)
        layers = {row.name: net.get_submodule(row.name) for row in rows if row.action == "converted"}
        measured: set[str] = set()

        def undo_once(name: str, layer: nn.Module, x: Tensor) -> None:
            if name not in measured:
                measured.add(name)
                undo_whitening(layer, x)

        with before_forward(layers, undo_once):
            net(images)
    return _taken_out(bare, net, rows)


def _fuse(net: nn.Module, path: Path, images: Tensor) -> dict[nn.Module, str]:
    """Fuse batch normalisation into the layers directly before it; what to report of those that may go."""
    names = {m: n for n, m in reversed(path.modules.items())}
    plain = {n: m for n, m in path.modules.items() if type(m) in BATCH_NORMS and not _is_computed(m)}
    norms = {n: m for n, m in plain.items() if m.track_running_stats}
    dimensions = _input_dimensions(net, norms, images)
    fused: dict[nn.Module, str] = {}
    for name, norm in norms.items():
        calls = path.nodes.get(name, [])
        before = calls[0].args[0] if len(calls) == 1 and calls[0].args else None
        layer: Any = path.call_of(before) if isinstance(before, fx.Node) else None
        # Its output must go nowhere else, and features must be the last dimension and the second at once.
        if type(layer) not in DECONV_OF or len(path.nodes[names[layer]]) > 1 or len(before.users) > 1:  # type: ignore[union-attr]
            continue
        if _is_computed(layer) or (isinstance(layer, nn.Linear) and dimensions.get(name) != 2):
            continue
        fuse_into(layer, norm)
        fused[norm] = f"fused into {names[layer]}"
    return fused


def to_plain(model: nn.Module, example_input: Tensor | None = None) -> nn.Module:
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
        ValueError: a ``ChannelDeconv`` and no example input.
        FloatingPointError: a layer met values that are not finite, see ``check_finite``.

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
    model = _copied(model)
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
                return plain.eval()
    choose_paths(model)
    return model


def _dimensions(model: nn.Module, example_input: Tensor | None) -> dict[str, int]:
    """Number of dimensions of the input of each ChannelDeconv."""
    layers = {name: m for name, m in model.named_modules() if isinstance(m, ChannelDeconv)}
    if not layers:
        return {}
    if example_input is None:
        raise ValueError(
            f"to_plain: {', '.join(layers) or 'a ChannelDeconv'} meets vectors or feature maps, which only an input "
            "can tell; pass example_input"
        )
    return _input_dimensions(model, layers, example_input)


def _input_dimensions(model: nn.Module, layers: Mapping[str, nn.Module], x: Tensor) -> dict[str, int]:
    """Number of dimensions of the input of each of these layers that is reached."""
    found: dict[str, int] = {}

    def note(name: str, _: nn.Module, seen: Tensor) -> None:
        found[name] = seen.dim()

    with torch.no_grad(), before_forward(layers, note):
        model(x)
    return found
