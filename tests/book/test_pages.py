"""Every page in a real browser, in both themes and on a telephone, with no network but the book itself."""

import gzip
import io
import re

import numpy as np
import pytest
from contents import CHAPTERS, HTML, PAGES, ROOT
from PIL import Image
from visits import settled, themes, visits

BUDGET = 300_000  # bytes of a page's own, compressed: text, figures, photographs


@visits(1280, 360)
def test_formulas_are_typeset(visited):
    page = visited.page
    assert page.locator("mjx-merror").count() == 0
    source = (ROOT / f"{visited.name}.md").read_text()
    if "$" in re.sub(r"```.*?```|`[^`]*`", "", source, flags=re.DOTALL):
        assert page.locator("mjx-container").count() > 0


@visits(1280, 360, pages=CHAPTERS)
def test_figures_are_where_the_source_has_some(visited):
    source = (ROOT / f"{visited.name}.md").read_text()
    assert (visited.page.locator("main svg.figure").count() > 0) == ("name: fig-" in source)


@visits(1280, 360, pages=CHAPTERS)
def test_pages_show_no_markup_or_paths_of_the_build(visited):
    text = visited.page.inner_text("main")
    traces = ("Traceback", "Warning:", "{doc}", "{cite", "{numref", "```", "<Figure", "tensor(nan")
    assert [trace for trace in traces if trace in text] == []


@themes("light", "dark")
@visits(1280, 360)
def test_pages_do_not_scroll_sideways(visited, theme):
    assert visited.show(theme).evaluate("document.documentElement.scrollWidth") <= visited.width


@themes("light", "dark")
@visits(1280, 360)
def test_figures_are_described_and_honest(visited, theme):
    page = visited.show(theme)
    figures = """[...document.querySelectorAll("main img, main svg.figure")]
        .filter(f => f.checkVisibility()).map(f => ({
        html: f.outerHTML.slice(0, 200),
        text: f.getAttribute("alt") || f.getAttribute("aria-label") || "",
        width: f.getBoundingClientRect().width,
        loaded: f.tagName === "svg" || f.naturalWidth > 0,
        filter: getComputedStyle(f).filter,
        letters: f.matches(".wide, .narrow") ? 11 * f.getBoundingClientRect().width / f.viewBox.baseVal.width : null,
    }))"""
    found = page.evaluate(figures)
    assert [figure["html"] for figure in found if len(figure["text"]) <= 20] == []
    assert [f for f in found if f["width"] <= 200 or not f["loaded"] or f["filter"] != "none"] == []
    assert [f for f in found if f["letters"] is not None and f["letters"] <= 8.5] == []  # pixels; drawn for 11
    assert page.locator("main svg style").count() == 0  # it would style more than its own figure


@themes("light", "dark")
@visits(1280, 360)
def test_page_colours_follow_the_theme(visited, theme):
    page = visited.show(theme)
    brightness = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0]")
    ink = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--figure-ink')").strip()
    assert (int(brightness) > 128) == (theme == "light") == (ink == "#333333")


@themes("light", "dark")
def test_coloured_text_of_figures_can_be_read(visit, address, theme):
    page = visit(f"{address}/book/what-it-costs.html", address, theme=theme).page
    colours = """[...document.querySelectorAll("svg.figure g[id*=text_] > g")].map(g => getComputedStyle(g).fill)"""
    mixed = {fill for fill in page.evaluate(colours) if fill.startswith("color(srgb")}
    assert len(mixed) > 3
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3)")
    for fill in mixed:
        text = [float(part) for part in re.findall(r"[\d.]+", fill)][:3]
        assert contrast(text, [int(part) / 255 for part in paper]) > 4.5, fill


def contrast(a, b):
    """As WCAG defines it, of two colours in sRGB between 0 and 1."""
    linear = ([c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour] for colour in (a, b))
    lights = [0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05 for r, g, b in linear]
    return max(lights) / min(lights)


@pytest.mark.parametrize("name", PAGES)
def test_pages_stay_within_their_size(name):
    assert len(gzip.compress((HTML / f"{name}.html").read_bytes())) < BUDGET


def test_pages_open_from_the_disk(visit):
    assert "url=book/welcome.html" in (HTML / "index.html").read_text()
    visited = visit((HTML / "book/welcome.html").as_uri(), "file://")
    assert visited.problems == []
    assert "Network deconvolution" in visited.page.inner_text("h1")
    assert visited.page.locator("main figure svg.figure").count() == 1


def test_code_can_be_unfolded_and_the_theme_changed_by_keyboard(visit, address):
    page = visit(f"{address}/{CHAPTERS[1]}.html", address).page
    summary = page.locator("details summary", has_text="Show the code").first
    summary.focus()
    page.keyboard.press("Enter")
    assert summary.locator("xpath=..").evaluate("d => d.open")
    button = page.locator("button.theme-switch-button").first
    themes = set()
    for _ in range(3):
        button.focus()  # the theme drops the focus after each change
        page.keyboard.press("Enter")
        themes.add(page.evaluate("document.documentElement.dataset.theme"))
    assert themes == {"light", "dark"}


@pytest.fixture
def phone(telephone, address):
    """Opens a page on a telephone."""
    return lambda name, **options: telephone(f"{address}/{name}.html", **options)


def test_no_button_lies_over_the_page_on_a_telephone(phone):
    page = phone("book/welcome")
    for width, shown in ((360, False), (1000, True)):  # wider the theme itself hides it
        page.set_viewport_size({"width": width, "height": 740})
        for place in (3000, 2500):  # the theme shows it to those who scroll up
            page.evaluate(f"scrollTo({{ top: {place}, behavior: 'instant' }})")
            settled(page)
        assert page.locator("#pst-back-to-top").is_visible() == shown


def test_titles_of_the_neighbours_are_whole_on_a_telephone(phone):
    page = phone("book/provenance")
    broken = """all => all.flatMap(({ firstChild: text }) =>
        [...text.data.matchAll(/\\S+/g)].filter(({ 0: word, index }) => {
            const range = document.createRange();
            range.setStart(text, index);
            range.setEnd(text, index + word.length);
            return range.getClientRects().length > 1;
        })).map(String)"""
    titles = page.locator(".prev-next-area .prev-next-title")
    assert titles.count() == 2
    for longest in ("Reproduce everything", "Troubleshooting for everybody", "Internationalisation"):
        titles.evaluate_all("(all, text) => all.forEach((e) => (e.textContent = text))", longest)
        assert titles.evaluate_all(broken) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


@themes("light", "dark")
@pytest.mark.parametrize("wide", ['mjx-container[display="true"]', ".pst-scrollable-table-container"])
def test_an_edge_is_shaded_while_something_is_beyond_it(phone, wide, theme):
    page = phone("book/what-it-costs", color_scheme=theme)
    page.add_style_tag(content=".bd-header-article { display: none !important; }")
    beyond = f"""[...document.querySelectorAll('article {wide}')].find(
        e => e.checkVisibility({{ visibilityProperty: true }}) && e.scrollWidth > e.clientWidth + 80)"""
    box = page.evaluate_handle(beyond).as_element()
    ends = {}
    for place in (0, 40, 9999):
        box.evaluate("(e, place) => (e.scrollLeft = place)", place)
        settled(page)
        pixels = np.asarray(Image.open(io.BytesIO(box.screenshot())).convert("L"), float)
        paper = np.median(pixels)
        # Of a few columns at either edge how far the paper, which is most of them, is from that in the middle.
        ends[place] = [abs(np.median(part) - paper) for part in (pixels[:, :3], pixels[:, -3:])]
    assert ends[0][0] < 15 and ends[0][1] > 30
    assert min(ends[40]) > 30
    assert ends[9999][0] > 30 and ends[9999][1] < 15


def test_tables_are_smaller_on_a_telephone(phone):
    page = phone("book/what-it-costs")
    cell = page.locator("article .table td").first
    assert cell.evaluate("e => parseFloat(getComputedStyle(e).fontSize)") < 14
    assert cell.evaluate("e => parseFloat(getComputedStyle(e).paddingLeft)") < 6


def test_code_is_unfolded_by_a_finger(phone):
    page = phone(CHAPTERS[1])
    summary = page.locator("details summary", has_text="Show the code").first
    assert summary.bounding_box()["height"] >= 40
    summary.tap()
    assert summary.locator("xpath=..").evaluate("d => d.open")
