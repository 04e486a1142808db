"""The chapters' sources: the habits that every chapter keeps."""

import re

import pytest
from contents import CHAPTERS, ROOT

WIDEST = 76  # columns of code that fit beside each other in the text column
CELL = re.compile(r"^```\{code-cell\} ipython3\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def cells(name):
    """Options and code of each code cell."""
    for match in CELL.finditer((ROOT / f"{name}.md").read_text()):
        content = match.group(1)
        if content.startswith("---"):
            _, options, code = content.split("---\n", 2)
        else:
            lines = content.split("\n")
            options = "\n".join(line for line in lines if line.startswith(":"))
            code = "\n".join(line for line in lines if not line.startswith(":"))
        yield options, code


@pytest.mark.parametrize("name", CHAPTERS)
def test_code_that_is_shown_fits_the_column(name):
    for options, code in cells(name):
        if not re.search(r"(hide|remove)-(input|cell)", options):
            assert [line for line in code.split("\n") if len(line) > WIDEST] == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_figures_have_alt_text_caption_and_name(name):
    for options, code in cells(name):
        if re.search(r"plotting\.panels|plt\.subplots", code):
            assert re.search(r"alt: .{40}", options), code
            assert re.search(r"caption: ", options), code
            assert re.search(r"name: fig-", options), code


@pytest.mark.parametrize("name", [c for c in CHAPTERS if not c.endswith(("welcome", "what-holds", "check-your-gpu"))])
def test_chapters_have_their_parts(name):
    text = (ROOT / f"{name}.md").read_text()
    parts = ["```{admonition} In this chapter", "**You need**", "**Time**", "```{admonition} What could go wrong"]
    parts += ["## Exercises", "## Summary", "```{admonition} Where the numbers come from"]
    positions = [text.index(part) for part in parts]
    assert positions == sorted(positions)
    assert text.count("Show the solution") >= 2
