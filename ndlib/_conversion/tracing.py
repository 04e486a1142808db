"""The calls of a forward pass from a trace with ``torch.fx``, which needs no input."""

from __future__ import annotations

import copy
import operator
import traceback
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from .._core.private_torch import is_pointwise, is_view
from .._core.whitening import Deconvolution
from .calls import CONVOLUTIONS, Call
from .norms import is_batch_norm, is_other_norm
from .subclasses import product_of

__all__ = ["is_opaque", "stopped_at", "traced"]

POOLINGS = (
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
IN_PLACE = {f"__i{name}__": getattr(operator, f"i{name}") for name in ("add", "sub", "mul", "truediv", "pow")}
VIEWS = {"getitem", "dropout"}  # beside torch's own: in evaluation dropout gives out what it takes
KEEPING = (nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def is_opaque(module: nn.Module) -> bool:
    """Whether a module is one call, whatever it calls itself."""
    layer = isinstance(module, (Deconvolution, *CONVOLUTIONS, nn.Linear))  # or a subclass
    return layer or is_batch_norm(module) or is_other_norm(module)


class _Proxy(fx.Proxy):
    """Tells ``x += y`` from ``x + y``, which torch.fx does not."""


for _name, _operator in IN_PLACE.items():

    def _written(self: Any, other: Any, function: Any = _operator) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    setattr(_Proxy, _name, _written)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_opaque(m) or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


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


def traced(net: nn.Module) -> list[Call]:
    """The calls of the network. Raises whatever a model's forward raises when it is traced."""
    with _on_trial(net):
        graph = _Tracer().trace(net)
    names = {m: n for n, m in reversed(list(net.named_modules()))}
    calls: dict[fx.Node, Call] = {}
    for node in graph.nodes:
        calls[node] = _call(node, net, names, calls)
    return list(calls.values())


def _call(node: fx.Node, net: nn.Module, names: dict[nn.Module, str], calls: dict[fx.Node, Call]) -> Call:
    if node.op in ("placeholder", "get_attr"):
        value: Any = net
        for part in str(node.target).split(".") if node.op == "get_attr" else ():
            value = getattr(value, part, None)  # a constant, the tracer keeps elsewhere
        return Call(live=node.op == "placeholder", learnt=isinstance(value, nn.Parameter))
    first = node.args[0] if node.args else None
    inputs = [calls[n] for n in sorted(node.all_input_nodes, key=lambda n: n is not first)]
    live = any(taken.live for taken in inputs)
    learnt = not live and any(taken.learnt for taken in inputs)
    module = net.get_submodule(str(node.target)) if node.op == "call_module" else None
    stack = list(node.meta.get("nn_module_stack", {}).values())
    inside = names[net.get_submodule(stack[-1][0])] if stack else ""
    call = Call(names[module] if module is not None else "", _function(node), inside, inputs, live, learnt)
    call.view = isinstance(module, KEEPING) or (module is None and (call.function in VIEWS or is_view(call.function)))
    if _writes(node, module) and inputs:
        call.overwrites = [inputs[0]]
    if len(node.all_input_nodes) == 1:
        call.alone = _alone(node, module)
    call.pools = _pools(node, module)
    return call


def _function(node: fx.Node) -> str:
    """The name of the function, method or attribute that a node calls, without underscores around it."""
    target = node.args[1] if node.target is getattr else node.target
    return str(getattr(target, "__name__", target)).strip("_") if node.op != "call_module" else ""


def _writes(node: fx.Node, module: nn.Module | None) -> bool:
    if module is not None:
        foreign = isinstance(module, (*CONVOLUTIONS, nn.Linear)) and not type(module).__module__.startswith("torch.nn.")
        product = product_of(module) if foreign else None
        return bool(getattr(module, "inplace", False)) or (product is not None and product.writes)
    name = str(getattr(node.target, "__name__", node.target))
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or bool(node.kwargs.get("inplace")) or node.target in IN_PLACE.values()


def _alone(node: fx.Node, module: nn.Module | None) -> Any:
    """What a node does to its one input."""
    if module is not None:
        return None if next(module.children(), None) is not None else copy.copy(module).eval()
    if is_pointwise(_function(node)):
        return torch.clone

    def apply(x: torch.Tensor) -> Any:
        args: Any = fx.node.map_arg(node.args, lambda _: x)
        kwargs: Any = fx.node.map_arg(node.kwargs, lambda _: x)
        target: Any = node.target
        return getattr(args[0], target)(*args[1:], **kwargs) if node.op == "call_method" else target(*args, **kwargs)

    return apply


def _pools(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether a node reduces feature maps to one pixel."""
    if isinstance(module, POOLINGS):
        return _all_ones(module.output_size)
    if node.target in (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d):
        return _all_ones(node.args[1] if len(node.args) > 1 else node.kwargs.get("output_size"))
    if node.target in ("mean", torch.mean, "amax", torch.amax):
        dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        return isinstance(dims, (tuple, list)) and set(dims) in ({2, 3}, {-2, -1})
    return False


def _all_ones(size: Any) -> bool:
    return set(size if isinstance(size, (tuple, list)) else [size]) == {1}


def stopped_at(error: Exception) -> str:
    """What stopped a trace, and where: the last line that belongs neither to torch nor to this package."""
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parent.parent))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(ours)]
    place = f" at {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}".splitlines()[0] + place
