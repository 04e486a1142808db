"""The widgets of the built book."""

import gzip

import pytest
from contents import HTML, WITH_WIDGETS
from mounts import BUDGET
from visits import themes, visits


@themes("light")
@visits(360, pages=WITH_WIDGETS)
def test_widgets_of_the_book_start_and_fit(visited, with_widgets, theme):
    page = visited.show(theme)
    ready = page.locator(".nd-mount[data-ready]").evaluate_all("all => all.map(m => m.dataset.widget)")
    assert sorted(set(ready)) == WITH_WIDGETS[visited.name]
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("name", WITH_WIDGETS)
def test_pages_with_widgets_are_light(name):
    page = HTML / f"{name}.html"
    own = ["widget-host.js", *(f"widget-{n}.{end}" for n in WITH_WIDGETS[name] for end in ("js", "css"))]
    weight = sum(len(gzip.compress(file.read_bytes())) for file in (page, *(HTML / "_static" / f for f in own)))
    assert weight < BUDGET
