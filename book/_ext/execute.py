"""Execute the chapters that the cache lacks, each alone: a fresh kernel, an empty folder, ndlib from the wheel.

As many chapters run at a time as there are processors, each with one thread: two threads of one chapter would wait for
each other.

python book/_ext/execute.py [CHAPTER ...]       executes the chapters named, or all; a name has no folder and no ending

Jupyter Book does not execute again what it then finds in the cache. Beside each chapter the cache keeps where its
``ndlib`` came from, which files the chapter left in the folder, and how much memory it took; the tests read this.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import nbclient
import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.cache.main import JupyterCacheBase
from myst_nb.core.read import read_myst_markdown_notebook
from notebooks import Book

ROOT = Path(__file__).parents[2]
CACHE = Path("_build/.jupyter_cache")
WHEEL = Path("_build/wheel")  # unpacked

PROBE = """
import json, resource, sys
import ndlib
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1 / 1024)
print(json.dumps({"ndlib": ndlib.__file__, "peak_bytes": int(peak)}))
"""


def unpack_wheel(root: Path, folder: Path) -> None:
    """Build the wheel of ndlib and unpack it, as an installation would."""
    with tempfile.TemporaryDirectory() as temporary:
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", temporary, str(root)]
        done = subprocess.run(build, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"The wheel of ndlib cannot be built:\n{done.stdout}{done.stderr}")
        (wheel,) = Path(temporary).glob("*.whl")
        zipfile.ZipFile(wheel).extractall(folder)


def source_notebook(book: Book, page: str) -> Any:
    """A chapter as Jupyter Book reads it."""
    return read_myst_markdown_notebook(book.sources[page], add_source_map=True, path=book.root / f"{page}.md")


def record_of(cache: JupyterCacheBase, notebook: Any) -> Any:
    """The cache's record of a notebook that this script executed, or None."""
    try:
        record = cache.match_cache_notebook(notebook)
    except KeyError:
        return None
    return record if "ndlib" in record.data else None


def execute(notebook: Any, site: Path, timeout: int) -> dict[str, Any]:
    """Execute a notebook in place; returns its time, its memory, the files it left, and where its ndlib came from."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, nowhere = Path(temporary) / "empty", Path(temporary) / "no-data"
        folder.mkdir()
        environment = os.environ | {"PYTHONPATH": str(site), "NDLIB_DATA": str(nowhere), "IPYTHONDIR": temporary}
        environment["OMP_NUM_THREADS"] = "1"
        notebook.cells.append(nbformat.v4.new_code_cell(PROBE))
        client = nbclient.NotebookClient(
            notebook,
            timeout=timeout,
            resources={"metadata": {"path": str(folder)}},
            record_timing=False,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        )
        began = time.monotonic()
        try:
            client.execute(env=environment)
        finally:
            seconds = time.monotonic() - began
            probe = notebook.cells.pop()
        return {
            "execution_seconds": seconds,
            "left_behind": sorted(file.name for file in folder.iterdir()),
            "data_folder_made": nowhere.exists(),
            # One print can arrive as several outputs.
            **json.loads("".join(output["text"] for output in probe.outputs if output.get("name") == "stdout")),
        }


def main(names: list[str]) -> int:
    book = Book(ROOT)
    cache = get_cache(str(ROOT / CACHE))
    timeout = book.config["execute"]["timeout"]
    chosen = [page for page in book.chapters if not names or Path(page).name in names]
    notebooks = {page: source_notebook(book, page) for page in chosen}
    missing = {page: notebook for page, notebook in notebooks.items() if record_of(cache, notebook) is None}
    if missing and not (ROOT / WHEEL).exists():
        unpack_wheel(ROOT, ROOT / WHEEL)
    failed = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        begun = {pool.submit(execute, notebook, ROOT / WHEEL, timeout): page for page, notebook in missing.items()}
        for done in as_completed(begun):
            page = begun[done]
            try:
                data = done.result()
            except (nbclient.exceptions.CellExecutionError, nbclient.exceptions.CellTimeoutError) as error:
                print(f"{page}: failed\n{error}", flush=True)
                failed.append(page)
                continue
            print(f"{page}: {data['execution_seconds']:.0f} s, {data['peak_bytes'] / 2**20:.0f} MiB", flush=True)
            bundle = CacheBundleIn(missing[page], str(ROOT / f"{page}.md"), data=data)
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
