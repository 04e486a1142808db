"""The documentation: every public name has an example, and every example gives what it says."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
import torch

import ndlib

MODULES = ["ndlib", *(module.name for module in pkgutil.walk_packages(ndlib.__path__, "ndlib."))]
NOT_PUBLIC = "ndlib._core"  # what the layers are built from


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say_and_leave_nothing_behind(name, tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("NDLIB_DATA", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS).failed == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith(NOT_PUBLIC) and "._" not in name])
def test_every_public_name_has_an_example(name):
    module = importlib.import_module(name)
    if not vars(module).keys() & {"__all__", "__getattr__"}:  # it holds nothing
        assert not any(inspect.isfunction(value) or inspect.isclass(value) for value in vars(module).values()) or (
            name == "ndlib.__main__"
        )
        return
    made_here = [getattr(module, public, None) for public in module.__all__]  # a package names its modules too
    made_here = [one for one in made_here if getattr(one, "__module__", None) == name and callable(one)]
    assert [one.__name__ for one in made_here if ">>>" not in (one.__doc__ or "")] == []
