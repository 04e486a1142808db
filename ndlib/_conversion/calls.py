"""A forward pass as a graph of calls, whoever recorded it, and what it tells about the layers of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .._core.whitening import Deconvolution
from .norms import is_batch_norm, is_other_norm

__all__ = ["CONVOLUTIONS", "TRANSPOSED", "Call", "Calls", "acts_on_each_number_alone", "tensors_in"]

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
# Functions that mix features by products, as functions of torch, as operators and as methods.
PRODUCTS = {
    *("linear", "bilinear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    *("convolution", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "mv", "lstm", "gru", "rnn_tanh", "rnn_relu"),
    *("scaled_dot_product_attention", "multi_head_attention_forward"),
}
SHAPES = {"shape", "ndim", "size", "dim"}  # of a tensor: its values go nowhere by way of these
# Element by element, though at random or with weights of its own, so that no trial shows it.
RANDOM = {
    *("dropout", "native_dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout", "alpha_dropout"),
    *("feature_alpha_dropout", "rrelu", "rrelu_with_noise", "prelu"),
}


@dataclass(eq=False)
class Call:
    """A module or a function that a forward pass calls."""

    module: str = ""  # its name in the network; of a function empty
    function: str = ""  # its name, without the underscore of one in place
    inside: str = ""  # the module in whose own forward a function is called
    inputs: list[Call] = field(default_factory=list)  # whose outputs it takes, that of the first argument first
    live: bool = False  # depends on what the network is given
    learnt: bool = False  # depends on parameters alone
    direct: bool = True  # takes its first input as that was given out, with no view between
    one_pixel: bool = False  # takes feature maps of a single pixel
    pools: bool = False  # gives out such
    view: bool = False  # gives out its first input, seen otherwise
    overwrites: list[Call] = field(default_factory=list)  # whose outputs it writes to
    alone: Callable[[Tensor], Any] | None = None  # what it does to a tensor, where it takes but one
    users: list[Call] = field(default_factory=list)

    @property
    def base(self) -> Call:
        """The call that made the memory of this output."""
        return self.inputs[0].base if self.view and self.inputs else self


class Calls:
    """The calls of a forward pass in their order, and the questions that a conversion asks of them."""

    def __init__(self, calls: list[Call], modules: Mapping[str, nn.Module]) -> None:
        self.calls, self.modules = calls, modules
        self.of: dict[str, list[Call]] = {}
        self.overwritten: dict[Call, list[int]] = {}
        self.order = {call: i for i, call in enumerate(calls)}
        for i, call in enumerate(calls):
            if call.module:
                self.of.setdefault(call.module, []).append(call)
            for taken in dict.fromkeys(call.inputs):
                taken.users.append(call)
            for written in call.overwrites:
                self.overwritten.setdefault(written.base, []).append(i)

    def module(self, call: Call) -> nn.Module | None:
        return self.modules[call.module] if call.module else None

    def is_within_a_call(self, name: str) -> bool:
        """Whether a module is a part of one that is called and was not looked into, as those of torch."""
        return any(name.startswith(f"{called}.") for called in self.of)

    # What a call does. -----------------------------------------------------------------------------------------

    def is_layer(self, call: Call) -> bool:
        return isinstance(self.module(call), (*CONVOLUTIONS, nn.Linear))

    def has_weights(self, call: Call) -> bool:
        """Whether it is a layer: a module that has weights, or a function that multiplies by some."""
        module = self.module(call)
        if module is None:
            return call.function in PRODUCTS and call.live and any(i.learnt for i in call.inputs)
        if isinstance(module, Deconvolution):
            return True
        scales = is_batch_norm(module) or is_other_norm(module) or isinstance(module, nn.PReLU)
        return not scales and next(module.parameters(), None) is not None

    def hands_on(self, call: Call) -> bool:
        """Whether it gives out what it takes, normalised as it was: changed by no weights but those of channels."""
        module = self.module(call)
        if module is not None:
            return not (self.has_weights(call) or is_other_norm(module))
        mixes = self.has_weights(call) or sum(taken.live for taken in call.inputs) > 1  # and not with a fixed filter
        return not (call.function in PRODUCTS and mixes) and call.function not in SHAPES

    def is_elementwise(self, call: Call) -> bool:
        """Whether each number of the output depends on one of the input: activations, dropout, changes of shape."""
        module = self.module(call)
        if module is not None and (is_batch_norm(module) or isinstance(module, nn.PReLU)):
            return True
        if not call.inputs or self.has_weights(call):
            return False
        known = call.view or call.function in RANDOM
        return known or (call.alone is not None and acts_on_each_number_alone(call.alone))

    # What lies where. ------------------------------------------------------------------------------------------

    def takers(self, name: str) -> list[Call]:
        """The layers that take a module's output, at once or through what hands it on."""
        waiting, found = list(self.of.get(name, [])), dict[Call, None]()
        seen = set(waiting)
        while waiting:
            for user in waiting.pop().users:
                if self.has_weights(user):
                    found[user] = None
                elif user not in seen and self.hands_on(user):
                    seen.add(user)
                    waiting.append(user)
        return list(found)

    def classifier(self) -> set[nn.Module]:
        """The linear layers that no other layer with weights follows, and those that lead to them alone."""
        leads_on: set[Call] = set()
        for call in reversed(self.calls):  # users stand behind, so they are decided already
            if any(user in leads_on or self.is_layer(user) for user in call.users):
                leads_on.add(call)
        found: set[nn.Module] = set()
        for call in self.calls:
            walk = call if isinstance(self.module(call), nn.Linear) and call not in leads_on else None
            while walk is not None:
                module = self.module(walk)
                if isinstance(module, nn.Linear):
                    found.add(module)
                elif not self.is_elementwise(walk):
                    break
                walk = walk.inputs[0] if walk.inputs else None
        return found

    def layer_before(self, name: str) -> str:
        """The layer whose output a module takes at once and alone, both being called once; empty if there is none."""
        calls = self.of.get(name, [])
        before = calls[0].inputs[0] if len(calls) == 1 and calls[0].inputs and calls[0].direct else None
        alone = before is not None and before.module and len(self.of[before.module]) == len(before.users) == 1
        return before.module if before is not None and alone else ""

    def needs_copy(self, name: str) -> bool:
        """Whether what takes a normalisation's place has to be a copy of its input.

        An operation in place would write to that input, or to the output. It may, if a layer made it for nobody else.
        """
        for call in self.of.get(name, []):
            taken = call.inputs[0].base if call.inputs else call
            later = any(i > self.order[call] for i in self.overwritten.get(taken, []))
            own = len(taken.users) == 1 and self.is_layer(taken)
            if later or (call in self.overwritten and not own):
                return True
        return False

    def sees_one_pixel(self, name: str) -> bool:
        """Whether a layer's input is a feature map of one pixel, as after a global average."""
        return any(call.one_pixel or self._one_pixel(call) for call in self.of.get(name, ()))

    def _one_pixel(self, call: Call) -> bool:
        before = call.inputs[0] if call.inputs else call
        through = isinstance(self.module(before), CONVOLUTIONS) or self.is_elementwise(before)
        return before.pools or (through and self._one_pixel(before))


def acts_on_each_number_alone(function: Callable[[Tensor], Any]) -> bool:
    """Whether numbers in another order come out as the same numbers in that order. The random state stays as it is.

    >>> acts_on_each_number_alone(torch.tanh), acts_on_each_number_alone(lambda x: x.softmax(1))
    (True, False)
    """
    order = torch.randperm(96, generator=torch.Generator().manual_seed(0), device="cpu")
    x = torch.linspace(-3, 3, 96, device="cpu").view(2, 3, 4, 4)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            given, moved = function(x.clone()), function(x.flatten()[order].view_as(x))
            return bool(torch.equal(given.flatten()[order], moved.flatten()))
    except Exception:  # whatever a function raises for this input
        return False


def tensors_in(value: Any) -> Iterable[Tensor]:
    """The tensors in nested arguments or results, in their order.

    >>> len(list(tensors_in(({"a": torch.ones(1)}, [torch.ones(2), 3]))))
    2
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, (tuple, list, set)):
        for part in value:
            yield from tensors_in(part)
    elif hasattr(value, "__dict__") and not isinstance(value, (nn.Module, type)) and not callable(value):
        # Such as torchvision's ImageList.
        yield from (part for part in vars(value).values() if isinstance(part, Tensor))
