"""What a page costs its reader: bytes before it is there, and places lost while it moves."""

import gzip
from pathlib import Path
from urllib.parse import unquote, urlsplit

import offline
import pytest
from contents import HTML, PAGES, WITH_WIDGETS, html
from visits import FIRST_WIDTH, themes, visits

BYTES = 850_000  # of a first visit, compressed; 385,000 of them are MathJax and its fonts
WITHOUT_FORMULAS = 465_000
WELCOME = 450_000  # of the page that most readers begin with, and that many see on a telephone
SHIFT = 0.1  # of the layout, cumulative, which the web calls good
COMPRESSED = (".woff", ".woff2", ".png", ".jpg", ".jpeg", ".webp")


def weight(file):
    content = file.read_bytes()
    return len(content) if file.suffix in COMPRESSED else len(gzip.compress(content))


def weights_of(files):
    weights = {file: weight(file) for file in files if file.is_file()}
    assert len(weights) > 10
    return weights


def heaviest(weights):
    return sorted(weights.items(), key=lambda item: -item[1])[:5]


@visits(1280, 360)
def test_first_visit_is_within_the_budget(visited):
    loaded = {urlsplit(url).path.lstrip("/") for url in visited.first_loaded}
    weights = weights_of(HTML / path for path in loaded)
    assert HTML / f"{visited.name}.html" in weights
    formulas = any("mathjax" in path for path in loaded)
    assert formulas == bool(html(visited.name).select(".math"))
    most = WELCOME if visited.name == "book/welcome" else BYTES if formulas else WITHOUT_FORMULAS
    assert sum(weights.values()) < most, heaviest(weights)
    assert [path for path in loaded if "fontawesome/" in path] == []  # the icons are in icons.css


def test_welcome_page_is_light_from_the_disk_too(visit):
    page = HTML / "book/welcome.html"
    weights = weights_of(Path(unquote(urlsplit(url).path)) for url in visit(page.as_uri(), "file://").loaded)
    assert page in weights and HTML / "searchindex.js" not in weights  # that is for the page of the search
    assert sum(weights.values()) < WELCOME, heaviest(weights)


def test_search_still_finds(visit, address):
    """Its index is loaded by its own page alone."""
    visited = visit(f"{address}/search.html?q=whitening", address)
    visited.page.locator("#search-results li a").first.wait_for()
    visited.page.wait_for_function("document.querySelector('#search-results').innerText.includes('found')")
    assert visited.problems == []


@visits(1280, 360)
def test_page_hardly_moves_until_it_stands(visited):
    assert visited.first_shift < SHIFT


@themes("light")
@visits(1280, 360, pages=WITH_WIDGETS)
def test_widgets_have_their_room_before_they_start(visited, with_widgets, theme):
    rooms = """all => all.filter((m) => m.matches("[data-ready]")).map((m) => {
        const { height } = m.getBoundingClientRect();
        delete m.dataset.ready;
        const room = parseFloat(getComputedStyle(m).minHeight);
        m.dataset.ready = "";
        return [m.dataset.widget, room, height];
    })"""
    found = visited.show(theme, FIRST_WIDTH[visited.width]).locator(".nd-mount").evaluate_all(rooms)
    assert {widget for widget, _, _ in found} == set(WITH_WIDGETS[visited.name])
    assert [each for each in found if not 0.6 * each[2] < each[1] < each[2] + 20] == []


@pytest.mark.parametrize("name", [*PAGES, "search", "genindex"])
def test_every_icon_is_in_the_small_font(name):
    known = " ".join(offline.ICONS.values()).split()
    ours = {f"fa-{icon}" for icon in known} | {"fa-solid", "fa-regular", "fa-brands", "fa-lg"}
    used = {c for icon in html(name).select('[class*="fa-"]') for c in icon["class"] if c.startswith("fa-")}
    assert used <= ours
    if name in PAGES:
        assert "fa-magnifying-glass" in used


def test_small_fonts_have_their_icons(visit, address):
    page = visit(f"{address}/{PAGES[1]}.html", address).page
    loaded = page.evaluate(
        "[...document.fonts].filter(f => f.family.includes('Awesome') && f.status === 'loaded').length"
    )
    assert loaded == 2
    assert (HTML / "_static" / "icons.css").stat().st_size < 12_000
    assert list((HTML / "_static").glob("**/*.map")) == []
