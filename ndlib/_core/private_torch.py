"""Every private name of torch that this package uses: each with a probe at import and a plain fallback.

``tests/test_private_torch.py`` runs the package both ways.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode  # counts operators as they run

__all__ = [
    "HOOKS",
    "compiled_module",
    "current_graph_task_id",
    "drop_forward_hooks",
    "in_backward",
    "int8_product",
    "is_pointwise",
    "is_view",
    "linear_pointwise",
    "note_in_state",
    "pass_hooks",
    "version_of",
    "written_by",
]

# oneDNN's matrix product, the one that torch.compile calls on processors. On some processors it takes half the time of
# torch.matmul's, and the same elsewhere.
# Called as linear_pointwise(a, b, None, "none", [], "") it returns a @ b'. None where torch has none.
linear_pointwise: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


# The product of int8 matrices with sums in int32. None where the processor has no instruction for it, on which torch's
# own is slower than float32.
int8_product: Callable[[Tensor, Tensor], Tensor] | None = (
    getattr(torch, "_int_mm", None) if getattr(torch.cpu, "_is_vnni_supported", bool)() else None
)

current_graph_task_id: Callable[[], int] = getattr(torch._C, "_current_graph_task_id", lambda: -1)


def in_backward() -> bool:
    """Whether autograd is at work: ``torch.utils.checkpoint`` then computes a forward pass again that has been made.

    Without the private function the answer is no: under checkpointing every step is then counted twice.
    """
    return not torch.compiler.is_compiling() and current_graph_task_id() != -1


def compiled_module(net: nn.Module) -> nn.Module | None:
    """The network inside what ``torch.compile`` returns; None of any other."""
    return getattr(net, "_orig_mod", None) if hasattr(net, "dynamo_ctx") else None


def version_of(tensor: Tensor) -> int | None:
    """How often a tensor was written to; None where that is not counted, and it may have changed at any time."""
    return None if tensor.is_inference() else getattr(tensor, "_version", None)


def note_in_state(state: Any, prefix: str, name: str, value: Any) -> None:
    """Add to what a state says of a module beside its tensors, which is the module's version so far.

    A state that says nothing of its modules, such as a plain dictionary, stays as it is.
    """
    notes: dict[str, dict[str, Any]] = getattr(state, "_metadata", {})
    notes.get(prefix[:-1], {})[name] = value


def _operators(name: str) -> list[Any]:
    """torch's operators of that name, whatever their arguments."""
    packet: Any = getattr(torch.ops.aten, name, None) if name.isidentifier() else None
    return [getattr(packet, overload) for overload in packet.overloads()] if hasattr(packet, "overloads") else []


def is_pointwise(name: str) -> bool:
    """Whether torch says of the function of that name that it acts on each number alone.

    >>> is_pointwise("silu"), is_pointwise("softmax")
    (True, False)
    """
    return any(torch.Tag.pointwise in operator.tags for operator in _operators(name))


def is_view(name: str) -> bool:
    """Whether the function of that name can give out its input, seen otherwise.

    >>> is_view("permute"), is_view("relu")
    (True, False)
    """
    results = [result for operator in _operators(name) for result in operator._schema.returns]
    return any(result.alias_info is not None and not result.alias_info.is_write for result in results)


def written_by(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments that an operator writes to."""
    given = dict(zip((a.name for a in operator._schema.arguments), args, strict=False)) | kwargs
    written = [a.name for a in operator._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return [given[name] for name in written if name in given]


# The dictionaries in which a module keeps its hooks. A handle that the user holds removes its hook from the dictionary
# that it was put into, so that a module which takes another one's place has to take these very objects.
HOOKS = tuple(
    name
    for name in (
        *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks", "_forward_hooks_with_kwargs"),
        *("_forward_hooks_always_called", "_backward_pre_hooks", "_backward_hooks", "_is_full_backward_hook"),
    )
    if hasattr(nn.Module(), name)
)


def drop_forward_hooks(module: nn.Module) -> None:
    """Leave a copy of a module without the hooks of its forward pass, those of the other one as they are."""
    module._forward_pre_hooks, module._forward_hooks = OrderedDict(), OrderedDict()


def pass_hooks(old: nn.Module, new: nn.Module) -> None:
    """Give a module the hooks of the one whose place it takes, but for those that made the other one's weights."""
    for name in HOOKS:
        setattr(new, name, getattr(old, name))
    hooks: Any = getattr(new, "_forward_pre_hooks", {})
    for number, hook in list(hooks.items()):
        if type(hook).__module__.startswith("torch.nn.utils"):
            del hooks[number]
