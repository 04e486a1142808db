"""What deconvolution costs: counted, and measured beside batch normalisation in one process.

Times on a shared machine wander. Everything here is therefore measured in turns, and what is reported first is a
ratio, with the bounds that the quartiles give it.
"""

from __future__ import annotations

import copy
import importlib
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .._core.counting import WARM_UP
from ..conversion import to_plain
from ..functional import fold_weights, patch_matrix, split_columns
from ..layers import DeconvConv2d, DeconvLinear, Deconvolution
from .ledger import append_line
from .models import build
from .provenance import provenance

Action = Callable[[], object]
Networks = dict[str, Callable[[], nn.Module]]
Record = dict[str, Any]
Name = TypeVar("Name", bound=Hashable)


# Measuring. ------------------------------------------------------------------------------------------------


def interleaved(
    actions: dict[Name, Action], rounds: int, *, warm_up: int = 1, device: str = "cpu"
) -> dict[Name, list[float]]:
    """Seconds that each action takes, in each of some rounds of all of them in turn.

    Args:
        rounds: how often each is timed.
        warm_up: rounds before that, which are not.
        device: waited for before the clock is read, if it is a GPU.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in actions}
    for number in range(warm_up + rounds):
        for name, action in actions.items():
            start = _now(device)
            action()
            if number >= warm_up:
                seconds[name].append(_now(device) - start)
    return seconds


def _now(device: str) -> float:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Spread(NamedTuple):
    """Median and quartiles of some measurements."""

    median: float
    low: float
    high: float


def spread(values: list[float]) -> Spread:
    """Median and quartiles; of a single value three times that."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def ratio(seconds: dict[str, list[float]], name: str, baseline: str) -> Spread:
    """How many times as long as the baseline an action took, round by round."""
    return spread([a / b for a, b in zip(seconds[name], seconds[baseline], strict=True)])


def price(record: Record, kind: str) -> Spread:
    """Time of a step of one kind in a record of :func:`steps`, BN = 1: the ratio of the medians, and of the quartiles.

    The times of BN itself wander with the state of memory, by more than two kinds often differ. So there is one time of
    BN for all, the median over all its pairs, and the bounds take the upper quartile of the one with the lower of the
    other.
    """
    own, bn = (Spread(*record["seconds"][name]) for name in (kind, "BN"))
    return Spread(own.median / bn.median, own.low / bn.high, own.high / bn.low)


def saved_bytes(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps from a forward pass for its backward pass: every storage once, parameters left out."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()  # held until the sum is taken, so that no address is used twice
        total = sum(kept.values())
    del result
    return total


def training_step(model: nn.Module, x: Tensor, labels: Tensor) -> Action:
    """A step of SGD on one batch, as a function without arguments."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return step


# Counting. -------------------------------------------------------------------------------------------------


class _Calls(TorchDispatchMode):
    """Counts the operators that compute something: no views, no empty memory, no questions about types."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        schema = func._schema
        returned = [r for r in schema.returns if str(r.type).startswith("Tensor")]
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in returned)
        idle = schema.name.startswith("aten::empty") or schema.name in ("aten::_unsafe_view", "aten::resize_")
        self.number += bool(returned) and not view and not idle
        return func(*args, **(kwargs or {}))


def launches(arch: str, kind: str, *, batch_size: int = 128) -> int:
    """Operators that a training step (without the optimiser's) of one of :func:`networks` issues.

    That is about the number of kernels that a GPU is asked to start one by one, whatever their size. Counted on the
    meta device, where the layers take the way that they take on a GPU and nothing is computed.
    """
    with torch.device("meta"), _quietly():
        model = network(arch, kind)
        x, labels = torch.empty(batch_size, 3, 32, 32), torch.empty(batch_size, dtype=torch.long)
        with _Calls() as calls:
            F.cross_entropy(model(x), labels).backward()
    return calls.number


STAGES = ("convolution", "statistics", "root", "folding")


def predicted(layer: DeconvConv2d, shape: tuple[int, ...]) -> dict[str, float]:
    """Floating-point operations of the stages of a training step, forward and backward, in the published algorithm.

    A product of an (a, b) by a (b, c) matrix counts 2 a b c. With R sampled patches of n columns in G blocks:
    covariance 2 G R n^2; three products of 2 n^3 in each Newton-Schulz step; folding 2 G n^2 for each output. The
    backward pass of a product takes two. Elementwise work is not counted.

    Args:
        shape: of the input, (N, C, H, W).
    """
    padding: Any = layer.padding  # numbers: the networks here have no other
    sizes = [
        (side + 2 * p - d * (k - 1) - 1, s)
        for side, p, d, k, s in zip(shape[2:], padding, layer.dilation, layer.kernel_size, layer.stride, strict=True)
    ]
    positions = shape[0] * math.prod(free // s + 1 for free, s in sizes)
    sampled = shape[0] * math.prod(free // (s * layer.sampling_stride) + 1 for free, s in sizes)
    n, blocks, groups = layer.columns, layer.n_blocks, layer.n_groups
    steps = layer.options.n_iter
    return {
        "convolution": 3 * 2 * positions * layer.out_channels * blocks * n,
        "statistics": 3 * 2 * groups * blocks * sampled * n**2,
        "root": 3 * 2 * groups * 3 * steps * n**3,
        "folding": 3 * 2 * layer.out_channels * blocks * n**2,
    }


def inputs_of(model: nn.Module, x: Tensor) -> dict[str, tuple[DeconvConv2d, Tensor]]:
    """Every deconvolved convolution of a model, by name, with the input that it meets for this batch."""
    found = {}
    hooks = [
        module.register_forward_pre_hook(lambda m, args, name=name: found.update({name: (m, args[0].detach())}))
        for name, module in model.named_modules()
        if isinstance(module, DeconvConv2d)
    ]
    model(x)
    for hook in hooks:
        hook.remove()
    return found


def stages(layer: DeconvConv2d, x: Tensor) -> dict[str, Action]:
    """The stages of a training step of one layer, forward and backward, each as a function without arguments."""

    def leaf(tensor: Tensor) -> Tensor:
        return tensor.detach().clone().requires_grad_()

    mean, cov = layer.measure(x)
    x, mean, cov, root = leaf(x), leaf(mean), leaf(cov), leaf(layer.root(cov))
    blocks: dict[str, Any] = {"n_blocks": layer.n_blocks, "grouping": layer.options.grouping}
    weight, bias = (leaf(t) for t in fold_weights(layer.weight, layer.bias, mean, root, **blocks))

    def both_ways(function: Callable[[], tuple[Tensor, ...]]) -> Action:
        gradients = [torch.randn_like(t) for t in function()]
        return lambda: torch.autograd.backward(function(), gradients)

    return {
        "convolution": both_ways(lambda: (layer._conv_forward(x, weight, bias),)),
        "statistics": both_ways(lambda: layer.measure(x)),
        "root": both_ways(lambda: (layer.root(cov),)),
        "folding": both_ways(lambda: fold_weights(layer.weight, layer.bias, mean, root, **blocks)),
    }


# What is compared. -----------------------------------------------------------------------------------------


class Straightforward(DeconvConv2d):
    """The published algorithm as it is written down, with nothing done to make it fast: a baseline.

    The same outputs and gradients as :class:`.DeconvConv2d`, by autograd through the covariance and through all three
    products of every Newton-Schulz step.
    """

    def measure(self, x: Tensor) -> tuple[Tensor, Tensor]:
        strides = [self.sampling_stride * s for s in self.stride]
        if math.prod(self.kernel_size) == 1:
            rows = x.movedim(1, -1).reshape(-1, x.shape[1])[:: math.prod(strides)]
        else:
            rows = patch_matrix(x, self.kernel_size, stride=strides, padding=self.padding, dilation=self.dilation)  # type: ignore[arg-type]
        rows = split_columns(rows, self.n_blocks, self.options.grouping).flatten(0, 1)
        mean = rows.mean(0)
        centred = rows - mean
        return mean.view(1, 1, -1), (centred.T @ centred / len(rows)).unsqueeze(0)

    def root(self, cov: Tensor) -> Tensor:
        eye = torch.eye(self.columns, dtype=cov.dtype, device=cov.device)
        a = cov[0] + self.options.eps * eye
        norm = a.norm()
        y, z = a / norm, eye
        for _ in range(self.options.n_iter):
            t = 1.5 * eye - 0.5 * z @ y
            y, z = y @ t, t @ z
        return (z / norm.sqrt()).unsqueeze(0)


def straightforward(model: nn.Module) -> nn.Module:
    """The model with every deconvolved convolution computed by :class:`Straightforward`."""
    for module in model.modules():
        if type(module) is DeconvConv2d:
            module.__class__ = Straightforward
    return model


def check_checkout(checkout: Path) -> None:
    """Raise ValueError if a folder does not hold the authors' repository."""
    if not (checkout / "models" / "deconv.py").exists():
        raise ValueError(f"{checkout} is no checkout of yechengxi/deconvolution: it has no models/deconv.py")


def official(model: nn.Module, checkout: Path) -> nn.Module:
    """The model with the authors' own layers in place of ours, with our weights in them.

    Args:
        checkout: folder with a copy of their repository, ``deconvolution`` of ``yechengxi`` on GitHub.

    Raises:
        ValueError: there is no ``models/deconv.py`` in it.
    """
    check_checkout(checkout)
    sys.path.insert(0, str(checkout / "models"))
    try:
        theirs = importlib.import_module("deconv")
    finally:
        sys.path.pop(0)
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, DeconvConv2d):
                made = theirs.FastDeconv(
                    layer.in_channels,
                    layer.out_channels,
                    layer.kernel_size[0],
                    stride=layer.stride[0],
                    padding=layer.padding[0],
                    bias=True,
                    eps=layer.options.eps,
                    n_iter=layer.options.n_iter,
                    block=64,
                    sampling_stride=layer.sampling_stride,
                )
            elif isinstance(layer, DeconvLinear):
                made = theirs.Delinear(layer.in_features, layer.out_features, bias=True, block=512)
            else:
                continue
            made.load_state_dict(layer.state_dict(), strict=False)
            setattr(parent, name, made)
    return model


# The benchmark. --------------------------------------------------------------------------------------------


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the warning of few rows, which small batches bring with them and which speed does not depend on."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*rows for a covariance")
        yield


VARIANTS: dict[str, dict[str, Any]] = {
    "BN": {"method": "bn"},
    "ND": {"method": "nd"},
    "ND, block 32": {"method": "nd", "options": {"block_size": 32}},
    "ND, block 16": {"method": "nd", "options": {"block_size": 16}},
    "ND, block 16, every 4th": {"method": "nd", "options": {"block_size": 16, "update_every": 4}},
    "ND, root detached": {"method": "nd", "options": {"detach_root": True}},
    "ND, frozen": {"method": "nd", "options": {"freeze_after": 1}},  # what update_every pays between updates
    "ND, Kronecker": {"method": "kronecker"},
    "ND first, then BN": {"method": "nd-first"},
}


def network(arch: str, kind: str, checkout: Path | None = None, width: float = 1.0) -> nn.Module:
    """One of :func:`networks`."""
    with _quietly():
        if kind in VARIANTS:
            return build(arch, classes=10, width=width, **VARIANTS[kind])
        plain = build(arch, method="nd", classes=10, width=width)
        return straightforward(plain) if checkout is None else official(plain, checkout)


def networks(arch: str, checkout: Path | None = None, width: float = 1.0) -> Networks:
    """What is compared for one architecture: BN, ND and its cheaper modes, and the published algorithm done plainly.

    Also the authors' own layers if there is a checkout of their repository. Functions that make them.
    """
    kinds = [*VARIANTS, "as published"]
    made: Networks = {kind: lambda kind=kind: _as_trained(network(arch, kind, width=width)) for kind in kinds}  # type: ignore[misc]
    if checkout is not None:
        made["the authors' layer"] = lambda: network(arch, "the authors' layer", checkout, width)
    return made


def _as_trained(model: nn.Module) -> nn.Module:
    """Channels last in memory, as ``training.fit`` has a network; the weights of the authors' layer cannot lie so."""
    return model.to(memory_format=torch.channels_last)


def steps(kinds: Networks, *, batch_size: int = 128, rounds: int = 5, device: str = "cpu") -> Record:
    """Time and memory of a training step of some networks, each in turns with BN, on 32 x 32 pictures.

    A pair at a time: with more networks in a process, memory is found in another state than a training run finds it in,
    and batch normalisation, which writes most, takes up to a third less time.
    """
    torch.manual_seed(0)
    x, labels = _pictures(batch_size, device), torch.randint(10, (batch_size,), device=device)
    taken: dict[str, list[float]] = {"BN": []}
    memory: dict[str, int] = {}
    for kind in kinds:
        if kind == "BN":
            continue
        pair = {name: kinds[name]().to(device) for name in ("BN", kind)}
        every = {name: _begin_amortising(model) for name, model in pair.items()}
        with _quietly():
            actions = {name: _repeated(training_step(model, x, labels), every[name]) for name, model in pair.items()}
            found = interleaved(actions, rounds, device=device)
            memory |= {name: _memory(model, x, labels, device) for name, model in pair.items()}
        seconds = {name: [s / every[name] for s in values] for name, values in found.items()}
        taken["BN"] += seconds["BN"]
        taken[kind] = seconds[kind]
    return {
        "batch_size": batch_size,
        "rounds": rounds,
        "seconds": {name: spread(values) for name, values in taken.items()},
        "bytes": memory,
    }


def _pictures(batch_size: int, device: str) -> Tensor:
    """Random ones, channels last in memory, as ``training.fit`` has them: all networks are faster so, and BN most."""
    return torch.randn(batch_size, 3, 32, 32, device=device).to(memory_format=torch.channels_last)


def _begin_amortising(model: nn.Module) -> int:
    """Have the warm-up of ``update_every`` behind it; how many steps then make a cycle."""
    layers = [m for m in model.modules() if isinstance(m, Deconvolution)]
    for layer in layers:
        layer.restart(WARM_UP)
    return max((layer.options.update_every for layer in layers), default=1)


def _repeated(action: Action, times: int) -> Action:
    return lambda: [action() for _ in range(times)]


def _memory(model: nn.Module, x: Tensor, labels: Tensor, device: str) -> int:
    """Bytes kept for the backward pass; on a GPU the peak of what is allocated during a step."""
    if torch.device(device).type != "cuda":
        return saved_bytes(model, lambda: F.cross_entropy(model(x), labels))
    torch.cuda.reset_peak_memory_stats(device)
    F.cross_entropy(model(x), labels).backward()
    return torch.cuda.max_memory_allocated(device)


def layer_stages(
    arch: str, *, width: float = 1.0, batch_size: int = 128, rounds: int = 5, device: str = "cpu"
) -> Record:
    """Where the time of the deconvolved layers of a network goes, stage by stage, beside what was predicted."""
    torch.manual_seed(0)
    x = _pictures(batch_size, device)
    seconds: dict[str, dict[str, list[float]]] = {"ours": {}, "as published": {}}
    operations = dict.fromkeys(STAGES, 0.0)
    with _quietly():
        model = _as_trained(build(arch, method="nd", classes=10, width=width)).to(device)
        for layer, seen in inputs_of(model, x).values():
            for stage, count in predicted(layer, tuple(seen.shape)).items():
                operations[stage] += count
            actions = {("ours", stage): action for stage, action in stages(layer, seen).items()}
            plainly = straightforward(copy.deepcopy(layer))
            assert isinstance(plainly, DeconvConv2d)
            actions |= {("as published", stage): action for stage, action in stages(plainly, seen).items()}
            for (name, stage), values in interleaved(actions, rounds, device=device).items():
                before = seconds[name].get(stage, [0.0] * rounds)
                seconds[name][stage] = [a + b for a, b in zip(before, values, strict=True)]
    return {
        "batch_size": batch_size,
        "rounds": rounds,
        "seconds": {name: {stage: spread(v) for stage, v in taken.items()} for name, taken in seconds.items()},
        "flops_as_published": operations,
    }


def folded_inference(
    arch: str, *, width: float = 1.0, batch_size: int = 128, rounds: int = 9, device: str = "cpu"
) -> Record:
    """Time of a trained, folded network beside the plain network of the same form, which it must equal in form.

    Raises:
        RuntimeError: the folded network has other modules or other shapes than the plain one.
    """
    torch.manual_seed(0)
    x = _pictures(batch_size, device)
    with _quietly():
        folded = to_plain(build(arch, method="nd", classes=10, width=width).to(device).eval())
    plain = build(arch, method="none", classes=10, width=width).to(device).eval()
    if form_of(folded) != form_of(plain):
        raise RuntimeError(f"the folded {arch} has another form than the plain one")
    with torch.inference_mode():
        seconds = interleaved({"plain": lambda: plain(x), "folded": lambda: folded(x)}, rounds, device=device)
    return {
        "batch_size": batch_size,
        "rounds": rounds,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "ratio_to_plain": ratio(seconds, "folded", "plain"),
    }


def form_of(model: nn.Module) -> list[tuple[str, str, list[tuple[str, tuple[int, ...]]]]]:
    """Names and types of all modules, with names and shapes of their own parameters and buffers."""
    return [
        (
            name,
            type(m).__name__,
            [(n, tuple(t.shape)) for n, t in [*m.named_parameters(recurse=False), *m.named_buffers(recurse=False)]],
        )
        for name, m in model.named_modules()
    ]


def run(
    *,
    archs: list[str],
    width: float,
    batch_size: int,
    rounds: int,
    device: str,
    checkout: Path | None,
    compiled: bool = False,
    file: Path,
    command: str,
) -> Iterator[str]:
    """Measure, append a line of JSON for each measurement, and yield it as a table in words.

    With ``compiled`` only steps of BN and ND, as they are and through ``torch.compile``, on a GPU with CUDA graphs.
    """
    chosen: dict[str, Any] = {"batch_size": batch_size, "rounds": rounds, "device": device}
    measurements: dict[str, Callable[[str], Record]] = {
        "step": lambda arch: steps(networks(arch, checkout, width), **chosen),
        "stages": lambda arch: layer_stages(arch, width=width, **chosen),
        "folded inference": lambda arch: folded_inference(arch, width=width, **chosen),
    }
    if compiled:
        measurements = {"compiled": lambda arch: steps(_compiled(networks(arch, width=width)), **chosen)}
    for arch in archs:
        for what, measure in measurements.items():
            record = {"what": what, "arch": arch, "width": width, **measure(arch), **provenance(device)}
            record |= {"threads": torch.get_num_threads(), "command": command}
            append_line(file, record)
            yield table(record)


def _compiled(kinds: Networks) -> Networks:
    """BN and ND, and the same two compiled as one graph each, under names that say so."""

    def graph(kind: str) -> nn.Module:
        return torch.compile(kinds[kind](), fullgraph=True, mode="reduce-overhead")  # type: ignore[return-value]

    plain = {kind: kinds[kind] for kind in ("BN", "ND")}
    return plain | {f"{kind}, compiled": lambda kind=kind: graph(kind) for kind in plain}


def latest(file: Path, what: str, arch: str, width: float = 1.0) -> Record:
    """The last record of its kind in a file that ``run`` wrote: ``latest(file, "step", "vgg16")``.

    Raises:
        LookupError: there is none.
    """
    wanted = {"what": what, "arch": arch, "width": width}
    for line in reversed(file.read_text().splitlines()):
        record: Record = json.loads(line)
        if wanted.items() <= record.items():
            return record
    raise LookupError(f"{file} has no measurement of {what!r} of {arch}; python -m ndlib bench {arch} makes one")


def table(record: Record) -> str:
    """A record of the benchmark for reading, ratios first."""
    lines = [f"{record['what']}, {record['arch']} x {record['width']:g}, batch {record['batch_size']}"]
    lines[0] += f", {record['rounds']} rounds, {record['device']}"
    if record["what"] in ("step", "compiled"):
        lines.append(f"  {'':22}{'times BN':>10}{'between':>16}{'ms a step':>12}{'MB kept':>10}{'times BN':>10}")
        for name in record["seconds"]:
            median, low, high = price(record, name)
            kept, of_bn = record["bytes"][name] / 1e6, record["bytes"][name] / record["bytes"]["BN"]
            milliseconds = 1000 * record["seconds"][name][0]
            lines.append(
                f"  {name:22}{median:10.2f}{low:8.2f} -{high:6.2f}{milliseconds:12.0f}{kept:10.0f}{of_bn:10.2f}"
            )
    elif record["what"] == "stages":
        lines.append(f"  {'':22}{'GFLOP':>10}{'ms ours':>12}{'ms as published':>18}")
        for stage in STAGES:
            ours, plain = (1000 * record["seconds"][name][stage][0] for name in ("ours", "as published"))
            lines.append(f"  {stage:22}{record['flops_as_published'][stage] / 1e9:10.1f}{ours:12.0f}{plain:18.0f}")
    else:
        median, low, high = record["ratio_to_plain"]
        milliseconds = [1000 * record["seconds"][name][0] for name in ("plain", "folded")]
        lines.append(f"  folded takes {median:.2f} times the plain network's time ({low:.2f} - {high:.2f}): ")
        lines[-1] += f"{milliseconds[1]:.0f} ms beside {milliseconds[0]:.0f} ms"
    return "\n".join(lines)
