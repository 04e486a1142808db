"""What a trace of a network tells about its layers: which lie on the path, and what follows them."""

from __future__ import annotations

import copy
import operator
from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from .norms import BATCH_NORMS
from .whitening import Deconvolution

__all__ = ["CONVOLUTIONS", "TRANSPOSED", "Path"]

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
POOLINGS = (
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
# What a classifier may have between its linear layers, and a squeezed feature map between its convolutions:
# activations, dropout and what changes the shape alone. Of functions and methods, those in place included.
ELEMENTWISE = {
    *("relu", "relu6", "leaky_relu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "prelu", "threshold"),
    *("sigmoid", "log_sigmoid", "hardsigmoid", "tanh", "hardtanh", "tanhshrink", "softsign", "softplus", "softshrink"),
    *("hardswish", "hardshrink", "clamp", "clamp_min", "abs", "square", "exp", "float", "flatten", "contiguous"),
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"),
}
# torch's activations and dropouts have a room each; these of them mix features.
MIXING = (nn.MultiheadAttention, nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.Softmax2d, nn.GLU)
# Layers without a module: what they give out is not what went in, normalised as it was.
WEIGHTED_FUNCTIONS = {
    *(F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
    *(torch.matmul, torch.bmm, operator.matmul, "matmul", "bmm"),
}
ARITHMETIC = {"add", "sub", "mul", "truediv", "setitem"}  # of operator
SAME = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Flatten, nn.Unflatten)  # no new tensor
VIEWS = {"view", "reshape", "flatten", "squeeze", "unsqueeze", "permute", "transpose", "contiguous", "dropout", "chunk"}
SHAPES = {"shape", "ndim", "size", "dim"}  # of a tensor: its values go nowhere by way of these


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        layer = isinstance(m, (Deconvolution, *CONVOLUTIONS, nn.Linear, *BATCH_NORMS))  # or a subclass
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


class Path:
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
        if module is None:
            return node.op != "get_attr" and _function(node).strip("_") in ELEMENTWISE
        room = type(module).__module__.rpartition(".")[2] if type(module).__module__.startswith("torch.nn") else ""
        acts = room in ("activation", "dropout") and not isinstance(module, MIXING)
        return acts or isinstance(module, (nn.Identity, nn.Flatten, *BATCH_NORMS))

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
        weighted = (nn.Linear, *CONVOLUTIONS)
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

    def is_overwritten(self, name: str) -> bool:
        """Whether an operation in place takes the output of a module, at once or as a view; likely where untraced."""
        if self.failure:
            return True
        waiting = list(self.nodes.get(name, []))
        shared = any(self._is_shared(node.args[0]) for node in waiting if node.args)
        while waiting:
            for user in waiting.pop().users:
                if self._works_in_place(user, shared):
                    return True
                if isinstance(self.call_of(user), SAME) or _function(user) in VIEWS:
                    waiting.append(user)
        return False

    def _works_in_place(self, node: fx.Node, shared: bool) -> bool:
        """Whether a node overwrites its input, or may do so where that has other users."""
        if getattr(self.call_of(node), "inplace", False) or node.kwargs.get("inplace", False):
            return True
        function = _function(node)
        # A trace shows "x += y" as "x + y".
        return (function.endswith("_") and not function.endswith("__")) or (shared and function in ARITHMETIC)

    def _is_shared(self, node: Any) -> bool:
        """Whether a value is used more than once, or belongs to the caller."""
        return isinstance(node, fx.Node) and (len(node.users) > 1 or node.op == "placeholder")

    def is_within_a_call(self, name: str) -> bool:
        """Whether a module is a part of one that the trace saw called and did not look into, as those of torch."""
        return any(name.startswith(f"{called}.") for called in self.nodes)

    def is_classifier(self, module: nn.Module) -> bool:
        return module in self.classifier

    def sees_one_pixel(self, name: str) -> bool:
        """Whether the layer's input is a feature map that a global average reduced to one pixel."""
        return any(self._one_pixel(node.args[0]) for node in self.nodes.get(name, ()) if node.args)

    def _one_pixel(self, node: Any) -> bool:
        if not isinstance(node, fx.Node):
            return False
        module = self.call_of(node)
        if isinstance(module, POOLINGS):
            return _all_ones(module.output_size)
        if node.target in (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d):
            return _all_ones(node.args[1] if len(node.args) > 1 else node.kwargs.get("output_size"))
        if node.target in ("mean", torch.mean):
            dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
            return isinstance(dims, (tuple, list)) and set(dims) in ({2, 3}, {-2, -1})
        through = self._is_elementwise(node) or isinstance(module, CONVOLUTIONS)
        return through and bool(node.args) and self._one_pixel(node.args[0])


def _function(node: fx.Node) -> str:
    """The name of the function or method that a node calls."""
    return str(node.target if node.op == "call_method" else getattr(node.target, "__name__", ""))


def _all_ones(size: Any) -> bool:
    return set(size if isinstance(size, (tuple, list)) else [size]) == {1}
