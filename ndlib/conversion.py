"""From a plain network to a deconvolved one, to train it (:func:`convert`) or to train it on (:func:`unfold`), and
back (:func:`fold`)."""

from __future__ import annotations

import copy
import operator
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from .functional import fold_weights
from .layers import (
    ChannelDeconv,
    DeconvConv1d,
    DeconvConv2d,
    DeconvConv3d,
    DeconvLinear,
    Deconvolution,
    Options,
    check_finite,
)

PLAIN_OF: dict[type[nn.Module], type[nn.Module]] = {
    DeconvConv1d: nn.Conv1d,
    DeconvConv2d: nn.Conv2d,
    DeconvConv3d: nn.Conv3d,
    DeconvLinear: nn.Linear,
}
DECONV_OF = {plain: deconv for deconv, plain in PLAIN_OF.items()}
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
# What a classifier may have between its linear layers, and a squeezed feature map between its convolutions.
ELEMENTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh, nn.Softplus),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
)
ELEMENTWISE_FUNCTIONS = {F.relu, F.silu, F.gelu, F.sigmoid, F.hardswish, F.hardsigmoid, F.dropout, torch.relu}
# Layers without a module: what they give out is not what went in, normalised as it was.
WEIGHTED_FUNCTIONS = {
    *(F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
    *(torch.matmul, torch.bmm, operator.matmul, "matmul", "bmm"),
}
SHAPES = {"shape", "ndim", "size", "dim"}  # of a tensor: its values go nowhere by way of these
HOOKS = (
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks", "_forward_hooks_with_kwargs"),
    *("_forward_hooks_always_called", "_backward_pre_hooks", "_backward_hooks", "_is_full_backward_hook"),
)

WHITENED = "a layer behind it whitens its input"
NOT_WHITENED = "no converted layer takes its output; stays as it is"
UNKNOWN = "what it follows cannot be told without a trace; stays as it is"
NOT_FUSED = "does not directly follow a layer that it can be fused into, and stays as it is"


@dataclass(frozen=True)
class Row:
    """What became of one layer: ``action`` is ``"converted"``, ``"dropped"`` or ``"kept"``."""

    name: str
    kind: str
    action: str
    why: str


@dataclass
class Report:
    """What :func:`.convert` or :func:`.unfold` did: a row for each convolution, linear layer and normalisation."""

    rows: list[Row] = field(default_factory=list)

    def count(self, action: str, kind: str = "") -> int:
        """Rows with this action, of layers whose kind begins so."""
        return sum(r.action == action and r.kind.startswith(kind) for r in self.rows)

    def __str__(self) -> str:
        cells = [("layer", "kind", "action", "why"), *((r.name, r.kind, r.action, r.why) for r in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(3)]
        lines = ["  ".join([*(c.ljust(w) for c, w in zip(row[:3], widths, strict=True)), row[3]]) for row in cells]
        summary = ", ".join(f"{self.count(action)} {action}" for action in ("converted", "dropped", "kept"))
        if not any("BatchNorm" in r.kind for r in self.rows):
            summary += "; the network has no batch normalisation on its path"
        return "\n".join([*lines, summary])


def convert(
    net: nn.Module,
    *,
    inplace: bool = False,
    block_size: int = 64,
    linear_block_size: int = 512,
    sampling_stride: int = 3,
    **options: Unpack[Options],
) -> tuple[nn.Module, Report]:
    """Deconvolve a network: drop its batch normalisation, whiten the input of every convolution and of the classifier.

    The network is traced with ``torch.fx`` to see what lies on its path. Convolutions there become deconvolution layers
    with the same weights, and get a bias where they have none, as the shift of the normalisation is gone. The
    classifier, that is the last linear layer and those that lead to it through activations and dropout only, becomes
    ``DeconvLinear``. Convolutions that see a single pixel (squeeze-and-excitation) are measured at every image, not at
    every ninth. Batch normalisation becomes ``nn.Identity`` if at least one deconvolution layer takes its output,
    through activations, pooling, sums, concatenations and whatever else has no weights; of several takers the others
    then go without. All other layers stay, and so do subclasses of these, which may compute something else. Where
    tracing fails, every layer counts as lying on the path, and the report says so.

    Forward and backward hooks of a layer pass to the one in its place.

    Args:
        net: any module. Untouched, unless ``inplace``.
        inplace: convert ``net`` itself instead of a copy. (A network that is a single layer cannot become another one:
            the layer that is returned then shares its weights.)
        block_size, sampling_stride: of the convolutions. linear_block_size: of the classifier.
        options: of all layers, see ``layers.Options``.

    Returns:
        The network and a :class:`.Report` of what was converted, dropped or kept, and why.

    Raises:
        ValueError: a lazy layer that is not initialised yet, or what the layers raise for their options.

    Source of the placement: Ye et al. 2020, section 4, and the authors' networks.
    """
    _check_initialised(net)
    net = net if inplace else _copied(net)
    sizes = {"block_size": block_size, "linear_block_size": linear_block_size, "sampling_stride": sampling_stride}
    whole = _with_a_place(net)
    return _taken_out(net, whole, _converted(whole, _Path(whole), None, options, **sizes))


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


def _taken_out(net: nn.Module, whole: nn.Module, rows: list[Row]) -> tuple[nn.Module, Report]:
    """The network and its report, a single layer taken out of :func:`_with_a_place` again."""
    if whole is net:
        return net, Report(rows)
    return whole.get_submodule("0"), Report([replace(row, name="(the network)") for row in rows])


def _converted(
    net: nn.Module,
    path: _Path,
    fused: dict[nn.Module, str] | None,
    options: Options,
    *,
    block_size: int,
    linear_block_size: int,
    sampling_stride: int,
) -> list[Row]:
    """Convert a network in place. ``fused``: the normalisations to drop and why; None: those that a layer replaces."""
    plans = [(name, m, *_plan(m, path.nodes.get(name), path)) for name, m in net.named_modules()]
    if fused is None:
        whitening = {m for _, m, action, _ in plans if action == "converted" or isinstance(m, Deconvolution)}
        droppable, otherwise = dict.fromkeys(path.leading_to(whitening), WHITENED), NOT_WHITENED
    else:
        droppable, otherwise = fused, UNKNOWN if path.failure else NOT_FUSED
    rows = []
    for name, module, action, why in plans:
        kind = type(module).__name__
        if action == "dropped":
            action, why = ("dropped", droppable[module]) if module in droppable else ("kept", otherwise)
        if not action:
            continue
        if action == "dropped":
            _replace(net, name, nn.Identity().train(module.training))
        elif action == "converted":
            single = type(module) is not nn.Linear and path.sees_one_pixel(name)
            layer = _deconvolved(
                module,
                block_size=linear_block_size if isinstance(module, nn.Linear) else block_size,
                sampling_stride=1 if single else sampling_stride,
                options=options,
            )
            layer.train(module.training)
            _replace(net, name, layer)
            notes = [why, "measured at every image: its input is one pixel" if single else ""]
            notes.append("bias added" if module.bias is None and layer.bias is not None else "")
            why = "; ".join(note for note in notes if note)
        rows.append(Row(name, kind, action, why))
    if path.failure:
        rows.append(Row("(the network)", type(net).__name__, "kept", f"not traced, all layers count: {path.failure}"))
    return rows


def _plan(module: Any, nodes: list[fx.Node] | None, path: _Path) -> tuple[str, str]:
    """Action and reason for a module; no action for those that a report need not name."""
    if isinstance(module, Deconvolution):
        return "kept", "whitens already"
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return "kept", "transposed convolution"
    norm, convolution = isinstance(module, BATCH_NORMS), isinstance(module, nn.modules.conv._ConvNd)
    if not (norm or convolution or isinstance(module, nn.Linear)):
        other = isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm))
        return ("kept", "no batch normalisation") if other else ("", "")
    if type(module) not in (*DECONV_OF, *BATCH_NORMS):
        return "kept", f"{type(module).__name__} is not a plain layer and may compute something else"
    if _is_computed(module):
        return "kept", "a hook makes its weights (weight_norm, spectral_norm, pruning); remove that to convert it"
    if nodes is None and not path.failure:
        return "kept", "not on the traced path"
    if norm:
        return "dropped", ""  # if it may go, which the layers behind it decide
    if isinstance(module, nn.Linear) and not path.is_classifier(module):
        return "kept", "not the classifier"
    calls = len(nodes) if nodes else 1
    return "converted", "" if calls == 1 else f"called {calls} times, each call measured and averaged"


def _is_computed(layer: Any) -> bool:
    """Whether a hook sets weight or bias anew at every call, as the older of torch's reparametrisations do."""
    return any(name in vars(layer) for name in ("weight", "bias"))


def _deconvolved(
    module: Any, *, block_size: int, sampling_stride: int, options: Options
) -> DeconvConv1d | DeconvConv2d | DeconvConv3d | DeconvLinear:
    kind: dict[str, Any] = {"device": module.weight.device, "dtype": module.weight.dtype}
    if isinstance(module, nn.Linear):
        shape: tuple[Any, ...] = (module.in_features, module.out_features, module.bias is not None)
        layer: Any = DeconvLinear(*shape, block_size=block_size, **kind, **options)
    else:
        layer = DECONV_OF[type(module)](
            module.in_channels,
            module.out_channels,
            module.kernel_size,
            module.stride,
            module.padding,
            module.dilation,
            module.groups,
            padding_mode=module.padding_mode,
            block_size=block_size,
            sampling_stride=sampling_stride,
            **kind,
            **options,
        )
        nn.init.zeros_(layer.bias)
    layer.weight = module.weight
    if module.bias is not None:
        layer.bias = module.bias
    return layer


def _pass_hooks(old: nn.Module, new: nn.Module) -> None:
    """Forward and backward hooks, in the same dictionaries, so that handles of the old layer remove them here too."""
    for key in HOOKS:
        setattr(new, key, getattr(old, key))
    for number, hook in list(new._forward_pre_hooks.items()):
        if type(hook).__module__.startswith("torch.nn.utils"):  # it makes weights, which a folded layer has for good
            del new._forward_pre_hooks[number]


def _replace(net: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of another, wherever in the network that one is registered, with its hooks."""
    old = net.get_submodule(name)
    _pass_hooks(old, module)
    for parent in list(net.modules()):
        for key, child in list(parent._modules.items()):  # named_children() leaves out what stands there twice
            if child is old:
                setattr(parent, key, module)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        layer = isinstance(m, (Deconvolution, nn.modules.conv._ConvNd, nn.Linear, *BATCH_NORMS))  # or a subclass
        return layer or super().is_leaf_module(m, module_qualified_name)


@contextmanager
def _on_trial(net: nn.Module) -> Iterator[None]:
    """In training mode and without forward hooks; whatever modules store of what they compute here is forgotten."""
    own = {m: vars(m) for m in net.modules()}
    for m, stored in own.items():
        trial = {k: copy.copy(v) if isinstance(v, (dict, list, set)) else v for k, v in stored.items()}
        trial |= {"_forward_pre_hooks": OrderedDict(), "_forward_hooks": OrderedDict()}
        object.__setattr__(m, "__dict__", trial)
    try:
        net.train()  # what only training reaches, auxiliary classifiers for instance, belongs to the path
        yield
    finally:
        for m, stored in own.items():
            object.__setattr__(m, "__dict__", stored)


class _Path:
    """What a trace of the network tells about its layers."""

    def __init__(self, net: nn.Module) -> None:
        self.nodes: dict[str, list[fx.Node]] = {}
        self.failure = ""
        self.modules = dict(net.named_modules())
        try:
            with _on_trial(net):
                self.graph = _Tracer().trace(net)
        except Exception as error:  # whatever a model's forward raises when it is traced
            self.failure = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            names = {m: n for n, m in reversed(self.modules.items())}
            for node in self.graph.nodes:
                if node.op == "call_module":
                    self.nodes.setdefault(names[self.modules[str(node.target)]], []).append(node)
        self.classifier = self._find_classifier()

    def call_of(self, node: fx.Node) -> nn.Module | None:
        """The module that a node calls, if it calls one."""
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def _is_elementwise(self, node: fx.Node) -> bool:
        module = self.call_of(node)
        return isinstance(module, (*ELEMENTWISE, *BATCH_NORMS)) or node.target in ELEMENTWISE_FUNCTIONS

    def _find_classifier(self) -> set[nn.Module]:
        """The linear layers that no other layer with weights follows, and those that lead to them alone."""
        linear = [m for m in self.modules.values() if isinstance(m, nn.Linear)]
        if self.failure:
            return set([m for m in linear if type(m) is nn.Linear][-1:])
        found: set[nn.Module] = set()
        for last in self._last_calls():
            node: Any = last if self.call_of(last) in linear else None
            while isinstance(node, fx.Node) and (self._is_elementwise(node) or self.call_of(node) in linear):
                found |= {m for m in [self.call_of(node)] if m is not None and m in linear}
                node = node.args[0] if node.args else None
        return found

    def _last_calls(self) -> list[fx.Node]:
        """The calls of layers from whose output no convolution or linear layer is reached any more."""
        weighted = (nn.Linear, nn.modules.conv._ConvNd)
        leads_on: set[fx.Node] = set()
        for node in reversed(self.graph.nodes):  # users stand behind their node, so they are decided already
            if any(user in leads_on or isinstance(self.call_of(user), weighted) for user in node.users):
                leads_on.add(node)
        return [node for node in self.graph.nodes if node.op == "call_module" and node not in leads_on]

    def leading_to(self, layers: Collection[nn.Module]) -> set[nn.Module]:
        """The modules whose output at least one of these layers takes, at once or through what has no weights."""
        if self.failure:
            return set(self.modules.values()) if layers else set()
        leading: set[fx.Node] = set()
        for node in reversed(self.graph.nodes):  # users stand behind their node, so they are decided already
            if any(self.call_of(user) in layers or (user in leading and self._hands_on(user)) for user in node.users):
                leading.add(node)
        return {module for node in leading if (module := self.call_of(node)) is not None}

    def _hands_on(self, node: fx.Node) -> bool:
        """Whether a node gives out what it takes, changed by no weights but those of single channels."""
        module = self.call_of(node)
        if module is not None:
            return isinstance(module, (*BATCH_NORMS, nn.PReLU)) or next(module.parameters(), None) is None
        name = node.args[1] if node.target is getattr else node.target
        return name not in SHAPES and name not in WEIGHTED_FUNCTIONS

    def is_classifier(self, module: nn.Module) -> bool:
        return module in self.classifier

    def sees_one_pixel(self, name: str) -> bool:
        """Whether the layer's input is a feature map that a global average reduced to one pixel."""
        return any(self._one_pixel(node.args[0]) for node in self.nodes.get(name, ()) if node.args)

    def _one_pixel(self, node: Any) -> bool:
        if not isinstance(node, fx.Node):
            return False
        module = self.call_of(node)
        if isinstance(module, (nn.modules.pooling._AdaptiveAvgPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd)):
            return _all_ones(module.output_size)
        if node.target in (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d):
            return _all_ones(node.args[1] if len(node.args) > 1 else node.kwargs.get("output_size"))
        if node.target in ("mean", torch.mean):
            dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
            return isinstance(dims, (tuple, list)) and set(dims) in ({2, 3}, {-2, -1})
        through = self._is_elementwise(node) or isinstance(module, nn.modules.conv._ConvNd)
        return through and bool(node.args) and self._one_pixel(node.args[0])


def _all_ones(size: Any) -> bool:
    return set(size if isinstance(size, (tuple, list)) else [size]) == {1}


def unfold(
    net: nn.Module,
    images: Tensor,
    *,
    block_size: int = 64,
    linear_block_size: int = 512,
    sampling_stride: int = 3,
    **options: Unpack[Options],
) -> tuple[nn.Module, Report]:
    """Deconvolve a trained network without changing what it computes in evaluation: the inverse of :func:`fold`.

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
        block_size, linear_block_size, sampling_stride, options: as in :func:`convert`.

    Returns:
        A copy in evaluation mode, and a :class:`.Report`. Layers that ``images`` do not reach keep mu = 0 and D = I.

    Raises:
        ValueError: a lazy layer that is not initialised yet, fewer than two rows of input in a layer, or what the
            layers raise for their options.
        FloatingPointError: an input that is not finite, or a root that diverges.
    """
    _check_initialised(net)
    bare = _copied(net).eval()
    net = _with_a_place(bare)
    path = _Path(net)
    with torch.no_grad():
        fused = _fuse(net, path, images)
        sizes = {"block_size": block_size, "linear_block_size": linear_block_size, "sampling_stride": sampling_stride}
        rows = _converted(net, path, fused, options, **sizes)
        measured: set[str] = set()

        def unfold_once(name: str, layer: Any, x: Tensor) -> None:
            if name not in measured:
                measured.add(name)
                _unfold_layer(layer, x)

        names = [row.name for row in rows if row.action == "converted"]
        hooks = [
            net.get_submodule(name).register_forward_pre_hook(
                lambda layer, inputs, name=name: unfold_once(name, layer, inputs[0])
            )
            for name in names
        ]
        net(images)
        for hook in hooks:
            hook.remove()
    return _taken_out(bare, net, rows)


def _fuse(net: nn.Module, path: _Path, images: Tensor) -> dict[nn.Module, str]:
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
        joined = (fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval)(layer, norm)
        layer.weight, layer.bias = joined.weight, joined.bias
        fused[norm] = f"fused into {names[layer]}"
    return fused


def _unfold_layer(layer: Any, x: Tensor) -> None:
    """Let the running averages be those of this input, and change weight and bias so that folding undoes it."""
    options = layer.options
    layer.options = {**options, "momentum": 1.0}
    layer.num_batches_tracked.fill_(1)
    layer._steps = 1
    layer.batch_whitening(x)
    layer.options = options
    mean, root = (t.double() for t in layer.running_whitening())
    weight, blocks = layer.weight.double(), {"n_blocks": layer.n_blocks, "grouping": options["grouping"]}
    bias = None if layer.bias is None else layer.bias.double()
    unwhitened, _ = fold_weights(weight, None, mean, torch.linalg.inv(root), **blocks)
    _, shifted = fold_weights(weight, bias, -mean, torch.eye(layer.columns).to(root).expand_as(root), **blocks)
    for name, value in (("weight", unwhitened), ("bias", shifted)):
        old = getattr(layer, name)
        requires_grad = layer.weight.requires_grad if old is None else old.requires_grad
        setattr(layer, name, nn.Parameter(value.to(layer.weight.dtype), requires_grad=requires_grad))


def fold(model: nn.Module, example_input: Tensor | None = None) -> nn.Module:
    """The plain network with the same outputs in evaluation: whitening costs nothing any more.

    Deconvolution layers become ``nn.Conv1d``, ``2d``, ``3d`` and ``nn.Linear`` with weights D w and bias
    b - mu' D w, of the same shapes. A ``ChannelDeconv`` becomes a 1x1 convolution (``nn.Linear`` where it sees
    vectors): behind it a convolution may pad with zeros, which do not pass through it.

    Args:
        model: in evaluation mode; it is not changed.
        example_input: an input of the network, needed only if there is a ``ChannelDeconv``, to see whether it meets
            vectors or feature maps, and with how many dimensions.

    Returns:
        A copy without deconvolution layers, in evaluation mode, ready for ``torch.export`` and ONNX. Forward and
        backward hooks of a layer pass to the one in its place.

    Raises:
        RuntimeError: the model is in training mode.
        ValueError: a ``ChannelDeconv`` and no example input.
        FloatingPointError: a layer met values that are not finite, see ``check_finite``.
    """
    training = [name for name, m in model.named_modules() if isinstance(m, Deconvolution) and m.training]
    if training:
        raise RuntimeError(
            f"fold: {training[0] or 'the model'} is in training mode, where it whitens with the batch and has no fixed "
            "weights; call model.eval() first"
        )
    model = _copied(model)
    check_finite(model)  # the copy, as it clears the flags that it reads
    dimensions = _dimensions(model, example_input)
    with torch.no_grad():
        for name, module in list(model.named_modules()):
            if not isinstance(module, Deconvolution):
                continue
            plain = _folded_channels(module, dimensions[name]) if isinstance(module, ChannelDeconv) else _folded(module)
            if name:
                _replace(model, name, plain.eval())
            else:
                _pass_hooks(module, plain)
                return plain.eval()
    return model


def _folded(module: Any) -> nn.Module:
    weight, bias = module.folded(module.weight, module.weight, module.bias)
    kind: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
    if isinstance(module, DeconvLinear):
        plain: Any = nn.Linear(module.in_features, module.out_features, **kind)
    else:
        plain = next(plain for deconv, plain in PLAIN_OF.items() if isinstance(module, deconv))(
            module.in_channels,
            module.out_channels,
            module.kernel_size,
            module.stride,
            module.padding,
            module.dilation,
            module.groups,
            padding_mode=module.padding_mode,
            **kind,
        )
    plain.weight.copy_(weight)
    plain.bias.copy_(bias)
    return plain


def _folded_channels(module: ChannelDeconv, dimensions: int) -> nn.Module:
    matrix, offset = module.affine()
    c = module.num_features
    kind: dict[str, Any] = {"device": matrix.device, "dtype": matrix.dtype}
    if dimensions == 2:
        plain: Any = nn.Linear(c, c, **kind)
    else:
        plain = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 3](c, c, 1, **kind)
    plain.weight.copy_(matrix.reshape(plain.weight.shape))
    plain.bias.copy_(offset)
    return plain


def _dimensions(model: nn.Module, example_input: Tensor | None) -> dict[str, int]:
    """Number of dimensions of the input of each ChannelDeconv."""
    layers = {name: m for name, m in model.named_modules() if isinstance(m, ChannelDeconv)}
    if not layers:
        return {}
    if example_input is None:
        raise ValueError(
            f"fold: {', '.join(layers) or 'a ChannelDeconv'} meets vectors or feature maps, which only an input can "
            "tell; pass example_input"
        )
    return _input_dimensions(model, layers, example_input)


def _input_dimensions(model: nn.Module, layers: Mapping[str, nn.Module], x: Tensor) -> dict[str, int]:
    """Number of dimensions of the input of each of these layers that is reached."""
    found: dict[str, int] = {}
    hooks = [
        m.register_forward_pre_hook(lambda _, inputs, name=name: found.update({name: inputs[0].dim()}))
        for name, m in layers.items()
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return found
