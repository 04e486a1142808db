"""Run published notebooks in the environment of a notebook service, each alone, and say how much memory each took.

python .ci/launch.py ENVIRONMENT NOTEBOOK ...       the environment has ndlib from the wheel, and ipykernel
"""

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "book" / "_ext"))

import execute
import nbformat

LIMIT = 2 * 2**30  # bytes that Binder gives


def main(environment: str, *files: str) -> int:
    prefix = Path(environment).resolve()
    install = ["-m", "ipykernel", "install", "--prefix", str(prefix), "--name", "service"]
    subprocess.run([prefix / "bin" / "python", *install], check=True, capture_output=True)
    os.environ["JUPYTER_PATH"] = str(prefix / "share" / "jupyter")
    failed = 0
    for file in map(Path, files):
        notebook = nbformat.read(file, as_version=4)
        notebook.metadata.kernelspec.name = "service"
        try:
            data = execute.execute(notebook, prefix / "nothing", timeout=1800)
        except execute.nbclient.exceptions.CellExecutionError as error:
            print(f"{file.stem}: failed\n{error}", flush=True)
            failed += 1
            continue
        fits = data["peak_bytes"] < LIMIT and str(prefix) in data["ndlib"]
        failed += not fits
        print(f"{file.stem}: {data['execution_seconds']:.0f} s, {data['peak_bytes'] / 2**20:.0f} MiB", flush=True)
    print(f"{len(files) - failed} passed, {failed} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
