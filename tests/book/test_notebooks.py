"""Every chapter as a notebook: alone, in an empty folder, with ndlib from the wheel and not from the checkout."""

import subprocess
import sys
import zipfile

import jupytext
import nbclient
import nbformat
import pytest
from contents import CHAPTERS, ROOT


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


@pytest.mark.parametrize("name", CHAPTERS)
def test_notebook_runs_alone(name, site, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("NDLIB_DATA", str(tmp_path / "nothing-here"))
    notebook = jupytext.read(ROOT / f"{name}.md")
    probe = f"import ndlib\nassert ndlib.__file__.startswith({str(site)!r}), ndlib.__file__"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(probe))
    empty = tmp_path / "empty"
    empty.mkdir()
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(empty)}}).execute()
    assert list(empty.iterdir()) == []
    assert not (tmp_path / "nothing-here").exists()
    printed = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", ()))
    checks = sum(c.source.count("check(") for c in notebook.cells if c.cell_type == "code")
    assert printed.count("Not answered yet.") == checks
    assert "Warning" not in printed
