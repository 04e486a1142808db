"""What a widget is on a narrow screen and under a finger: its order, its size, and a page that still scrolls."""

import itertools
import re

import pytest
from mounts import WIDGETS, settled, swipe
from test_pages import contrast

BLOCKS = """w => [...w.children].filter(e => e.checkVisibility()).map(e => {
    const { top, bottom } = e.getBoundingClientRect();
    return { name: e.className, top, bottom };
})"""
TRAITS = "() => JSON.stringify(document.querySelector('.nd-mount').model.state)"


@pytest.mark.parametrize("name", WIDGETS)
def test_picture_readout_and_controls_follow_each_other(phone, name):
    """The order of the elements is that of the page, so that the keyboard goes through it as it is read."""
    page = phone(name)
    blocks = page.locator(".nd-stage").evaluate(BLOCKS)
    for above, below in itertools.pairwise(blocks):
        assert above["bottom"] <= below["top"]
    assert blocks[1]["top"] - blocks[0]["bottom"] < 20
    about = ["nd-about"] if name == "evidence-explorer" else []
    names = [block["name"].split()[0] for block in blocks]
    story = ["nd-story"] if name == "pipeline" else []
    assert names == ["nd-picture", "nd-readout", *about, "nd-presets", "nd-controls", *story]
    whole = page.locator(".nd-widget").evaluate(BLOCKS)
    assert [block["name"] for block in whole][:2] == ["nd-try", "nd-stage"]
    assert whole[0]["bottom"] - whole[0]["top"] < 100  # one sentence
    assert len(re.findall(r"[.?!]", page.locator(".nd-try span").inner_text())) == 1


SEEN = """() => {
    const { top, bottom, height } = document.querySelector(".nd-picture").getBoundingClientRect();
    const head = document.querySelector(".bd-header-article").getBoundingClientRect().bottom;
    return Math.max(0, Math.min(bottom, innerHeight) - Math.max(top, head)) / height;
}"""


TWO_FRAMES = "() => new Promise((next) => requestAnimationFrame(() => requestAnimationFrame(next)))"


@pytest.mark.parametrize("name", WIDGETS)
def test_picture_stays_in_the_window_while_it_is_changed(phone, name):
    page = phone(name)
    page.set_viewport_size({"width": 360, "height": 640})
    buttons = page.locator(".nd-presets button:visible").filter(has_not_text=re.compile("Camera|Draw|Save"))
    shares = {}
    for text in buttons.all_inner_texts():
        page.locator(".nd-presets").get_by_role("button", name=text, exact=True).tap()
        page.evaluate(TWO_FRAMES)  # a race that begins anew would take longer to settle than its layout does
        shares[text] = page.evaluate(SEEN)
    assert len(shares) > 3
    for control in page.locator(".nd-controls input:visible").all():
        control.focus()  # as a finger or the keyboard finds it: scrolled into the window
        shares[control.evaluate("e => e.outerHTML")] = page.evaluate(SEEN)
    assert {what: share for what, share in shares.items() if share < 0.6} == {}


@pytest.mark.parametrize("name", WIDGETS)
def test_controls_are_large_enough_for_a_finger(phone, name):
    page = phone(name)
    page.locator("button[aria-expanded]").evaluate_all("all => all.forEach((e) => e.click())")
    page.locator(".nd-controls details").evaluate_all("all => all.forEach((e) => (e.open = true))")
    targets = ".nd-presets button, .nd-pad button, .nd-choice label, .nd-file, .nd-checks label, .nd-slider input"
    heights = """all => all.filter(e => e.checkVisibility())
        .map(e => [e.getBoundingClientRect().height, e.outerHTML.slice(0, 80)])"""
    found = page.locator(".nd-widget").locator(targets).evaluate_all(heights)
    assert len(found) > 5
    assert [each for each in found if each[0] < 40] == []


# A place beside the grips, as shares of width and height, from which a finger scrolls.
BESIDE = [
    ("descent", ".nd-valley svg", 0.7, 0.7),
    ("descent", ".nd-inputs svg", 0.8, 0.2),
    ("patch-matrix", ".nd-panel-picture .nd-cells", 0.1, 0.9),
    ("patch-matrix", ".nd-panel-x .nd-cells", 0.5, 0.9),
    ("patch-matrix", ".nd-panel-square .nd-cells", 0.5, 0.9),
    ("pixel-pairs", ".nd-photo", 0.9, 0.9),
    ("pixel-pairs", ".nd-lens", 0.8, 0.8),
    ("pixel-pairs", ".nd-cloud svg", 0.8, 0.8),
    ("blur-lab", ".nd-drag", 0.5, 0.5),
    ("blur-lab", ".nd-gains svg", 0.5, 0.5),
    ("newton-schulz", ".nd-pick svg", 0.5, 0.5),
    ("evidence-explorer", ".nd-dots > svg", 0.5, 0.5),
    ("kernel-explorer", ".nd-compare", 0.7, 0.5),
    ("pipeline", ".nd-large", 0.9, 0.9),
]


def place(page, selector, across, down):
    box = page.locator(selector).first
    box.evaluate("e => scrollTo(0, scrollY + e.getBoundingClientRect().top - 250)")
    settled(page)
    found = box.bounding_box()
    return found["x"] + across * found["width"], found["y"] + down * found["height"]


@pytest.mark.parametrize(("name", "selector", "across", "down"), BESIDE)
def test_a_finger_scrolls_over_a_picture_and_changes_nothing(phone, name, selector, across, down):
    page = phone(name)
    page.add_style_tag(content="body { padding: 1000px 0; }")
    x, y = place(page, selector, across, down)
    before, top = page.evaluate(TRAITS), page.evaluate("scrollY")
    swipe(page, (x, y), (x + 5, y - 150))
    assert page.evaluate("scrollY") - top > 100
    assert page.evaluate(TRAITS) == before


GRIPS = [
    ("descent", ".nd-valley .nd-grip", "w2"),
    ("descent", ".nd-inputs .nd-grip", "correlation"),
    ("patch-matrix", ".nd-panel-picture .nd-grip", "row"),
    ("patch-matrix", ".nd-panel-x .nd-grip", "row"),
    ("pixel-pairs", ".nd-lens .nd-grip", "direction"),
    ("pixel-pairs", ".nd-cloud .nd-grip", "distance"),
    ("blur-lab", ".nd-gains .nd-grip", "k"),
]


@pytest.mark.parametrize(("name", "selector", "trait"), GRIPS)
def test_a_finger_drags_a_grip_up_and_down(phone, name, selector, trait):
    page = phone(name)
    page.add_style_tag(content="body { padding: 1000px 0; }")
    x, y = place(page, selector, 0.5, 0.5)
    value = f"document.querySelector('.nd-mount').model.get('{trait}')"
    before, top = page.evaluate(value), page.evaluate("scrollY")
    swipe(page, (x + 9, y + 9), (x + 9, y + 70))  # beside the middle: a finger is broad
    assert page.evaluate("scrollY") == top
    assert page.evaluate(value) != before


@pytest.mark.parametrize("name", WIDGETS)
def test_lines_and_marks_can_be_seen_on_dark_paper(phone, name):
    page = phone(name, color_scheme="dark")
    strokes = """all => [...new Set(all.map(e => getComputedStyle(e).stroke))]"""
    marks = page.locator(".nd-plot :is(path, circle):not(.nd-grid, .nd-cross, [stroke*=contour], .nd-joint)")
    paper = [
        int(part) / 255 for part in re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))
    ]
    for stroke in marks.evaluate_all(strokes):
        if stroke == "none":
            continue
        parts = [float(part) for part in re.findall(r"[\d.]+", stroke)][:3]
        colour = parts if stroke.startswith("color(") else [part / 255 for part in parts]
        assert contrast(colour, paper[:3]) > 4, stroke
