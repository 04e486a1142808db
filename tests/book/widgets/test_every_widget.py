"""Every widget on pages without a kernel, in a real browser that reaches nothing else."""

import gzip
import io
import re
from copy import copy

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from mounts import BUDGET, WIDGETS, set_traits, wait
from PIL import Image
from visits import settled

TOGETHER = """() => {
    const box = (name) => document.querySelector(`.nd-${name}`).getBoundingClientRect();
    return box("controls").bottom - box("picture").top;
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1366, 360])
@pytest.mark.parametrize("name", WIDGETS)
def test_widget_starts_fits_and_is_accessible(started, name, width, theme):
    visited = started(name, width=width, theme=theme)
    page = visited.page
    assert visited.problems == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    beyond = "[...w.querySelectorAll('.nd-widget *')].filter(e => e.getBoundingClientRect().right > innerWidth)"
    assert page.locator(".nd-mount").evaluate(f"w => {beyond}.map(e => e.outerHTML)") == []
    assert page.locator(".nd-problem:visible").count() == 0
    assert len(page.locator(".nd-readout").inner_text()) > 40
    # Ink and paper differ, whatever the theme.
    axe = Axe().run(page, context=".nd-mount")
    serious = [v for v in axe.response["violations"] if v["impact"] in ("serious", "critical")]
    assert serious == [], axe.generate_report()
    assert page.evaluate("document.getAnimations().length") == 0
    if width == 1366:  # a laptop, whose window has 612 pixels below the head of the page
        assert page.evaluate(TOGETHER) < 612


def test_two_widgets_on_a_page_do_not_meddle(visit, own):
    visited = visit(f"{own}/both.html", own)
    page = visited.page
    for name in WIDGETS:
        wait(page, name)
    ids = page.evaluate("[...document.querySelectorAll('.nd-mount [id]')].map(e => e.id)")
    assert len(ids) > 6 and len(ids) == len(set(ids))
    first, second = page.locator(".nd-newton-schulz"), page.locator(".nd-kernel-explorer")
    assert first.get_by_label("1/k", exact=True).is_checked() and second.get_by_label("grey").is_checked()
    first.get_by_role("slider", name="steps").focus()
    page.keyboard.press("ArrowRight")
    assert first.get_by_role("slider", name="steps").get_attribute("aria-valuetext") == "6"
    assert second.get_by_role("slider", name="steps").get_attribute("aria-valuetext") == "exact"
    assert visited.problems == []


# Of each widget what a reader sets; what a page shows at first is different.
SET = {
    "newton-schulz": {"steps": 12, "spectrum": "1/k²"},
    "kernel-explorer": {"steps": 5, "eps": 0.01, "channel": "green", "patch_size": 5},
    "pixel-pairs": {"distance": 4, "method": "zca"},
    "patch-matrix": {"picture": "photograph", "row": 17, "shown": "D", "rows": "centred"},
    "blur-lab": {"photograph": "page", "sigma": 2.35, "k": 0},
    "descent": {"w1": -1.25, "w2": 0.5, "rate": 1.1},
    "evidence-explorer": {"sources": ["paper", "Jiang 2021"], "only_test": True, "view": "gain", "epochs": 100},
    "pipeline": {"k": 7, "w": "edge", "blur": 0.8, "row": 100, "steps": 5},
    "live-race": {"arms": ["BN", "ND"], "nd_rate": 0.2, "by": "seconds"},
}
NONSENSE = "steps=2e9&eps=-1&spectrum=x&count=7&distance=x&row=-3&sigma=NaN&k=&w1=99&epochs=2&sources=x&arms=&batch=1e9"


def test_settings_stand_in_the_address(visit, own):
    assert set(SET) == set(WIDGETS)
    visited = visit(f"{own}/both.html", own, reduced_motion="reduce")
    page = visited.page
    for name, settings in SET.items():
        wait(page, name)
        mount = page.locator(f"[data-widget='{name}']")
        state = "(m, names) => Object.fromEntries(names.map((n) => [n, m.model.get(n)]))"
        first = mount.evaluate(state, list(settings))
        page.evaluate("hash => (location.hash = hash)", f"{name}?{NONSENSE}")
        settled(page)
        assert mount.evaluate(state, list(settings)) == first, name
        set_traits(page, name, **settings)
        page.wait_for_function(f"location.hash.startsWith('#{name}?') && !location.hash.includes('NaN')")
        page.wait_for_timeout(400)  # the address follows what was set last
        address = page.url
        mount.get_by_role("button", name="Reset").click()
        page.wait_for_function("location.hash === ''")
        page.evaluate("address => (location.href = address)", address)
        settled(page)
        assert mount.evaluate(state, list(settings)) == settings
    assert visited.problems == []
    other = visit(f"{own}/both.html#descent?rate=1.5", own, reduced_motion="reduce").page
    wait(other, "descent")
    assert other.get_by_role("slider", name="learning rate").get_attribute("aria-valuetext") == "1.50"


def test_picture_is_saved_as_it_is_seen(visit, own):
    page = visit(f"{own}/both.html", own, reduced_motion="reduce", theme="dark").page
    for name in WIDGETS:
        wait(page, name)
        widget = page.locator(f".nd-{name}")
        with page.expect_download() as download:
            widget.get_by_role("button", name="Save picture").click()
        saved = Image.open(download.value.path()).convert("RGB")
        picture = widget.locator(".nd-picture")
        shown = Image.open(io.BytesIO(picture.screenshot())).convert("RGB")
        part = saved.crop((24, 24, 24 + 2 * shown.width, 24 + 2 * shown.height)).resize(
            shown.size, Image.Resampling.BOX
        )
        blurred = [np.asarray(each.reduce(4), float) for each in (shown, part)]
        assert blurred[0].std() > 10
        assert np.abs(blurred[0] - blurred[1]).mean() < 10, name
        assert np.corrcoef(*(each.ravel() for each in blurred))[0, 1] > 0.9, name


@pytest.mark.parametrize("name", WIDGETS)
def test_page_loads_its_widget_and_no_other(site, name):
    text = (site / f"{name}.html").read_text()
    scripts = set(re.findall(r"_static/(widget[\w-]*\.js)", text))
    assert scripts == {"widget-host.js", f"widget-{name}.js"}
    assert "widget-state+json" not in text
    assert "widget-" not in (site / "plain.html").read_text()
    own = ["widget-host.js", f"widget-{name}.js", f"widget-{name}.css"]
    weight = sum(len(gzip.compress((site / "_static" / file).read_bytes())) for file in own)
    assert weight + len(gzip.compress(text.encode())) < BUDGET


@pytest.mark.parametrize("name", WIDGETS)
def test_widget_works_from_the_disk(visit, site, name):
    visited = visit((site / f"{name}.html").as_uri(), "file://")
    wait(visited.page, name)
    assert visited.problems == []


@pytest.mark.parametrize("name", WIDGETS)
def test_still_picture_without_scripts(new_context, own, name):
    page = new_context(java_script_enabled=False).new_page()
    page.goto(f"{own}/{name}.html")
    picture = page.locator(".nd-mount svg.figure:visible")
    assert picture.is_visible() and len(picture.get_attribute("aria-label")) > 60
    assert picture.bounding_box()["width"] > 300
    assert page.get_by_text("A still picture. With scripts switched on").is_visible()


@pytest.mark.parametrize("fault", ["missing", "throws"])
@pytest.mark.parametrize("name", WIDGETS)
def test_a_widget_that_fails_leaves_its_picture_and_says_so(new_context, own, name, fault):
    page = new_context().new_page()
    body = "" if fault == "missing" else "export default { render() { throw new Error('out of order') } }"
    script = f"ndWidgets.define('{name}', `{body}`)" if body else ""
    page.route(f"**/widget-{name}.js*", lambda r: r.fulfill(body=script, content_type="text/javascript"))
    page.goto(f"{own}/{name}.html")
    message = page.locator(".nd-mount .nd-problem")
    message.wait_for()
    reason = "no script for the widget" if fault == "missing" else "out of order"
    assert reason in message.inner_text() and "still" in message.inner_text()
    assert page.locator(".nd-mount svg.figure:visible").is_visible()


def test_widgets_wait_until_they_are_near(visit, own):
    """Of two that could start at once, the far one has not when the near one has."""
    page = visit(f"{own}/plain.html", own).page
    page.route("**/newton-schulz.html", with_another_far_below)
    page.goto(f"{own}/newton-schulz.html")
    near, far = page.locator(".nd-mount").all()
    page.locator(".nd-mount[data-ready]").wait_for()
    settled(page)
    assert near.get_attribute("data-ready") == "" and far.get_attribute("data-ready") is None
    assert far.locator("svg.figure:visible").count() == 1
    far.scroll_into_view_if_needed()
    page.locator(".nd-mount[data-ready]").nth(1).wait_for()


def with_another_far_below(route):
    answer = route.fetch()
    page = BeautifulSoup(answer.text(), "html.parser")
    mount = page.select_one(".nd-mount")
    mount.insert_after(page.new_tag("div", style="height: 5000px"), copy(mount))
    route.fulfill(response=answer, body=str(page))
