"""Does conversion work on networks that nobody here wrote? Each of :mod:`.zoo_networks` is converted, trained for a
step, evaluated, made plain and converted with its function kept, in a process and a line of a file of its own.
"""

from __future__ import annotations

import copy
import json
import multiprocessing
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._conversion.calls import tensors_in
from .._conversion.following import arguments_of, copied
from .._conversion.norms import is_batch_norm
from .._conversion.replacing import put_in_place
from ..conversion import Copy, Report, convert, convert_pretrained, to_plain
from .ledger import Record, append_line
from .provenance import provenance
from .zoo_networks import FAMILIES, Network, build, catalogue

__all__ = ["SECONDS", "examine", "read", "summary", "visit", "worse"]

SECONDS = 30  # of processor time for one network, once it is built
REASONS = {  # what a report says of a normalisation that stays, and the kind of reason
    "no layer takes": "no taker",
    "stays plain": "taker stays plain",
    "computes something else": "unsupported type",
    "as a function": "unsupported type",
    "a hook": "unsupported type",
    "not on the path": "not on the path",
    "no layer is converted": "no taker",
}


def seasoned(net: nn.Module) -> nn.Module:
    """The network with running averages and factors of batch normalisation as training might leave them."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for norm in (m for m in net.modules() if is_batch_norm(m)):
            norm.running_mean.normal_(0, 0.3, generator=draw)  # type: ignore[operator]
            norm.running_var.uniform_(0.5, 2, generator=draw)  # type: ignore[operator]
    return net


def examine(network: Network) -> Record:
    """Everything that is asked of one network; ``failed`` names the first step that failed, and how.

    >>> examine(Network("torchvision", "nowhere", "no network of this name"))["failed"].split(":")[0]
    'build'
    """
    started = time.perf_counter()
    found: Record = {"family": network.family, "file": network.file, "name": network.name, "failed": ""}
    steps: list[tuple[str, Callable[[], None]]] = []
    try:
        net, training, evaluation = build(network)
    except Exception as error:
        return found | {"failed": f"build: {_first_line(error)}"}
    found |= {
        "norms": sum(is_batch_norm(m) for m in net.modules()),
        "parameters": sum(p.numel() for p in net.parameters()),
    }
    zoo = _Visit(seasoned(net), training, evaluation, found)
    steps += [("convert", zoo.converts), ("train", zoo.trains), ("aliases", zoo.shares_nothing)]
    steps += [("to_plain", zoo.folds), ("convert_pretrained", zoo.keeps_its_function), ("flags", zoo.keeps_flags)]
    signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    for name, step in steps:
        try:
            step()
        except Exception as error:
            found["failed"] = f"{name}: {_first_line(error)}"
            break
    signal.setitimer(signal.ITIMER_PROF, 0)
    return found | {"seconds": round(time.perf_counter() - started, 1)}


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"not done after {SECONDS} s of processor time")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


class _Visit:
    """The steps of :func:`examine`, which note what they find."""

    def __init__(self, net: nn.Module, training: Any, evaluation: Any, found: Record) -> None:
        self.net, self.training, self.evaluation, self.found = net, training, evaluation, found
        self.new: nn.Module = net

    def converts(self) -> None:
        for how, example in (("traced", None), ("followed", self.training)):
            self.new, report = convert(self.net, example_input=example)
            self.found[f"{how}_dropped"] = sum(r.norm == "batch" and r.action == "dropped" for r in report.rows)
            self.found[how] = not any(r.why.startswith("not traced") for r in report.rows)
        self.found |= {"kept": _reasons(report), "verdict": report.verdict()}
        self.found["kept_all_linear"] = _reasons(convert(self.net, example_input=self.training, linear="all")[1])
        self.found |= {action: report.count(action) for action in ("converted", "dropped")}
        self.found["plain"] = sum(r.action == "kept" and not r.norm for r in report.rows)

    def trains(self) -> None:
        """A step with a batch of two: finite wherever it is with batch normalisation."""
        try:
            before = _gradients(copied(self.net), self.training)
        except Exception as error:
            self.found["bn_trains"] = _first_line(error)
            return
        self.found["bn_trains"] = True
        given = copied(self.training)
        after = _gradients(self.new, given)
        names = [n for n, finite in before.items() if finite and n in after]
        self.found["nd_trains"] = bool(after) and all(after[n] for n in names)
        pairs = zip(tensors_in(arguments_of(given)), tensors_in(arguments_of(self.training)), strict=True)
        self.found["input_kept"] = all(torch.equal(a, b) for a, b in pairs)

    def shares_nothing(self) -> None:
        """Whether copies in the place of all normalisations would change an output: then one writes into another."""
        other = copy.deepcopy(self.new)
        for name, module in self.net.named_modules():
            if is_batch_norm(module) and type(other.get_submodule(name)) is nn.Identity:
                put_in_place(other, name, Copy())
        self.found["alias_error"] = _error(self.new, other, self.evaluation)

    def folds(self) -> None:
        plain = to_plain(self.new.eval(), self.evaluation)
        self.found["fold_error"] = _error(plain, self.new, self.evaluation)

    def keeps_its_function(self) -> None:
        images = self.evaluation
        new, report = convert_pretrained(self.net, images)
        self.found["pretrained_dropped"] = sum(r.norm == "batch" and r.action == "dropped" for r in report.rows)
        self.found["pretrained_error"] = _error(new, self.net, images)
        if self.found["pretrained_error"] > 1e-5:  # rounding, if it goes with float64
            double = copied(self.net).double()
            images = _double(images)
            self.found["pretrained_error_float64"] = _error(convert_pretrained(double, images)[0], double, images)

    def keeps_flags(self) -> None:
        """Frozen parameters stay frozen, and what is tied stays tied."""
        for parameter in list(self.net.parameters())[::3]:
            parameter.requires_grad_(False)
        new, _ = convert(self.net, example_input=self.training)
        old = dict(self.net.named_parameters(remove_duplicate=False))
        found = dict(new.named_parameters(remove_duplicate=False))
        self.found["flags_kept"] = all(found[n].requires_grad == p.requires_grad for n, p in old.items() if n in found)
        there = [n for n in old if n in found]
        self.found["ties_kept"] = _ties(old, there) == _ties(found, there)


def _ties(parameters: dict[str, nn.Parameter], names: list[str]) -> set[tuple[str, ...]]:
    owners: dict[int, list[str]] = {}
    for name in names:
        owners.setdefault(id(parameters[name]), []).append(name)
    return {tuple(names) for names in owners.values() if len(names) > 1}


def _reasons(report: Report) -> dict[str, int]:
    kept = [r.why for r in report.rows if r.norm == "batch" and r.action == "kept"]
    kinds = [next((kind for words, kind in REASONS.items() if words in why), "other") for why in kept]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def _outputs(net: nn.Module, example: Any) -> list[Tensor]:
    args, kwargs = arguments_of(copied(example))
    # Detectors choose boxes by a threshold: their features are compared.
    if hasattr(net, "roi_heads") or hasattr(net, "anchor_generator"):
        return [t for t in tensors_in(net.backbone(torch.stack(list(args[0])))) if t.is_floating_point()]  # type: ignore[operator]
    return [t for t in tensors_in(net(*args, **kwargs)) if t.is_floating_point()]


def _gradients(net: nn.Module, example: Any) -> dict[str, bool]:
    """Of each parameter that gets a gradient, whether it is finite; none if the loss is not."""
    args, kwargs = arguments_of(example)
    torch.manual_seed(0)
    loss = sum(t.square().mean() for t in tensors_in(net.train()(*args, **kwargs)) if t.requires_grad)
    if not isinstance(loss, Tensor) or not loss.isfinite():
        return {}
    loss.backward()
    return {n: bool(p.grad.isfinite().all()) for n, p in net.named_parameters() if p.grad is not None}


@torch.no_grad()
def _error(net: nn.Module, reference: nn.Module, example: Any) -> float:
    """Norm of the difference of all outputs in evaluation over the norm of the reference's."""
    outputs = []
    for one in (net, reference):
        torch.manual_seed(0)
        outputs.append(torch.cat([t.double().flatten() for t in _outputs(one.eval(), example)]))
    return float((outputs[0] - outputs[1]).norm() / outputs[1].norm())


def _double(example: Any) -> Any:
    if isinstance(example, Tensor):
        return example.double() if example.is_floating_point() else example
    if isinstance(example, dict):
        return {name: _double(value) for name, value in example.items()}
    return type(example)(map(_double, example)) if isinstance(example, (tuple, list)) else example


def visit(file: Path, families: list[str] | None = None) -> Iterator[str]:
    """Examine the networks that a file of JSON lines does not hold yet; a line of text for each.

    A network that runs out of time or memory takes its process with it and leaves a line that says so.

    >>> visit(Path("new.jsonl"))  # nothing is examined before the first line is asked for
    <generator object visit at ...>
    """
    done = {(r["family"], r["name"]) for r in read(file)} if file.exists() else set()
    torch.set_num_threads(1)
    for family in families or FAMILIES:
        for network in catalogue(family):
            if (network.family, network.name) not in done:
                found = _in_a_process(network)
                append_line(file, found | provenance("cpu"))
                yield f"{network.family} {network.name}: {found['failed'] or 'ok'}"


def _in_a_process(network: Network) -> Record:
    """Examine a network in a process of its own, which begins with the packages that this one has imported."""
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_send, args=(there, network))
    process.start()
    there.close()
    try:
        return here.recv() if here.poll(20 * SECONDS) else vars(network) | {"failed": "process: no answer"}
    except EOFError:
        process.join()
        return vars(network) | {"failed": f"process: ended with {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _send(to: Any, network: Network) -> None:
    warnings.simplefilter("ignore")
    to.send(examine(network))


def read(file: Path) -> list[Record]:
    """The networks of a file; of one that was examined again, the last line.

    >>> from ndlib.files import path
    >>> read(path("zoo.jsonl"))[0]["family"] in FAMILIES
    True
    """
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return list({(r["family"], r["name"]): r for r in lines}.values())


def worse(records: list[Record], before: list[Record]) -> list[str]:
    """The networks that fail, keep more normalisation or have larger errors than in earlier records.

    >>> worse([{"family": "timm", "name": "a", "failed": "train: no"}], [{"family": "timm", "name": "a", "failed": ""}])
    ['timm a: train: no']
    """
    earlier = {(r["family"], r["name"]): r for r in before}
    found = []
    for record in records:
        old = earlier.get((record["family"], record["name"]))
        if old is None or old["failed"]:
            continue
        kept, kept_before = (sum(r.get("kept", {}).values()) for r in (record, old))
        said = record["failed"] or (f"{kept} norms stay, {kept_before} before" if kept > kept_before else "")
        if not said and _rounding_aside(record) > max(1e-4, 10 * _rounding_aside(old)):
            said = f"error {_rounding_aside(record):.1e}"
        if said:
            found.append(f"{record['family']} {record['name']}: {said}")
    return found


def _rounding_aside(record: Record) -> float:
    return float(record.get("pretrained_error_float64") or record.get("pretrained_error") or 0)


OFF_PATH = "not on the path"  # norms that a network has and never calls


def summary(records: list[Record]) -> list[Record]:
    """By family: networks with BN that were converted, those that lost all of it that they call, with the classifier
    alone and with all linear layers converted, layers, and the largest errors.

    >>> line = {"family": "timm", "name": "a", "norms": 2, "dropped": 2, "kept": {}, "converted": 3, "plain": 1}
    >>> rest = {"failed": "", "fold_error": 1e-6, "pretrained_error": 2e-6, "nd_trains": True, "bn_trains": True}
    >>> summary([line | rest])[0]["without"]
    1
    """
    rows = []
    for family in dict.fromkeys(r["family"] for r in records):
        ours = [r for r in records if r["family"] == family]
        those = [r for r in ours if r.get("norms") and "converted" in r]
        trained = [r for r in those if r.get("bn_trains") is True]
        rows.append(
            {
                "family": family,
                "networks": len(those),
                "without": sum(not r["kept"].keys() - {OFF_PATH} for r in those),
                "without_all_linear": sum(not set(r.get("kept_all_linear", ())) - {OFF_PATH} for r in those),
                "converted": sum(r["converted"] for r in those),
                "plain": sum(r["plain"] for r in those),
                "trained": len(trained),
                "trains": sum(bool(r.get("nd_trains")) for r in trained),
                "fold_error": max((float(r.get("fold_error", 0)) for r in those), default=0.0),
                "pretrained_error": max((_rounding_aside(r) for r in those), default=0.0),
                "failed": [r["name"] for r in ours if r["failed"]],
            }
        )
    return rows
