"""What the pages may say: no time of their own build, and a verdict for every claim."""

import re

import pytest

from ndlib import files

BOOK = files.path("results").parents[1] / "book"
PAGES = sorted(BOOK.glob("*.md"))
CLOCKS = re.compile(r"perf_counter|process_time|monotonic\(|time\.time\(|timing\.interleaved")


def cells(text):
    return re.findall(r"^```\{code-cell\}.*?^```$", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_page_measures_a_time_that_it_prints(page):
    """Two builds say the same. The one page with a clock reads what it recorded, and measures for a new record only."""
    clocked = [cell for cell in cells(page.read_text()) if CLOCKS.search(cell)]
    if page.stem == "inverse-square-root":
        (cell,) = clocked
        assert "if not RECORD else" in cell and "root-times.json" in cell
        assert page.read_text().count("milliseconds(lambda") == 4  # two in each of the cells that RECORD guards
        assert "if RECORD:" in page.read_text()
    else:
        assert not clocked
        assert 'e["train_seconds"]' not in page.read_text()  # of runs that the page trains itself


def test_every_row_of_the_verdict_page_leads_to_a_section():
    text = (BOOK / "what-holds.md").read_text()
    rows = re.findall(r"^\| \[.*?\]\(#([a-z-]+)\) \| (.+?) \| (.*?) ?\|$", text, flags=re.MULTILINE)
    labels = re.findall(r"^\(([a-z-]+)\)=$", text, flags=re.MULTILINE)
    assert [row[0] for row in rows] == labels and len(rows) == 17
    verdicts = {label: verdict for label, verdict, _ in rows}
    assert verdicts["separate"] == "not separated, not run" and verdicts["because"] == "not shown"
    assert all(evidence for label, _, evidence in rows if label != "separate")


def test_rows_without_a_recommended_arm_say_so():
    text = (BOOK / "what-holds.md").read_text()
    table = text[: text.index("(correlated)=")]
    for label in ("harder", "sparse", "mnist"):
        (row,) = [line for line in table.splitlines() if f"(#{label})" in line]
        assert "published layer only" in row
