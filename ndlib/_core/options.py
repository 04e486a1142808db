"""The options of the deconvolution layers: names, defaults, meanings and the one validation there is.

Layers, :func:`ndlib.convert`, sweeps and the command line all check their values here.
"""

from __future__ import annotations

import ast
import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

import torch.distributed as dist

from .samples import SampleNormKind

__all__ = ["ABOUT", "RECOMMENDED", "Centering", "Grouping", "Options", "Running", "Solver", "parse_option"]

Solver = Literal["newton_schulz", "eigh", "polar"]
Grouping = Literal["interleaved", "contiguous"]
Centering = Literal["shared", "per-block", "uncentred"]
Running = Literal["root", "covariance"]


@dataclass(frozen=True)
class Options:
    """What can be chosen of a deconvolution layer; the defaults are the published values of a convolution.

    ``ABOUT`` says what each means and which values it can have.
    """

    block_size: int = 64
    sampling_stride: int = 3
    eps: float = 1e-5
    n_iter: int = 5
    solver: Solver = "newton_schulz"
    grouping: Grouping = "interleaved"
    centering: Centering = "shared"
    running: Running = "root"
    momentum: float = 0.1
    update_every: int = 1
    freeze_after: int | None = None
    detach_root: bool = False
    sample_norm: SampleNormKind | None = None
    process_group: dist.ProcessGroup | Literal["world"] | None = None

    def __post_init__(self) -> None:
        for name, about in ABOUT.items():
            value = getattr(self, name)
            if not about.is_possible(value):
                error = ValueError if isinstance(value, (int, float, str)) else TypeError
                raise error(f"{name} must be {about.wanted}, got {value!r}")

    def changed(self, **values: Any) -> Options:
        """These options with other values.

        Raises:
            TypeError: there is no such option; the message lists those there are. Or a value of a type that no value
                of the option has.
            ValueError: a value that is not possible; the message says which are.
        """
        if unknown := sorted(values.keys() - ABOUT.keys()):
            raise TypeError(f"no such option: {', '.join(unknown)}; there are {', '.join(ABOUT)}")
        return dataclasses.replace(self, **values)

    def differing(self, other: Options) -> dict[str, Any]:
        """Names and values of the options whose value is not the other one's."""
        return {name: getattr(self, name) for name in ABOUT if getattr(self, name) != getattr(other, name)}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


class About(NamedTuple):
    """What an option means, which values it can have in words, and whether a value is one of them."""

    meaning: str
    wanted: str
    is_possible: Callable[[Any], bool]


def _count(meaning: str) -> About:
    return About(meaning, "a whole number of at least 1", _is_count)


def _word(kind: Any, meaning: str) -> About:
    return About(meaning, f"one of {', '.join(map(repr, get_args(kind)))}", lambda value: value in get_args(kind))


ABOUT: dict[str, About] = {
    "block_size": _count(
        "channels (features of a linear layer) that are whitened together. Where it does not divide their number, "
        "their greatest common divisor is taken, with a warning below 8."
    ),
    "sampling_stride": _count(
        "the moments come from every so-many-th position of the output in each direction; for 1x1 kernels from every "
        "(sampling_stride * stride)^2-th pixel of the whole batch."
    ),
    "eps": About(
        "added to the diagonal of the covariance, in squared units of the input.",
        "a finite number of at least 0",
        lambda value: _is_number(value) and value >= 0,
    ),
    "n_iter": _count("steps of the solver; 'eigh' takes none."),
    "solver": _word(
        Solver,
        "how the inverse root is computed: by Newton-Schulz steps (the published truncated filter), by steps with "
        "coefficients that are optimal for each ('polar'), or exactly ('eigh'); see ndlib.functional.inverse_sqrt.",
    ),
    "grouping": _word(
        Grouping, "which columns form one of G blocks: column c in block c mod G, or consecutive columns."
    ),
    "centering": _word(
        Centering,
        "'shared': all blocks have one mean, mu, the mean over rows and blocks. 'per-block': each block has a mean "
        "mu_g of its own, and Cov is the mean of the blocks' own covariances. 'uncentred': mu is subtracted from the "
        "data, but the root is that of the second moment about zero, Cov + mu mu'.",
    ),
    "running": _word(
        Running,
        "what is averaged for evaluation. 'root': mu and D, from mu = 0 and D = I. 'covariance': mu and Cov, without "
        "a start value; the root is taken of the average when evaluation begins.",
    ),
    "momentum": About(
        "weight of the newest batch in the running averages.",
        "a number above 0 and at most 1",
        lambda value: _is_number(value) and 0 < value <= 1,
    ),
    "update_every": _count(
        "training steps from one measurement to the next. In between the running averages serve, as constants, and "
        "their momentum becomes 1 - (1 - momentum)^update_every. The first 100 steps are all measured, since an "
        "average that still holds its start value makes training diverge."
    ),
    "freeze_after": About(
        "training step after which the running averages serve and are left alone; None for never.",
        "None or a whole number of at least 1",
        lambda value: value is None or _is_count(value),
    ),
    "detach_root": About(
        "True lets no gradient through D; through mu the gradient still flows.",
        "True or False",
        lambda value: isinstance(value, bool),
    ),
    "sample_norm": About(
        "normalise every sample (a picture; of a linear layer a row of features) by itself before it is whitened: "
        "'l1', x / mean(abs(x)); 'layernorm', (x - mean) / (standard deviation + 1e-4). It cannot be folded.",
        "None, 'l1' or 'layernorm'",
        lambda value: value is None or value in get_args(SampleNormKind),
    ),
    "process_group": About(
        "processes that share mean and covariance: None, each its own; 'world', all there are when a step is taken.",
        "None, 'world' or a torch.distributed.ProcessGroup",
        lambda value: value is None or value == "world" or isinstance(value, dist.ProcessGroup),
    ),
}


# The setting to begin with, ``ndlib.convert(net, **ndlib.RECOMMENDED)``: small blocks, an eps that limits what the root
# amplifies, averaged covariances, and one measured batch in 16. Chosen on training images that the networks were not
# trained on (chapter "Ablations"); the defaults above are the published ones.
RECOMMENDED: Mapping[str, Any] = MappingProxyType(
    {"block_size": 4, "eps": 0.1, "running": "covariance", "update_every": 16}
)


def describe(defaults: Options, without: tuple[str, ...] = ()) -> str:
    """The options as they stand in the help of a layer: name, meaning, possible values, default."""
    return "\n".join(
        f"    {name}: {about.meaning} {about.wanted.capitalize()}; {getattr(defaults, name)!r}."
        for name, about in ABOUT.items()
        if name not in without
    )


def parse_option(text: str) -> tuple[str, Any]:
    """``"block_size=16"`` as the pair of an option's name and its value: a Python literal, or else a word.

    >>> parse_option("block_size=16"), parse_option("solver=eigh")
    (('block_size', 16), ('solver', 'eigh'))

    Raises:
        ValueError: there is no such option that can be written so, or the value is not possible.
    """
    name, _, word = text.partition("=")
    known = sorted(ABOUT.keys() - {"process_group"})
    if name not in known or not word:
        raise ValueError(f"{text!r} is not NAME=VALUE with NAME one of {', '.join(known)}")
    try:
        value = ast.literal_eval(word)
    except (ValueError, SyntaxError, TypeError):
        value = word
    check_options({name: value})
    return name, value


def check_options(values: Mapping[str, Any]) -> None:
    """Raise ValueError, with the reason, unless these are options with possible values."""
    try:
        Options().changed(**values)
    except TypeError as error:
        raise ValueError(str(error)) from None
