"""Does the layer compute on a device what it computes on a CPU, without making the host wait, and at what price?"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._core.options import RECOMMENDED
from ..layers import DeconvConv2d, DeconvLinear
from .baselines import straightforward
from .provenance import provenance
from .step_times import as_trained, network, networks, quietly, time_steps

__all__ = ["CASES", "TOLERANCES", "check", "compare_layer", "compile_step", "find_waits"]

# Kind of layer, its sizes and options, and the shape of its input. Every batch is measured, to be compared.
CASES: dict[str, tuple[Any, tuple[int, ...], dict[str, Any], tuple[int, ...]]] = {
    "one block": (DeconvConv2d, (32, 16, 3), {"padding": 1}, (8, 32, 24, 24)),
    "two blocks": (DeconvConv2d, (128, 16, 3), {"padding": 1}, (16, 128, 24, 24)),
    "1x1": (DeconvConv2d, (32, 16, 1), {}, (8, 32, 24, 24)),
    "recommended": (DeconvConv2d, (64, 16, 3), {"padding": 1, **RECOMMENDED, "update_every": 1}, (8, 64, 24, 24)),
    "linear": (DeconvLinear, (64, 10), {}, (256, 64)),
}
# Largest difference, relative to the largest value. Five Newton-Schulz steps and their gradient lose some digits.
TOLERANCES = {"float64": 1e-9, "float32": 2e-3}
BENCHED = ("BN", "BN again", "no normalisation", "ND", "ND, recommended")


def compare_layer(case: str, device: str, dtype: torch.dtype) -> float:
    """How far two training steps and an evaluation on a device are from the published algorithm on the CPU in float64.

    The reference is :func:`.baselines.straightforward`, done plainly and differentiated by autograd; for the linear
    layer, which has none, the layer itself.

    Args:
        case: one of ``CASES``.

    Returns:
        The largest difference of outputs, of the gradients of input and weight, and of the running averages, relative
        to the largest value of each.

    >>> compare_layer("one block", "cpu", torch.float64) < 1e-9
    True
    """
    kind, sizes, options, shape = CASES[case]
    torch.manual_seed(0)
    layer = kind(*sizes, **options).double()
    plainly = straightforward(copy.deepcopy(layer))
    ours = layer.to(device, dtype)
    worst = 0.0
    for _ in range(2):
        x = torch.randn(shape, dtype=torch.float64) @ torch.randn(shape[-1], shape[-1], dtype=torch.float64)
        wanted, found = _step(plainly, x), _step(ours, x.to(device, dtype))
        worst = max(worst, *(_distance(a, b) for a, b in zip(found, wanted, strict=True)))
    wanted, found = plainly.eval()(x), ours.eval()(x.to(device, dtype))
    return max(worst, _distance(found, wanted))


def _step(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Output and gradients of a training step, and the averages after it."""
    x = x.clone().requires_grad_()
    y = layer(x)
    weight: Any = layer.weight
    gradients = torch.autograd.grad(y.square().mean(), (x, weight))
    return [y.detach(), *gradients, layer.get_buffer("running_mean")]


def _distance(found: Tensor, wanted: Tensor) -> float:
    return float((found.detach().cpu().double() - wanted.detach()).abs().max() / wanted.detach().abs().max())


@contextmanager
def _waiting_refused(device: str) -> Iterator[None]:
    """Where a CUDA operator that makes the host wait for the device raises an error."""
    torch.cuda.synchronize(device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def find_waits(device: str) -> dict[str, str]:
    """The layers of ``CASES`` whose training step makes the host wait for a CUDA device, and where; none on a CPU.

    >>> find_waits("cpu")
    {}
    """
    waits: dict[str, str] = {}
    if torch.device(device).type != "cuda":
        return waits
    for case, (kind, sizes, options, shape) in CASES.items():
        layer, x = kind(*sizes, **options).to(device), torch.randn(shape, device=device)
        try:
            with _waiting_refused(device):
                layer(x).square().mean().backward()
        except RuntimeError as error:
            waits[case] = str(error).splitlines()[0]
    return waits


def compile_step(device: str) -> float:
    """Difference of the loss of a compiled training step from that of the same step run as it is, relative to it.

    Raises:
        RuntimeError: of ``torch.compile``, for instance where there is no compiler.

    >>> with torch.compiler.set_stance("force_eager"):  # the same step twice
    ...     compile_step("cpu")
    0.0
    """
    torch.manual_seed(0)
    with quietly():
        eager = as_trained(network("vgg-small", "ND", width=0.25)).to(device)
        x, labels = torch.randn(32, 3, 32, 32, device=device), torch.randint(10, (32,), device=device)
        compiled = torch.compile(copy.deepcopy(eager), fullgraph=True)
        losses = [F.cross_entropy(net(x), labels) for net in (eager, compiled)]
        losses[1].backward()
    return abs(float(losses[1] / losses[0]) - 1)


def check(device: str, *, rounds: int = 3) -> dict[str, Any]:
    """Everything of this module, as one record with device, versions and date; about two minutes.

    ``"failed"`` lists what is out of tolerance; empty where all is well. A step that cannot be compiled is no failure:
    why stands under ``"compiled"``.

    >>> with torch.compiler.set_stance("force_eager"):  # as it is, which takes seconds
    ...     check("cpu", rounds=1)["failed"]
    []
    """
    differences = {
        f"{case}, {name}": compare_layer(case, device, getattr(torch, name)) for name in TOLERANCES for case in CASES
    }
    failed = [name for name, far in differences.items() if not far <= TOLERANCES[name.rpartition(" ")[2]]]
    waits = find_waits(device)
    compiled: float | str
    try:
        compiled = compile_step(device)
    except Exception as error:  # torch.compile raises what its many parts raise
        compiled = f"not run: {type(error).__name__}: {error}".splitlines()[0]
    else:
        failed += ["compiled"] * (not compiled <= TOLERANCES["float32"])
    made = networks("vgg-small")
    steps = time_steps({kind: made[kind] for kind in BENCHED}, rounds=rounds, device=device)
    return {
        "what": "check",
        "differences": differences,
        "waits": waits,
        "compiled": compiled,
        "seconds": steps["seconds"],
        "failed": failed + [f"{case} waits" for case in waits],
        **provenance(device),
    }
