"""Looking on while a network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

__all__ = ["before_forward"]


@contextmanager
def before_forward(modules: Mapping[str, nn.Module], call: Callable[[str, nn.Module, Tensor], None]) -> Iterator[None]:
    """Call ``call(name, module, input)`` before each forward pass of these modules; afterwards, or after an error, no
    hook is left. The input is the first argument, or the first keyword.
    """

    def hook_of(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], dict[str, Tensor]], None]:
        return lambda module, inputs, named: call(name, module, [*inputs, *named.values()][0])

    handles = [module.register_forward_pre_hook(hook_of(n), with_kwargs=True) for n, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
