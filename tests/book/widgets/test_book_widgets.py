"""The widgets of the built book."""

import gzip
import re

import pytest
from contents import HTML, PAGES
from mounts import BUDGET


def mounts():
    for page in PAGES:
        file = HTML / f"{page}.html"
        if file.exists():
            for name in sorted(set(re.findall(r'data-widget="([\w-]+)"', file.read_text()))):
                yield page, name


@pytest.mark.parametrize(("page", "name"), [*mounts()])
def test_widgets_of_the_book(visit, address, page, name):
    visited = visit(f"{address}/{page}.html", address, width=360)
    visited.page.locator(f'[data-widget="{name}"]').first.scroll_into_view_if_needed()
    visited.page.locator(f'[data-widget="{name}"][data-ready]').first.wait_for()
    assert visited.problems == []
    assert visited.page.evaluate("document.documentElement.scrollWidth") <= 360
    text = (HTML / f"{page}.html").read_text()
    own = ["widget-host.js", *(f"widget-{n}.{end}" for p, n in mounts() if p == page for end in ("js", "css"))]
    weight = sum(len(gzip.compress((HTML / "_static" / file).read_bytes())) for file in own)
    assert weight + len(gzip.compress(text.encode())) < BUDGET
