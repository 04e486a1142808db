"""The calls of a forward pass from running a network once: the real path, where a trace cannot go."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._core.private_torch import TorchDispatchMode, drop_forward_hooks, is_pointwise, written_by
from .calls import Call, tensors_in
from .tracing import is_opaque

__all__ = ["arguments_of", "copied", "followed"]


def arguments_of(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What to call a network with: a tuple or list holds positional arguments, a mapping keywords.

    >>> arguments_of({"x": 1}), arguments_of([1, 2]), arguments_of(3)
    (((), {'x': 1}), ((1, 2), {}), ((3,), {}))
    """
    if isinstance(example, Mapping):
        return (), dict(example)
    return (tuple(example), {}) if isinstance(example, (tuple, list)) else ((example,), {})


def copied(value: Any) -> Any:
    """A copy of a network, or of inputs, whose tensors that have a graph are copied without it."""
    kept = tensors_in([vars(m) for m in value.modules()] if isinstance(value, nn.Module) else value)
    return copy.deepcopy(value, {id(t): t.detach().clone() for t in kept if not t.is_leaf})


def followed(net: nn.Module, example: Any) -> list[Call]:
    """The calls of one forward pass, in training mode if the network runs in it.

    A copy of the network runs, without its hooks, and the state of the random numbers is as before.

    Raises:
        ValueError: the network does not run on the example.
    """
    try:
        return _followed(net, example, True)
    except Exception:  # no targets, or a batch of one: then what evaluation shows
        try:
            return _followed(net, example, False)
        except Exception as error:
            raise ValueError(f"{type(net).__name__} does not run on the example: {error}") from error


def _followed(net: nn.Module, example: Any, training: bool) -> list[Call]:
    trial = copied(net).train(training)
    args, kwargs = arguments_of(copied(example))
    recorder = _Recorder(trial, (args, kwargs))
    for module, name in zip(trial.modules(), [name for name, _ in net.named_modules()], strict=True):
        if not isinstance(module, torch.jit.ScriptModule):  # which takes no hooks, and shows its operators anyway
            drop_forward_hooks(module)
            recorder.watch(module, name)
    with torch.no_grad(), _random_state_kept(trial), recorder:
        results = trial(*args, **kwargs)
    recorder.calls.append(Call(inputs=recorder.sources(tensors_in(results))))
    return recorder.calls


@contextmanager
def _random_state_kept(net: nn.Module) -> Iterator[None]:
    cards = {p.device.index for p in net.parameters() if p.is_cuda}
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=cards):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


def _memory(tensor: Tensor) -> Any:
    """The same for all views of a tensor; None where that cannot be told."""
    try:
        return (tensor.device, tensor.untyped_storage().data_ptr()) if tensor.numel() else None
    except (RuntimeError, NotImplementedError):  # sparse, or without memory
        return None


def _seen(tensor: Tensor) -> Any:
    return tensor.shape, tensor.stride(), tensor.storage_offset()


class _Recorder(TorchDispatchMode):
    """Notes which call made the memory of each tensor, and which calls take it. Views are not calls of their own."""

    def __init__(self, net: nn.Module, example: Any) -> None:
        super().__init__()
        self.calls = [Call(live=True), Call(learnt=True)]
        self.made: dict[Any, tuple[Call, Any]] = {}  # by memory
        self.inside: list[str] = []
        self.opaque: Call | None = None  # the layer that is running
        self._note(tensors_in(example), self.calls[0])
        self._note(net.parameters(), self.calls[1])

    def _note(self, tensors: Any, call: Call) -> None:
        self.made |= {_memory(t): (call, _seen(t)) for t in tensors if _memory(t) is not None}

    def sources(self, tensors: Any) -> list[Call]:
        found = [self.made.get(_memory(t)) for t in tensors]
        return list(dict.fromkeys(f[0] for f in found if f is not None))

    def _call(self, tensors: list[Tensor], **about: Any) -> Call:
        inputs = self.sources(tensors)
        live = any(call.live for call in inputs)
        call = Call(inputs=inputs, live=live, learnt=not live and any(call.learnt for call in inputs), **about)
        return call

    def watch(self, module: nn.Module, name: str) -> None:
        """Note the calls of a module, and of a layer itself."""
        module.register_forward_pre_hook(
            lambda m, args, kw: self._begin(m, name, [*tensors_in((args, kw))]), with_kwargs=True
        )
        module.register_forward_hook(lambda m, args, out: self._end(name, out))

    def _begin(self, module: nn.Module, name: str, tensors: list[Tensor]) -> None:
        self.inside.append(name)
        if self.opaque is None and is_opaque(module):
            self.opaque = self._call(tensors, module=name)
            first = tensors[0] if tensors else torch.empty(0)
            self.opaque.direct = self.made.get(_memory(first), (None, None))[1] == _seen(first)
            self.opaque.one_pixel = first.dim() > 2 and set(first.shape[2:]) == {1}

    def _end(self, name: str, result: Any) -> None:
        self.inside.pop()
        if self.opaque is not None and self.opaque.module == name:
            self.calls.append(self.opaque)
            self._note(tensors_in(result), self.opaque)
            self.opaque = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = list(tensors_in((args, kwargs)))
        result = func(*args, **kwargs)
        known = {_memory(t) for t in given}
        written = list(tensors_in(written_by(func, args, kwargs)))
        fresh = [t for t in tensors_in(result) if _memory(t) not in known]
        for t in fresh:
            self.made.pop(_memory(t), None)  # of a tensor that lay there before
        if self.opaque is not None:
            self.opaque.overwrites += self.sources(written)
        elif fresh or written:
            self._operator(func, args, kwargs, given, written, fresh)
        return result

    def _operator(self, func: Any, args: Any, kwargs: Any, given: list[Tensor], written: Any, fresh: Any) -> None:
        name = func.overloadpacket.__name__.strip("_")
        given = [] if name.endswith("_like") or name.startswith("new_") else given  # takes the shape alone
        call = self._call(given, function=name, inside=self.inside[-1] if self.inside else "")
        call.overwrites = self.sources(written)
        if sum(taken.live for taken in call.inputs) == 1:
            call.alone = torch.clone if is_pointwise(name) else _alone(func, args, kwargs, given[0])
        self.calls.append(call)
        self._note([*fresh, *written], call)


def _alone(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], taken: Tensor) -> Any:
    return lambda x: func(*(x if a is taken else a for a in args), **kwargs) if any(a is taken for a in args) else None
