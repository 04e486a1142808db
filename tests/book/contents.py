"""What the book consists of, read from its table of contents."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"


def pages_of_toc():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


PAGES = pages_of_toc()
CHAPTERS = [page for page in PAGES if re.search(r"^kernelspec:", (ROOT / f"{page}.md").read_text(), re.MULTILINE)]
