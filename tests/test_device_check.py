"""The check of a device finds what is wrong with it."""

import json

import pytest
import torch

from ndlib import cli
from ndlib._core import roots
from ndlib.experiments import device_check

pytestmark = pytest.mark.filterwarnings("ignore:.*rows for a covariance")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", device_check.CASES)
def test_the_layers_compute_the_published_algorithm_here(case, dtype):
    assert device_check.compare_layer(case, "cpu", getattr(torch, dtype)) <= device_check.TOLERANCES[dtype]


def test_a_root_that_is_off_by_a_hundredth_is_found(monkeypatch):
    right = roots._RootByProducts.forward
    monkeypatch.setattr(roots._RootByProducts, "forward", lambda ctx, a, c: 1.01 * right(ctx, a, c))
    monkeypatch.setattr(roots, "EIGH_FROM", 10**6)
    assert device_check.compare_layer("one block", "cpu", torch.float32) > device_check.TOLERANCES["float32"]


def test_the_command_prints_a_record_and_fails_where_something_is_off(monkeypatch, capsys):
    monkeypatch.setattr(device_check, "compile_step", lambda device: 0.5)
    monkeypatch.setattr(device_check, "time_steps", lambda made, **_: {"seconds": dict.fromkeys(made, (1.0, 1.0, 1.0))})
    assert cli.main(["check", "--rounds", "1"]) == 1
    printed = capsys.readouterr()
    record = json.loads(printed.out.splitlines()[-1])
    assert record["failed"] == ["compiled"] and record["device"].startswith("cpu") and record["waits"] == {}
    assert list(record["seconds"]) == list(device_check.BENCHED) and "out of tolerance: compiled" in printed.err


def test_a_compiler_that_is_missing_is_no_failure(monkeypatch):
    def fails(device):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(device_check, "compile_step", fails)
    monkeypatch.setattr(device_check, "time_steps", lambda made, **_: {"seconds": {}})
    record = device_check.check("cpu", rounds=1)
    assert record["compiled"] == "not run: RuntimeError: no compiler" and record["failed"] == []
