"""What a page costs its reader: bytes before it is there, and places lost while it moves."""

import gzip
from urllib.parse import urlsplit

import offline
import pytest
from contents import HTML, PAGES, html
from mounts import wait
from test_book_widgets import mounts

BYTES = 850_000  # of a first visit, compressed; 385,000 of them are MathJax and its fonts
WITHOUT_FORMULAS = 400_000
SHIFT = 0.1  # of the layout, cumulative, which the web calls good
COMPRESSED = (".woff", ".woff2", ".png", ".jpg", ".jpeg", ".webp")

RECORD_SHIFTS = """
window.shifted = 0;
new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifted += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""


def weight(file):
    content = file.read_bytes()
    return len(content) if file.suffix in COMPRESSED else len(gzip.compress(content))


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("name", PAGES)
def test_first_visit(browser, address, name, width):
    """What is loaded is within the budget, and the page hardly moves until it stands."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    loaded = set()
    page.on("response", lambda response: loaded.add(urlsplit(response.url).path.lstrip("/")))
    page.add_init_script(RECORD_SHIFTS)
    page.goto(f"{address}/{name}.html", wait_until="load")
    page.evaluate("() => window.MathJax?.startup?.promise")
    page.wait_for_timeout(400)
    assert page.evaluate("window.shifted") < SHIFT
    weights = {path: weight(HTML / path) for path in loaded if (HTML / path).is_file()}
    assert f"{name}.html" in weights and len(weights) > 10
    formulas = any("mathjax" in path for path in weights)
    heaviest = sorted(weights.items(), key=lambda item: -item[1])[:5]
    assert sum(weights.values()) < (BYTES if formulas else WITHOUT_FORMULAS), heaviest
    assert [path for path in loaded if "fontawesome/" in path] == []  # the icons are in icons.css
    context.close()


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize(("name", "widget"), [*mounts()])
def test_widget_has_its_room_before_it_starts(visit, address, name, widget, width):
    page = visit(f"{address}/{name}.html", address, width=width).page
    mount = page.locator(f'[data-widget="{widget}"]').first
    room = mount.evaluate("m => { delete m.dataset.ready; return parseFloat(getComputedStyle(m).minHeight); }")
    mount.evaluate("m => m.querySelector('.nd-still') ?? (m.dataset.ready = '')")
    wait(page, widget)
    page.locator(f'[data-widget="{widget}"][data-ready]').first.wait_for()
    height = mount.bounding_box()["height"]
    assert 0.6 * height < room < height + 20


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
