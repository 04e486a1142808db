import numpy as np
import pytest
from mounts import drag, readout, set_traits, settled, wait

from ndlib.bookwork.widgets import PixelPairs


def cloud(page):
    settled(page)
    return np.array(page.evaluate("document.querySelector('.nd-pixel-pairs').points"))


def test_pixel_pairs_draw_what_python_computes(started):
    page = started("pixel-pairs").page
    python = PixelPairs()
    far = {"distance": 7, "direction": "down", "method": "pca"}
    for traits in ({}, {"method": "zca"}, far, {"method": "cholesky"}):
        set_traits(page, "pixel-pairs", **traits)
        for trait, value in traits.items():
            setattr(python, trait, value)
        np.testing.assert_allclose(cloud(page), python.points, rtol=1e-5, atol=1e-5)
        assert f": correlation {python.correlation:.3f}." in readout(page)
    set_traits(page, "pixel-pairs", method="raw")
    strong, weak = np.linalg.eigvalsh(python.covariance)[::-1]
    assert f"The strong axis holds {100 * strong / (strong + weak):.1f}% of the variance" in readout(page)


def test_pixel_pairs_matrix_stands_in_brackets(started):
    """Bars at its sides would be read as a determinant: a bracket has its ends."""
    page = started("pixel-pairs").page
    sides = """m => ["::before", "::after"].map((part) => {
        const style = getComputedStyle(m, part);
        return ["Top", "Right", "Bottom", "Left"].map((side) => parseFloat(style[`border${side}Width`]) > 0);
    })"""
    assert page.locator(".nd-matrix").first.evaluate(sides) == [[True, False, True, True], [True, True, True, False]]
    assert page.locator(".nd-matrix").first.evaluate("m => getComputedStyle(m).borderLeftWidth") == "0px"


def test_pixel_pairs_by_keyboard(started):
    page = started("pixel-pairs").page
    before = cloud(page)
    page.get_by_role("slider", name="distance").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("slider", name="distance").get_attribute("aria-valuetext") == "2 pixels"
    assert "the one 2 to the right: correlation 0.760" in readout(page)
    page.locator(".nd-photo").focus()
    values = page.locator(".nd-values").inner_text()
    page.keyboard.press("ArrowDown")
    settled(page)
    assert page.locator(".nd-values").inner_text() != values
    page.get_by_role("button", name="Reset").focus()
    page.keyboard.press("Enter")
    np.testing.assert_allclose(cloud(page), before)
    assert page.locator(".nd-values").inner_text().endswith("0.892\ncorrelation")


def test_pixel_pairs_by_mouse(started):
    page = started("pixel-pairs").page
    drag(page, ".nd-lens", (3.5 / 24, 3.5 / 24), (3.5 / 24, 13.5 / 24))  # the neighbour, ten pixels down
    assert "the one 10 down" in readout(page)
    page.get_by_role("button", name="Neighbours").click()
    settled(page)
    page.locator(".nd-cloud svg").scroll_into_view_if_needed()
    drag(page, ".nd-cloud svg", (0.45, 0.45), (0.35, 0.3))  # the tip of the ellipse, outwards
    distance = page.get_by_role("slider", name="distance").input_value()
    assert int(distance) > 4 and "down" not in readout(page)


def test_pixel_pairs_by_touch(phone):
    page = phone("pixel-pairs")
    side = page.locator(".nd-lens").bounding_box()["width"]
    page.locator(".nd-lens").tap(position={"x": side * 11.5 / 24, "y": side * 3.5 / 24})
    assert "the one 8 to the right" in readout(page)
    page.get_by_role("button", name="Whitened: ZCA").tap()
    assert "ZCA only stretches" in readout(page)


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_pixel_pairs_move_only_where_motion_is_welcome(new_context, own, motion):
    page = new_context(reduced_motion=motion).new_page()
    page.goto(f"{own}/pixel-pairs.html")
    wait(page, "pixel-pairs")
    pictures = page.evaluate("""async () => {
        const { model } = document.querySelector(".nd-mount");
        const seen = new Set();
        let time = performance.now();
        performance.now = () => time; // of the movement: frames come when they can
        model.set("method", "zca");
        for (let frame = 0; frame < 12; frame++) {
            time += 50;
            await new Promise(requestAnimationFrame);
            seen.add(document.querySelector(".nd-cloud svg").innerHTML);
        }
        return seen.size;
    }""")
    assert (pictures > 3) if motion == "no-preference" else (pictures <= 2)
