"""Sphinx extension: tables of what was recorded, made from the records themselves each time that the book is built.

``{recorded-runs}`` lists the ledgers of ``data/results/`` with the sweeps that made them, ``{recorded-benchmarks}``
the measurements of ``data/benchmark.jsonl``, ``{executed-chapters}`` the chapters with their figures, files, time and
memory, as the cache of their execution has them. A plain page can have them: no kernel runs. The role
``{measured}`SWA; no averaging; accuracy` `` is a number of ``data/results/tool-orders.json``: its mean over the seeds,
and the smallest and the largest.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import execute
from docutils import nodes
from docutils.statemachine import StringList
from jupyter_cache import get_cache
from notebooks import Book
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

from ndlib.experiments import benchmark, ledger, runs
from ndlib.experiments.settings import Settings


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def listed(values: Iterable[Any], most: int = 3) -> str:
    """The different values, each once; of many values the first few and how many more there are."""
    different = list(dict.fromkeys(values))
    more = f", {len(different) - most} more" if len(different) > most else ""
    return ", ".join(str(value) for value in different[:most]) + more


def span(numbers: Iterable[int]) -> str:
    low, high = min(numbers := list(numbers)), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def readers(book: Book, file: str) -> list[str]:
    """The pages whose code reads a file, in the order of the book."""
    return [page for page, text in book.sources.items() if re.search(rf'"(?:results/)?{re.escape(file)}"', text)]


def images(settings: Settings) -> str:
    """How many images a run of a sweep trains on, and which data set they come from."""
    number = "all" if settings.train_images is None else f"{settings.train_images:,}"
    return f"{ledger.display_name(settings.dataset)} ({number})"


def recorded(settings: Settings, records: list[ledger.Record]) -> bool:
    """Whether a ledger has a run, as ``runs.find_record`` tells it, without the data set, which a build may lack."""
    known = {key: value for key, value in settings.configuration().items() if value is not None}
    return bool(ledger.select(records, **known))


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def runs_table(root: Path) -> list[str]:
    """A row for each sweep, and for each ledger without a sweep: runs, data, time, device, pages that read it."""
    book, results, sweeps = Book(root), root / "data" / "results", root / "data" / "sweeps"
    lines = [row("name", "runs", "trained on", "epochs", "time", "device", "shown in"), row(*["---"] * 7)]
    for name in sorted({file.stem for file in (*results.glob("*.jsonl"), *sweeps.glob("*.toml"))}):
        ledger_file, sweep_file = results / f"{name}.jsonl", sweeps / f"{name}.toml"
        planned = runs.read_sweep(sweep_file) if sweep_file.exists() else []
        records = ledger.read(ledger_file) if ledger_file.exists() else []
        if planned:
            trained = listed(images(settings) for settings in planned)
            epochs = span(settings.epochs for settings in planned)
            number = f"{sum(recorded(settings, records) for settings in planned)} of {len(planned)}"
        else:
            trained = listed(f"{ledger.display_name(r['dataset'])} ({r['train_images']:,})" for r in records)
            epochs, number = span(r["epochs"] for r in records), str(len(records))
        seconds = sum(r["train_seconds"] + r["test_seconds"] for r in records)
        shown = ", ".join(f"{{doc}}`/{page}`" for page in readers(book, f"{name}.jsonl"))
        device = listed(r["device"] for r in records)
        lines.append(row(f"`{name}`", number, trained, epochs, duration(seconds) if records else "", device, shown))
    return lines


def chapters_table(root: Path) -> list[str]:
    """A row for each chapter: its figures, the files it reads, and time and memory of its last execution."""
    book, cache = Book(root), get_cache(str(root / execute.CACHE))
    data = root / "data"
    carried = sorted(
        str(file.relative_to(data)) for file in data.rglob("*") if file.suffix in (".jsonl", ".json", ".npz", ".csv")
    )
    lines = [row("chapter", "figures", "time", "memory", "reads from data/"), row(*["---"] * 5)]
    for page in book.chapters:
        text = book.sources[page]
        names = re.findall(r"^ +name: (fig-[\w-]+)$", text, re.MULTILINE)
        ends = [names[0], names[-1]] if page in book.numbers else []  # other pages' figures have no numbers
        figures = " to ".join(f"{{numref}}`{{number}} <{name}>`" for name in ends)
        files = [file for file in carried if Path(file).name in text]
        record = execute.record_of(cache, execute.source_notebook(book, page))
        taken = ["not executed", ""]
        if record is not None:
            taken = [duration(record.data["execution_seconds"]), f"{record.data['peak_bytes'] / 2**20:,.0f} MiB"]
        lines.append(row(f"{{doc}}`/{page}`", figures, *taken, ", ".join(f"`{file}`" for file in files)))
    return lines


def benchmark_table(root: Path) -> list[str]:
    """A row for each network: the newest measurement of a training step."""
    file = root / "data" / "benchmark.jsonl"
    lines = [row("network", "batch", "memory, BN", "memory, ND", "device", "command"), row(*["---"] * 6)]
    for arch in dict.fromkeys(re.findall(r'"arch": "([\w-]+)"', file.read_text())):
        record = benchmark.latest(file, "step", arch)
        memory = [f"{record['bytes'][method] / 2**20:.0f} MiB" for method in ("BN", "ND")]
        lines.append(
            row(
                ledger.display_name(arch),
                str(record["batch_size"]),
                *memory,
                record["device"],
                f"`{record['command']}`",
            )
        )
    return lines


class Table(SphinxDirective):
    """The table that the directive's name asks for."""

    def run(self) -> list[nodes.Node]:
        root = Path(self.env.srcdir)
        self.env.note_reread()  # the records may have changed, or a chapter may have been executed again
        lines = TABLES[self.name](root)
        container = nodes.container(classes=["recorded"])
        self.state.nested_parse(StringList(lines), self.content_offset, container)
        return [container]


TABLES = {
    "executed-chapters": chapters_table,
    "recorded-runs": runs_table,
    "recorded-benchmarks": benchmark_table,
}


class Measured(SphinxRole):
    """A number that was measured: tool, order, what, and how many digits to show."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        self.env.note_reread()
        runs = json.loads((Path(self.env.srcdir) / "data" / "results" / "tool-orders.json").read_text())["runs"]
        return [nodes.Text(measured(runs, *self.text.split("; ")))], []


def measured(runs: list[dict[str, Any]], tool: str, order: str, what: str = "accuracy", digits: str = "1") -> str:
    values = [run[what] for run in runs if (run["tool"], run["order"]) == (tool, order)]
    if not values:
        raise ValueError(f"no run of {tool!r} in the order {order!r}")
    low, mean, high = (f"{value:.{digits}f}" for value in (min(values), statistics.mean(values), max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"


def setup(app: Sphinx) -> dict[str, bool]:
    for name in TABLES:
        app.add_directive(name, Table)
    app.add_role("measured", Measured())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
