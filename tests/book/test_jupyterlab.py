"""The widgets live in JupyterLab, in a real browser: what Python sets is drawn, what the reader does Python reads."""

import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

CELLS = [
    """
    import torch
    from ndlib.bookwork.widgets import KernelExplorer, NewtonSchulz
    w = NewtonSchulz(spectrum="1/k")
    w
    """,
    """
    w.steps = 20
    """,
    """
    print("steps", w.steps, "weakest gain", round(float(w.gains[-1]), 6))
    """,
    """
    e = KernelExplorer(images=torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(0)), steps=5)
    e
    """,
    """
    print("centre", e.kernel.shape, round(float(e.kernel.max()), 5), e.patch_size)
    """,
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    cells = [nbformat.v4.new_code_cell("\n".join(line[4:] for line in cell.strip("\n").split("\n"))) for cell in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "x"}})
    nbformat.write(notebook, folder / "widgets.ipynb")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("jupyter-lab")), "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--allow-root", "--IdentityProvider.token=", "--ServerApp.port_retries=0", "--expose-app-in-browser"]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(400):
            time.sleep(0.3)
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=1).close()
                break
            except OSError:
                assert server.poll() is None
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


def run_cell(page):
    """Runs the selected cell, waits for its end, and goes to the next one."""
    page.evaluate("jupyterapp.commands.execute('notebook:run-cell-and-select-next')")


def printed(page, cell, start, wanted):
    """The words that a cell prints. It runs again until Python has heard what the reader did: it may come later."""
    for _ in range(50):
        page.locator(".jp-Notebook .jp-Cell").nth(cell).click()
        run_cell(page)
        words = page.locator(".jp-OutputArea-output pre", has_text=start).last.inner_text().split()
        if wanted in words:
            return words
    raise AssertionError(f"{wanted} is not among {words}")


def test_widgets_in_jupyterlab(new_context, lab):
    page = new_context(viewport={"width": 1200, "height": 1400}).new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{lab}/lab/tree/widgets.ipynb?reset")
    page.locator(".jp-Notebook .jp-Cell").first.click()
    page.wait_for_function("jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'")
    run_cell(page)
    widget = page.locator(".nd-newton-schulz")
    widget.wait_for()
    steps = widget.get_by_role("slider", name="steps")
    assert steps.get_attribute("aria-valuetext") == "5"

    # Python sets, the picture follows.
    run_cell(page)
    page.wait_for_function("document.querySelector('.nd-newton-schulz input[type=range]').value === '20'")
    # The reader sets (arrow keys belong to the slider, not to JupyterLab), Python follows.
    steps.focus()
    page.keyboard.press("ArrowLeft")
    _, count, _, _, gain = printed(page, 2, "weakest gain", "19")
    assert count == "19"
    drawn = page.evaluate("Array.from(document.querySelector('.nd-newton-schulz').gains)")
    assert drawn[-1] == pytest.approx(float(gain), rel=1e-4)

    run_cell(page)
    page.wait_for_function("document.querySelector('.nd-kernel-explorer')?.milliseconds > 0")
    size = page.locator(".nd-kernel-explorer").get_by_role("slider", name="patch")
    size.focus()
    page.keyboard.press("ArrowLeft")
    words = printed(page, 4, "centre", "13")
    assert words[1:3] == ["(13,", "13)"] and words[-1] == "13"
    kernel = page.evaluate("Array.from(document.querySelector('.nd-kernel-explorer').kernels[0])")
    assert max(kernel) == pytest.approx(float(words[-2]), rel=1e-4)
    assert errors == []
