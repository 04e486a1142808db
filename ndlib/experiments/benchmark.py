"""What deconvolution costs, measured beside batch normalisation in one process.

Times on a shared machine wander. Everything here is therefore measured in turns, and what is reported first is a
ratio, with the bounds that the quartiles give it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..conversion import to_plain
from ..functional import fold_weights
from ..layers import DeconvConv2d
from .baselines import straightforward
from .ledger import append_line
from .models import build
from .operations import STAGES, inputs_of, predicted_operations
from .provenance import provenance
from .step_times import (
    CHANCE,
    TARGETS,
    Measurement,
    Networks,
    as_trained,
    networks,
    pictures,
    quietly,
    spreads,
    time_price,
    time_steps,
)
from .timing import Action, Spread, interleaved, ratio, spread

__all__ = [
    "describe_measurement",
    "form_of",
    "latest",
    "layer_actions",
    "measure",
    "price",
    "time_folded_inference",
    "time_stages",
]


def layer_actions(layer: DeconvConv2d, x: Tensor) -> dict[str, Action]:
    """The stages of a training step of one layer, forward and backward, each as a function without arguments.

    >>> actions = layer_actions(DeconvConv2d(3, 4, 1), torch.randn(8, 3, 9, 9))
    >>> list(actions)
    ['convolution', 'statistics', 'root', 'folding']
    >>> actions["root"]()
    """

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


def time_stages(
    arch: str, *, width: float = 1.0, batch_size: int = 128, rounds: int = 5, device: str = "cpu"
) -> Measurement:
    """Where the time of the deconvolved layers of a network goes, stage by stage, beside what was predicted.

    >>> measurement = time_stages("vgg-small", width=0.1, batch_size=2, rounds=1)
    >>> list(measurement["flops_as_published"])
    ['convolution', 'statistics', 'root', 'folding']
    """
    torch.manual_seed(0)
    x = pictures(batch_size, device)
    seconds: dict[str, dict[str, list[float]]] = {"ours": {}, "as published": {}}
    operations = dict.fromkeys(STAGES, 0.0)
    with quietly():
        model = as_trained(build(arch, method="nd", classes=10, width=width)).to(device)
        for layer, seen in inputs_of(model, x).values():
            for stage, count in predicted_operations(layer, tuple(seen.shape)).items():
                operations[stage] += count
            actions = {("ours", stage): action for stage, action in layer_actions(layer, seen).items()}
            plainly = straightforward(layer)
            assert isinstance(plainly, DeconvConv2d)
            actions |= {("as published", stage): action for stage, action in layer_actions(plainly, seen).items()}
            for (name, stage), values in interleaved(actions, rounds, device=device).items():
                before = seconds[name].get(stage, [0.0] * rounds)
                seconds[name][stage] = [a + b for a, b in zip(before, values, strict=True)]
    return {
        "batch_size": batch_size,
        "rounds": rounds,
        "seconds": {name: {stage: spread(v) for stage, v in taken.items()} for name, taken in seconds.items()},
        "flops_as_published": operations,
    }


def time_folded_inference(
    arch: str, *, width: float = 1.0, batch_size: int = 128, rounds: int = 9, device: str = "cpu"
) -> Measurement:
    """Time of a trained, folded network beside the plain network of the same form, which it must equal in form.

    Raises:
        RuntimeError: the folded network has other modules or other shapes than the plain one.

    >>> measurement = time_folded_inference("vgg-small", width=0.1, batch_size=2, rounds=1)
    >>> measurement["ratio_to_plain"].median > 0
    True
    """
    torch.manual_seed(0)
    x = pictures(batch_size, device)
    with quietly():
        folded = to_plain(build(arch, method="nd", classes=10, width=width).to(device).eval())
    plain = build(arch, method="none", classes=10, width=width).to(device).eval()
    if form_of(folded) != form_of(plain):
        raise RuntimeError(f"the folded {arch} has another form than the plain one")
    with torch.inference_mode():
        seconds = interleaved({"plain": lambda: plain(x), "folded": lambda: folded(x)}, rounds, device=device)
    return {
        "batch_size": batch_size,
        "rounds": rounds,
        "seconds": spreads(seconds),
        "ratio_to_plain": ratio(seconds, "folded", "plain"),
    }


def form_of(model: nn.Module) -> list[tuple[str, str, list[tuple[str, tuple[int, ...]]]]]:
    """Names and types of all modules, with names and shapes of their own parameters and buffers.

    >>> form_of(nn.Linear(3, 2))
    [('', 'Linear', [('weight', (2, 3)), ('bias', (2,))])]
    """
    return [
        (
            name,
            type(m).__name__,
            [(n, tuple(t.shape)) for n, t in [*m.named_parameters(recurse=False), *m.named_buffers(recurse=False)]],
        )
        for name, m in model.named_modules()
    ]


def measure(
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

    Args:
        rounds: how often each network is timed.
        checkout: of the authors' repository, see ``baselines.official``.
        file: JSON lines that the measurements are added to.
        command: what is written down as the way to repeat them.

    >>> measurements = measure(archs=[], width=1.0, batch_size=1, rounds=1, device="cpu", checkout=None,
    ...                        file=Path("bench.jsonl"), command="")
    >>> list(measurements)
    []
    """
    chosen: dict[str, Any] = {"batch_size": batch_size, "rounds": rounds, "device": device}
    measurements: dict[str, Callable[[str], Measurement]] = {
        "price": lambda arch: time_price(arch, width=width, batch_size=batch_size, rounds=rounds),
        "step": lambda arch: time_steps(networks(arch, checkout, width), **chosen),
        "stages": lambda arch: time_stages(arch, width=width, **chosen),
        "folded inference": lambda arch: time_folded_inference(arch, width=width, **chosen),
    }
    if compiled:
        measurements = {"compiled": lambda arch: time_steps(_compiled(networks(arch, width=width)), **chosen)}
    for arch in archs:
        for what, timed in measurements.items():
            record = {"what": what, "arch": arch, "width": width, **timed(arch), **provenance(device)}
            record |= {"threads": torch.get_num_threads(), "command": command}
            append_line(file, record)
            yield describe_measurement(record)


def _compiled(kinds: Networks) -> Networks:
    """BN and ND, and the same two compiled as one graph each, under names that say so."""

    def graph(kind: str) -> nn.Module:
        return torch.compile(kinds[kind](), fullgraph=True, mode="reduce-overhead")  # type: ignore[return-value]

    plain = {kind: kinds[kind] for kind in ("BN", "ND")}
    return plain | {f"{kind}, compiled": lambda kind=kind: graph(kind) for kind in plain}


def latest(file: Path, what: str, arch: str, width: float = 1.0) -> Measurement:
    """The last measurement of its kind in a file that ``measure`` wrote: ``latest(file, "step", "vgg16")``.

    Raises:
        LookupError: there is none.

    >>> from ndlib.files import path
    >>> latest(path("benchmark.jsonl"), "step", "vgg16")["batch_size"]
    128
    """
    wanted = {"what": what, "arch": arch, "width": width}
    for line in reversed(file.read_text().splitlines()):
        record: Measurement = json.loads(line)
        if wanted.items() <= record.items():
            return record
    raise LookupError(f"{file} has no measurement of {what!r} of {arch}; python -m ndlib bench {arch} makes one")


def price(record: Measurement, kind: str) -> Spread:
    """Time of a step of one kind in a measurement of :func:`.step_times.time_steps`, BN = 1, and the ratio's bounds.

    The times of BN itself wander with the state of memory, by more than two kinds often differ. So there is one time of
    BN for all, the median over all its pairs, and the bounds take the upper quartile of the one with the lower of the
    other.

    >>> price({"seconds": {"BN": (2.0, 1.0, 4.0), "ND": (6.0, 5.0, 8.0)}}, "ND")
    Spread(median=3.0, low=1.25, high=8.0)
    """
    own, bn = (Spread(*record["seconds"][name]) for name in (kind, "BN"))
    return Spread(own.median / bn.median, own.low / bn.high, own.high / bn.low)


def describe_measurement(record: Measurement) -> str:
    """A measurement for reading, ratios first.

    >>> from ndlib.files import path
    >>> text = describe_measurement(latest(path("benchmark.jsonl"), "folded inference", "vgg16"))
    >>> text.split(", batch")[0]
    'folded inference, vgg16 x 1'
    """
    lines = [f"{record['what']}, {record['arch']} x {record['width']:g}, batch {record['batch_size']}"]
    lines[0] += f", {record['rounds']} rounds, {record['device']}"
    if record["what"] in ("step", "compiled"):
        lines += _step_lines(record)
    elif record["what"] == "price":
        lines += _price_lines(record)
    elif record["what"] == "stages":
        lines += _stage_lines(record)
    else:
        median, low, high = record["ratio_to_plain"]
        plain, folded = (1000 * record["seconds"][name][0] for name in ("plain", "folded"))
        lines.append(f"  folded takes {median:.2f} times the plain network's time ({low:.2f} - {high:.2f}): ")
        lines[-1] += f"{folded:.0f} ms beside {plain:.0f} ms"
    return "\n".join(lines)


def _step_lines(record: Measurement) -> Iterator[str]:
    yield f"  {'':22}{'times BN':>10}{'between':>16}{'ms a step':>12}{'MB kept':>10}{'times BN':>10}"
    for name in record["seconds"]:
        median, low, high = price(record, name)
        kept, of_bn = record["bytes"][name] / 1e6, record["bytes"][name] / record["bytes"]["BN"]
        milliseconds = 1000 * record["seconds"][name][0]
        yield f"  {name:22}{median:10.2f}{low:8.2f} -{high:6.2f}{milliseconds:12.0f}{kept:10.0f}{of_bn:10.2f}"


def _price_lines(record: Measurement) -> Iterator[str]:
    for name, (median, low, high) in record["ratios"].items():
        limit = TARGETS.get(name, math.inf)
        target = f", at most {limit:.2f}: {'met' if median <= limit else 'missed'}" if name in TARGETS else ""
        yield f"  {name:28}{median:8.3f}{low:10.3f} -{high:6.3f}{target}"
    again = record["ratios"]["BN again of BN"][0]
    if not CHANCE[0] <= again <= CHANCE[1]:
        yield f"  BN again took {again:.3f} times BN's time: chance weighs too much here, measure again"


def _stage_lines(record: Measurement) -> Iterator[str]:
    yield f"  {'':22}{'GFLOP':>10}{'ms ours':>12}{'ms as published':>18}"
    for stage in STAGES:
        ours, plain = (1000 * record["seconds"][name][stage][0] for name in ("ours", "as published"))
        yield f"  {stage:22}{record['flops_as_published'][stage] / 1e9:10.1f}{ours:12.0f}{plain:18.0f}"
