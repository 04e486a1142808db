"""Chapters on paper: text and pictures, nothing to press, nothing cut off."""

from contents import CHAPTERS
from visits import themes

PAPER = 640  # pixels between the margins of a sheet


@themes("light", "dark")
def test_printed_chapter_shows_text_and_figures(visit, address, theme):
    visited = visit(f"{address}/{CHAPTERS[5]}.html", address, width=PAPER, theme=theme)
    page = visited.page
    page.locator(".nd-mount").scroll_into_view_if_needed()
    page.locator(".nd-mount[data-ready]").wait_for()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    for hidden in (".bd-sidebar-primary", ".bd-header-article", ".prev-next-footer", ".copybtn", ".nd-widget"):
        assert page.locator(hidden).count() > 0
        assert page.locator(f"{hidden}:visible").count() == 0, hidden
    assert page.locator(".nd-mount svg.figure:visible").bounding_box()["width"] > 300
    assert "interactive" in page.evaluate("getComputedStyle(document.querySelector('.nd-mount'), '::after').content")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    beyond = f"""[...document.querySelectorAll("article :is(pre, figure, svg.figure, table, p, mjx-container)")]
        .filter(e => e.checkVisibility() && e.getBoundingClientRect().right > {PAPER + 1})
        .map(e => e.outerHTML.slice(0, 160))"""
    assert page.evaluate(beyond) == []
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    assert page.locator(".nd-widget").is_visible() and page.locator(".nd-mount svg.figure").count() == 0
    assert visited.problems == []
