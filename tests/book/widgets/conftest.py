"""A book of one page for each widget, and photographs for those that take the reader's own."""

import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import execute
import pytest
import yaml
from contents import ROOT
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from mounts import WIDGETS, wait
from notebooks import Book
from PIL import Image

from ndlib.pictures import photographs

PAGE = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# Widgets

```{{code-cell}} ipython3
from ndlib.bookwork import plotting
from ndlib.bookwork.widgets import {widget}

plotting.use_style()
{widget}()
```
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A book of one page for each widget and one without any, built with the settings of the book."""
    root = tmp_path_factory.mktemp("widgets")
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    extensions = config["sphinx"]["local_extensions"]
    config["sphinx"]["local_extensions"] = {name: str(ROOT / folder) for name, folder in extensions.items()}
    config["bibtex_bibfiles"] = [str(ROOT / file) for file in config["bibtex_bibfiles"]]
    (root / "_config.yml").write_text(yaml.safe_dump(config))
    (root / "plain.md").write_text("# A page without widgets\n")
    cells = [PAGE.format(widget=widget.__name__).split("\n\n", 2) for widget in WIDGETS.values()]
    (root / "both.md").write_text("\n\n".join([*cells[0], *(cell[2] for cell in cells[1:])]))
    for name, widget in WIDGETS.items():
        (root / f"{name}.md").write_text(PAGE.format(widget=widget.__name__))
    pages = "".join(f"  - file: {name}\n" for name in ["both", *WIDGETS])
    (root / "_toc.yml").write_text(f"format: jb-book\nroot: plain\nchapters:\n{pages}")
    execute_at_once(root, ["both", *WIDGETS])
    build = [str(Path(sys.executable).with_name("jupyter-book")), "build", "-W", "-n", "--keep-going", str(root)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return root / "_build" / "html"


def execute_at_once(root, pages):
    """Fills the cache of the book from one kernel that runs all widgets: one for each page would take a minute."""
    book, cache = Book(root), get_cache(str(root / execute.CACHE))
    both = execute.source_notebook(book, "both")
    data = execute.execute(both, ROOT, 300)
    outputs = {cell.source: cell.outputs for cell in both.cells if cell.cell_type == "code"}
    for page in pages:
        notebook = execute.source_notebook(book, page)
        notebook.metadata["widgets"] = both.metadata["widgets"]
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.update(outputs=outputs[cell.source], execution_count=1)
        cache.cache_notebook_bundle(CacheBundleIn(notebook, page, data=data), check_validity=False)


@pytest.fixture(scope="session")
def own(site):
    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(site))

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def started(visit, own):
    """Opens the page of a widget and waits until it has drawn."""

    def start(name, **options):
        if name in ("live-race", "descent"):
            options.setdefault("reduced_motion", "reduce")  # it begins when a test wants it to
        visited = visit(f"{own}/{name}.html", own, **options)
        wait(visited.page, name)
        return visited

    return start


@pytest.fixture
def phone(telephone, own):
    """Opens the page of a widget on a telephone and waits until it has drawn."""

    def start(name, **options):
        if name in ("live-race", "descent"):
            options.setdefault("reduced_motion", "reduce")
        page = telephone(f"{own}/{name}.html", **options)
        wait(page, name)
        return page

    return start


@pytest.fixture
def photograph(tmp_path):
    """A small part of a photograph, as a file and as the tensor that it holds."""
    pixels = (photographs.photograph("cat")[:, 60:180, 100:280] * 255).round().byte()
    file = tmp_path / "cat.png"
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file)
    return file, pixels.double() / 255
