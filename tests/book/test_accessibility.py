"""Pages for everybody: axe-core finds no fault, headings have their order, and the keyboard reaches everything."""

import itertools
import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from contents import CHAPTERS, EVERY_PAGE, PAGES, html
from visits import themes, visits

# Colours come from the theme and are the same on all pages; these hold everything that has some: tables, code, notes,
# figures, formulas, terms. Colours are the slowest of axe's rules.
DARK_TOO = ("welcome", "segmentation", "glossary", "troubleshooting", "api", "search")


@themes("light")
@visits(1280, pages=EVERY_PAGE)
def test_axe_finds_nothing_serious(visited, theme):
    """By any of its rules. Widgets have their own test."""
    assert serious(visited.show(theme)) == []


@themes("dark")
@visits(1280, pages=[name for name in EVERY_PAGE if name.endswith(DARK_TOO)])
def test_axe_finds_nothing_serious_that_a_theme_can_break(visited, theme):
    assert serious(visited.show(theme), {"runOnly": ["color-contrast", "link-in-text-block"]}) == []


# Of a drawing axe sees what it is called. Its lines, without text or role, say nothing, and are half of all elements.
TAKE_LINES = """window.lines = [...document.querySelectorAll("svg.figure")]
    .filter((figure) => !figure.querySelector("text, title, desc, a, foreignObject, [role], [tabindex], [aria-label]"))
    .map((figure) => [figure, [...figure.childNodes]]);
    for (const [figure] of lines) figure.replaceChildren();"""
GIVE_LINES = "for (const [figure, children] of lines) figure.replaceChildren(...children);"


def serious(page, options=None):
    page.evaluate(TAKE_LINES)
    brief = {"resultTypes": ["violations"], "preload": False}  # what is right fills megabytes, and half of the time
    found = Axe().run(page, options={**brief, **(options or {})}).response
    page.evaluate(GIVE_LINES)
    assert found["passes"]  # it looked at something
    return [
        f"{violation['impact']}: {violation['id']}, {violation['help']}: {node['html'][:200]}"
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def test_axe_finds_a_fault_put_in_on_purpose(visit, address):
    page = visit(f"{address}/{PAGES[-1]}.html", address).page
    page.evaluate("document.querySelector('main').insertAdjacentHTML('beforeend', '<p><img src=\"x.png\"></p>')")
    page.add_style_tag(content="h1 { color: #cccccc !important; }")
    found = " ".join(serious(page))
    assert "image-alt" in found and "color-contrast" in found


@pytest.mark.parametrize("name", PAGES)
def test_headings_in_order(name):
    """One title; below it no level is left out."""
    levels = [int(heading.name[1]) for heading in html(name).select("article :is(h1, h2, h3, h4, h5, h6)")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), levels


FOCUSED = """() => {
    const e = document.activeElement;
    if (!e || e === document.body) return null;
    e.number ??= (window.count = (window.count ?? 0) + 1);
    const box = e.getBoundingClientRect();
    const marks = (s) => s.outlineStyle !== "none" && parseFloat(s.outlineWidth) > 0 || s.boxShadow !== "none";
    const near = [e, e.nextElementSibling, e.parentElement].filter(Boolean);
    return {
        number: e.number, html: e.outerHTML.slice(0, 160),
        seen: box.width > 0 && box.height > 0, marked: near.some(n => marks(getComputedStyle(n))),
    };
}"""
CONTROLS = """[...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")].filter(
    e => e.tabIndex >= 0 && !e.disabled && e.type !== "radio" && e.checkVisibility({visibilityProperty: true})
    && !(e.closest("details:not([open])") && e.tagName !== "SUMMARY")).length"""


@themes("light")
@visits(1280)
def test_tab_reaches_every_control_and_leaves_again(visited, with_widgets, theme):
    page = visited.show(theme)
    assert page.locator(".nd-mount:not([data-ready])").count() == 0
    page.locator("#pst-skip-link a").focus()
    wanted = page.evaluate(CONTROLS)
    assert wanted > 40
    met = [page.evaluate(FOCUSED)]
    for _ in range(2 * wanted):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        if focused is None or focused["number"] == met[0]["number"]:
            break  # the end of the page: no trap
        met.append(focused)
    else:
        raise AssertionError(f"the focus never leaves {met[-1]['html']}")
    assert len({focused["number"] for focused in met}) == len(met)  # none twice
    assert len(met) >= wanted
    assert [focused["html"] for focused in met if not (focused["seen"] and focused["marked"])] == []


def test_no_motion_where_none_is_wanted(new_context, address):
    page = new_context(reduced_motion="reduce").new_page()
    page.goto(f"{address}/{CHAPTERS[1]}.html")
    moving = """[...document.querySelectorAll("*")].filter(e => {
        const s = getComputedStyle(e);
        return s.animationName !== "none" || s.transitionDuration.split(",").some(d => parseFloat(d) > 0)
            || s.scrollBehavior === "smooth";
    }).map(e => e.outerHTML.slice(0, 100))"""
    assert page.evaluate(moving) == []


@pytest.mark.parametrize("name", PAGES)
def test_controls_have_names(name):
    """Where axe does not look, since they are closed: menus of the buttons at the top."""
    for control in html(name).select("button, a[href]"):
        said = control.get_text().strip() or control.get("aria-label") or control.get("title")
        assert said or control.select("img[alt]"), re.sub(r"\s+", " ", str(control))
