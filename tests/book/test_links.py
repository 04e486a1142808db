"""Links between the pages lead somewhere, and no markup is left over."""

import re
from functools import cache
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from contents import HTML, PAGES, html


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.targets, self.ids = [], set()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids |= {attributes[k] for k in ("id", "name") if attributes.get(k)}
        self.targets += [attributes[k] for k in ("href", "src") if attributes.get(k)]


@cache
def parsed(file):
    links = Links()
    links.feed(file.read_text())
    return links


@pytest.mark.parametrize("name", [*PAGES, "index", "search", "genindex"])
def test_local_links_and_anchors_exist(name):
    file = HTML / f"{name}.html"
    links = parsed(file)
    for target in links.targets:
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            continue
        goal = (file.parent / unquote(parts.path)).resolve() if parts.path else file
        assert goal.exists(), target
        if parts.fragment and goal.suffix == ".html":
            assert unquote(parts.fragment) in parsed(goal).ids, target


@pytest.mark.parametrize("name", PAGES)
def test_no_markup_is_left_in_what_cells_print(name):
    """Outputs are plain Markdown: a formula or a role of MyST in them would stand on the page as it was typed."""
    for output in html(name).select(".cell_output"):
        text = "".join(part for part in output.strings if part.find_parent(verbatim) is None)
        assert re.findall(r"\$[^$\n]{1,60}\$|\{\w+\}`?|/[\w/]+\.py", text) == []


def verbatim(tag):
    return tag.name in ("pre", "code", "svg", "script", "style") or "math" in tag.get("class", ())
