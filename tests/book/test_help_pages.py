"""The help pages say what the module and the records say."""

import ast
import json
import re

import execute
import pytest
import records
from contents import ROOT, html
from jupyter_cache import get_cache
from notebooks import Book

from ndlib.experiments import ledger, runs, tool_orders

MESSAGE = re.compile(r"```\{code-block\} text\n(.*?)\n```", re.DOTALL)
GAP = "\0"


def constant(node):
    """A string as the source has it, with a gap for each value that it is told later."""
    if isinstance(node, ast.JoinedStr):
        return "".join(constant(part) for part in node.values)
    if isinstance(node, ast.Constant):
        return re.sub(r"\{\w*\}", GAP, node.value) if isinstance(node.value, str) else GAP
    return GAP


def strings():
    for file in (ROOT / "ndlib").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, (ast.JoinedStr, ast.Constant)):
                yield constant(node)


MESSAGES = MESSAGE.findall((ROOT / "book" / "troubleshooting.md").read_text())


def test_troubleshooting_quotes_messages_of_the_module():
    there = list(strings())
    assert len(MESSAGES) > 15
    for message in MESSAGES:
        parts = [part.strip() for part in message.split("…") if part.strip(" ()")]
        assert any(in_order(parts, text) for text in there), message


def in_order(parts, text):
    at = 0
    for part in parts:
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True


def test_troubleshooting_check_finds_an_unknown_message():
    assert not any(in_order(["block_size=", "does not divide the cake"], text) for text in strings())


def test_reproduce_page_lists_every_sweep_and_ledger():
    table = html("book/reproduce-everything").select(".recorded")[1]
    shown = {cells[0].get_text(): cells for row in table.select("tbody tr") if (cells := row.select("td"))}
    data = ROOT / "data"
    assert set(shown) == {f.stem for f in (*data.glob("results/*.jsonl"), *data.glob("sweeps/*.toml"))}
    for name in ("cheaper-modes", "cifar10"):
        file = data / "results" / f"{name}.jsonl"
        seconds = sum(r["train_seconds"] + r["test_seconds"] for r in ledger.read(file))
        assert shown[name][4].get_text() == records.duration(seconds)
        assert shown[name][6].select("a[href]")
    assert shown["cheaper-modes"][1].get_text() == "35 of 35"


@pytest.mark.parametrize(("seconds", "text"), [(5.4, "5 s"), (89, "89 s"), (120, "2 min"), (5400, "1.5 h")])
def test_durations_are_written_in_seconds_minutes_or_hours(seconds, text):
    assert records.duration(seconds) == text


def test_recorded_runs_are_counted_by_settings():
    (first, *_) = runs.read_sweep(ROOT / "data" / "sweeps" / "cheaper-modes.toml")
    there = ledger.read(ROOT / "data" / "results" / "cheaper-modes.jsonl")
    assert records.recorded(first, there)
    assert not records.recorded(first, ledger.select(there, method="nd"))


def test_provenance_page_has_all_of_the_data_readmes():
    text = re.sub(r"\s+", " ", html("book/provenance").select_one("article").get_text())
    for name in ("README.md", "published/README.md"):
        source = (ROOT / "data" / name).read_text()
        words = re.findall(r"`([^`]+)`", source)
        assert len(words) > 5
        for word in words:
            assert re.sub(r"\s+", " ", word) in text
    assert "CC BY 2.0" in text and "MD5" in text


def test_reproduce_page_lists_chapters_figures_time_and_memory():
    """Figures by their numbers, and time and memory as the cache has them."""
    table = html("book/reproduce-everything").select(".recorded")[0]
    shown = {row.select_one("a")["href"].removesuffix(".html"): row.select("td") for row in table.select("tbody tr")}
    book, cache = Book(ROOT), get_cache(str(ROOT / execute.CACHE))
    assert ["book/" + name for name in shown] == book.chapters
    for page in book.chapters:
        cells = shown[page.removeprefix("book/")]
        record = execute.record_of(cache, execute.source_notebook(book, page))
        assert cells[2].get_text() == records.duration(record.data["execution_seconds"])
        assert cells[3].get_text() == f"{record.data['peak_bytes'] / 2**20:,.0f} MiB"
        if number := book.numbers.get(page):
            drawn = len(html(page).select("article figure[id^=fig-]"))
            assert cells[1].get_text() == f"{number}.1 to {number}.{drawn}"
    assert "results/optimizers.jsonl" in shown["where-the-idea-went"][4].get_text()


def test_measured_numbers_are_means_with_their_range():
    measured = [{"tool": "a", "order": "b", "accuracy": value} for value in (1.0, 2.0, 4.5)]
    assert records.measured(measured, "a", "b") == "2.5 (1.0 to 4.5)"
    assert records.measured(measured[:1], "a", "b", "accuracy", "0") == "1"
    with pytest.raises(ValueError, match="no run of 'a' in the order 'c'"):
        records.measured(measured, "a", "c")


def test_page_beside_other_tools_shows_the_recorded_numbers():
    recorded = json.loads((ROOT / "data" / "results" / "tool-orders.json").read_text())["runs"]
    text = html("book/beside-other-tools").get_text()
    assert f"SWA, measured: {records.measured(recorded, 'SWA', tool_orders.RIGHT['SWA'])} with it" in text
    for order in {run["order"] for run in recorded if run["tool"] == "LoRA"}:
        assert records.measured(recorded, "LoRA", order) in text
