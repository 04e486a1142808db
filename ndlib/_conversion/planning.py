"""What is to become of each layer of a network, and why: the rules of a conversion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.utils import parametrize

from .._core.whitening import Deconvolution
from .calls import CONVOLUTIONS, Calls
from .counterparts import DECONV_OF, own_product
from .following import followed
from .norms import BATCH_NORMS, is_batch_norm, is_followed_by_its_children, is_other_norm
from .report import BARE, Action, LayerReport, Norm
from .subclasses import product_of
from .tracing import stopped_at, traced

__all__ = ["Linear", "Path", "Plan", "decide_norms", "full_name", "is_computed", "plans_of", "rows_of_functions"]

Linear = Literal["classifier", "all"]  # which linear layers are converted
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# The functions that normalise, as functions of torch and as the operators that these call.
NORMS = {f"{kind}_norm": kind for kind in ("batch", "instance", "layer", "group", "rms", "local_response")}
NORMS |= {f"native_{kind}_norm": kind for kind in ("batch", "layer", "group")}
NORMS |= {"native_batch_norm_legit": "batch", "batch_norm_with_update": "batch", "fused_rms_norm": "rms"}
NORMS |= {"cudnn_batch_norm": "batch", "miopen_batch_norm": "batch", "native_batch_norm_legit_no_training": "batch"}
QUANTISED = ("torch.ao.", "torchao.", "bitsandbytes.")


class Path(Calls):
    """The calls of a network, followed on an example, or else traced; none where the trace fails, for this reason."""

    def __init__(self, net: nn.Module, example: Any = None) -> None:
        self.failure, calls = "", []
        if example is not None:
            calls = followed(net, example)
        else:
            try:
                calls = traced(net)
            except Exception as error:  # whatever a model's forward raises when it is traced
                self.failure = stopped_at(error)
        super().__init__(calls, dict(net.named_modules()))
        self.classifiers = _last_linear(self.modules) if self.failure else self.classifier()


def _last_linear(modules: Mapping[str, nn.Module]) -> set[nn.Module]:
    """The linear layer that was registered last: of an untraced network the likely classifier."""
    linear = [m for m in modules.values() if isinstance(m, nn.Linear)]
    theirs = [m for m in linear if type(m).__module__.startswith("torch.nn") and type(m) is not nn.Linear]
    return set([m for m in linear if m not in theirs and (type(m) is nn.Linear or product_of(m))][-1:])


@dataclass
class Plan:
    """What is to become of one layer. No action for those that a report need not name."""

    name: str
    module: Any
    action: Action | None
    why: str = ""
    norm: Norm = ""


def full_name(kind: type) -> str:
    """The name of a class, with its module unless it is one of torch's layers or of ours.

    >>> full_name(nn.Conv2d), full_name(Plan)
    ('Conv2d', 'Plan')
    """
    own = kind.__module__.startswith(("torch.nn.modules.", "ndlib."))
    return kind.__qualname__ if own else f"{kind.__module__}.{kind.__qualname__}"


def is_computed(layer: Any) -> bool:
    """Whether a hook sets weight or bias anew at every call, as the older of torch's reparametrisations do."""
    return any(name in vars(layer) for name in ("weight", "bias"))


def plans_of(net: nn.Module, path: Path, linear: Linear, pretrained: bool) -> list[Plan]:
    """A plan for every module; of the normalisations, whether it is one that could go."""
    plans, closed = [], ""
    for name, module in net.named_modules():
        if closed and name.startswith(closed):
            continue
        closed = f"{name}." if isinstance(module, torch.jit.ScriptModule) or _quantised(module) else ""
        action, why = _plan(name, module, path, linear, pretrained)
        norm: Norm = "batch" if is_batch_norm(module) else "other" if is_other_norm(module) else ""
        plans.append(Plan(name, module, action, why, norm))
    return plans


def _quantised(module: nn.Module) -> bool:
    return type(module).__module__.startswith(QUANTISED)


def _plan(name: str, module: Any, path: Path, linear: Linear, pretrained: bool) -> tuple[Action | None, str]:
    """Action and reason. A batch normalisation that could go is ``dropped``, which the layers behind it decide."""
    if isinstance(module, torch.jit.ScriptModule):
        return "kept", "is scripted, so that its layers cannot be replaced; convert before scripting"
    if isinstance(module, Deconvolution):
        return "kept", "whitens already"
    if is_other_norm(module):
        return "kept", "normalises each example by itself, so it stays, beside whitening"
    if is_batch_norm(module):
        return _plan_norm(name, module, path)
    if not isinstance(module, (*CONVOLUTIONS, nn.Linear)):
        return ("kept", "is quantised") if _quantised(module) and hasattr(module, "weight") else (None, "")
    if reason := _stays(name, module, path, linear, pretrained):
        return "kept", reason
    calls = len(path.of.get(name, [None]))
    return "converted", "" if calls == 1 else f"called {calls} times, each call measured and averaged"


def _plan_norm(name: str, module: Any, path: Path) -> tuple[Action, str]:
    if is_computed(module):
        return "kept", "a hook makes its weights; remove that to convert it"
    if not path.failure and name not in path.of:
        return "kept", "not on the path"
    if type(module) not in BATCH_NORMS and not is_followed_by_its_children(module):
        return "kept", "computes something else than batch normalisation and what its children do"
    return "dropped", ""


def _stays(name: str, module: Any, path: Path, linear: Linear, pretrained: bool) -> str:
    """Why a convolution or linear layer is not converted; empty if it is."""
    every = linear == "all" and isinstance(module, nn.Linear)
    kind = parametrize.type_before_parametrizations(module)
    if is_computed(module):
        return "a hook makes its weights (weight_norm, spectral_norm, pruning); remove that to convert it"
    if _quantised(module) or any(type(p) is not nn.Parameter or p.dtype not in FLOATS for p in module.parameters()):
        return "its weights are quantised, or of a class of their own"
    if not path.failure and name not in path.of and not (every and path.is_within_a_call(name)):
        return "not on the path: never called, or its weights are used by another module"
    if kind not in DECONV_OF and kind.__module__.startswith("torch.nn."):
        return "its weights are used by another module"
    if isinstance(module, nn.Linear) and not every and module not in path.classifiers:
        return "not the classifier"
    product = own_product(module)
    if kind not in DECONV_OF and product is None:
        return "its forward computes something else than a product of its input and weight"
    if pretrained and (parametrize.is_parametrized(module) or (product is not None and product.computes_weight)):
        return "its weight is computed from others, which could not undo whitening"
    return ""


def decide_norms(plans: list[Plan], path: Path) -> None:
    """Keep the normalisations whose output no converted layer takes, or a plain one as well."""
    whitening = {p.name for p in plans if p.action == "converted" or isinstance(p.module, Deconvolution)}
    for plan in plans:
        if plan.norm != "batch" or plan.action != "dropped":
            continue
        takers = path.takers(plan.name)
        plain = [t for t in takers if t.module not in whitening]
        if path.failure:
            plan.why = "every layer is assumed to whiten what it takes"
            if not whitening:
                plan.action, plan.why = "kept", "no layer is converted"
        elif plain:
            taker = plain[0].module or f"{plain[0].function} in {plain[0].inside or 'the network'}"
            plan.action, plan.why = "kept", f"{taker} takes its output and stays plain"
        elif takers:
            plan.why = "what takes its output whitens it"
        else:
            plan.action, plan.why = "kept", "no layer takes its output"
    if path.failure and any(p.norm and p.action == "dropped" for p in plans):
        for plan in plans:
            if plan.action == "kept" and not plan.norm and plan.name not in whitening:
                plan.why += f", and may be {BARE}"


def rows_of_functions(path: Path) -> list[LayerReport]:
    """A row for each module whose own forward normalises or multiplies by weights, which stays."""
    rows: dict[tuple[str, str], LayerReport] = {}
    for call in path.calls:
        name = call.module or call.inside
        module = path.modules[name]
        if norm := NORMS.get(call.function) if call.live else None:
            why = f"calls {norm}_norm as a function in its own forward, so that stays, beside whitening"
        elif any(isinstance(child, torch.jit.ScriptModule) for child in module.children()):
            continue  # whose functions cannot be told from those of the module itself
        elif path.has_weights(call) and not path.is_layer(call) and not isinstance(module, Deconvolution):
            why = "has weights and is no layer that can be converted, so its input is not whitened"
        else:
            continue
        kind: Norm = "" if norm is None else "batch" if norm == "batch" else "other"
        rows[name, why] = LayerReport(name or "(the network)", full_name(type(module)), "kept", why, kind)
    return list(rows.values())
