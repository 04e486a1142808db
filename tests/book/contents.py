"""What the book consists of, read from its table of contents."""

import re
import sys
from functools import cache
from pathlib import Path

import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"
sys.path.insert(0, str(ROOT / "book" / "_ext"))  # execute and notebooks, which are tested here


def pages_of_toc():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


PAGES = pages_of_toc()
EVERY_PAGE = [*PAGES, "search", "genindex", "py-modindex"]
CHAPTERS = [page for page in PAGES if re.search(r"^kernelspec:", (ROOT / f"{page}.md").read_text(), re.MULTILINE)]


def widgets_of_pages():
    built = {page: file.read_text() for page in PAGES if (file := HTML / f"{page}.html").exists()}
    found = {page: sorted(set(re.findall(r'data-widget="([\w-]+)"', text))) for page, text in built.items()}
    return {page: names for page, names in found.items() if names}


WITH_WIDGETS = widgets_of_pages()


@cache
def html(name):
    """A page as it was built."""
    return BeautifulSoup((HTML / f"{name}.html").read_text(), "html.parser")
