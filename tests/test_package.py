"""The package: what it needs, what it carries, and that facts stand in one place."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import yaml

import ndlib

ROOT = Path(__file__).parent.parent

BLOCKED = """
import sys, time
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in "torchvision matplotlib skimage sklearn scipy anywidget PIL tqdm".split():
            raise ImportError(f"{name} is blocked")
import torch
sys.meta_path.insert(0, Blocked())
start = time.perf_counter()
import ndlib
from ndlib import DeconvConv2d, DeconvLinear
DeconvConv2d(3, 8, 3)(torch.randn(8, 3, 16, 16))
print(time.perf_counter() - start)
"""


def test_import_of_the_method_loads_torch_alone():
    done = subprocess.run([sys.executable, "-W", "error", "-c", BLOCKED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 10  # seconds, on a busy machine


def test_wheel_carries_the_data(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("network_deconvolution-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    shared = {f"ndlib/_shared/{p.relative_to(ROOT / 'data')}" for p in (ROOT / "data").rglob("*") if p.is_file()}
    assert shared <= names
    assert "ndlib/py.typed" in names
    assert not any(n.startswith(("tests", "book")) for n in names)

    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    probe = "import ndlib; print(ndlib.__file__, ndlib.files.path('published/table2_imagenet.csv'))"
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=tmp_path, env={"PYTHONPATH": str(site)}, capture_output=True, text=True
    )
    assert done.stdout.split() == [
        str(site / "ndlib/__init__.py"),
        str(site / "ndlib/_shared/published/table2_imagenet.csv"),
    ], done.stderr


def tracked():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    files = listed.stdout.splitlines() if listed.returncode == 0 else []
    return [ROOT / f for f in files if (ROOT / f).is_file()]


def test_public_address_stands_in_one_place():
    address = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"].removeprefix(
        "https://github.com/"
    )
    found = [f.relative_to(ROOT) for f in tracked() if address in f.read_text(errors="ignore")]
    assert found == [Path("_config.yml")]


def test_version_is_the_same_in_package_and_citation():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == ndlib.__version__


def declared(*extras):
    """What the package says it needs, each with its lowest version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = project["dependencies"] + [need for extra in extras for need in project["optional-dependencies"][extra]]
    return dict(re.fullmatch(r"([\w-]+)>=([\d.]+)", need).groups() for need in needs)


def test_requirements_name_what_the_book_imports_with_the_same_lowest_versions():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    named = dict(re.match(r"([\w-]+)(?:>=([\d.]+))?", line).groups() for line in lines if line and line[0] != "#")
    assert {name: version for name, version in declared("book").items() if name != "numpy"}.items() <= named.items()
    assert {"jupyter-book", "torch", "torchvision", "matplotlib", "ipywidgets", "scipy"} <= named.keys()


@pytest.mark.parametrize(("version", "enough"), [("2.8.9+cu126", False), ("1.13.1", False), ("2.10.0a0+git1", True)])
def test_import_says_that_torch_is_too_old(version, enough, monkeypatch):
    known = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version if name == "torch" else known(name))
    with nullcontext() if enough else pytest.raises(ImportError) as error:
        importlib.reload(ndlib)
    if not enough:
        wanted = declared()["torch"]
        assert (
            str(error.value) == f"ndlib needs torch {wanted} or newer, and torch {version} is installed: upgrade torch"
        )


def test_package_attributes_import_every_module():
    for module in Path(ndlib.__file__).parent.iterdir():
        if not module.name.startswith("_") and (module.suffix == ".py" or (module / "__init__.py").exists()):
            assert getattr(ndlib, module.stem).__name__ == f"ndlib.{module.stem}"


@pytest.mark.filterwarnings("ignore:.*rows for a covariance")
def test_readme_code_runs():
    """On one batch of noise."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names = {"loader": [(torch.randn(8, 3, 64, 64), torch.arange(8))]}
    exec(code, names)
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(names["plain"](x), names["model"](x), rtol=1e-3, atol=1e-3)
    assert len((ROOT / "README.md").read_text().splitlines()) <= 60  # one screen or two, not a manual
