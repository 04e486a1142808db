"""The first cell of every notebook: plain Python, which installs ndlib beside the torch that is there."""

import ast
import importlib.util
import os
import subprocess
import venv
import zipfile

import notebooks
import pytest
from contents import CHAPTERS, ROOT

BOOK = notebooks.Book(ROOT)


def install_cell():
    return notebooks.published_notebook(BOOK, CHAPTERS[0]).cells[1].source


def wheel(folder, name, version, *requires):
    """A package without contents."""
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name.replace('_', '-')}", f"Version: {version}", "Provides-Extra: book"]
    lines += [f"Requires-Dist: {other}" for other in requires]
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
        if name == "network_deconvolution":
            file.writestr("ndlib/__init__.py", "")


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A notebook service: an index of packages, and an environment in which none of them is installed."""
    folder = tmp_path_factory.mktemp("service")
    index = folder / "index"
    index.mkdir()
    for torch, vision in (("2.8.0", "0.23.0"), ("2.9.1", "0.24.1"), ("2.14.1", "0.29.1")):
        wheel(index, "torch", torch)
        wheel(index, "torchvision", vision, f"torch=={torch}")
    wheel(index, "torch", "2.9.1+cu126")
    needs = ["torch>=2.9", 'torchvision>=0.24; extra == "book"']
    wheel(index, "network_deconvolution", "0.1.0", *needs)
    venv.create(folder / "venv", with_pip=True)
    # Nothing of this machine's settings: pip sees the index alone.
    settings = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_CONFIG_FILE": os.devnull}
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **settings}

    def run(*arguments):
        python = folder / "venv" / "bin" / "python"
        return subprocess.run([python, *arguments], cwd=folder, env=environment, capture_output=True, text=True)

    return run


def versions(service):
    listed = service("-m", "pip", "list", "--format", "freeze").stdout
    return dict(line.split("==") for line in listed.splitlines())


@pytest.fixture
def first_cell(service):
    """Runs the first cell where some packages are installed; the address of ndlib becomes its name in the index."""
    names = ("torch", "torchvision", "network-deconvolution")

    def run(*installed):
        service("-m", "pip", "uninstall", "--yes", "--quiet", *names)
        if installed:
            wheels = [f"index/{package}-py3-none-any.whl" for package in installed]
            assert service("-m", "pip", "install", "--quiet", "--no-deps", *wheels).returncode == 0
        source = install_cell()
        assert f'wanted = "{BOOK.requirement}"' in source
        done = service("-c", source.replace(BOOK.requirement, BOOK.requirement.split(" @ ")[0]) + "\nimport ndlib\n")
        found = versions(service)
        return done, {name: found.get(name) for name in names}

    return run


@pytest.mark.parametrize(
    ("installed", "torch", "torchvision"),
    [
        (["torch-2.9.1", "torchvision-0.24.1"], "2.9.1", "0.24.1"),
        (["torch-2.9.1"], "2.9.1", "0.24.1"),
        (["torch-2.9.1+cu126"], "2.9.1+cu126", "0.24.1"),
        ([], "2.14.1", "0.29.1"),
    ],
)
def test_first_cell_keeps_the_torch_that_is_there(first_cell, installed, torch, torchvision):
    done, found = first_cell(*installed)
    assert done.returncode == 0, done.stderr
    assert found == {"torch": torch, "torchvision": torchvision, "network-deconvolution": "0.1.0"}


def test_first_cell_says_why_it_cannot_install_beside_a_torch_that_is_too_old(first_cell):
    done, found = first_cell("torch-2.8.0", "torchvision-0.23.0")
    assert done.returncode == 1 and "ImportError: ndlib was not installed" in done.stderr
    assert "torch>=2.9" in done.stderr
    assert found == {"torch": "2.8.0", "torchvision": "0.23.0", "network-deconvolution": None}


def test_first_cell_does_nothing_where_ndlib_is_installed(monkeypatch):
    source = install_cell()
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: pytest.fail("pip was called"))
    exec(source, {})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(pytest.fail.Exception, match="pip was called"):
        exec(source, {})


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_cell_is_plain_python(name):
    """So that a script exported from a notebook runs, and marimo can read it: no magics, no commands of a shell."""
    for cell in notebooks.published_notebook(BOOK, name).cells:
        if cell.cell_type == "code":
            ast.parse(cell.source)
