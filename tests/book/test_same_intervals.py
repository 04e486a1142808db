"""The same difference reads the same on every page."""

import re

import execute
from contents import ROOT
from jupyter_cache import get_cache
from notebooks import Book

NUMBER = r"[+−][\d.]+ \([+−][\d.]+ to [+−][\d.]+\)"  # noqa: RUF001


def said(page):
    """What an executed chapter prints as Markdown."""
    book, cache = Book(ROOT), get_cache(str(ROOT / execute.CACHE))
    notebook = cache.get_cache_bundle(execute.record_of(cache, execute.source_notebook(book, page)).pk).nb
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output["data"].get("text/markdown", "") for output in outputs if "data" in output)


def row(text, start):
    (line,) = {line for line in text.splitlines() if line.startswith(f"| {start} |")}
    return re.findall(NUMBER, line)


def test_the_frozen_first_layer_reads_the_same_in_two_chapters():
    """It once had -3.1 to +11.5 in one and +2.1 to +6.3 in the other, for the same six runs."""
    first = row(said("book/cifar"), "frozen first, BN")[0]
    assert first == row(said("book/where-the-idea-went"), "frozen, then BN minus BN")[0]
    assert first.startswith("+4.2")


def test_deconvolution_beside_each_optimiser_reads_the_same_on_the_verdict_page():
    gains = row(said("book/where-the-idea-went"), "ND minus BN")
    assert len(gains) == 3
    verdicts = said("book/what-holds")
    assert all(gain in verdicts for gain in gains)


def test_twenty_epochs_read_the_same_in_three_chapters():
    costs, verdicts, table = (said(f"book/{name}") for name in ("what-it-costs", "what-holds", "cifar"))
    ((low, high),) = re.findall(r"ND is ahead by 1\.1 points, 95 % interval (\d\.\d) to (\d\.\d)", table)
    assert f"(95 % interval +{low} to +{high}, 3 seeds) ahead after twenty epochs" in verdicts
    (line,) = {line for line in costs.splitlines() if line.startswith("| ND, block 16 | 20 |")}
    assert [f"{float(n.strip('+')):.1f}" for n in re.search(r"\((\S+) to (\S+)\)", line).groups()] == [low, high]
